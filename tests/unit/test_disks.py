"""Disks that are really full, and folders that really cannot be written."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from comparison.record import RecordError, read_records, write_record
from reproduction import UserError, resume
from reproduction import train as loop
from tests.unit.test_launch import root  # noqa: F401
from tests.unit.test_record import example
from tests.unit.test_train import run
from workflow import launch


def mount(folder: Path, options: str) -> None:
    """Mount memory as a file system, or skip the test."""
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("a small or read-only file system is mounted only where the tests run as root")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"root may not mount here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with room for 100 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount(folder, "size=100k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that cannot be written; root needs a mount for that."""
    folder = tmp_path / "results"
    folder.mkdir()
    if os.getuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount(folder, "ro")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.fault(
    "disk full, for real",
    how="training and its record on a tmpfs that another file fills (root only, else skipped)",
    told="free some space",
    kept="the last good checkpoint and the record of before; both go on once there is room",
)
def test_a_full_disk_loses_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    path = write_record(small_disk, example())
    filler = small_disk / "other"
    save, calls = resume.save, iter(range(10))

    def fill_after_two(*arguments: object) -> None:
        if next(calls) == 2:
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(b"x" * 2**20)
        save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(resume, "save", fill_after_two)
    with pytest.raises(UserError, match=f"{told}.*last good checkpoint is kept"):
        run(small_disk / "run")
    with pytest.raises(RecordError, match=told):
        write_record(small_disk, example(wall_s=2.0))
    assert read_records(small_disk)[0]["provenance"]["wall_s"] == 1.0
    assert list(path.parent.iterdir()) == [path]
    assert not list((small_disk / "run").glob(".*"))
    filler.unlink()
    monkeypatch.setattr(resume, "save", save)
    assert run(small_disk / "run")[1].resumed


@pytest.mark.fault(
    "read-only results folder",
    how="a folder without permission to write; for root, a read-only mount",
    told="could not be written",
    kept="everything; one sentence says which folder to make writable",
)
def test_a_read_only_folder_is_one_sentence(
    read_only: Path,
    root: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told: str,
) -> None:
    with pytest.raises(RecordError, match=f"{told}.*make the folder writable"):
        write_record(read_only, example())
    monkeypatch.setattr(launch, "prepare_reference", lambda: "stand-in")
    assert launch.main(["report", "--study", "tiny"]) == 2
    sentence = capsys.readouterr().err
    assert "make the folder writable; the same command goes on from here" in sentence
    assert sentence.count("\n") == 1
    assert not list(read_only.iterdir())
