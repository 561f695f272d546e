"""Where a job's time goes: its account by phase, from the start of its process on.

A job is one notebook that papermill runs, or one command. What papermill and the kernel need to
come up belongs to it, and so do the imports of its first cell. Where a kernel was running before,
as in JupyterLab, the job begins with that cell. Nothing here imports more than Python itself.
"""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PHASES = ("kernel start", "imports", "preparation", "work", "writing")
RUNNERS = ("papermill", "workflow.execute")  # the latter is papermill in the study's own process


class Process(NamedTuple):
    """What the system knows of a process: its parent, its age, and its processor time."""

    parent: int
    age_s: float
    cpu_s: float


@dataclass
class Account:
    """The time of one job, by phase.

    Attributes:
        started: Seconds since 1970.
        cpu_before_s: Processor time of this process that is not the job's.
        runner: Process that runs the notebook, if it was started for that.
        spent_s: Seconds by phase, of those that ended.
        phase: The one that runs.
        since: When it began, in seconds since 1970.
    """

    started: float
    cpu_before_s: float
    runner: int | None
    spent_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    phase: str = "imports"
    since: float = 0.0

    def enter(self, phase: str, now: float) -> None:
        """Charge the time since the last change to the phase that ends."""
        self.spent_s[self.phase] += max(0.0, now - self.since)
        self.phase, self.since = phase, now

    def summary(self) -> dict[str, Any]:
        """Return when the job began, its wall time, its processor time, and phases that sum up."""
        self.enter(self.phase, time.time())
        ran = read_process(self.runner) if self.runner else None
        cpu_s = sum(os.times()[:4]) - self.cpu_before_s + (ran.cpu_s if ran else 0.0)
        return {
            "started_unix_s": self.started,
            "wall_s": sum(self.spent_s.values()),
            "cpu_s": cpu_s,
            "phases_s": dict(self.spent_s),
        }


def read_process(pid: int | str = "self") -> Process | None:
    """Read a process from `/proc`; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        ticks_s = os.sysconf("SC_CLK_TCK")
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    parent, user, system, started = (int(fields[place]) for place in (1, 11, 12, 19))
    return Process(parent, now - started / ticks_s, (user + system) / ticks_s)


def enter(phase: str) -> None:
    """Say that a phase of the running job begins.

    Args:
        phase: One of `PHASES`.
    """
    _account.enter(phase, time.time())


def begin() -> None:
    """Say that a notebook's imports are done: the first such call ends the process's own start.

    Each later one, as when a notebook runs again in its kernel, begins the account of a new job.
    """
    global _account, _is_fresh
    if not _is_fresh:
        now = time.time()
        asked = _cell_sent() or now
        _account = Account(asked, sum(os.times()[:4]), None, since=asked)
    _is_fresh = False
    enter("preparation")


def summary() -> dict[str, Any]:
    """Return the account of the running job; see `Account.summary`."""
    return _account.summary()


def _cell_sent() -> float | None:
    """Return when the notebook's running cell was sent, in seconds since 1970."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    kernel = getattr(shell, "kernel", None)
    sent = kernel.get_parent().get("header", {}).get("date") if kernel else None
    return sent.timestamp() if sent else None


def _runner(parent: int) -> int | None:
    """Return the parent if papermill runs in it: then this kernel is there for one notebook."""
    try:
        words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return parent if any(Path(os.fsdecode(word)).name in RUNNERS for word in words) else None


def _first_account() -> Account:
    """Open the account of the job that this process was started for."""
    now = time.time()
    process = read_process()
    sent = _cell_sent()
    runner = _runner(process.parent) if process and sent else None
    first = read_process(runner) if runner else process
    was_there_before = sent and not runner
    started = now - first.age_s if first and not was_there_before else sent or now
    account = Account(started, 0.0, runner, phase="kernel start", since=started)
    account.enter("imports", sent or now)
    return account


def _forked() -> None:
    """Begin at zero in a forked process: the system counts its processor time anew."""
    _account.cpu_before_s = 0.0


_account = _first_account()
_is_fresh = True
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
