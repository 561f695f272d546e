"""The reproduction against what the official code once computed, without needing that code.

Recorded traces hold one row for every layer, gradient, buffer and updated parameter of four
networks; anchors hold a few numbers of the output of all nine, under another rule of filling.
"""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from reference import anchors
from reference.record import NameOf, one_thread, trace
from reference.recorded import BOUNDS, compare, load_trace, recorded_networks, summarize
from reproduction.checkpoints import official_name

ANCHOR_BOUND = BOUNDS["output"]
Row = dict[str, Any]


def replay(network: str, model: nn.Module, name_of: NameOf = official_name) -> list[Row]:
    """Hold a network to all there is on record about it.

    Args:
        network: Official name.
        model: The network to test, of 1000 classes; it is copied, and its weights do not matter.
        name_of: Translates its module paths and state-dict keys into official names.

    Returns:
        One row per phase of the trace, if there is one, and one per anchor: rows compared, how
        many fail, the worst error, where, and the bound.
    """
    rows = replay_anchors(network, model, name_of)
    if network in recorded_networks():
        recorded = load_trace(network)
        measured = trace(model, recorded.input_shape, name_of=name_of)
        rows = summarize(compare(measured, recorded)) + rows
    return [{"network": network, **row} for row in rows]


def replay_anchors(network: str, model: nn.Module, name_of: NameOf = official_name) -> list[Row]:
    """Compare eval-mode outputs in float64 with the recorded anchors of a network."""
    name = network.replace("hrnet_", "")
    recorded = anchors.load_anchors()
    chosen = [key for key in (name, f"{name}_224") if key in recorded]
    if not chosen:
        return []
    tested = copy.deepcopy(model).cpu()
    anchors.fill(tested, name_of=name_of)
    tested = tested.double().eval()
    return [_anchor_row(key, recorded[key], tested) for key in chosen]


def passes(rows: list[Row]) -> bool:
    """Tell whether there is something on record and all of it is met."""
    return bool(rows) and not any(row["failures"] for row in rows)


def _anchor_row(name: str, anchor: dict[str, Any], model: nn.Module) -> Row:
    with torch.no_grad(), one_thread():
        output = model(anchors.image(anchor["input"]).double())
    expected = anchor["outputs_float64"][0]
    size = max(abs(expected["min"]), abs(expected["max"]))
    measured = _summary(output)
    errors = {key: _error(measured[key], expected[key], size) for key in measured}
    worst = max(errors, key=lambda key: errors[key])
    return {
        "phase": f"anchor {name}",
        "rows": len(errors),
        "failures": sum(error > ANCHOR_BOUND for error in errors.values()),
        "worst_relative_error": errors[worst],
        "worst_key": worst,
        "bound": ANCHOR_BOUND,
    }


def _summary(output: torch.Tensor) -> dict[str, Any]:
    flat = output.flatten()
    return {
        "shape": list(output.shape),
        "mean": flat.mean().item(),
        "std": flat.std(correction=0).item(),
        "min": flat.min().item(),
        "max": flat.max().item(),
        "first6": flat[:6].tolist(),
        "last3": flat[-3:].tolist(),
    }


def _error(measured: Any, expected: Any, size: float) -> float:
    """Return the worst deviation relative to the output's largest magnitude."""
    theirs, ours = np.atleast_1d(expected), np.atleast_1d(measured)
    if theirs.shape != ours.shape or not np.isfinite(ours).all():
        return math.inf
    return float(np.abs(ours - theirs).max() / size)
