"""Where a study runs: on this machine, or as jobs of a cluster that shares its folder.

A profile is a folder of `workflow/profiles`. The one called `local` is one machine; any other hands
the jobs to a scheduler. Jobs of SLURM outlive whoever submitted them, so that a study that goes on
cancels first what it left in the queue: nothing runs twice at once.
"""

import hashlib
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from comparison.study import ROOT, Study, StudyError
from workflow import memory
from workflow.jobs import available_cores

PROFILES = Path(__file__).with_name("profiles")
LOCAL = "local"
CANCEL_TIMEOUT_S = 60.0
POLL_S = 0.5


class Place(NamedTuple):
    """A profile, and what one of its machines offers to jobs: cores, and memory in MiB."""

    profile: str
    cores: int
    memory_mib: int

    def __str__(self) -> str:
        return f"{self.cores} cores" + f", {self.profile}" * (self.profile != LOCAL)


def known_profiles() -> list[str]:
    """List the profiles that exist, by name."""
    return sorted(path.parent.name for path in PROFILES.glob("*/config.yaml"))


def is_slurm(profile: str) -> bool:
    """Tell whether a profile hands its jobs to SLURM."""
    return "executor: slurm\n" in (PROFILES / profile / "config.yaml").read_text(encoding="utf-8")


def place(profile: str = LOCAL, cores: int | None = None) -> Place:
    """Return the largest machine that a profile's jobs may run on, with fewer cores if asked.

    Raises:
        StudyError: SLURM does not answer.
    """
    if not is_slurm(profile):
        return Place(profile, cores or available_cores(), memory.usable_mib())
    sizes = [line.split() for line in _ask("sinfo", "-h", "-o", "%c %m")]
    # SLURM writes 64+ where the nodes of a partition differ.
    counts = [[int(word.rstrip("+")) for word in size] for size in sizes]
    if not counts:
        raise StudyError(f"profile {profile!r}: SLURM has no node; see sinfo")
    most_cores, most_mib = (max(column) for column in zip(*counts, strict=True))
    return Place(profile, cores or most_cores, most_mib)


def options(where: Place, study: Study) -> list[str]:
    """Return what Snakemake is told about the place where it runs; `--config` comes last."""
    told = ["--workflow-profile", f"workflow/profiles/{where.profile}"]
    if where.profile == LOCAL:
        told += ["--cores", str(where.cores), "--resources", f"mem_mb={where.memory_mib}"]
    if is_slurm(where.profile):
        told += ["--slurm-jobname-prefix", job_name(study)]
    return [*told, "--config", f"cores={where.cores}", f"memory_mib={where.memory_mib}"]


def job_name(study: Study, root: Path = ROOT) -> str:
    """Name all SLURM jobs of one study in one folder; another folder's have other names."""
    folder = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return f"{study.name[:30].replace('.', '-')}-{folder}"  # the plugin takes no dots


def cancel_left_over(where: Place, study: Study) -> int:
    """Cancel what an earlier call left in the queue, wait until it is gone, and count it.

    Raises:
        StudyError: SLURM does not answer, or the jobs do not end.
    """
    if not is_slurm(where.profile):
        return 0
    found = _queued(study)
    if found:
        print(f"{len(found)} jobs of an earlier call are still in the queue: canceled", flush=True)
        _ask("scancel", *found)
    deadline = time.monotonic() + CANCEL_TIMEOUT_S
    while _queued(study):
        if time.monotonic() > deadline:
            raise StudyError(
                f"jobs {', '.join(_queued(study))} do not end: see `squeue --me`, and start again "
                "when they have"
            )
        time.sleep(POLL_S)
    return len(found)


def _queued(study: Study) -> list[str]:
    """List the numbers of a study's jobs that wait, run or end."""
    lines = (line.partition(" ") for line in _ask("squeue", "--me", "-h", "-o", "%i %j"))
    return [number for number, _, name in lines if name.startswith(f"{job_name(study)}_")]


def _ask(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        raise StudyError(f"{command[0]} was not found: is this a login node of SLURM?") from None
    except (OSError, subprocess.SubprocessError) as problem:
        said = str(getattr(problem, "stderr", None) or problem).strip()
        raise StudyError(f"{command[0]} failed: {said}") from None
    return done.stdout.splitlines()
