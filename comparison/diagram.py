"""The network as a picture, drawn from its configuration: streams as lanes, the finest on top.

A slab is a residual unit; it shrinks with the resolution of its stream and darkens with the width.
Crossing lines are exchange units (TPAMI'20, figure 2).
"""

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

from reproduction import NetworkConfig

STREAMS = 4
INK, SOFT = "#3c4043", "#9aa0a6"
FILLS = ("#dbe7f5", "#b5cdea", "#8db2de", "#6695ce")
STAGE1_FILL, HEAD_FILL = "#ececec", "#f6d9b8"
HEIGHTS = (0.62, 0.48, 0.36, 0.26)
SLAB, GAP, CROSSING = 0.16, 0.07, 0.62
RESAMPLED_UP: Any = (0, (2.4, 1.2))
RESAMPLED_DOWN: Any = "solid"
SIZE_IN = (6.94, 2.5)
LABEL_PT = 7.5
MARGIN_LEFT, MARGIN_RIGHT = 0.07, 0.1  # shares of the drawing's width that the words take


@dataclass
class _Pen:
    """Where the next part begins, on which axes."""

    axes: Axes
    x: float = 0.0


def network_diagram(config: NetworkConfig) -> Figure:
    """Draw a network of the family from its configuration.

    Args:
        config: Which network.

    Returns:
        The figure, as wide as the report's page.
    """
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    pen = _Pen(axes)
    _stem(pen)
    stages = [_stage1(pen, config)]
    for stage, blocks in enumerate(config.exchange_blocks, start=2):
        stages.append(_stage(pen, config, stage, blocks))
    _head(pen)
    _name_stages(axes, stages)
    _name_ends(axes, config, pen.x)
    _legend(axes)
    axes.set_xlim(-MARGIN_LEFT * pen.x, (1 + MARGIN_RIGHT) * pen.x)
    axes.set_ylim(-STREAMS + 0.7, 0.95)
    return figure


def _lane(stream: int) -> float:
    return -float(stream)


def _slab(axes: Axes, x: float, y: float, height: float, fill: str, hatch: str = "") -> None:
    style: dict[str, Any] = {"facecolor": fill, "edgecolor": INK, "linewidth": 0.6}
    axes.add_patch(Rectangle((x, y - height / 2), SLAB, height, **style, hatch=hatch, zorder=3))


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], style: Any = "solid"
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>,head_length=1.8,head_width=1.0",
            linestyle=style,
            color=INK,
            linewidth=0.55,
            shrinkA=0,
            shrinkB=0,
            zorder=2,
        )
    )


def _stem(pen: _Pen) -> None:
    """Draw the two strided convolutions."""
    for height in (0.88, 0.75):
        _slab(pen.axes, pen.x, 0.0, height, "white", hatch="//////")
        pen.x += SLAB + GAP
    pen.x -= GAP
    _arrow(pen.axes, (pen.x, 0.0), (pen.x + 0.25, 0.0))
    pen.x += 0.25


def _units(pen: _Pen, streams: int, count: int, fills: tuple[str, ...]) -> None:
    """Draw a row of residual units on every stream."""
    width = count * SLAB + (count - 1) * GAP
    for stream in range(streams):
        y = _lane(stream)
        pen.axes.plot([pen.x, pen.x + width], [y, y], color=INK, linewidth=0.55, zorder=1)
        for index in range(count):
            _slab(pen.axes, pen.x + index * (SLAB + GAP), y, HEIGHTS[stream], fills[stream])
    pen.x += width


def _stage1(pen: _Pen, config: NetworkConfig) -> tuple[float, float]:
    start = pen.x
    _units(pen, 1, config.stage1_blocks, (STAGE1_FILL,))
    return start, pen.x


