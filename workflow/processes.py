"""Processes that a launch owns: what it started ends when it does.

Snakemake and its jobs run in a session of their own, so that Ctrl-C reaches the launch alone, which
then ends them all. Nothing is lost by that: every file is written whole or not at all. Where the
system has setpriv (Linux), they die with a launch that is itself killed, too.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE_S = 2.0
SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def mortal() -> list[str]:
    """Return what lets a process die with the one that started it, where the system can."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a request to end, and the end of the terminal, do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Whoever ignores one of them, as nohup does, goes on ignoring it.
    taken = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(process: subprocess.Popen[str], grace_s: float = GRACE_S) -> None:
    """End a process that leads a session, and all that it started, soon after `grace_s`.

    It is asked first: on a cluster, Snakemake takes its jobs out of the queue then.
    """
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    kill(process.pid)
    process.wait()


def kill(leader: int) -> None:
    """Kill a process that leads a session, and all that descends from it.

    Kernels lead sessions of their own, so they are found by descent; those of a papermill that is
    gone end by themselves within a second.
    """
    owned = descendants(leader)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for pid in owned:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    """Return the processes that descend from one; none where the system has no ps."""
    if not shutil.which("ps"):
        return set()
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        children = {child for child, of in pairs if of == parent} - found
        found |= children
        waiting.extend(children)
    return found


def is_running(pid: int) -> bool:
    """Tell whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
