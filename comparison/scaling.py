"""How long many jobs take on several workers: measured for a few, simulated for hundreds.

The schedule is the study's own: whenever a worker is free, it takes the longest job that waits
(list scheduling; Graham 1969, at most 4/3 of the best). The simulation is checked where it can be:
four real jobs of notebook 01 run one at a time and two at a time, twice each, and what the times of
the first give for two workers is compared with what passed on the clock.
"""

import heapq
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import mean
from typing import Any

from comparison import clock, evidence
from comparison.evidence import Record
from comparison.record import measurement, new_record
from comparison.study import ROOT
from reproduction import UserError

CASE = "scaling"
NOTEBOOK = "notebooks/01_networks.ipynb"
# Two lengths, longest first.
NETWORKS = (*2 * ("cls_hrnet_w18_small_v2",), *2 * ("cls_hrnet_w18_small_v1",))
WORKERS = (1, 2)
TOLERANCE = 0.10  # of the measured time: what jobs on one machine may cost each other
PAUSE_S = 60.0  # longer without any job: the study was interrupted
MANY = 200
SIMULATED_WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 200)


def makespan(durations: Sequence[float], workers: int) -> float:
    """Return when the last job ends if each free worker takes the longest job that waits.

    Args:
        durations: Of the jobs.
        workers: At least 1.

    >>> makespan([2.0, 3.0, 4.0], 2), makespan([2.0, 3.0, 4.0], 9)
    (5.0, 4.0)
    """
    free_at = [0.0] * workers
    for duration in sorted(durations, reverse=True):
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at)


def job_wall_s(record: Record) -> float:
    """Return a job's wall time; of records made before jobs kept account, that of the run alone."""
    origin = record["provenance"]
    return float(origin["job"]["wall_s"] if "job" in origin else origin["wall_s"])


def many_jobs(records: Sequence[Record]) -> list[float]:
    """Return the times of `MANY` jobs: those of a study's records, over and over."""
    return list(islice(cycle(map(job_wall_s, records)), MANY)) if records else []


