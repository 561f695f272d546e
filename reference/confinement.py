"""Take from a process what running the official code does not need: network, and writing elsewhere.

Linux only: Landlock takes away writing outside of the results folder, seccomp the network. What a
system does not enforce is said, in `state()`, and so in every record. Reading is not restricted.

A study's jobs are started as `python -IS reference/confinement.py RESULTS_DIR -- COMMAND`, which
confines all of the job from before its first thread, then becomes the command. A kernel drops
the network when its parameters are checked, for all of its threads; one that papermill started by
hand also its writing then, though only for threads that start later (until Landlock 8). Only the
standard library is imported, so that starting this way costs milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

SWITCH = "STUDY_CONFINEMENT"  # "off" leaves the process as it is
FILES, NETWORK = "STUDY_CONFINED_FILES", "STUDY_CONFINED_NETWORK"  # what children inherit
ROOT = Path(__file__).resolve().parent.parent
SCRATCH = ".scratch"  # in the results folder: what Jupyter, IPython and matplotlib keep

# Numbers of the kernel's interface, equal on both architectures where nothing else is said.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH, _ALL_THREADS = 1, 1, 1 << 3
_WRITE_FILE, _TRUNCATE, _REFER = 1 << 1, 1 << 14, 1 << 13
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove and make anything
_SINCE = {_REFER: 2, _TRUNCATE: 3}  # versions of Landlock
_NO_NEW_PRIVILEGES = 38
_NOT_OFFERED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
# AUDIT_ARCH, then the numbers of: seccomp, socket, connect, ptrace, process_vm_writev.
_MACHINES = {
    "x86_64": (0xC000003E, 317, 41, 42, 101, 311),
    "aarch64": (0xC00000B7, 277, 198, 203, 117, 271),
}
_IO_URING_SETUP, _PIDFD_GETFD, _FIRST_X32, _AF_UNIX = 425, 438, 0x40000000, 1
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
# What programs write to outside of all folders; none of it outlives the machine.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "nvidia*", "dri/*", "kfd")
_SHARED = ("shm", "pts", "nvidia-caps")


def confine_writes(folders: Iterable[Path]) -> str:
    """Let this thread, and all that it starts, change files only below some folders, for good.

    Args:
        folders: They are made if they are not there.

    Returns:
        What is enforced from now on, or why nothing is, as records say it.

    Raises:
        OSError: A folder cannot be made or opened.
    """
    version = _landlock()
    if version < 1:
        return f"not enforced: {platform.system()} {platform.release()} offers no Landlock"
    rights = _CHANGES | sum(right for right, since in _SINCE.items() if version >= since)
    ruleset = _call(_CREATE_RULESET, ctypes.c_char_p(struct.pack("=Q", rights)), 8, 0)
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            _allow(ruleset, folder, rights)
        for place in _shared_places():
            _allow(ruleset, place, rights if place.is_dir() else rights & (_WRITE_FILE | _TRUNCATE))
        _forgo_privileges()
        _call(_RESTRICT_SELF, ruleset, _ALL_THREADS if version >= 8 else 0)
    finally:
        os.close(ruleset)
    return f"Landlock {version}"


def _landlock() -> int:
    """Return the version of Landlock that the system offers; 0 if none."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        if error.errno in _NOT_OFFERED:
            return 0
        raise


def _allow(ruleset: int, place: Path, rights: int) -> None:
    opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = ctypes.c_char_p(struct.pack("=Qi", rights, opened))
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(opened)


def _shared_places() -> list[Path]:
    devices = Path("/dev")
    found = [place for pattern in _DEVICES for place in devices.glob(pattern)]
    return [
        *(p for p in found if p.is_char_device()),
        *filter(Path.is_dir, map(devices.joinpath, _SHARED)),
    ]


