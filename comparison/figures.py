"""Records as figures: pure functions from records to a matplotlib figure, and one that saves.

Paper is gray, the reference blue, the reproduction orange, always in that order; markers and line
styles tell them apart without color. Saved files have stable bytes and name the runs they show.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison import closeness, diagram, evidence, statistics
from comparison.looks import COLORS, COLUMN_IN, DASHES, MARKERS, WIDTHS
from comparison.products import ENDINGS
from comparison.study import ARMS
from reproduction import NetworkConfig
from reproduction.durable import whole

STYLE = Path(__file__).with_name("study.mplstyle")
FEW_POINTS = 40
COST_RANGE = (0.95, 40)  # holds all nine networks, so that studies of fewer look alike
Record = dict[str, Any]
P = ParamSpec("P")


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the study's style, whatever the caller's settings are."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        # Load the backend outside: inside, a notebook's would lose that it is interactive, and
        # show the first figure only.
        plt.draw_if_interactive()
        with plt.style.context(str(STYLE)):
            return draw(*args, **kwargs)

    return styled


@_styled
def network_diagram(config: NetworkConfig) -> Figure:
    """Draw a network from its configuration; see `comparison.diagram`."""
    return diagram.network_diagram(config)


@_styled
def error_by_layer(record: Record) -> Figure:
    """Draw the error of every layer against depth; see `comparison.closeness`."""
    return closeness.error_by_layer(record)


@_styled
def noise_floor(record: Record) -> Figure:
    """Draw how large rounding is in every mode; see `comparison.closeness`."""
    return closeness.noise_floor(record)


@_styled
def divergence(record: Record) -> Figure:
    """Draw how far the two sides part over optimizer steps; see `comparison.closeness`."""
    return closeness.divergence(record)


@_styled
def training_curves(records: Sequence[Record]) -> Figure:
    """Draw training loss and test accuracy of every training run against epochs."""
    import seaborn  # takes half a second to import, and no other figure needs it

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(COLUMN_IN, 3.1), sharex=True)
    losses, epochs = _curves(records)
    arms = [arm for arm in ARMS if arm in set(epochs["arm"])]
    look: dict[str, Any] = {
        "hue": "arm",
        "hue_order": arms,
        "style": "arm",
        "style_order": arms,
        "palette": COLORS,
        "units": "run",
        "estimator": None,
        "size": "arm",
        "sizes": WIDTHS,
    }
    dots = MARKERS if len(losses) <= FEW_POINTS * len(records) else False
    seaborn.lineplot(losses, x="epoch", y="loss", dashes=DASHES, markers=dots, ax=top, **look)
    seaborn.lineplot(
        epochs, x="epoch", y="top1", dashes=DASHES, markers=MARKERS, ax=bottom, legend=False, **look
    )
    top.legend(title=None, loc="upper right")
    top.set_ylabel("training loss (nats)")
    bottom.set_ylabel("test top-1 (%)")
    bottom.set_xlabel("epoch")
    bottom.set_xlim(0, 1.03 * epochs["epoch"].max())
    bottom.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _curves(records: Sequence[Record]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return losses within epochs and accuracies after epochs, one row a point."""
    losses, epochs = [], []
    for record in records:
        run = {"arm": record["subject"]["arm"], "run": record["run_id"]}
        history = record["tables"]["epochs"]
        for row in record["tables"]["losses"]:
            place = row["step"] / history[0]["steps"]
            losses.append({**run, "epoch": place, "loss": row["train_loss"]})
        epochs += [{**run, "epoch": row["epoch"], "top1": row["test_top1"]} for row in history]
    columns = ["arm", "run", "epoch"]
    return (
        pd.DataFrame(losses, columns=[*columns, "loss"]),
        pd.DataFrame(epochs, columns=[*columns, "top1"]),
    )


