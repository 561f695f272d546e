"""One launch at a time in this folder; a Snakemake whose launch was killed gives way."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from comparison.study import ROOT, StudyError
from workflow import processes

LAUNCH_LOCK = ROOT / ".snakemake" / "launch.lock"
LOCK_WAIT_S = 3.0  # what was just killed takes a moment to be gone


@contextmanager
def only_launch() -> Iterator[TextIO]:
    """Hold the folder: two studies at once would disturb each other's timings and locks."""
    LAUNCH_LOCK.parent.mkdir(exist_ok=True)
    with LAUNCH_LOCK.open("a+", encoding="utf-8") as lock:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(lock):
            holder = holder_of(lock)
            if _is_orphan(holder):
                processes.kill(holder["snakemake"])
            elif time.monotonic() > deadline or processes.is_running(holder.get("launch", 0)):
                raise StudyError(
                    f"a study is running in this folder (process {holder.get('launch', 'unknown')} "
                    f"on {holder.get('host', 'an unknown machine')}); wait for it, or stop it"
                )
            time.sleep(0.1)
        note_holder(lock)
        yield lock


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note_holder(lock: TextIO, snakemake: int = 0) -> None:
    """Write into the lock who holds it."""
    holder = {"host": socket.gethostname(), "launch": os.getpid(), "snakemake": snakemake}
    lock.seek(0)
    lock.truncate()
    lock.write(json.dumps(holder))
    lock.flush()


def holder_of(lock: TextIO) -> dict[str, Any]:
    """Read who holds the lock; nothing if that cannot be told."""
    lock.seek(0)
    try:
        return dict(json.loads(lock.read()))
    except (ValueError, TypeError):
        return {}


def _is_orphan(holder: dict[str, Any]) -> bool:
    """Tell whether a lock is held by a Snakemake of this machine whose launch was killed."""
    return (
        holder.get("host") == socket.gethostname()
        and holder.get("snakemake", 0) > 0
        and not processes.is_running(holder["launch"])
    )
