"""The record of one comparison: ladder, trajectory, noise floor, injected faults, traces.

The verdict is drawn in float64 on the CPU with one thread, whatever device a study trains on: only
there do faults and rounding stay apart. float32 is described beside it and decides nothing.
"""

import time
from typing import Any

import pandas as pd
import torch

import reference
from comparison import faults, pairing, parameters, rewrites, traces
from comparison.ladder import Ladder, Leader, climb, climb_after, forward_rows
from comparison.layers import composite_rows, finite, layer_rows
from comparison.modes import trajectory
from comparison.pairing import Pair, pair_of
from comparison.record import measurement, new_record
from comparison.verdict import (
    NOT_REPRODUCED,
    REPRODUCED,
    THRESHOLDS,
    UNDECIDED,
    ModeVerdict,
    Row,
)
from reference.record import one_thread

CLAIM_IDS = ["C3", "C4", "C5", "C6", "C7"]
# The faults test the comparison, not the network; the smallest network does it fastest.
FAULTS_ON = "cls_hrnet_w18_small_v1"
FAULT_STEPS = 2
# What rounding alone does to the forward pass, beside the error of every layer.
NOISE = (rewrites.channels_last, rewrites.unfolded_convolutions, rewrites.written_out_norms)
# What a fault does to it: it stays in all later layers.
EXAMPLE = faults.FAULTS[0]

Tables = dict[str, list[dict[str, Any]]]


def run(settings: parameters.Settings) -> dict[str, Any]:
    """Compare the two arms of one network and make the record.

    Args:
        settings: Network, weights (random, or trained from a file), steps, seed and data.

    Returns:
        A record with the tables ``modes``, ``layers``, ``composites``, ``findings``, ``undivided``,
        ``trajectory``, ``traces``, ``thresholds`` and ``faults``; the latter is filled with random
        weights of the smallest network only, traces with random weights only.

    Raises:
        UserError: The weights do not fit.
    """
    start = time.perf_counter()
    with one_thread():
        pair = pair_of(settings)
        ladder, beside = _ladder(pair)
        steps = _trajectory(pair)
        verdicts = (*ladder.verdicts, trajectory.judge(steps))
        tables = {
            "layers": layer_rows(ladder.matching, ladder.rows, beside),
            "composites": composite_rows(ladder.matching, ladder.rows),
            "findings": [{"site": f.name, "text": f.text} for f in ladder.findings],
            "undivided": [
                {"arm": arm, "count": len(paths), "modules": ", ".join(paths)}
                for arm, paths in ladder.matching.undivided.items()
            ],
            "modes": [_mode_row(verdict) for verdict in verdicts],
            "trajectory": [_as_row(row) for row in steps],
            "thresholds": _thresholds(),
            **_proof(pair, settings),
        }
        return new_record(
            case="equivalence",
            run_id=f"{settings.network}.{settings.weights}",
            claim_ids=CLAIM_IDS,
            subject={"network": settings.network, "seed": settings.seed},
            inputs={"reference": reference.identity(), **pair.inputs},
            measurements=_measurements(ladder, tables),
            tables=tables,
            expectations=_expectations(),
            verdict=judge(tables),
            wall_s=time.perf_counter() - start,
            parameters=settings.decisive(),
            command=settings.command(),
        )


def check(
    network: str, *, steps: int = 2, weights_file: str = "", data: str = "digits"
) -> tuple[str, int]:
    """Compare the two arms of a network, without a record; for the command line.

    Args:
        network: Official name.
        steps: Optimizer steps.
        weights_file: Trained weights; random ones if empty.
        data: What trained weights are shown.

    Returns:
        The table of modes as text, and 0 if every mode agrees, else 1.

    Raises:
        UserError: An argument has no meaning, or the weights do not fit.
    """
    given = {"network": network, "steps": steps, "weights_file": weights_file, "data": data}
    weights = "trained" if weights_file else "random"
    settings = parameters.check("02_equivalence", {**given, "weights": weights})
    with one_thread():
        pair = pair_of(settings)
        ladder = climb(pair.reference, pair.reproduction, pair.batches)
    table = pd.DataFrame([_mode_row(verdict) for verdict in ladder.verdicts])
    shown = table[["mode", "outcome", "compared", "max_error", "bound", "first_divergent"]]
    lines = [f"{reference.identity()['label']} and the reproduction, {network}, {weights} weights"]
    lines += [shown.to_string(index=False, na_rep="no number")]
    lines += [f"{verdict.mode}: {verdict.reason}" for verdict in ladder.failures()]
    return "\n".join(lines), int(bool(ladder.failures()))


def modes_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show the verdict on every mode."""
    table = pd.DataFrame(record["tables"]["modes"]).set_index("mode")
    return table[["outcome", "reason", "compared", "bit_equal", "max_error", "bound"]]


def layers_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show every layer with its errors."""
    return pd.DataFrame(record["tables"]["layers"]).set_index("depth")


