"""Compose one scene: real digits at random places, scales and rotations on a textured canvas.

All arithmetic is on whole numbers, so that a seed gives the same bytes everywhere. A digit is an
8 x 8 scan with levels 0 to 16. Its frame has the axes u (to its right) and v (downwards); the
image shows them turned clockwise by the digit's angle. Between cells, levels are interpolated
bilinearly. Labels follow from the levels alone:

- **Ink** are the pixels with a level of at least 8. They carry the digit's label; paler ones are
  the rim, which colors the image and belongs to the background. No two digits share a pixel, rims
  included, and all ink lies in the image.
- **Keypoints** are five ink pixels: ``top`` and ``bottom`` with the smallest and largest v,
  ``left`` and ``right`` with the smallest and largest u, and ``center``, the one nearest to the
  mean of all. Of several, the first in reading order counts.
- **Boxes** are the least upright ones that hold all ink: left, top, width and height.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

KEYPOINTS = ("top", "bottom", "left", "right", "center")
DIGITS_PER_SCENE = (2, 4)
MAX_ANGLE_DEG = 30
CELL_SIZES = (32, 52)  # sixteenths of a pixel for a cell of the scan: digits of 16 to 26 px
DIGIT_TRIES = 8  # digits drawn for a scene at most; one that finds no room is left out
PLACEMENT_TRIES = 200

SCAN_CELLS = 8
FULL_LEVEL = 16
INK_LEVEL = 8
TURN_ONE = 4096  # the sine of a right angle
CELL_ONE = 256  # steps from one cell to the next
LEVEL_ONE = CELL_ONE**2

TEXTURE_CELL_PX = 16
TEXTURE_TONES = (70, 160)
TEXTURE_NOISE = 10
INK_TONES = ((190, 256), (0, 40))  # bright or dark


class Pose(NamedTuple):
    """Where and how large a digit is drawn.

    Attributes:
        center_xy: Image pixel of the scan's center.
        cell: Size of one cell of the scan in sixteenths of a pixel.
        angle_deg: Clockwise turn.
    """

    center_xy: tuple[int, int]
    cell: int
    angle_deg: int


@dataclass(frozen=True)
class Scene:
    """An image with its labels; digits in the order of their drawing.

    Attributes:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8: 0 is background, ``d + 1`` the digit d.
        instances: (H, W) uint8: 0 is background, ``i + 1`` the i-th digit drawn.
        digits: (D,) int64, 0 to 9.
        sources: (D,) int64, which scan each digit is.
        keypoints_xy: (D, 5, 2) int64, pixels in the order of KEYPOINTS.
        boxes_xywh: (D, 4) int64.
    """

    image: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    digits: np.ndarray
    sources: np.ndarray
    keypoints_xy: np.ndarray
    boxes_xywh: np.ndarray


def digit_axes(pose: Pose, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's place along the digit's axes.

    Args:
        pose: Of the digit.
        size: Height and width of the image.

    Returns:
        u and v, (size, size) int64, in 1/4096 px from the digit's center.

    >>> u, v = digit_axes(Pose((1, 1), 48, 0), 3)
    >>> (u // TURN_ONE)[1].tolist(), (v // TURN_ONE)[:, 1].tolist()
    ([-1, 0, 1], [-1, 0, 1])
    """
    angle = np.deg2rad(pose.angle_deg)
    cos, sin = round(TURN_ONE * np.cos(angle)), round(TURN_ONE * np.sin(angle))
    rows, columns = np.mgrid[:size, :size]
    dx, dy = columns - pose.center_xy[0], rows - pose.center_xy[1]
    return dx * cos + dy * sin, dy * cos - dx * sin


