"""How the study's jobs scale, as a figure: what was measured, and what is simulated beyond."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison import scaling
from comparison.evidence import Record
from comparison.figures import STYLE
from comparison.looks import COLORS, COLUMN_IN, DARK


def speedup(records: Sequence[Record]) -> Figure:
    """Draw the speed-up of many jobs over the number of workers, and where it was measured."""
    with plt.style.context(str(STYLE)):
        figure, axes = plt.subplots(figsize=(COLUMN_IN, 2.4))
        rows, runs = scaling.simulated(records), scaling.measured_runs(records)
        workers = [row["workers"] for row in rows]
        axes.plot(workers, workers, ":", color=COLORS["paper"], linewidth=0.9, label="ideal")
        axes.plot(
            workers,
            [row["speedup"] for row in rows],
            marker="o",
            markersize=3,
            color=COLORS["reproduction"],
            label=f"{scaling.MANY} jobs, simulated",
        )
        if runs:
            few = [(run["workers"], runs[0]["measured_s"] / run["measured_s"]) for run in runs]
            _measured(axes, few, "x", f"{runs[0]['jobs']} jobs, measured")
        if whole := scaling.as_it_ran(records):
            reached = whole["job_s"] / whole["measured_s"]
            _measured(axes, [(whole["workers"], reached)], "+", "this study, as it ran")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(workers, [str(count) for count in workers])
        axes.set_yticks(workers, [str(count) for count in workers])
        axes.minorticks_off()
        axes.set_xlabel("jobs at once")
        axes.set_ylabel("speed-up over one at a time")
        axes.legend(loc="upper left")
        return figure


def _measured(axes: Axes, points: Sequence[tuple[int, float]], marker: str, label: str) -> None:
    places, values = zip(*points, strict=True)
    look: dict[str, Any] = {"marker": marker, "markersize": 6, "color": DARK, "linestyle": "none"}
    axes.plot(places, values, label=label, **look)
