"""The record of one comparison: all modes of the engine, noise floor, layers, steps, traces.

The verdict is drawn in float64 on the CPU with one thread, whatever device a study trains on: only
there do faults and rounding stay apart. float32 is described beside it and decides nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd
import torch

import reference
from comparison import by_trace, clock, pairing, parameters, traces
from comparison.engine.compare import complete, report_of
from comparison.engine.examine import Examined, examine
from comparison.engine.free import LOST, horizon, run_free
from comparison.engine.leader import COUNTING, Leader
from comparison.engine.measures import finite, ratio
from comparison.engine.modes.data import compare_data
from comparison.engine.report import Report
from comparison.engine.rows import Row
from comparison.engine.steps import Stepper, follow_free
from comparison.engine.verdict import (
    ACCURACY,
    BITWISE,
    DATA,
    FORCED,
    FREE,
    LIMITS,
    NOT_REPRODUCED,
    NOT_RUN,
    STATE,
    STATIC,
    ZERO_NOTE,
    ModeVerdict,
    not_run,
)
from comparison.layers import layer_rows
from comparison.noise import noise_rows
from comparison.pairing import Pair
from comparison.record import measurement, new_record
from comparison.study import TRACES, Comparison
from reference.errors import ReferenceAbsent
from reference.record import one_thread
from reproduction import CLASSIFICATION, UserError

CLAIM_IDS = ["C3", "C4", "C5", "C7"]
# Free runs say something only until rounding has grown; more steps would show nothing.
MOST_FREE_STEPS = 60

Rows = list[dict[str, Any]]
Tables = dict[str, Rows]


@dataclass(frozen=True)
class Outcome:
    """One comparison: what the engine found, and its report on all modes."""

    examined: Examined
    report: Report


def run(settings: parameters.Settings) -> dict[str, Any]:
    """Compare the two arms of one network and make the record.

    Args:
        settings: Network, what it is compared with, weights (random, or trained from a file),
            steps, seed and data.

    Returns:
        A record with the tables ``modes``, ``layers``, ``calibration``, ``noise``, ``steps``,
        ``trajectory``, ``origins``, ``findings``, ``traces`` (with random weights against the
        reference only) and ``thresholds``.

        Where the reference is not there, no mode runs and recorded traces decide.

    Raises:
        UserError: The weights do not fit.
    """
    start = time.perf_counter()
    with one_thread():
        if settings.against == TRACES:
            return by_trace.run(settings)
        try:
            pair = pairing.pair_of(settings)
        except ReferenceAbsent as absent:  # which the stand-in of classification never is
            return by_trace.run(settings, str(absent))
        clock.enter("work")
        outcome = compare_pair(pair, settings)
        tables = _tables(outcome, _replayed(pair, settings))
    named = Comparison(settings.network, settings.weights, settings.against, settings.steps)
    return new_record(
        case="equivalence",
        run_id=named.run_id,
        claim_ids=CLAIM_IDS,
        subject={"network": settings.network, "seed": settings.seed, "against": settings.against},
        inputs={"reference": _identity(settings), **pair.inputs},
        measurements=_measurements(outcome, tables),
        tables=tables,
        expectations=_expectations(),
        verdict=judge(tables),
        wall_s=time.perf_counter() - start,
        parameters=settings.decisive(),
        command=settings.command(),
    )


def check(network: str, *, steps: int = 2, against: str = "reference", **given: Any) -> Report:
    """Compare the two arms of a network, without a record; for the command line.

    Args:
        network: Official name.
        steps: Optimizer steps.
        against: ``reference`` or ``timm``.
        given: ``weights_file``, trained weights instead of random ones, and ``data``, what those
            are shown.

    Returns:
        The report on all modes.

    Raises:
        UserError: An argument has no meaning, or the weights do not fit.
    """
    if against == TRACES:
        raise UserError(f"against is {against!r}, which notebook 02 takes: give reference or timm")
    weights = "trained" if given.get("weights_file") else "random"
    chosen = {"network": network, "steps": steps, "against": against, "weights": weights}
    settings = parameters.check("02_equivalence", {**chosen, **given})
    with one_thread():
        return compare_pair(pairing.pair_of(settings), settings).report


def compare_pair(pair: Pair, settings: parameters.Settings) -> Outcome:
    """Run all modes on two sides.

    Args:
        pair: The sides, in one state, and their batches.
        settings: Steps, data and seed, and what the report is called after.
    """
    start = time.perf_counter()
    leader = Leader(pair.reference, pair.batches)
    examined = examine(
        leader, pair.reproduction, name_map=pair.name_map, steps=settings.steps, epochs=pair.epochs
    )
    count = min(3 * settings.steps, MOST_FREE_STEPS)
    trajectory, free = run_free(examined.subject, count)
    trajectory = [*_single_steps(examined, settings.steps), *trajectory]
    report = report_of(
        examined,
        f"the reproduction against {_identity(settings)['label']}, {settings.network}, "
        f"{settings.weights} weights",
        trajectory=trajectory,
        **settings.decisive(),
    )
    report = _with_recipe(report, f"the reference's recipe: {pair.inputs['reference_recipe']}")
    accuracy = not_run(ACCURACY, "decided over the training runs (C8)")
    more = [free, _data(settings), accuracy]
    return Outcome(examined, complete(report, more, time.perf_counter() - start))


def judge(tables: Tables) -> dict[str, str]:
    """Draw the verdict from a record's tables: the worst mode decides, or a recorded trace."""
    ran = [row for row in tables["modes"] if row["outcome"] != NOT_RUN]
    order = (NOT_REPRODUCED, "undecided", "within tolerance", "reproduced")
    worst = min(ran, key=lambda row: order.index(row["outcome"]))
    if worst["outcome"] in order[:2]:
        reason = f"{worst['mode']}: {worst['reason']}"
        return {"outcome": worst["outcome"], "reason": reason}
    if tables["traces"] and not traces.passes(tables["traces"]):
        failed = next(row for row in tables["traces"] if row["failures"])
        reason = f"recorded traces: {failed['phase']} differs at {failed['worst_key']}"
        return {"outcome": NOT_REPRODUCED, "reason": reason}
    compared = sum(row["compared"] for row in ran)
    reason = f"all {len(ran)} modes agree in {compared} comparisons"
    if worst["outcome"] == "within tolerance":
        reason = f"{reason}; {worst['mode']}: {worst['reason']}"
    return {"outcome": worst["outcome"], "reason": reason}


