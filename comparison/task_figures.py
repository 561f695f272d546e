"""Predictions of dense tasks as pictures, from what the records keep of them."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import ImageColor

from comparison.looks import COLUMN_IN
from comparison.snapshots import unpack, unpack_image
from comparison.study import ARMS

BACKGROUND = (30, 30, 30)
COLORS = [BACKGROUND, *(ImageColor.getrgb(f"hsl({36 * digit}, 65%, 50%)") for digit in range(10))]
PALETTE = np.array(COLORS, dtype=np.uint8)
DOTS = ("o", "s", "<", ">", "D")  # top, bottom, left, right, center
EXAMPLES, FEW_TASKS = 2, 2  # with more tasks, one example of each
STRIDE = 4
Record = dict[str, Any]
Row = dict[str, Any]


def predictions(records: Sequence[Record]) -> Figure:
    """Draw test images, what is true, and what each arm sees, one row an example.

    Args:
        records: Of one seed, with snapshots; the panel of an arm that is missing says so.
    """
    shown = _by_task(records)
    count = EXAMPLES if len(shown) <= FEW_TASKS else 1
    rows = [(task, index) for task in shown for index in range(count)]
    columns = ("image", "truth", *ARMS)
    size = (COLUMN_IN, COLUMN_IN / len(columns) * max(len(rows), 1) + 0.15)
    figure, grid = plt.subplots(len(rows) or 1, len(columns), figsize=size, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (task, index) in zip(grid, rows, strict=False):
        found = {arm: snapshots[index] for arm, snapshots in shown[task].items()}
        any_arm = next(iter(found.values()))
        _image(line[0], any_arm)
        line[0].text(
            -0.06,
            0.5,
            task,
            rotation=90,
            va="center",
            ha="right",
            fontsize=7,
            transform=line[0].transAxes,
        )
        _panel(line[1], any_arm, "")
        for axes, arm in zip(line[2:], ARMS, strict=True):
            if arm in found:
                _panel(axes, found[arm], "predicted_")
            else:
                axes.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=7)
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, fontsize=7.5, pad=3)
    figure.subplots_adjust(left=0.07, right=0.995, bottom=0.01, top=0.94, wspace=0.04, hspace=0.04)
    return figure


def _by_task(records: Sequence[Record]) -> dict[str, dict[str, list[Row]]]:
    """Return the snapshots by task and arm."""
    found: dict[str, dict[str, list[Row]]] = {}
    for record in records:
        if rows := record["tables"].get("snapshots"):
            subject = record["subject"]
            found.setdefault(subject["task"], {})[subject["arm"]] = rows
    return found


def _image(axes: Axes, row: Row) -> None:
    axes.imshow(unpack_image(row["image"]), interpolation="nearest")


def _panel(axes: Axes, row: Row, which: str) -> None:
    """Draw a label map, boxes, or keypoints on the image; the network's lie on its heatmaps."""
    if "labels" in row:
        axes.imshow(PALETTE[unpack(row[f"{which}labels"])], interpolation="nearest")
        return
    image = unpack_image(row["image"])
    if "boxes" in row:
        axes.imshow(image, interpolation="nearest")
        for box in row[f"{which}boxes"]:
            _box(axes, *box)
        return
    if which:
        heat = unpack(row["heatmap"]).repeat(STRIDE, 0).repeat(STRIDE, 1)[..., None] / 255
        image = (0.45 * image * (1 - heat) + heat * np.array([255, 210, 80])).astype(np.uint8)
    axes.imshow(image, interpolation="nearest")
    for (x, y), marker in zip(row[f"{which}keypoints"], DOTS, strict=True):
        axes.plot(
            x,
            y,
            marker=marker,
            markersize=3,
            color="white",
            markeredgecolor="black",
            markeredgewidth=0.5,
            clip_on=True,
        )
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)


def _box(axes: Axes, left: float, top: float, width: float, height: float, digit: int) -> None:
    """Draw a box in the color of its digit, which stands in its corner."""
    color = tuple(value / 255 for value in COLORS[digit + 1])
    # Pixel centers are whole numbers in a picture; in a box, pixel edges are.
    corner = (left - 0.5, top - 0.5)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=color, linewidth=0.9))
    axes.text(left + 0.5, top, str(digit), color="white", fontsize=5, va="top").set_path_effects(
        [withStroke(linewidth=1.2, foreground=color)]
    )
