"""Figures of how close the two sides are: by layer, beside rounding, over optimizer steps.

A logarithmic axis has no zero: what is equal to the bit lies in a shaded band below all errors.
"""

from collections.abc import Sequence
from math import log10
from typing import Any

import matplotlib.pyplot as plt
import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison.looks import COLORS, COLUMN_IN, DARK, SHADE

Record = dict[str, Any]
EQUAL_BITS = 1e-18
THIN: dict[str, Any] = {
    "linewidth": 0.6,
    "markersize": 2.6,
    "markerfacecolor": "none",
    "markeredgewidth": 0.6,
}
# The comparison, each with its lane among equal bits; then what it is held against.
LAYER_LOOKS: dict[str, tuple[str, dict[str, Any], float]] = {
    "forward_eval": ("outputs", {"marker": "^", "color": COLORS["reproduction"]}, 6.0),
    "float32": ("outputs, float32", {"marker": "s", "color": COLORS["reference"]}, 1.8),
    "activation_gradient": ("gradients of outputs", {"marker": "o", "color": "#8a4f9e"}, 0.5),
    "parameter_gradient": ("gradients of weights", {"marker": "x", "color": "#2e7d5b"}, 0.15),
}
BESIDE_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "noise_forward": ("outputs, rewritten", {"color": "#a4aab0", "linestyle": "--"}),
    "noise_gradient": ("gradients, rewritten", {"color": "#a4aab0", "linestyle": ":"}),
    "threshold_forward": ("", {"color": DARK, "linestyle": "--"}),
    "threshold_gradient": ("", {"color": DARK, "linestyle": ":"}),
}
MODE_LOOKS: dict[str, dict[str, Any]] = {
    "forward eval": {
        "label": "rounding, forward (eval)",
        "color": COLORS["reference"],
        "linestyle": "-",
    },
    "forward train": {
        "label": "rounding, forward (train)",
        "color": COLORS["reproduction"],
        "linestyle": "--",
    },
    "backward": {"label": "rounding, gradients", "color": "#8a4f9e", "linestyle": "-."},
    "teacher-forced trajectory": {"label": "rounding, steps", "color": "#2e7d5b", "linestyle": ":"},
}
THRESHOLDS = ("threshold_forward", "threshold_gradient")


def not_run(record: Record) -> Figure:
    """Say why there is nothing to draw."""
    figure, axes = plt.subplots(figsize=(COLUMN_IN, 0.6))
    axes.set_axis_off()
    said = f"not run: {record['inputs'].get('live', 'no rows')}"
    axes.text(0, 0.5, said, wrap=True, va="center", transform=axes.transAxes)
    return figure