def faults_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show the injected faults and harmless rewrites; empty where none were tried."""
    columns = ["kind", "caught", "mode", "site", "as_expected", "largest_error"]
    rows = record["tables"]["faults"]
    return pd.DataFrame(rows, columns=["fault", *columns]).set_index("fault")


def judge(tables: Tables) -> dict[str, str]:
    """Draw the verdict from a record's tables.

    A difference decides. Without one, a comparison that missed an injected fault or raised a
    false alarm has shown nothing: undecided.
    """
    bad = [row for row in tables["modes"] if row["outcome"] == NOT_REPRODUCED]
    if bad:
        return {"outcome": NOT_REPRODUCED, "reason": f"{bad[0]['mode']}: {bad[0]['reason']}"}
    if tables["traces"] and not traces.passes(tables["traces"]):
        failed = next(row for row in tables["traces"] if row["failures"])
        reason = f"recorded traces: {failed['phase']} differs at {failed['worst_key']}"
        return {"outcome": NOT_REPRODUCED, "reason": reason}
    if wrong := [row["fault"] for row in tables["faults"] if not row["as_expected"]]:
        reason = f"nothing differs, but the comparison itself went wrong on: {', '.join(wrong)}"
        return {"outcome": UNDECIDED, "reason": reason}
    compared = sum(row["compared"] for row in tables["modes"])
    reason = f"all {len(tables['modes'])} modes agree in {compared} comparisons"
    return {"outcome": REPRODUCED, "reason": reason}


def _ladder(pair: Pair) -> tuple[Ladder, dict[str, list[Row]]]:
    """Climb the ladder; beside it, the forward pass under rounding, a fault, and in float32."""
    leader = Leader(pair.reference, pair.batches)
    ladder = climb_after(leader, pair.reproduction.copied(leader.dtype))
    matching = ladder.matching
    changed = {
        name: [
            row
            for inject in injected
            for row in forward_rows(
                leader, inject(pair.reproduction.copied(leader.dtype)), matching
            )
        ]
        for name, injected in (("noise", NOISE), ("example_fault", (EXAMPLE.inject,)))
    }
    del leader
    single = Leader(pair.reference, pair.batches[:1], torch.float32)
    rounded = forward_rows(single, pair.reproduction.copied(torch.float32), matching)
    return ladder, {**changed, "float32": rounded}


def _trajectory(pair: Pair) -> list[dict[str, Any]]:
    return [
        row
        for dtype in (torch.float32, torch.float64)
        for row in trajectory.follow(
            pair.reference.copied(dtype), pair.reproduction.copied(dtype), pair.batches
        )
    ]


def _proof(pair: Pair, settings: parameters.Settings) -> Tables:
    """Try recorded traces and injected faults, which ask for random weights."""
    if settings.weights != "random":
        return {"traces": [], "faults": []}
    proven: Tables = {"traces": traces.replay(settings.network, pair.reproduction.model)}
    proven["faults"] = []
    if settings.network == FAULTS_ON:
        batches = pairing.random_batches(FAULT_STEPS, settings.seed)
        proven["faults"] = faults.run(pair.reference, pair.reproduction, batches)
    return {name: [_as_row(row) for row in rows] for name, rows in proven.items()}


def _mode_row(verdict: ModeVerdict) -> dict[str, Any]:
    return {
        "mode": verdict.mode,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "compared": verdict.compared,
        "bit_equal": verdict.bit_equal,
        "max_error": finite(verdict.max_error),
        "bound": verdict.bound,
        "first_divergent": verdict.first_divergent,
        "notices": "; ".join(verdict.notices),
    }


def _as_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose numbers JSON can hold."""
    return {k: finite(v) if isinstance(v, float) else v for k, v in row.items()}


def _thresholds() -> list[dict[str, Any]]:
    return [
        {"mode": mode, "bound": threshold.bound, "reason": threshold.reason}
        for mode, threshold in THRESHOLDS.items()
    ]


def _expectations() -> list[dict[str, Any]]:
    return [
        {
            "name": f"{mode} error",
            "value": 0.0,
            "source": "the reference, run beside",
            "tolerance": threshold.bound,
            "reason": threshold.reason,
        }
        for mode, threshold in THRESHOLDS.items()
    ]


def _measurements(ladder: Ladder, tables: Tables) -> list[dict[str, Any]]:
    outputs = [row for row in ladder.rows if row.key.name == "network" and row.key.mode != "loss"]
    counts = {
        "layers": len(ladder.matching.layers()),
        "composites": len(tables["composites"]),
        "unmatched_layers": len(ladder.matching.findings),
        "tensors": len(ladder.rows),
        "bit_equal_tensors": sum(row.bit_equal for row in ladder.rows),
    }
    for kind in ("float32", "float64"):
        rows = [row for row in tables["trajectory"] if row["precision"] == kind]
        counts[f"bit_equal_steps_{kind}"] = trajectory.bit_equal_steps(rows)
    errors = {"output": max(row.max_error for row in outputs)}
    errors |= {v.mode.replace(" ", "_"): v.max_error for v in ladder.verdicts if v.bound}
    errors |= {name: _largest(tables, name) for name in ("noise", "example_fault", "float32")}
    return [
        *(measurement(name, count, "count") for name, count in counts.items()),
        *(measurement(f"{name}_max_error", value, "relative") for name, value in errors.items()),
        measurement("example_fault", EXAMPLE.name, "name"),
    ]


def _largest(tables: Tables, column: str) -> float:
    return max(row[column] or 0.0 for row in tables["layers"])
