"""Peak memory of one arm, in a process of its own.

Within one process the arms would share what the first of them left behind. So each is made and run
in a fresh process: ``python -m comparison.speed.memory SETUP``, which prints its row as JSON.
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from comparison.speed.contenders import CannotRun, Setup, make
from comparison.study import ROOT
from reproduction import UserError

STATUS = Path("/proc/self/status")
PEAKS = ("start_mib", "making_mib", "peak_mib", "device_mib")
CALLS = 2
LONGEST_S = 1800


def peak_mib() -> float:
    """Return the largest resident memory of this process since it began."""
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)


def measure_here(arm: str, setup: Setup) -> dict[str, Any]:
    """Make and run an arm in this process.

    Returns:
        Peaks in MiB, each since the process began: `start_mib` with everything imported,
        `making_mib` when the arm was made (a runtime runs once for that), `peak_mib` after it ran;
        `device_mib` on an accelerator.
    """
    torch.set_num_threads(setup.threads)
    start = peak_mib()
    work = make(arm, setup).work
    making = peak_mib()
    for _ in range(CALLS):
        work()
    on_device = torch.cuda.max_memory_allocated() / 2**20 if setup.device == "cuda" else None
    return {
        "arm": arm,
        "status": "ran",
        "start_mib": start,
        "making_mib": making,
        "peak_mib": peak_mib(),
        "device_mib": on_device,
    }


def not_measured(arm: str, reason: str) -> dict[str, Any]:
    """Lay out an arm whose memory was not measured."""
    return {"arm": arm, "status": f"not run: {reason}", **dict.fromkeys(PEAKS)}


def measure(arm: str, setup: Setup) -> dict[str, Any]:
    """Make and run an arm in a process of its own; see `measure_here` for what is returned."""
    command = [sys.executable, "-m", __spec__.name, json.dumps({"arm": arm, **asdict(setup)})]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return not_measured(arm, f"it took longer than {LONGEST_S} s")
    except subprocess.CalledProcessError as failed:
        told = (failed.stderr or "").strip().splitlines()
        return not_measured(arm, told[-1][:200] if told else f"exit status {failed.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure the arm that the first argument names, and print its row."""
    given = json.loads(sys.argv[1])
    arm = given.pop("arm")
    setup = Setup(**{**given, "image_size": tuple(given["image_size"])})
    try:
        print(json.dumps(measure_here(arm, setup)))
    except (CannotRun, UserError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
