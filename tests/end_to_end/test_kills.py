"""Training that is killed at any moment ends with the bits of training that was not.

Processes are real ones, forked from a server that has PyTorch loaded, and die by SIGKILL.
"""

import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from reproduction import resume
from tests import toy_training as toy

START_S = 0.15  # a forked process needs it to its first step
STEP_S = 0.01


@pytest.fixture(scope="module")
def processes() -> Any:
    """Return what makes processes that need not import PyTorch again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.toy_training"])
    return context


@pytest.fixture(scope="module")
def straight(processes: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the outcome of a run that nobody kills."""
    folder = tmp_path_factory.mktemp("straight")
    assert finish(processes, folder) == 0
    return toy.outcome(folder)


def finish(processes: Any, folder: Path) -> int:
    """Train to the end."""
    process = processes.Process(target=toy.train_and_record, args=(folder,))
    process.start()
    process.join()
    return process.exitcode


def killed_after(processes: Any, folder: Path, delay_s: float) -> bool:
    """Train, kill the process after a time, and tell whether that hit it."""
    process = processes.Process(target=toy.train_and_record, args=(folder, STEP_S))
    process.start()
    time.sleep(delay_s)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def killed_within(processes: Any, folder: Path, count: int, moment: str) -> bool:
    """Train until the process kills itself within a checkpoint; False if it finished before."""
    process = processes.Process(target=toy.die_within_checkpoint, args=(folder, count, moment))
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


def kill_and_finish(processes: Any, folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill runs at random until `kills` of them were hit, finish each; compare nothing here.

    Returns:
        How many were killed at a random time, and how many within a checkpoint.
    """
    rng = random.Random(seed)
    hits = {killed_after: 0, killed_within: 0}
    run = folder / "run0"
    while sum(hits.values()) < kills:
        if rng.random() < 0.5:
            how, moment = killed_after, (rng.uniform(0, START_S + toy.STEPS * STEP_S),)
        else:
            how, moment = killed_within, (rng.randrange(4), rng.choice(toy.MOMENTS))
        hits[how] += how(processes, run, *moment)
        if (run / "records" / "training" / "toy.json").exists():
            run = folder / f"run{sum(hits.values())}"
    assert finish(processes, run) == 0
    return hits[killed_after], hits[killed_within]


def check(straight: dict[str, Any], folder: Path) -> None:
    """Compare every finished run of a folder with the straight one."""
    runs = [path for path in folder.iterdir() if (path / "records").exists()]
    assert runs
    for run in runs:
        assert toy.outcome(run) == straight
        left = {path.name for path in run.iterdir()}
        assert left <= {resume.CHECKPOINT, resume.PREVIOUS, resume.LOG, "records", "ledger"}


def test_two_kills_leave_the_same_bits(
    processes: Any, straight: dict[str, Any], tmp_path: Path
) -> None:
    assert killed_within(processes, tmp_path / "run", 3, "between names")
    assert not (tmp_path / "run" / resume.CHECKPOINT).exists()
    assert killed_after(processes, tmp_path / "run", START_S)
    assert finish(processes, tmp_path / "run") == 0
    check(straight, tmp_path)


@pytest.mark.full
@pytest.mark.fault(
    "SIGKILL at 24 random moments of training",
    how="a process of its own, killed from outside or within the writing of a checkpoint",
    told="",
    kept="weights, metrics and record end with the bits of the run that nobody killed",
)
def test_kills_at_random_moments_leave_the_same_bits(
    processes: Any, straight: dict[str, Any], tmp_path: Path
) -> None:
    outside, within = kill_and_finish(processes, tmp_path, 24, seed=6)
    assert outside >= 5 and within >= 5
    check(straight, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("moment", toy.MOMENTS)
def test_every_moment_of_a_checkpoint_is_survived(
    processes: Any, straight: dict[str, Any], tmp_path: Path, moment: str
) -> None:
    for count in (0, 1, 5):
        run = tmp_path / f"run{count}"
        assert killed_within(processes, run, count, moment)
        assert finish(processes, run) == 0
    check(straight, tmp_path)


def test_the_check_sees_one_other_bit(
    processes: Any, straight: dict[str, Any], tmp_path: Path
) -> None:
    """What compares the runs can fail."""
    assert finish(processes, tmp_path / "run") == 0
    path = tmp_path / "run" / resume.CHECKPOINT
    content = dict(resume.read(path))
    content["model"]["0.weight"].view(-1)[0] += 2**-20
    resume.torch.save({**content, "sha256": resume.content_digest(content)}, path)
    assert toy.outcome(tmp_path / "run") != straight