def simulated(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Simulate `MANY` jobs on several numbers of workers.

    Returns:
        Rows with ``workers``, ``makespan_s``, ``speedup`` and ``efficiency``.
    """
    durations = many_jobs(records)
    total = sum(durations)
    spans = {workers: makespan(durations, workers) for workers in SIMULATED_WORKERS if durations}
    return [
        {
            "workers": workers,
            "makespan_s": span,
            "speedup": total / span,
            "efficiency": total / span / workers,
        }
        for workers, span in spans.items()
    ]


def as_it_ran(records: Sequence[Record]) -> dict[str, Any] | None:
    """Compare the time that a study took as a whole with the simulation of its jobs.

    Jobs that had the machine to themselves come on top of those that shared it.

    Returns:
        ``workers``, ``jobs``, ``job_s`` (the sum of their times), ``measured_s`` and
        ``simulated_s``; None if the records are not of one uninterrupted run that kept account.
    """
    if len(records) < 2 or not all("job" in record["provenance"] for record in records):
        return None
    origins = [record["provenance"] for record in records]
    spans = sorted(_span(origin["job"]) for origin in origins)
    covered_until, workers = spans[0][0], 0
    at_work: list[float] = []  # when those end that run at the same time
    for began, ended in spans:
        if began - covered_until > PAUSE_S:
            return None
        covered_until = max(covered_until, ended)
        at_work = [*(end for end in at_work if end > began), ended]
        workers = max(workers, len(at_work))
    shared = [origin["job"]["wall_s"] for origin in origins if origin["jobs"] > 1 or workers == 1]
    alone_s = sum(origin["job"]["wall_s"] for origin in origins) - sum(shared)
    return {
        "workers": workers,
        "jobs": len(records),
        "job_s": sum(shared) + alone_s,
        "measured_s": covered_until - spans[0][0],
        "simulated_s": makespan(shared, workers) + alone_s,
    }


def most_busy(records: Sequence[Record]) -> int | None:
    """Return up to how many workers are busy half of the time or more with `MANY` jobs."""
    durations = many_jobs(records)
    if not durations:
        return None
    total = sum(durations)
    return max(n for n in range(1, MANY + 1) if total / makespan(durations, n) / n >= 0.5)


def _span(job: dict[str, Any]) -> tuple[float, float]:
    return job["started_unix_s"], job["started_unix_s"] + job["wall_s"]


def run(settings: Any) -> dict[str, Any]:
    """Run the same few jobs with one and with two workers, and check the simulation.

    Args:
        settings: Checked parameters of notebook 08 (`comparison.parameters.check`).

    Returns:
        The record: tables ``runs`` (a row a number of workers) and ``jobs``.

    Raises:
        UserError: A job failed.
    """
    started = time.perf_counter()
    clock.enter("work")
    run_jobs(1, NETWORKS[-1:])  # what only the first job does, such as reading files, is not timed
    # There and back, so that what drifts on a machine meets all alike.
    turns = [(workers, run_jobs(workers)) for workers in (*WORKERS, *reversed(WORKERS))]
    jobs = {n: averaged([taken for workers, taken in turns if workers == n]) for n in WORKERS}
    rows = [row(workers, taken, jobs[1]) for workers, taken in jobs.items()]
    slowdown = rows[1]["job_s"] / rows[0]["job_s"]
    return new_record(
        case=CASE,
        run_id="notebooks",
        claim_ids=[],
        subject={"notebook": NOTEBOOK, "networks": list(NETWORKS)},
        inputs={},
        measurements=[
            measurement("speedup", rows[0]["measured_s"] / rows[1]["measured_s"], "ratio"),
            measurement("slowdown", slowdown, "ratio of the jobs' times, two at once to one"),
            measurement("error", max(abs(r["error"]) for r in rows[1:]), "share of measured"),
            measurement("load", os.getloadavg()[0], "processes"),
        ],
        tables={"runs": rows, "jobs": [job for taken in jobs.values() for job in taken]},
        expectations=[
            {
                "name": "simulated time, relative to the measured one",
                "value": 0.0,
                "source": "list scheduling of the jobs as they ran one at a time",
                "tolerance": TOLERANCE,
                "reason": "jobs that run at once share memory and disk, which is not simulated",
            }
        ],
        verdict=judge(rows),
        wall_s=time.perf_counter() - started,
        parameters=settings.decisive(),
        command=settings.command(),
    )


def averaged(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return when each job began and ended on average over some runs of the same jobs."""
    return [
        {**same[0], **{key: mean(job[key] for job in same) for key in ("started_s", "ended_s")}}
        for same in zip(*runs, strict=True)
    ]


def row(
    workers: int, taken: Sequence[dict[str, Any]], alone: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Set the measured time of some jobs beside the simulated one.

    Args:
        workers: How many there were.
        taken: Jobs as they ran.
        alone: The same jobs as they ran one at a time.
    """
    durations, undisturbed = (
        [job["ended_s"] - job["started_s"] for job in jobs] for jobs in (taken, alone)
    )
    measured = max(job["ended_s"] for job in taken)
    expected = makespan(undisturbed, workers)
    return {
        "workers": workers,
        "jobs": len(taken),
        "job_s": sum(durations),
        "measured_s": measured,
        "simulated_s": expected,
        "error": expected / measured - 1,
    }


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Fail if the simulation misses the time of several workers by more than the tolerance.

    Args:
        rows: That of one worker first, of whose times the others are simulated.
    """
    worst = max(abs(entry["error"]) for entry in rows[1:])
    outcome = "within tolerance" if worst <= TOLERANCE else "not reproduced"
    counts = " and ".join(str(entry["workers"]) for entry in rows[1:])
    reason = f"the time of {counts} workers is simulated to {100 * worst:.1f} %"
    return {"outcome": outcome, "reason": reason}


def run_jobs(workers: int, networks: Sequence[str] = NETWORKS) -> list[dict[str, Any]]:
    """Run the jobs with some workers; say when each began and ended, from the common start."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:

        def one(numbered: tuple[int, str]) -> dict[str, Any]:
            place = Path(folder) / str(numbered[0])
            began = time.perf_counter() - start
            _run_notebook(numbered[1], place)
            ended = time.perf_counter() - start
            return {"workers": workers, "job": numbered[1], "started_s": began, "ended_s": ended}

        return list(pool.map(one, enumerate(networks)))


def _run_notebook(network: str, place: Path) -> None:
    place.mkdir()
    call = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", NOTEBOOK]
    given = ["-p", "network", network, "-p", "results_dir", str(place)]
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "STUDY_JOBS": "1"}
    done = subprocess.run(
        [*call, str(place / "executed.ipynb"), *given],
        cwd=ROOT,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise UserError(
            f"a job of {NOTEBOOK} for {network} failed ({' '.join(last) or 'no word'}): run it by "
            "hand and mend what it says"
        )


def measured_runs(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the rows of what was measured with one and two workers, if it was."""
    return evidence.rows_of(evidence.of_case(records, CASE)[:1], "runs")