def drop_network() -> str:
    """Refuse every thread of this process new sockets, connections and ways around that, for good.

    Sockets that a Jupyter kernel has bound go on working, and so do pairs of Unix sockets.

    Returns:
        What is enforced from now on, or why nothing is, as records say it.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little":
        return f"not enforced: no filter for {platform.system()} {platform.machine()}"
    lines = _filter(*machine)
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    header = struct.pack("@HP", len(lines), ctypes.addressof(program))
    _forgo_privileges()
    try:
        unable = _call(machine[1], 1, 1, ctypes.c_char_p(header))  # a filter, for all threads
    except OSError as error:
        if error.errno in (*_NOT_OFFERED, errno.EINVAL):
            return f"not enforced: {platform.system()} {platform.release()} offers no seccomp"
        raise
    return "seccomp, all threads" if unable == 0 else "not enforced: a thread has its own filter"


def _filter(
    architecture: int, seccomp: int, socket: int, connect: int, trace: int, write_other: int
) -> list[tuple[int, int, int, int]]:
    """Return a program of the kernel's packet filter: code, steps if true and if false, operand."""
    refused = (connect, trace, write_other, _IO_URING_SETUP, _PIDFD_GETFD)
    to_refusal = [len(refused) + 2 - place for place in range(len(refused))]
    return [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, len(refused) + 5, architecture),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, len(refused) + 3, 0, _FIRST_X32),
        *((_EQUAL, steps, 0, call) for steps, call in zip(to_refusal, refused, strict=True)),
        (_EQUAL, 0, 3, socket),
        (_LOAD, 0, 0, 16),  # the first argument: the family
        (_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _forgo_privileges() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the system does not let this process forgo privileges")


def _call(number: int, *arguments: object) -> int:
    """Make a system call.

    Raises:
        OSError: The kernel refused it.
    """
    plain = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *plain)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def scratch(results_dir: Path) -> dict[str, str]:
    """Return the variables that keep what programs write by the way inside the results folder."""
    folder = (results_dir / SCRATCH).resolve()
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    places = {"TMPDIR": "tmp", "JUPYTER_RUNTIME_DIR": "jupyter"}
    places |= {"IPYTHONDIR": "ipython", "MPLCONFIGDIR": "matplotlib"}
    return {name: str(folder / place) for name, place in places.items()}


def writable(results_dir: Path) -> list[Path]:
    """List the folders that a run may write to: its results, and the cache of data sets."""
    return [results_dir.resolve(), ROOT / "data"]


def enter(results_dir: Path, *folders: Path, always: bool = False) -> None:
    """Confine this process if it runs in batch; `state()` tells what the system does not enforce.

    Args:
        results_dir: Where it may still write.
        folders: Where else.
        always: Also if papermill did not start it.

    Raises:
        OSError: A folder cannot be made.
    """
    reason = "switched off" if _is_off() else "" if always or _in_batch() else "not a batch run"
    if reason:
        os.environ.update({FILES: f"not enforced: {reason}", NETWORK: f"not enforced: {reason}"})
        return
    if not _is_enforced(FILES):
        import tempfile  # costs the launcher, which does not need it, half of its time

        os.environ.update(scratch(results_dir))
        tempfile.tempdir = None  # else it stays where it was first looked up
        found = confine_writes([*writable(results_dir), *folders])
        partly = found.startswith("Landlock") and _landlock() < 8
        os.environ[FILES] = f"{found}, threads started later" if partly else found
    if not _is_enforced(NETWORK):
        os.environ[NETWORK] = drop_network()


def state() -> dict[str, str]:
    """Say what this process, and what it starts, is kept from: `files` and `network`."""
    unasked = "not enforced: not a batch run"
    names = (("files", FILES), ("network", NETWORK))
    return {name: os.environ.get(variable, unasked) for name, variable in names}


def _is_off() -> bool:
    return os.environ.get(SWITCH) == "off"


def _is_enforced(variable: str) -> bool:
    return not os.environ.get(variable, "not enforced").startswith("not enforced")


def _in_batch() -> bool:
    """Tell whether papermill started this process: by a study's launcher, or by hand."""
    if FILES in os.environ:
        return True
    try:
        return b"papermill" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:  # a system without /proc, which enforces nothing anyway
        return True


def main(arguments: Sequence[str]) -> int:
    """Confine this process, then become the command behind `--`."""
    if len(arguments) < 3 or arguments[1] != "--":
        print("usage: confinement.py RESULTS_DIR -- COMMAND...", file=sys.stderr)
        return 2
    results_dir, command = Path(arguments[0]), list(arguments[2:])
    try:
        if not _is_off():
            os.environ.update(scratch(results_dir))
            found = confine_writes(writable(results_dir))
            os.environ[FILES] = f"{found}, all threads" if found.startswith("Landlock") else found
        os.execvp(command[0], command)
    except OSError as error:
        print(
            f"cannot confine {command[0]} to {results_dir}: {error}; give write permission, or "
            f"set {SWITCH}=off to run it unconfined",
            file=sys.stderr,
        )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
