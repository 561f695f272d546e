"""The reproduction against what the official code once computed, without needing that code.

Recorded traces hold one row for every layer, gradient, buffer and updated parameter of some
networks; anchors hold a few numbers of the outputs of more, under another rule of filling.
"""

import copy
import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import nn

from reference import anchors
from reference.record import NameOf, as_tuple, one_thread, trace
from reference.recorded import BOUNDS, compare, load_trace, recorded_networks, summarize
from reproduction.checkpoints import official_name

ANCHOR_BOUND = BOUNDS["output"]
# What anchors call a network of which more than its prefix differs from the official name.
ANCHORS = {
    "cls_hrnet_w18": ("cls_w18", "cls_w18_224"),
    "pose_hrnet_w32": ("pose_coco_w32_256x192",),
    "pose_hrnet_w48": ("pose_coco_w48_256x192",),
    "pose_hrnet_w32_mpii": ("pose_mpii_w32_256x256",),
    "seg_hrnet_w48_cityscapes": ("seg_w48_alignFalse_64x96", "seg_w48_alignFalse_65x97"),
    "seg_hrnet_w18_small_v1_cityscapes": ("seg_w18_small_v1_alignFalse",),
    "seg_hrnet_w18_small_v2_cityscapes": ("seg_w18_small_v2_alignFalse",),
    "seg_hrnet_ocr_w48_cityscapes": ("ocr_w48_alignTrue_64x96",),
    "det_hrnetv2p_w18": ("det_w18_backbone+hrfpn",),
    "det_hrnetv2p_w32": ("det_w32_backbone+hrfpn",),
}
Row = dict[str, Any]


def replay(network: str, model: nn.Module, name_of: NameOf = official_name) -> list[Row]:
    """Hold a network to all there is on record about it.

    Args:
        network: Official name.
        model: The network to test; it is copied, and its weights do not matter.
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
    return replay_named(anchors_of(network), model, name_of)


def anchors_of(network: str) -> list[str]:
    """Name the anchors of a network, by its official name."""
    names = ANCHORS.get(network, (network.replace("hrnet_", ""),))
    return [name for name in names if name in anchors.load_anchors()]


def replay_named(
    names: Sequence[str], model: nn.Module, name_of: NameOf = official_name
) -> list[Row]:
    """Compare eval-mode outputs in float64 with anchors, by the anchors' own names."""
    if not names:
        return []
    recorded = anchors.load_anchors()
    tested = copy.deepcopy(model).cpu()
    anchors.fill(tested, name_of=name_of)
    tested = tested.double().eval()
    return [_anchor_row(name, recorded[name], tested) for name in names]


def passes(rows: list[Row]) -> bool:
    """Tell whether there is something on record and all of it is met."""
    return bool(rows) and not any(row["failures"] for row in rows)


def _anchor_row(name: str, anchor: dict[str, Any], model: nn.Module) -> Row:
    with torch.no_grad(), one_thread():
        outputs = as_tuple(model(anchors.image(anchor["input"]).double()))
    expected = anchor["outputs_float64"]
    errors = {
        f"{key} of output {i}" if len(expected) > 1 else key: error
        for i, (ours, theirs) in enumerate(zip_longest(outputs, expected))
        for key, error in _errors(ours, theirs).items()
    }
    worst = max(errors, key=lambda key: errors[key])
    return {
        "phase": f"anchor {name}",
        "rows": len(errors),
        "failures": sum(error > ANCHOR_BOUND for error in errors.values()),
        "worst_relative_error": errors[worst],
        "worst_key": worst,
        "bound": ANCHOR_BOUND,
    }


def _errors(output: torch.Tensor | None, expected: dict[str, Any] | None) -> dict[str, float]:
    """Return the error of every number of one output; one that a side lacks is infinitely off."""
    if output is None or expected is None:
        return {"shape": math.inf}
    size = max(abs(expected["min"]), abs(expected["max"]))
    measured = _summary(output)
    return {key: _error(measured[key], expected[key], size) for key in measured}


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