@_styled
def accuracy_intervals(records: Sequence[Record]) -> Figure:
    """Draw accuracies with 95 % intervals, and the difference against the margin."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(COLUMN_IN, 2.5), height_ratios=(1.6, 1))
    samples = evidence.accuracies(records)
    present = [arm for arm in ARMS if samples[arm]]
    for place, arm in enumerate(present):
        _sample(top, place, arm, samples[arm])
    top.set_yticks(range(len(present)), present)
    top.set_ylim(len(present) - 0.5, -0.5)
    top.set_xlabel("test top-1 after the last epoch (%)")
    test = evidence.accuracy_test(records)
    if test:
        _difference(bottom, test)
    else:
        bottom.set_axis_off()
        bottom.text(0.5, 0.5, "difference: not run", ha="center", transform=bottom.transAxes)
    return figure


def _sample(axes: Axes, place: int, arm: str, values: Sequence[float]) -> None:
    axes.plot(
        values,
        numpy.full(len(values), place + 0.22),
        linestyle="none",
        marker=MARKERS[arm],
        markersize=3,
        markerfacecolor="none",
        color=COLORS[arm],
    )
    _interval(axes, statistics.mean_interval(values), place - 0.12, arm)


def _interval(axes: Axes, interval: statistics.Interval, place: float, arm: str) -> None:
    """Draw an estimate with its interval as a horizontal bar."""
    low = interval.value if interval.low is None else interval.low
    high = interval.value if interval.high is None else interval.high
    axes.errorbar(
        interval.value,
        place,
        xerr=[[interval.value - low], [high - interval.value]],
        marker=MARKERS[arm],
        color=COLORS[arm],
        linewidth=1.2,
    )


def _difference(axes: Axes, test: statistics.Equivalence) -> None:
    axes.axvspan(-test.margin, test.margin, color="#e8eaed", zorder=0)
    for edge in (-test.margin, test.margin):
        axes.axvline(edge, color=COLORS["paper"], linewidth=0.8, linestyle=":")
    axes.axvline(0.0, color=COLORS["paper"], linewidth=0.8)
    interval = statistics.Interval(value=test.difference, low=test.low, high=test.high)
    _interval(axes, interval, 0.0, "reproduction")
    reach = 1.15 * max(test.margin, abs(test.low or 0.0), abs(test.high or 0.0))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-0.6, 0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("difference and 90 % interval (points; shaded: margin)")


@_styled
def cost_accuracy(records: Sequence[Record]) -> Figure:
    """Draw published accuracy against cost: as published, and as counted in the reproduction."""
    figure, axes = plt.subplots(figsize=(COLUMN_IN, 2.4))
    points = sorted(evidence.costs_and_accuracies(records), key=lambda point: point.counted)
    accuracies = [point.accuracy for point in points]
    printed: dict[str, Any] = {
        "marker": MARKERS["paper"],
        "color": COLORS["paper"],
        "label": "paper",
    }
    axes.plot([point.printed for point in points], accuracies, **printed, linewidth=0.8)
    axes.plot(
        [point.counted for point in points],
        accuracies,
        linestyle="none",
        marker=MARKERS["reproduction"],
        markersize=6.5,
        markerfacecolor="none",
        color=COLORS["reproduction"],
        label="reproduction (cost only)",
    )
    for index, point in enumerate(points):
        _name_point(axes, point, above=index % 2 == 1)
    axes.set_xscale("log")
    axes.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
    axes.minorticks_off()
    axes.set_xlim(*COST_RANGE)
    axes.margins(y=0.14)
    axes.set_xlabel("cost at 224 pixels (2$^{30}$ multiply-accumulates)")
    axes.set_ylabel("published ImageNet top-1 (%)")
    axes.legend(loc="lower right")
    return figure


def _name_point(axes: Axes, point: evidence.CostPoint, above: bool) -> None:
    note = axes.annotate(
        point.name,
        (point.counted, point.accuracy),
        xytext=(-3, 5) if above else (4, -5),
        textcoords="offset points",
        ha="right" if above else "left",
        va="bottom" if above else "top",
        fontsize=7,
    )
    note.set_in_layout(False)  # else the axes shrink for a name that stays within them


def save(figure: Figure, folder: Path, name: str, shown: Sequence[Record]) -> list[Path]:
    """Save a figure as SVG and PNG, with stable bytes.

    Args:
        figure: What to save.
        folder: Where.
        name: Name without ending.
        shown: The records it shows; run ids and commits go into the files' metadata.

    Returns:
        The two files.
    """
    about = source_of(shown)
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": None, "Title": name, "Description": about},
        "png": {"Software": None, "Title": name, "Description": about},
    }
    paths = [folder / f"{name}.{ending}" for ending in ENDINGS]
    with plt.style.context(str(STYLE)):
        for path in paths:
            ending = path.suffix[1:]
            with whole(path) as partial:
                figure.savefig(partial, format=ending, metadata=metadata[ending])
    return paths


def source_of(shown: Sequence[Record]) -> str:
    """Name the records and commits that a figure shows, in one line."""
    if not shown:
        return "drawn from the network's configuration"
    runs = ", ".join(f"{record['case']}/{record['run_id']}" for record in shown)
    commits = ", ".join(sorted({record["provenance"]["commit"][:12] for record in shown}))
    return f"runs: {runs}; commits: {commits}"
