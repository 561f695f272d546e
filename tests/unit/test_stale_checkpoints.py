"""What the next run of a killed study goes on from, and what it removes."""

from pathlib import Path

import pytest

from comparison.study import load_study
from workflow import checkpoints
from workflow.jobs import Job, jobs_of

TINY = load_study("tiny")
RESUMABLE = [
    next(job for job in jobs_of(TINY) if job.case == case) for case in checkpoints.RESUMABLE
]
RUN = RESUMABLE[0]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path)
    return tmp_path


def begun(job: Job) -> Path:
    """Let a job have begun with the current source and left a checkpoint."""
    checkpoints.drop_stale(TINY, "official-1")
    kept = checkpoints.folder(job) / "last.pt"
    kept.write_text("weights")
    return kept


@pytest.mark.parametrize("job", RESUMABLE, ids=lambda job: job.case)
def test_a_checkpoint_of_the_same_source_is_kept(job: Job) -> None:
    kept = begun(job)
    checkpoints.drop_stale(TINY, "official-1")
    assert kept.exists()


@pytest.mark.parametrize("job", RESUMABLE, ids=lambda job: job.case)
def test_a_checkpoint_of_another_reference_is_removed(job: Job) -> None:
    kept = begun(job)
    checkpoints.drop_stale(TINY, "stand-in-2")
    assert not kept.exists()


def test_a_checkpoint_of_other_source_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = begun(RUN)
    monkeypatch.setattr(Job, "trigger", lambda self, reference: "changed source")
    checkpoints.drop_stale(TINY, "official-1")
    assert not kept.exists()


def test_a_checkpoint_of_unknown_source_counts_only_with_its_record(root: Path) -> None:
    kept = begun(RUN)
    note = kept.with_name("trigger.txt")
    record = root / RUN.record
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    note.unlink()
    checkpoints.drop_stale(TINY, "official-1")
    assert kept.exists()
    record.unlink()
    note.unlink()
    checkpoints.drop_stale(TINY, "official-1")
    assert not kept.exists()


def test_a_run_that_starts_anew_loses_its_checkpoint() -> None:
    kept = begun(RUN)
    checkpoints.drop(RUN)
    assert not kept.exists()
    checkpoints.drop(RUN)  # and once more: there is nothing


def test_cases_that_keep_no_checkpoint_get_no_folder(root: Path) -> None:
    begun(RUN)
    folders = {path.name for path in (root / TINY.results_dir / "checkpoints").iterdir()}
    assert folders == {job.run_id for job in jobs_of(TINY) if job.case in checkpoints.RESUMABLE}
