"""Which checkpoints of a killed run its next run may go on from: those of the same source."""

import shutil
from pathlib import Path

from comparison.study import ROOT, Study
from workflow.jobs import Job, jobs_of

RESUMABLE = ("training", "tasks")  # cases whose jobs keep checkpoints


def folder(job: Job) -> Path:
    """Return where a job keeps what it resumes from."""
    return ROOT / job.results_dir / "checkpoints" / job.run_id


def drop(job: Job) -> None:
    """Let a job start anew: it would find itself finished otherwise."""
    shutil.rmtree(folder(job), ignore_errors=True)


def drop_stale(study: Study, reference: str) -> None:
    """Remove checkpoints of other source or another reference: none may be gone on from.

    What a checkpoint was made with is noted beside it before its job runs. One without a note
    counts only if its record exists.
    """
    for job in jobs_of(study):
        if job.case not in RESUMABLE:
            continue
        trigger, note = job.trigger(reference), folder(job) / "trigger.txt"
        known = note.read_text(encoding="utf-8") if note.exists() else None
        if known != trigger and (known or not (ROOT / job.record).exists()):
            drop(job)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(trigger, encoding="utf-8")
