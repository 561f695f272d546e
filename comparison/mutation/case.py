"""The record of one trial of the checker: what was injected, what was said, and the scores."""

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

import reference
from comparison import clock, parameters
from comparison.mutation import trial
from comparison.mutation.baselines import comparison_rows
from comparison.mutation.plan import PLANS
from comparison.mutation.scoring import (
    ALL,
    DETECTION,
    EXACT,
    HARMLESS,
    Row,
    scores,
    survivors,
)
from comparison.mutation.trial import Trial
from comparison.record import measurement, new_record
from reference.record import one_thread

CLAIM_IDS = ["C6"]
TABLES = ("trials", "scores", "by_bench", "survivors", "excluded", "baselines", "checkers")


def run(settings: parameters.Settings) -> dict[str, Any]:
    """Try the checker and make the record.

    Args:
        settings: The plan, and the seed.

    Returns:
        A record with the tables of `TABLES`.
    """
    start = time.perf_counter()
    clock.enter("work")
    with one_thread():
        found = trial.run(PLANS[settings.plan], settings.seed)
    tables = tables_of(found)
    return new_record(
        case="trial",
        run_id=f"{settings.plan}.seed{settings.seed}",
        claim_ids=CLAIM_IDS,
        subject={"plan": settings.plan, "seed": settings.seed},
        inputs={"reference": reference.identity()},
        measurements=measurements(tables),
        tables=tables,
        expectations=_expectations(),
        verdict=judge(found),
        wall_s=time.perf_counter() - start,
        parameters=settings.decisive(),
        command=settings.command(),
    )


def tables_of(found: Trial) -> dict[str, list[Row]]:
    """Lay a trial out as the tables of its record."""
    return {
        "trials": found.rows,
        "scores": scores(found.rows),
        "by_bench": scores(found.rows, by="bench"),
        "survivors": survivors(found.rows),
        "excluded": found.excluded,
        "baselines": comparison_rows(found.rows),
        "checkers": found.checkers,
    }


def measurements(tables: dict[str, list[Row]]) -> list[dict[str, Any]]:
    """Take the headline numbers from the tables of a record."""
    summed = {row["group"]: row for row in tables["scores"]}
    faults, changes = summed.get(ALL), summed.get(HARMLESS)
    found = []
    if faults:
        bounds = {"n": faults["trials"], "ci_low": faults["low"], "ci_high": faults["high"]}
        found += [
            measurement("faults", faults["trials"], "count"),
            measurement("detection", faults["share"], "share", **bounds),
            *(
                measurement(name, faults[name], unit)
                for name, unit in (
                    ("exact", "share"),
                    ("first_end", "share"),
                    ("phase_correct", "share"),
                    ("mean_hops", "operations"),
                    ("mean_s", "s"),
                    ("max_s", "s"),
                )
            ),
        ]
    if changes:
        bounds = {"n": changes["trials"], "ci_low": changes["low"], "ci_high": changes["high"]}
        found += [
            measurement("harmless", changes["trials"], "count"),
            measurement("false_alarms", changes["share"], "share", **bounds),
        ]
    noticed = sum(row["noticed"] for row in tables["checkers"])
    return [*found, measurement("mutants_noticed", noticed, "count", n=len(tables["checkers"]))]


def judge(found: Trial) -> dict[str, str]:
    """Draw the verdict: every gate holds, or the first that does not is the reason."""
    failed = found.failed_gates()
    if failed:
        return {"outcome": "not reproduced", "reason": "; ".join(failed)}
    summed = {row["group"]: row for row in scores(found.rows)}
    faults, changes = summed[ALL], summed[HARMLESS]
    reason = (
        f"{faults['caught']} of {faults['trials']} faults caught, {faults['exact']:.1%} of them "
        f"localized exactly, no alarm on {changes['trials']} harmless candidates, "
        f"{len(found.checkers)} of {len(found.checkers)} mutants of the checker noticed"
    )
    return {"outcome": "reproduced", "reason": reason}


def shown(record: dict[str, Any], table: str, index: str) -> pd.DataFrame:
    """Show a table of the record, one row a value of its first column; empty tables say so.

    Args:
        record: The record.
        table: One of `TABLES`.
        index: The column that names its rows.
    """
    rows: Sequence[Row] = record["tables"][table]
    return pd.DataFrame(rows).set_index(index) if rows else pd.DataFrame({index: ["none"]})


def _expectations() -> list[dict[str, Any]]:
    why = "issued before the first trial; the bounds say how much the number of trials can show"
    given = (
        ("detection", DETECTION, "at least"),
        ("false_alarms", 0.0, "none"),
        ("exact", EXACT, "at least"),
        ("mutants_noticed", "all", "none may go unnoticed"),
    )
    return [
        {"name": name, "value": value, "source": "gate", "tolerance": tolerance, "reason": why}
        for name, value, tolerance in given
    ]
