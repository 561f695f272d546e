"""Tables of what the study itself cost: jobs by case, and their time on several workers."""

from collections.abc import Iterable, Sequence
from typing import Any

from comparison import clock, evidence, scaling
from comparison.evidence import Record, measured
from comparison.study import Study
from comparison.tables.table import NOT_RECORDED, NOTHING, Table, fixed, make_table

SHARES = tuple(f"{phase.replace(' ', '_')}_share" for phase in clock.PHASES)
COST_COLUMNS = (
    *("case", "jobs", "accounts", "wall_s", "cpu_s", *SHARES, "data_share", "peak_memory_mib"),
)
SCALING_COLUMNS = (
    *("jobs", "workers", "measured_s", "simulated_s", "difference", "speedup", "efficiency"),
)
TOTAL = "all"
# What is aimed at: of a training step, and of all jobs' time.
DATA_SHARE_AIM, START_SHARE_AIM = 0.02, 0.15


def study_cost(study: Study, records: Sequence[Record]) -> Table:
    """Sum up what the jobs of each case took, and of all."""
    cases = dict.fromkeys(record["case"] for record in records)
    rows = [_sum(case, evidence.of_case(records, case)) for case in cases]
    caption = (
        "What the study cost: jobs by case, wall and processor time, the share of each phase, the "
        "largest share of preparing batches in a training step, and the largest peak of memory."
    )
    ran = evidence.references(records)
    total = [_sum(TOTAL, records)] if records else []
    return make_table("study_cost", caption, COST_COLUMNS, [*rows, *total], ran)


def _sum(case: str, records: Sequence[Record]) -> dict[str, str]:
    accounts = [r["provenance"]["job"] for r in records if "job" in r["provenance"]]
    accounted_s = sum(job["wall_s"] for job in accounts)
    spent = {
        share: sum(job["phases_s"][phase] for job in accounts)
        for share, phase in zip(SHARES, clock.PHASES, strict=True)
    }
    return {
        "case": case,
        "jobs": str(len(records)),
        "accounts": str(len(accounts)),
        "wall_s": fixed(sum(map(scaling.job_wall_s, records)), 0),
        "cpu_s": fixed(sum(j["cpu_s"] for j in accounts), 0) if accounts else NOT_RECORDED,
        **{share: _percent(s / accounted_s if accounts else None) for share, s in spent.items()},
        "data_share": _largest(records),
        "peak_memory_mib": fixed(_peak_mib(records), 0),
    }


def _percent(share: float | None) -> str:
    return NOT_RECORDED if share is None else f"{fixed(100 * share, 1)} %"


def _largest(records: Iterable[Record]) -> str:
    """Return the largest share of data preparation, of what trained."""
    trained = [r for r in records if measured(r, "train_wall_s") is not None]
    shares = [share for r in trained if (share := measured(r, "data_share")) is not None]
    return _percent(max(shares, default=None)) if trained else NOTHING


def _peak_mib(records: Iterable[Record]) -> float | None:
    peaks = (record["provenance"].get("peak_memory_mib") for record in records)
    return max((peak for peak in peaks if peak is not None), default=None)


def scaling_table(study: Study, records: Sequence[Record]) -> Table:
    """Set measured and simulated times of jobs on several workers side by side."""
    runs = scaling.measured_runs(records)
    alone_s = runs[0]["measured_s"] if runs else 0.0
    rows = [_compared(f"{run['jobs']} of notebook 01", run, alone_s) for run in runs]
    if whole := scaling.as_it_ran(records):
        rows.append(_compared(f"the study's {whole['jobs']}, as they ran", whole, whole["job_s"]))
    rows += [_simulated(row) for row in scaling.simulated(records)]
    caption = (
        "Jobs on several workers, the longest first: measured, and simulated from measured times "
        f"of jobs; {scaling.MANY} jobs are those of the study over and over."
    )
    ran = evidence.references(records)
    return make_table("scaling", caption, SCALING_COLUMNS, rows, ran)


def _compared(name: str, run: dict[str, Any], alone_s: float) -> dict[str, str]:
    """Set a measured time beside the simulated one, and beside that of one job at a time."""
    measured_s, simulated_s = run["measured_s"], run["simulated_s"]
    speedup = alone_s / measured_s
    return {
        "jobs": name,
        "workers": str(run["workers"]),
        "measured_s": fixed(measured_s, 1),
        "simulated_s": fixed(simulated_s, 1),
        "difference": f"{fixed(100 * (simulated_s / measured_s - 1), 1, sign=True)} %",
        "speedup": fixed(speedup, 2),
        "efficiency": _percent(speedup / run["workers"]),
    }


def _simulated(row: dict[str, Any]) -> dict[str, str]:
    return {
        "jobs": f"{scaling.MANY} of this study",
        "workers": str(row["workers"]),
        "measured_s": NOTHING,
        "simulated_s": fixed(row["makespan_s"], 1),
        "difference": NOTHING,
        "speedup": fixed(row["speedup"], 2),
        "efficiency": _percent(row["efficiency"]),
    }
