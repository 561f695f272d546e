"""A study that is killed, interrupted or starved leaves nothing behind, and the same call goes on.

The real Snakemake, papermill and kernels, on the short notebooks of `test_workflow`.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.end_to_end.test_workflow import RECORDS, command, launch, times, tree, write  # noqa: F401
from workflow import processes

LINUX = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc (Linux)")
pytestmark = [pytest.mark.full, LINUX]
COMMANDS = ("/bin", "/usr/bin", "/usr/local/bin")


def started(tree: Path, **variables: str) -> subprocess.Popen[str]:  # noqa: F811
    """Start the study."""
    return subprocess.Popen(
        [*command("report"), "--cores", "2"],
        cwd=tree,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def running_in(tree: Path) -> list[str]:  # noqa: F811
    """List the processes that run in a folder: launches, Snakemake, papermill, kernels."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == tree.resolve():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def wait_for(condition: object, limit_s: float) -> bool:
    """Wait until a condition holds; tell whether it did in time."""
    deadline = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kernel_runs(tree: Path) -> bool:  # noqa: F811
    """Tell whether a notebook is being run."""
    return any("ipykernel" in line for line in running_in(tree))


def half_written(tree: Path) -> list[str]:  # noqa: F811
    """List the records and executed notebooks that are no whole JSON."""
    found = []
    results = tree / "results" / "small"
    for path in [*results.glob("records/*/*"), *results.glob("notebooks/*")]:
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".ipynb":
                nbformat.validate(nbformat.read(path, as_version=4))
        except Exception as problem:
            found.append(f"{path}: {problem}")
    return found


def finished(tree: Path) -> Iterator[str]:  # noqa: F811
    """Yield the jobs whose end Snakemake saw in the last launch."""
    log = (tree / "results" / "small" / "logs" / "snakemake.log").read_text()
    names = dict(re.findall(r"Job (\d+): (\S+ \S+)$", log, re.MULTILINE))
    for number in re.findall(r"Finished jobid: (\d+)", log):
        if number in names:
            yield names[number].replace(" ", "/") + ".json"


def fresh(tree: Path) -> Path:  # noqa: F811
    """Remove all results."""
    for name in ("results", ".snakemake"):
        shutil.rmtree(tree / name, ignore_errors=True)
    return tree


@pytest.mark.fault(
    "Ctrl-C, SIGTERM or the end of the terminal during a study",
    how="SIGINT, SIGTERM and SIGHUP to the launch while a notebook runs",
    told="stopped; the same command goes on from here",
    kept="all is over within 5 s: no process, no lock, no half file; the same call finishes it",
)
def test_a_study_ends_within_five_seconds_of_a_signal(tree: Path, told: str) -> None:  # noqa: F811
    fresh(tree)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        study = started(tree, NAP_S="600")
        assert wait_for(lambda: kernel_runs(tree), 60)
        begun = time.monotonic()
        study.send_signal(number)
        output = study.communicate(timeout=30)[0]
        assert time.monotonic() - begun < 5
        assert study.returncode == 130
        assert re.search(told, output) and "Traceback" not in output
        assert wait_for(lambda: not running_in(tree), 2), running_in(tree)
        assert not list((tree / ".snakemake" / "locks").iterdir())
        assert half_written(tree) == []
    done = launch(tree)
    assert done.returncode == 0, done.stderr
    assert set(times(tree)) == set(RECORDS)


@pytest.mark.fault(
    "two launches at once",
    how="the same call while a study runs",
    told="a study is running in this folder",
    kept="the first goes on undisturbed; the second leaves with exit status 2",
)
def test_the_second_launch_says_so_and_leaves(tree: Path, told: str) -> None:  # noqa: F811
    study = started(fresh(tree), NAP_S="6")
    assert wait_for(lambda: kernel_runs(tree), 60)
    second = launch(tree)
    assert second.returncode == 2
    assert re.match(f"{told} .process {study.pid} on ", second.stderr)
    assert study.wait(120) == 0
    assert set(times(tree)) == set(RECORDS)