def _stage(pen: _Pen, config: NetworkConfig, stage: int, blocks: int) -> tuple[float, float]:
    """Draw the transition into a stage, where its coarsest stream is born, then the stage."""
    born = stage - 1
    for stream in range(born):
        _arrow(pen.axes, (pen.x, _lane(stream)), (pen.x + CROSSING, _lane(stream)))
    _arrow(pen.axes, (pen.x, _lane(born - 1)), (pen.x + CROSSING, _lane(born)))
    pen.x += CROSSING
    start = pen.x
    for _ in range(blocks):
        _units(pen, stage, config.residual_units, FILLS)
        _exchange(pen, stage)
    return start, pen.x


def _exchange(pen: _Pen, streams: int) -> None:
    """Draw an exchange unit: every stream to every stream."""
    for source in range(streams):
        for target in range(streams):
            style = RESAMPLED_UP if source > target else RESAMPLED_DOWN
            _arrow(pen.axes, (pen.x, _lane(source)), (pen.x + CROSSING, _lane(target)), style)
    pen.x += CROSSING


def _head(pen: _Pen) -> None:
    """Draw the head: streams widened, then gathered from fine to coarse."""
    middle = pen.x + SLAB / 2
    for stream in range(STREAMS):
        y, half = _lane(stream), HEIGHTS[stream] / 2
        _slab(pen.axes, pen.x, y, 2 * half, HEAD_FILL)
        if stream:
            above = _lane(stream - 1) - HEIGHTS[stream - 1] / 2
            _arrow(pen.axes, (middle, above), (middle, y + half))
    pen.x += SLAB


def _name_stages(axes: Axes, stages: list[tuple[float, float]]) -> None:
    axes.text(SLAB, 0.68, "stem", ha="center", fontsize=LABEL_PT)
    for number, (start, end) in enumerate(stages, start=1):
        axes.text((start + end) / 2, 0.68, f"stage {number}", ha="center", fontsize=LABEL_PT)
        axes.plot([start, end], [0.58, 0.58], color=SOFT, linewidth=0.8)


def _name_ends(axes: Axes, config: NetworkConfig, width: float) -> None:
    """Name the input on the left; width and scale of each stream, and the output, on the right."""
    axes.text(-MARGIN_LEFT * width, 0.0, "image", va="center", fontsize=LABEL_PT)
    _arrow(axes, (-0.021 * width, 0.0), (-0.002 * width, 0.0))
    right = 1.012 * width
    for stream, channels in enumerate(config.stream_widths(STREAMS)):
        text = f"{channels} ch., 1/{4 * 2**stream}"
        axes.text(right, _lane(stream), text, va="center", fontsize=LABEL_PT)
    bottom = _lane(STREAMS - 1)
    middle = width - SLAB / 2
    _arrow(axes, (middle, bottom - HEIGHTS[-1] / 2), (middle, bottom - 0.3))
    axes.text(right, bottom - 0.27, "to classes", va="center", fontsize=LABEL_PT)


def _legend(axes: Axes) -> None:
    """Explain slabs and lines in the corner that the late streams leave free."""
    line: dict[str, Any] = {"color": INK, "linewidth": 0.7}
    entries = [
        (Patch(facecolor="white", edgecolor=INK, hatch="//////"), "strided convolution"),
        (Patch(facecolor=STAGE1_FILL, edgecolor=INK), "bottleneck unit"),
        (Patch(facecolor=FILLS[1], edgecolor=INK), "basic residual unit"),
        (Patch(facecolor=HEAD_FILL, edgecolor=INK), "head: bottleneck unit"),
        (Line2D([], [], linestyle=RESAMPLED_DOWN, **line), "identity or strided convolutions"),
        (Line2D([], [], linestyle=RESAMPLED_UP, **line), "convolution and upsampling"),
    ]
    handles, names = zip(*entries, strict=True)
    axes.legend(
        handles,
        names,
        loc="lower left",
        fontsize=LABEL_PT,
        bbox_to_anchor=(0.0, -0.02),
        handlelength=1.8,
        labelspacing=0.35,
        borderpad=0.0,
    )