def draw_levels(scan: np.ndarray, pose: Pose, size: int) -> np.ndarray:
    """Draw a scan onto an empty canvas.

    Args:
        scan: (8, 8) with levels 0 to 16.
        pose: Of the digit.
        size: Height and width of the canvas.

    Returns:
        (size, size) int64, levels in 1/65536.

    >>> levels = draw_levels(np.full((8, 8), 16), Pose((20, 20), 48, 0), 40)
    >>> levels[20, [8, 20]].tolist() == [8 * LEVEL_ONE, 16 * LEVEL_ONE]
    True
    """
    u, v = digit_axes(pose, size)
    middle = (SCAN_CELLS - 1) * CELL_ONE // 2
    # A 1/4096 px of a cell of `cell` 1/16 px is 1/256 of it.
    column, row = u // pose.cell + middle, v // pose.cell + middle
    # Two empty cells on every side: what lies beyond them takes both its neighbors from there.
    i, j = (np.clip(place // CELL_ONE, -2, SCAN_CELLS) + 2 for place in (row, column))
    below, right = row % CELL_ONE, column % CELL_ONE
    cells = np.pad(scan.astype(np.int64), 2)
    upper = cells[i, j] * (CELL_ONE - right) + cells[i, j + 1] * right
    lower = cells[i + 1, j] * (CELL_ONE - right) + cells[i + 1, j + 1] * right
    return upper * (CELL_ONE - below) + lower * below


def find_keypoints(ink: np.ndarray, pose: Pose) -> np.ndarray:
    """Return the five keypoints of a digit: pixels (5, 2) in the order of KEYPOINTS.

    Args:
        ink: (size, size) bool, not empty.
        pose: Of the digit.

    >>> ink = np.zeros((5, 5), bool)
    >>> ink[1, 2] = ink[2, 1:4] = True
    >>> find_keypoints(ink, Pose((2, 2), 48, 0)).tolist()
    [[2, 1], [1, 2], [1, 2], [3, 2], [2, 2]]
    """
    u, v = (axis[ink] for axis in digit_axes(pose, len(ink)))
    points_xy = np.argwhere(ink)[:, ::-1]
    # Times their number, so that their mean is whole.
    from_mean = len(points_xy) * points_xy - points_xy.sum(axis=0)
    nearest = (from_mean**2).sum(axis=1).argmin()
    return points_xy[[v.argmin(), v.argmax(), u.argmin(), u.argmax(), nearest]]


def find_box(ink: np.ndarray) -> np.ndarray:
    """Return left, top, width and height of the ink.

    >>> find_box(np.array([[False, False, False], [False, True, True]])).tolist()
    [1, 1, 2, 1]
    """
    points_xy = np.argwhere(ink)[:, ::-1]
    first, last = points_xy.min(axis=0), points_xy.max(axis=0)
    return np.concatenate([first, last - first + 1])


def compose_scene(
    scans: np.ndarray, digits: np.ndarray, pool: np.ndarray, size: int, rng: np.random.Generator
) -> Scene:
    """Compose a scene of two to four digits; fewer where none that was drawn finds room.

    Args:
        scans: (N, 8, 8) with levels 0 to 16.
        digits: (N,) which digit each scan is.
        pool: Indices of the scans that may be used.
        size: Height and width of the image.
        rng: All that the scene depends on besides.
    """
    image = draw_texture(size, rng)
    labels, instances = np.zeros((2, size, size), dtype=np.uint8)
    taken = np.zeros((size, size), dtype=bool)
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    wanted = rng.integers(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1)
    for _ in range(DIGIT_TRIES):
        if len(found) == wanted:
            break
        source = int(rng.choice(pool))
        placed = _place(scans[source], taken, rng)
        if placed is None:
            continue
        pose, levels = placed
        taken |= levels > 0
        ink = levels >= INK_LEVEL * LEVEL_ONE
        labels[ink], instances[ink] = digits[source] + 1, len(found) + 1
        image = _blend(image, levels, rng)
        found.append((source, find_keypoints(ink, pose), find_box(ink)))
    sources, keypoints, boxes = zip(*found, strict=True)
    used = np.array(sources, dtype=np.int64)
    return Scene(
        image=image.astype(np.uint8),
        labels=labels,
        instances=instances,
        digits=digits[used],
        sources=used,
        keypoints_xy=np.stack(keypoints),
        boxes_xywh=np.stack(boxes),
    )


def _place(
    scan: np.ndarray, taken: np.ndarray, rng: np.random.Generator
) -> tuple[Pose, np.ndarray] | None:
    """Draw a digit where nothing is taken; give up after some tries."""
    size = len(taken)
    cell = int(rng.integers(CELL_SIZES[0], CELL_SIZES[1] + 1))
    angle_deg = int(rng.integers(-MAX_ANGLE_DEG, MAX_ANGLE_DEG + 1))
    # Ink ends 4 cells from the center, the rim 5 at most; turned by 30°, below 22/16 times that.
    ink_reach, reach = (cells * cell * 22 // 256 + 1 for cells in (4, 5))
    side = 2 * reach + 1
    patch = draw_levels(scan, Pose((reach, reach), cell, angle_deg), side) > 0
    around = np.pad(taken, reach)
    for x, y in rng.integers(ink_reach, size - ink_reach, (PLACEMENT_TRIES, 2)).tolist():
        if not (around[y : y + side, x : x + side] & patch).any():
            pose = Pose((x, y), cell, angle_deg)
            return pose, draw_levels(scan, pose, size)
    return None


def draw_texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a canvas (size, size, 3) int64 of soft blotches and fine noise, in middle tones."""
    nodes = size // TEXTURE_CELL_PX + 2
    coarse = rng.integers(*TEXTURE_TONES, (nodes, nodes, 3))
    place, part = np.divmod(np.arange(size), TEXTURE_CELL_PX)
    across = part[:, None]
    rows = coarse[place] * (TEXTURE_CELL_PX - across[:, None]) + coarse[place + 1] * across[:, None]
    both = rows[:, place] * (TEXTURE_CELL_PX - across) + rows[:, place + 1] * across
    noise = rng.integers(-TEXTURE_NOISE, TEXTURE_NOISE + 1, (size, size, 3))
    return both // TEXTURE_CELL_PX**2 + noise


def _blend(image: np.ndarray, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paint a digit in a bright or a dark color, as strongly as its levels say."""
    color = rng.integers(*INK_TONES[rng.integers(len(INK_TONES))], 3)
    full = FULL_LEVEL * LEVEL_ONE
    strength = levels[..., None]
    return (image * (full - strength) + color * strength + full // 2) // full
