"""The trial of the checker as a figure: what it and other tools flag, and how far off it names."""

from collections import Counter
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison.figures import COLORS, COLUMN_IN, STYLE
from comparison.mutation.baselines import OURS

Record = dict[str, Any]
FAR = 4  # from here on, distances share one bar


def scoreboard(record: Record) -> Figure:
    """Draw detection and false alarms of every policy, and the distance of the named place."""
    with plt.style.context(str(STYLE)):
        rows = sorted(record["tables"]["baselines"], key=lambda row: row["policy"] != OURS)
        height = 0.5 + 0.2 * len(rows)
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=(COLUMN_IN, height + 1.6), height_ratios=(height, 0.8)
        )
        _policies(top, rows)
        _distances(bottom, record["tables"]["trials"])
        handles, labels = top.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, columnspacing=1.0)
        return figure


def _policies(axes: Axes, rows: list[Record]) -> None:
    looks = (
        ("detection", "faults flagged", "s", COLORS["reference"], -0.14),
        ("alarm", "alarms on harmless", "^", COLORS["reproduction"], 0.14),
    )
    for column, label, marker, color, shift in looks:
        share = "detection" if column == "detection" else "alarm_rate"
        values = [100 * row[share] for row in rows]
        low = [100 * (row[share] - row[f"{column}_low"]) for row in rows]
        high = [100 * (row[f"{column}_high"] - row[share]) for row in rows]
        places = [place + shift for place in range(len(rows))]
        axes.errorbar(
            values,
            places,
            xerr=[low, high],
            linestyle="none",
            marker=marker,
            markersize=3,
            color=color,
            elinewidth=1.0,
            clip_on=False,
            label=label,
        )
    names = [row["policy"].partition(",")[0] for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share and 95 % interval (%)")


def _distances(axes: Axes, trials: list[Record]) -> None:
    counts: Counter[str] = Counter()
    for row in (r for r in trials if r["kind"] == "fault" and r["caught"]):
        hops = row["hops"]
        counts["unknown" if hops is None else str(hops) if hops < FAR else f"≥ {FAR}"] += 1
    names = [*(str(hops) for hops in range(FAR)), f"≥ {FAR}", "unknown"]
    bars = axes.bar(names, [counts[name] for name in names], color=COLORS["paper"], width=0.6)
    axes.bar_label(bars, fontsize=7)
    axes.margins(y=0.25)
    axes.grid(visible=False)
    axes.set_xlabel("operations between the named and the true place")
    axes.set_ylabel("faults caught")