@pytest.mark.fault(
    "SIGKILL of a study at random moments",
    how="the launch killed 10 times between its start and its end",
    told="",
    kept="no finished job is repeated, no file is half-written, no process goes on; all gets done",
)
@pytest.mark.skipif(not processes.mortal(), reason="needs setpriv (Linux)")
def test_a_study_killed_at_random_repeats_nothing(tree: Path) -> None:  # noqa: F811
    rng, seen = random.Random(6), {}
    fresh(tree)
    for _ in range(10):
        study = started(tree, NAP_S="0.5")
        time.sleep(rng.uniform(0.5, 12))
        study.kill()
        study.wait()
        assert wait_for(lambda: not running_in(tree), 3), running_in(tree)
        assert half_written(tree) == []
        for name in finished(tree) if (tree / "results/small/logs/snakemake.log").exists() else ():
            moment = (tree / "results" / "small" / "records" / name).stat().st_mtime_ns
            assert seen.setdefault(name, moment) == moment
    done = launch(tree)
    assert done.returncode == 0, done.stderr
    assert len(seen) >= 1
    assert {name: times(tree)[name] for name in seen} == seen


@pytest.mark.fault(
    "worker that dies of memory, kernel that dies",
    how="a notebook under RLIMIT_AS, and a kernel that gets SIGKILL",
    told="it was killed, as happens when memory runs out: close other programs or give fewer",
    kept="the other jobs finish; what failed is told, and runs again by the same call",
)
def test_jobs_that_die_are_told_and_run_again(tree: Path, told: str) -> None:  # noqa: F811
    write(fresh(tree) / "killed.cls_hrnet_w18", "")
    write(tree / "hungry.cls_hrnet_w30", "")
    done = launch(tree)
    assert done.returncode == 1
    assert re.search(f"networks/cls_hrnet_w18 failed: {told}", done.stderr)
    assert "networks/cls_hrnet_w30 failed: MemoryError" in done.stderr
    assert "Traceback" not in done.stderr
    for name in ("killed.cls_hrnet_w18", "hungry.cls_hrnet_w30"):
        (tree / name).unlink()
    assert launch(tree).returncode == 0
    assert set(times(tree)) == set(RECORDS)


@pytest.mark.fault(
    "SIGKILL of a launch on a system without setpriv",
    how="setpriv taken out of PATH, as on macOS; the launch killed; the same call again",
    told="",
    kept="the next launch ends the Snakemake that went on, and finishes the study",
)
def test_without_setpriv_the_next_launch_takes_over(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    for name in {path.name: path for it in COMMANDS for path in Path(it).glob("*")}:
        if name != "setpriv" and (there := shutil.which(name)):
            (tmp_path / name).symlink_to(there)
    assert not shutil.which("setpriv", path=str(tmp_path))
    study = started(fresh(tree), NAP_S="600", PATH=str(tmp_path))
    if not wait_for(lambda: kernel_runs(tree), 40):
        study.kill()
        raise AssertionError(study.communicate()[0])
    study.kill()
    study.wait()
    time.sleep(1)
    assert any("snakemake" in line for line in running_in(tree))
    done = launch(tree, PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert set(times(tree)) == set(RECORDS)
    assert running_in(tree) == []


@pytest.mark.fault(
    "clock going backwards during a study",
    how="records dated a day ahead of the clock",
    told="nothing to do",
    kept="no job is repeated, and the study comes to rest",
)
def test_records_of_the_future_repeat_nothing(tree: Path, told: str) -> None:  # noqa: F811
    assert launch(fresh(tree)).returncode == 0
    ahead = time.time() + 86400
    for name in RECORDS:
        os.utime(tree / "results" / "small" / "records" / name, (ahead, ahead))
    before = times(tree)
    assert launch(tree).returncode == 0
    assert times(tree) == before
    assert re.search(told, launch(tree).stdout)
