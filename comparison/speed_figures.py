"""Speed as figures: ratios to the reference, rates below the roof, latency against accuracy."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib.pyplot as plt
import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from comparison.evidence import short_name
from comparison.figures import STYLE
from comparison.looks import ARM_COLORS, ARM_MARKERS, COLORS, COLUMN_IN, DARK
from comparison.speed import evidence

Record = dict[str, Any]
Row = dict[str, Any]
LINE_IN, ARM_IN = 0.2, 0.085  # height of a timing, and more for each of its arms
CURVE = ("reference", "reproduction", "deploy")  # arms that the family is timed with
NAMES_APART = 0.75  # points of accuracy between two names in a column


def ratios(records: Sequence[Record]) -> Figure:
    """Draw how many times as fast as the reference each arm is: median, interval and aim.

    Where some timings have aims, only those are drawn; the others are in the table.
    """
    rows = [row for row in evidence.rows(records) if row["ratio"] is not None]
    aimed = {_input(row) for row in evidence.rows(records) if row["aim"] is not None}
    shown = [row for row in rows if _input(row) in aimed] or rows
    groups = [list(group) for _, group in groupby(shown, key=_input)]
    with plt.style.context(str(STYLE)):
        height = 0.75 + LINE_IN * len(groups) + ARM_IN * len(shown)
        figure, axes = plt.subplots(figsize=(COLUMN_IN, height))
        places, place = [], 0.0
        for group in groups:
            places.append(place + (len(group) - 1) / 2)
            for row in group:
                _ratio(axes, row, place)
                place += 1
            place += LINE_IN / ARM_IN
        axes.axvline(1.0, color=COLORS["reference"], linewidth=1.0)
        axes.set_yticks(places, [_label(group[0]) for group in groups])
        axes.set_ylim(place - LINE_IN / ARM_IN, -1)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("times as fast as the reference")
        _legend(figure, axes)
        return figure


def _input(row: Row) -> tuple[Any, ...]:
    return (row["network"], row["task"], row["image_size"], row["batch_size"], _precision(row))


def _precision(row: Row) -> str:
    return row["timed_precision"]


def _label(row: Row) -> str:
    name = short_name(row["network"].replace("pose_hrnet_", "pose "))
    small = ", bf16" if _precision(row) == "bfloat16" else ""
    return f"{name} {row['task']}\n{row['image_size']}, batch {row['batch_size']}{small}"


def _ratio(axes: Axes, row: Row, place: float) -> None:
    low = row["ratio"] if row["ratio_low"] is None else row["ratio_low"]
    high = row["ratio"] if row["ratio_high"] is None else row["ratio_high"]
    axes.errorbar(
        row["ratio"],
        place,
        xerr=[[row["ratio"] - low], [high - row["ratio"]]],
        marker=ARM_MARKERS[row["arm"]],
        markersize=3.4,
        color=ARM_COLORS[row["arm"]],
        linestyle="none",
        linewidth=0.9,
        elinewidth=0.9,
        capsize=1.5,
        label=row["arm"],
    )
    if row["aim"] is not None:
        axes.plot(row["aim"], place, "|", color=DARK, markersize=8, markeredgewidth=1.6)


def _legend(figure: Figure, axes: Axes) -> None:
    """Name each arm once, above the axes."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(
        list(once.values()),
        list(once),
        loc="outside upper center",
        ncols=4,
        columnspacing=1.0,
        handletextpad=0.3,
    )