def modes_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show the verdict on every mode."""
    table = pd.DataFrame(record["tables"]["modes"]).set_index("mode")
    return table[["outcome", "reason", "compared", "bit_equal", "worst_margin", "max_error"]]


def layers_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show every layer with its errors; nothing if no mode ran."""
    table = pd.DataFrame(record["tables"]["layers"])
    return table if table.empty else table.set_index("depth")


def calibration_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show in how many tensors each neutral rewrite changed a bit, by mode."""
    columns = ["rewrite", "mode", "changed"]
    table = pd.DataFrame(record["tables"]["calibration"], columns=columns)
    return table.pivot(index="rewrite", columns="mode", values="changed")


def _identity(settings: parameters.Settings) -> dict[str, Any]:
    return reference.identity(pairing.SOURCES[settings.against], settings.network)


def _with_recipe(report: Report, said: str) -> Report:
    """Say in the report and at its static mode where the reference's recipe comes from."""
    modes = tuple(
        replace(verdict, notices=(*verdict.notices, said)) if verdict.mode == STATIC else verdict
        for verdict in report.modes
    )
    return replace(report, modes=modes, notices=(*report.notices, said))


def _single_steps(examined: Examined, count: int) -> Rows:
    """Follow both sides free in float32, as far as the bits go: no noise beside, no verdict."""
    subject = examined.subject
    sides = [side.copied(torch.float32) for side in (subject.leader.side, subject.side)]
    batches = [sides[0].sees(batch) for batch in subject.leader.batches[:count]]
    theirs, ours = Stepper(sides[0]), Stepper(sides[1], subject.state.pairs)
    return follow_free(theirs, ours, None, batches)


def _data(settings: parameters.Settings) -> ModeVerdict:
    """Compare the batches that the loader gives both arms when they train from the seed."""
    if settings.network not in CLASSIFICATION:
        return not_run(DATA, "compared where dense tasks are trained; here images are random")
    verdict = compare_data(pairing.loaded(settings), pairing.loaded(settings))
    reason = f"{settings.data}, as the loader of both arms gives it twice: {verdict.reason}"
    return replace(verdict, reason=reason)


