"""What a user is told by `make report` and `make claim`, without running a study."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from comparison.study import load_study
from workflow import launch
from workflow.jobs import Job, jobs_of

TINY = load_study("tiny")
FAILED = next(job for job in jobs_of(TINY) if job.case == "training")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the launcher work in an empty folder."""
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setattr(launch, "SNAKEMAKE_LOCKS", tmp_path / ".snakemake" / "locks")
    monkeypatch.setattr(launch, "LAUNCH_LOCK", tmp_path / ".snakemake" / "launch.lock")
    return tmp_path


def leave(path: Path, text: str) -> Path:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def executed(*outputs: dict) -> str:
    """Make an executed notebook with these outputs."""
    return json.dumps({"cells": [{"cell_type": "markdown"}, {"outputs": list(outputs)}]})


def test_an_unknown_study_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["report", "--study", "nightly"]) == 2
    told = capsys.readouterr().err
    assert "study 'nightly' is unknown; use one of full, quick, standard, tiny" in told
    assert told.count("\n") == 1


def test_no_core_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["report", "--study", "tiny", "--cores", "0"]) == 2
    assert "--cores is 0; give a whole number of at least 1" in capsys.readouterr().err


def test_an_unknown_claim_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["claim", "C99"]) == 2
    assert "claim 'C99' is unknown; use one of C1, C2" in capsys.readouterr().err


def test_the_notebooks_error_is_told_and_where_to_read_on(root: Path) -> None:
    error = {"output_type": "error", "ename": "UserError", "evalue": "the data\nis broken"}
    leave(root / FAILED.log, "papermill says much\nPapermillExecutionError")
    leave(root / FAILED.executed_notebook, executed({"output_type": "stream"}, error))
    (failure,) = launch.failures_of(TINY, started=time.time())
    assert str(failure) == (
        f"{FAILED.key} failed: UserError: the data is broken (see {FAILED.executed_notebook})"
    )


def test_without_an_error_in_the_notebook_the_logs_last_line_is_told(root: Path) -> None:
    leave(root / FAILED.log, "start\n\x1b[31mMemoryError: no room\x1b[0m\n\n")
    leave(root / FAILED.executed_notebook, "{ cut off")
    (failure,) = launch.failures_of(TINY, started=time.time())
    assert failure.sentence == "MemoryError: no room"
    assert failure.where == FAILED.log


def test_a_job_that_said_nothing_is_told_too(root: Path) -> None:
    leave(root / FAILED.log, "")
    (failure,) = launch.failures_of(TINY, started=time.time())
    assert failure.sentence == "it was stopped before it printed anything"


def test_jobs_with_a_record_and_logs_of_earlier_runs_are_no_failures(root: Path) -> None:
    leave(root / FAILED.log, "ValueError")
    leave(root / FAILED.record, "{}")
    other = leave(root / jobs_of(TINY)[0].log, "ValueError of last week")
    os.utime(other, (0, 0))
    assert launch.failures_of(TINY, started=time.time()) == []


def test_a_failure_of_the_tables_is_told(root: Path) -> None:
    leave(root / "results/tiny/logs/tables.log", "RecordError: a.json was changed\n")
    (failure,) = launch.failures_of(TINY, started=time.time())
    assert (failure.job, failure.sentence) == ("tables", "RecordError: a.json was changed")


def test_failures_are_kept_for_the_report_and_forgotten_when_mended(root: Path) -> None:
    failure = launch.Failure(job="speed/x", sentence="no", where="there")
    launch.note_failures(TINY, [failure])
    path = root / "results/tiny/failures.json"
    assert json.loads(path.read_text()) == [{"job": "speed/x", "sentence": "no", "where": "there"}]
    launch.note_failures(TINY, [])
    assert not path.exists()


def test_two_studies_at_once_are_refused(root: Path) -> None:
    leave(launch.LAUNCH_LOCK, "")
    with launch.LAUNCH_LOCK.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(launch.StudyError, match="a study is running"), launch.only_launch():
            pass
    with launch.only_launch():
        assert launch.LAUNCH_LOCK.exists()


def test_stale_locks_are_removed(root: Path) -> None:
    leave(launch.SNAKEMAKE_LOCKS / "0.output.lock", "results/x")
    launch.unlock()
    assert not list(launch.SNAKEMAKE_LOCKS.iterdir())


@pytest.fixture
def checkpoint(root: Path) -> Path:
    """Let a training job have a checkpoint that was made with the current source."""
    launch.drop_stale_checkpoints(TINY, "official-1")
    return leave(launch.checkpoints(FAILED) / "last.pt", "weights")


def test_a_checkpoint_of_the_same_source_is_kept(checkpoint: Path) -> None:
    launch.drop_stale_checkpoints(TINY, "official-1")
    assert checkpoint.exists()


def test_a_checkpoint_of_another_reference_is_removed(checkpoint: Path) -> None:
    launch.drop_stale_checkpoints(TINY, "stand-in-2")
    assert not checkpoint.exists()


def test_a_checkpoint_of_other_source_is_removed(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "trigger", lambda self, reference: "changed source")
    launch.drop_stale_checkpoints(TINY, "official-1")
    assert not checkpoint.exists()


def test_a_checkpoint_of_unknown_source_counts_only_with_its_record(root: Path) -> None:
    weights = leave(launch.checkpoints(FAILED) / "weights.safetensors", "weights")
    leave(root / FAILED.record, "{}")
    launch.drop_stale_checkpoints(TINY, "official-1")
    assert weights.exists()
    (root / FAILED.record).unlink()
    (launch.checkpoints(FAILED) / "trigger.txt").unlink()
    launch.drop_stale_checkpoints(TINY, "official-1")
    assert not weights.exists()


def test_the_pdf_is_copied_only_when_it_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = root / "reports" / "report.pdf"
    published.parent.mkdir()
    monkeypatch.setattr(launch.products, "REPORT", published)
    launch.publish(TINY)
    assert not published.exists()
    leave(root / "results/tiny/report.pdf", "one")
    launch.publish(TINY)
    os.utime(published, (1, 1))
    launch.publish(TINY)
    assert published.stat().st_mtime == 1
    leave(root / "results/tiny/report.pdf", "two")
    launch.publish(TINY)
    assert published.read_text() == "two"
