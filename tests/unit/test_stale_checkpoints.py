"""What a job of a killed study goes on from, and what it removes first."""

from pathlib import Path

import pytest

from comparison.study import load_study
from workflow import checkpoints
from workflow.jobs import RESUMABLE, jobs_of


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Let a job have begun and left a checkpoint."""
    checkpoints.keep_of(tmp_path / "run", "source a")
    path = tmp_path / "run" / "last.pt"
    path.write_text("weights")
    return path


def test_a_checkpoint_of_the_same_source_is_kept(kept: Path) -> None:
    noted = kept.with_name(checkpoints.NOTE).stat().st_mtime_ns
    checkpoints.keep_of(kept.parent, "source a")
    assert kept.exists()
    assert kept.with_name(checkpoints.NOTE).stat().st_mtime_ns == noted  # not written again


def test_a_checkpoint_of_other_source_is_removed(kept: Path) -> None:
    checkpoints.keep_of(kept.parent, "source b")
    assert not kept.exists()
    assert kept.with_name(checkpoints.NOTE).read_text() == "source b"


@pytest.mark.parametrize("note", [None, b"", b"source", b"\xff"])
def test_a_checkpoint_of_unknown_source_is_removed(kept: Path, note: bytes | None) -> None:
    place = kept.with_name(checkpoints.NOTE)
    place.unlink()
    if note is not None:
        place.write_bytes(note)
    checkpoints.keep_of(kept.parent, "source a")
    assert not kept.exists()


def test_a_job_is_told_of_its_folder_in_its_environment(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(checkpoints.FOLDER_VARIABLE, "")
    checkpoints.prepare_job()
    assert kept.exists()
    monkeypatch.setenv(checkpoints.FOLDER_VARIABLE, str(kept.parent))
    monkeypatch.setenv(checkpoints.TRIGGER_VARIABLE, "source b")
    checkpoints.prepare_job()
    assert not kept.exists()


def test_jobs_that_train_keep_checkpoints_and_no_others() -> None:
    jobs = jobs_of(load_study("tiny"))
    assert {job.case for job in jobs if job.checkpoints} == set(RESUMABLE)
    folders = [job.checkpoints for job in jobs if job.checkpoints]
    assert len(folders) == len(set(folders))
