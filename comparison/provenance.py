"""On what machine and from which source a result was made; paths of the machine are left out."""

import hashlib
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

from comparison import clock
from comparison.study import ROOT
from reference import confinement

# What "dirty" means: changed source, never changed results, PDFs or executed notebooks.
SOURCES = ("reproduction", "reference", "comparison", "workflow", "notebooks", "requirements.lock")


def provenance(wall_s: float, command: str = "") -> dict[str, Any]:
    """Say on what, from which source and how a result was made; paths are left out."""
    return {
        **source_state(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "jobs": int(os.environ.get("STUDY_JOBS", "1")),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "confinement": confinement.state(),
        "command": command or _command(),
        "wall_s": wall_s,
        "peak_memory_mib": _peak_memory_mib(),
        "job": clock.summary(),
    }


def source_state() -> dict[str, Any]:
    """Return commit, whether source differs from it, and digests of source and lock."""
    return _state_of(ROOT)


@cache
def _state_of(root: Path) -> dict[str, Any]:
    commit = _git(root, "rev-parse", "HEAD") or "unknown"
    changed = _git(root, "status", "--porcelain", "--", *SOURCES)
    lock = root / "requirements.lock"
    return {
        "commit": commit,
        "dirty": changed is None or bool(changed),
        "lock_sha256": _file_digest(lock) if lock.exists() else "absent",
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _command() -> str:
    """Return how this process was started, without the paths of this machine."""
    return " ".join(Path(word).name if "/" in word else word for word in sys.argv)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