def error_by_layer(record: Record) -> Figure:
    """Draw the error of every layer against depth, beside rounding and the thresholds."""
    rows = record["tables"]["layers"]
    if not rows:
        return not_run(record)
    figure, axes = plt.subplots(figsize=(COLUMN_IN, 2.7))
    depth = [row["depth"] for row in rows]
    for name, (label, line) in BESIDE_LOOKS.items():
        errors = [_drawable(row[name]) for row in rows]
        axes.plot(depth, errors, label=label or None, zorder=1, linewidth=0.8, **line)
    for name, (label, look, lane) in LAYER_LOOKS.items():
        errors = [_drawable(row[name], lane) for row in rows]
        axes.plot(depth, errors, label=label, **look, **THIN, markevery=max(1, len(rows) // 25))
    bounds = [row[name] for row in rows for name in THRESHOLDS if row[name]]
    place = (depth[0], max(bounds, default=1e-12))
    axes.annotate("thresholds", place, xytext=(0, 3), textcoords="offset points", fontsize=7)
    _error_axis(axes, (1e-15, 1e-12, 1e-9, 1e-6, 1e-3), 10)
    axes.set_xlabel("depth (layers, in order of execution)")
    axes.set_ylabel("largest relative error")
    figure.legend(loc="outside upper center", ncols=2, columnspacing=1.0, handlelength=1.8)
    return figure


def noise_floor(record: Record) -> Figure:
    """Draw, for every mode, how many tensors have how much noise, and how far the sides are."""
    rows = record["tables"]["noise"]
    if not rows:
        return not_run(record)
    figure, axes = plt.subplots(figsize=(COLUMN_IN, 2.5))
    decades = list(range(int(log10(EQUAL_BITS)), -7))
    deviating = [_at(rows, "deviation", decade) for decade in decades[1:]]
    equal = _at(rows, "deviation", None)
    axes.axvspan(decades[0], decades[0] + 1, color=SHADE, zorder=0)
    axes.stairs(
        [equal, *deviating],
        [*decades, decades[-1] + 1],
        fill=True,
        color=COLORS["reproduction"],
        alpha=0.35,
        label="reproduction",
    )
    for mode, look in MODE_LOOKS.items():
        counts = [_at(rows, "noise", d, mode) for d in (None, *decades[1:])]
        axes.stairs(counts, [*decades, decades[-1] + 1], **look)
    axes.axvline(log10(_constant(record, "relative")), color=DARK, linewidth=0.9, linestyle="--")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, 3 * max(equal, 10))
    axes.set_xlim(decades[0], decades[-1] + 1)
    ticks = [decades[0] + 0.5, -15, -12, -9]
    axes.set_xticks(ticks, ["equal\nbits", *(f"$10^{{{tick}}}$" for tick in ticks[1:])])
    axes.minorticks_off()
    axes.set_xlabel("relative deviation (dashed: least threshold)")
    axes.set_ylabel("tensors")
    figure.legend(loc="outside upper center", ncols=2, columnspacing=1.0, handlelength=1.8)
    return figure


def divergence(record: Record) -> Figure:
    """Draw the divergence over optimizer steps: from the same state each time, and free."""
    forced = record["tables"]["steps"]
    free = [row for row in record["tables"]["trajectory"] if row["precision"] == "float64"]
    if not forced:
        return not_run(record)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(COLUMN_IN, 3.3))
    steps = [row["step"] for row in forced]
    largest = [_drawable(row["largest_relative"]) for row in forced]
    look: dict[str, Any] = {"marker": "^", "color": COLORS["reproduction"], **THIN}
    top.plot(steps, largest, label="reproduction", markevery=max(1, len(forced) // 25), **look)
    bound = _constant(record, "relative")
    top.axhline(bound, color=DARK, linestyle="--", linewidth=0.9, label="least threshold")
    top.set_ylabel("of an increment")
    top.set_xlabel("step, each from the reference's state")
    top.xaxis.get_major_locator().set_params(integer=True)
    _error_axis(top, (1e-15, 1e-12, 1e-9), 1e-7)
    _free_axes(bottom, free, look, _constant(record, "horizon"))
    figure.legend(*_distinct(top, bottom), loc="outside upper center", ncols=2, columnspacing=1.0)
    figure.supylabel("largest relative difference", fontsize=8)
    return figure


def _free_axes(
    axes: Any, rows: Sequence[dict[str, Any]], look: dict[str, Any], lost: float
) -> None:
    steps = [row["step"] for row in rows]
    axes.plot(steps, [_drawable(row["divergence"]) for row in rows], label="reproduction", **look)
    noise = [_drawable(row["noise"]) for row in rows]
    rewritten: dict[str, Any] = {"color": COLORS["reference"], "linestyle": "--", "linewidth": 0.9}
    axes.plot(steps, noise, label="reference, rewritten", **rewritten)
    ends = next((row["step"] for row in rows if not (row["noise"] or 0) < lost), None)
    if ends is not None:
        line: dict[str, Any] = {"color": COLORS["paper"], "linewidth": 0.9, "linestyle": ":"}
        axes.axvline(ends - 0.5, label="horizon", **line)
    axes.set_ylabel("of all weights")
    axes.set_xlabel("step, both free")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _error_axis(axes, (1e-15, 1e-12, 1e-9, 1e-6, 1e-3), 10)


def _distinct(*all_axes: Axes) -> tuple[list[Any], list[str]]:
    """Return handles and labels of several axes, each label once."""
    found: dict[str, Any] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _error_axis(axes: Axes, ticks: Sequence[float], top: float) -> None:
    """Make a logarithmic axis with a band for equal bits."""
    axes.axhspan(EQUAL_BITS / 30, EQUAL_BITS * 30, color=SHADE, zorder=0)
    axes.set_yscale("log")
    labels = ["equal bits", *(f"$10^{{{round(log10(tick))}}}$" for tick in ticks)]
    axes.set_yticks([EQUAL_BITS, *ticks], labels)
    axes.minorticks_off()
    axes.set_ylim(EQUAL_BITS / 30, top)


def _drawable(error: float | None, lane: float = 1.0) -> float:
    """Move equal bits to a lane of their own; what has no number is left out."""
    if error is None:
        return numpy.nan
    return error or EQUAL_BITS * lane


def _at(rows: Sequence[dict[str, Any]], quantity: str, decade: int | None, mode: str = "") -> int:
    return sum(
        row["tensors"]
        for row in rows
        if row["quantity"] == quantity and row["decade"] == decade and mode in ("", row["mode"])
    )


def _constant(record: Record, name: str) -> float:
    return next(r["value"] for r in record["tables"]["thresholds"] if r["name"] == name)
