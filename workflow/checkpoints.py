"""Which checkpoints of a killed job its next run goes on from: those of the same source.

What a checkpoint is made with is noted beside it when the job starts (`workflow.execute`), so that
no launch touches those of jobs that it does not run.
"""

import os
import shutil
from pathlib import Path

NOTE = "trigger.txt"
# What `workflow.execute` is told of its job; empty for jobs that keep no checkpoint.
FOLDER_VARIABLE, TRIGGER_VARIABLE = "STUDY_CHECKPOINTS", "STUDY_TRIGGER"


def keep_of(folder: Path, trigger: str) -> None:
    """Remove checkpoints of other source or another reference: none may be gone on from.

    Args:
        folder: Of one job; made if it is not there.
        trigger: What the job depends on (`Job.trigger`).

    Raises:
        OSError: The folder cannot be made or written.
    """
    note = folder / NOTE
    if note.exists() and note.read_text(encoding="utf-8", errors="replace") == trigger:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{NOTE}.partial"
    partial.write_text(trigger, encoding="utf-8")
    partial.replace(note)


def prepare_job() -> None:
    """Do so for the job that this process is, if it is a study's and keeps checkpoints."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        keep_of(Path(folder), os.environ[TRIGGER_VARIABLE])