def roofline(record: Record) -> Figure:
    """Draw rates of layers and of whole networks below what the machine was measured to do."""
    with plt.style.context(str(STYLE)):
        figure, axes = plt.subplots(figsize=(COLUMN_IN, 2.7))
        roof, stream = evidence.roof(record), evidence.bandwidth(record)
        layers = [row for row in record["tables"]["roofline"] if row["kind"] == "layer"]
        networks = [row for row in record["tables"]["roofline"] if row["kind"] == "network"]
        dense = [row for row in record["tables"]["limits"] if row["intensity"] is not None]
        reach = [row["intensity"] for row in (*layers, *networks, *dense)]
        x = numpy.geomspace(min(reach) / 1.6, max(reach) * 1.6, 200)
        if roof and stream:
            axes.plot(x, numpy.minimum(roof, stream * x), color=DARK, label="limits")
        _dense(axes, record)
        total = sum(row["ms"] for row in layers) or 1.0
        axes.scatter(
            [row["intensity"] for row in layers],
            [row["gflops"] for row in layers],
            s=[4 + 400 * row["ms"] / total for row in layers],
            color=COLORS["reproduction"],
            alpha=0.35,
            linewidth=0,
            label="layers",
        )
        for row in networks:
            _network(axes, row)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations a byte that must be moved")
        axes.set_ylabel("10$^9$ operations a second")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, columnspacing=1.0)
        return figure


def _dense(axes: Axes, record: Record) -> None:
    """Draw the dense convolutions that the roof was measured with."""
    rows = [row for row in record["tables"]["limits"] if row["gflops"] is not None]
    own = [row for row in rows if row["precision"] == "float32"]
    axes.plot(
        [row["intensity"] for row in own],
        [row["gflops"] for row in own],
        "x",
        markersize=3,
        color=DARK,
        label="dense",
    )


def _network(axes: Axes, row: Row) -> None:
    axes.plot(
        row["intensity"],
        row["gflops"],
        linestyle="none",
        marker=ARM_MARKERS[row["arm"]],
        color=ARM_COLORS[row["arm"]],
        markeredgecolor="white",
        markeredgewidth=0.4,
        markersize=5,
        label=row["arm"],
    )


def latency_accuracy(records: Sequence[Record]) -> Figure:
    """Draw latency of one image against counted cost, and published accuracy against latency."""
    ordered = sorted(records, key=lambda record: record["subject"]["convolution_gmacs"])
    with plt.style.context(str(STYLE)):
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(COLUMN_IN, 3.8))
        for arm in CURVE:
            points = [
                (record["subject"], row["ms"])
                for record in ordered
                for row in record["tables"]["speed"]
                if row["arm"] == arm and _is_drawn(row)
            ]
            _curve(top, bottom, arm, points)
        for axes, x, y in (
            (top, "cost at 224 pixels (10$^9$ multiply-accumulates)", "latency (ms)"),
            (bottom, "latency of one image (ms)", "published ImageNet top-1 (%)"),
        ):
            axes.set_xscale("log")
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.xaxis.set_minor_formatter(NullFormatter())
        top.set_yscale("log")
        top.yaxis.set_minor_formatter(NullFormatter())
        _name_networks(bottom, ordered)
        top.legend(loc="upper left")
        return figure


def _curve(top: Axes, bottom: Axes, arm: str, points: list[tuple[Row, float]]) -> None:
    look: dict[str, Any] = {
        "marker": ARM_MARKERS[arm],
        "color": ARM_COLORS[arm],
        "linewidth": 0.8,
        "label": arm,
    }
    latency = [ms for _, ms in points]
    top.plot([about["convolution_gmacs"] for about, _ in points], latency, **look)
    accuracy = [100 - float(about["published_top1_error"]) for about, _ in points]
    bottom.plot(latency, accuracy, **look)


def _name_networks(axes: Axes, records: Sequence[Record]) -> None:
    """Name each network in a column on the right, with a line to the slowest arm drawn."""
    points = sorted(
        (
            100 - float(record["subject"]["published_top1_error"]),
            max(ms),
            short_name(record["subject"]["network"]),
        )
        for record in records
        if (ms := [r["ms"] for r in record["tables"]["speed"] if _is_drawn(r)])
    )
    if not points:
        return
    column, place = 1.6 * max(slowest for _, slowest, _ in points), math.inf
    for accuracy, slowest, name in reversed(points):
        place = min(accuracy, place - NAMES_APART)
        axes.annotate(
            name,
            (slowest, accuracy),
            xytext=(column, place),
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": DARK, "shrinkB": 3},
        )
    axes.set_xlim(right=4 * column)
    axes.margins(y=0.08)


def _is_drawn(row: Row) -> bool:
    return row["arm"] in CURVE and row["status"] == "ran"