def _replayed(pair: Pair, settings: parameters.Settings) -> Rows:
    """Replay recorded traces, which come with weights of their own, once a network."""
    if settings.weights != "random" or settings.against != "reference":
        return []
    return traces.replay(settings.network, pair.reproduction.model)


def _tables(outcome: Outcome, replayed: Rows) -> Tables:
    report = outcome.report
    plain = report.to_dict()  # what is not finite is None there
    return {
        "modes": [_mode_row(verdict, outcome) for verdict in report.modes],
        "layers": layer_rows(outcome.examined),
        "calibration": plain["calibration"],
        "noise": noise_rows(report.rows),
        "steps": plain["steps"],
        "trajectory": plain["trajectory"],
        "origins": [{**origin, "near": ", ".join(origin["near"])} for origin in plain["origins"]],
        "findings": [{"site": f.name, "text": f.text} for f in report.findings],
        "traces": by_trace.plain(replayed),
        "thresholds": _thresholds(),
    }


def _mode_row(verdict: ModeVerdict, outcome: Outcome) -> dict[str, Any]:
    rows = _rows_of(verdict.mode, outcome)
    if verdict.mode == FREE:
        free = _free_rows(outcome)
        errors = [row["divergence"] for row in free[: horizon(free)]]
    elif verdict.mode == FORCED:
        errors = [row["largest_relative"] for row in outcome.examined.steps]
    else:
        errors = [row.relative for row in rows]
    return {
        "mode": verdict.mode,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "compared": verdict.compared,
        "bit_equal": verdict.bit_equal,
        "differing": verdict.differing,
        "undecided": verdict.undecided,
        "worst_margin": None if verdict.worst_margin is None else finite(verdict.worst_margin),
        "max_error": finite(max(errors, default=0.0)),
        "noise": finite(max((ratio(row.noise, row.size) for row in rows), default=0.0)),
        "first_divergent": verdict.first_divergent,
        "notices": "; ".join(verdict.notices),
    }


def _rows_of(mode: str, outcome: Outcome) -> list[Row]:
    """Return the tensors of a mode, without those that are zero in exact arithmetic."""
    zeros = {row.key for row in outcome.examined.rows if row.note == ZERO_NOTE}
    rows: Sequence[Row] = outcome.examined.single if mode == BITWISE else outcome.examined.rows
    shown = [row for row in rows if row.key not in zeros]
    if mode == BITWISE:
        return shown
    first = [r for r in shown if r.key.mode == FORCED and r.key.part.endswith(", step 1")]
    return [r for r in shown if r.key.mode == mode] + (first if mode == STATE else [])


def _free_rows(outcome: Outcome) -> Rows:
    return [row for row in outcome.report.trajectory if row["precision"] == "float64"]


def _thresholds() -> Rows:
    rows = [
        {"name": item.name, "value": getattr(LIMITS, item.name), "reason": item.metadata["reason"]}
        for item in fields(LIMITS)
    ]
    lost = "relative divergence of the rewritten reference at which a free run says no more"
    counting = "neutral rewrites that must change a bit in a mode before its noise floor counts"
    return [
        *rows,
        {"name": "horizon", "value": LOST, "reason": lost},
        {"name": "counting", "value": float(COUNTING), "reason": counting},
    ]


def _expectations() -> Rows:
    return [
        {
            "name": "deviation",
            "value": 0.0,
            "source": "the reference, run beside",
            "tolerance": LIMITS.relative,
            "reason": "relative; or the measured noise floor of the tensor, if that is larger",
        }
    ]


def _measurements(outcome: Outcome, tables: Tables) -> Rows:
    report, leader = outcome.report, outcome.examined.subject.leader
    free = _free_rows(outcome)
    counts = {
        "layers": len(tables["layers"]),
        "operations": report.matched.operations,
        "state_tensors": report.matched.tensors,
        "unmatched": len(report.matched.unmatched_reference)
        + len(report.matched.unmatched_candidate),
        "horizon": horizon(free),
        "free_steps": len(free),
        "forced_steps": len(tables["steps"]),
    }
    fewest = min(leader.counting(mode) for mode in _CALIBRATED)
    return [
        *(measurement(name, count, "count") for name, count in counts.items()),
        measurement("fewest_counting_rewrites", fewest, "count"),
    ]


_CALIBRATED = ("forward eval", "forward train", "backward", STATE)
