"""From a person's box to the network's input and back (CVPR'19 section 4.1).

A crop is a similarity transform: rotation about the box's center, one scale for both axes, set by
the box's width alone. Points are (x, y) and a pixel's center has whole coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from reproduction.errors import UserError

SCALE_UNIT_PX = 200.0  # scales of boxes are in units of 200 px, MPII's convention
BOX_MARGIN = 1.25
AT_ONCE = 8  # images in float64 that a processor's cache holds
MPII_CENTER_DOWN = 15.0  # px of one unit of scale, towards the middle of the body


@dataclass(frozen=True)
class CropBox:
    """The part of an image that a network sees.

    Attributes:
        center_xy: In image pixels.
        scale_wh: Width and height in units of 200 px.
    """

    center_xy: tuple[float, float]
    scale_wh: tuple[float, float]

    @property
    def area_px(self) -> float:
        """Width times height in pixels, the area that OKS between detections uses."""
        return self.scale_wh[0] * self.scale_wh[1] * SCALE_UNIT_PX**2


def coco_crop_box(
    box_xywh: tuple[float, float, float, float], input_wh: tuple[int, int], margin: float = 1.25
) -> CropBox:
    """Extend a box to the network's aspect ratio and leave a margin around it.

    Args:
        box_xywh: Left, top, width and height in image pixels.
        input_wh: Width and height of the network's input.
        margin: Factor on both sides.

    Raises:
        UserError: The box has no area.

    >>> coco_crop_box((0.0, 0.0, 100.0, 400.0), (192, 256))
    CropBox(center_xy=(50.0, 200.0), scale_wh=(1.875, 2.5))
    """
    left, top, width, height = box_xywh
    if not (width > 0 and height > 0):
        raise UserError(
            f"box {box_xywh} is {width} wide and {height} high; give left, top, width and height "
            "with both sizes above 0"
        )
    aspect = input_wh[0] / input_wh[1]
    extended = (max(width, height * aspect), max(height, width / aspect))
    scale_w, scale_h = (side / SCALE_UNIT_PX * margin for side in extended)
    return CropBox((left + width / 2, top + height / 2), (scale_w, scale_h))


def mpii_crop_box(center_xy: tuple[float, float], scale: float) -> CropBox:
    """Convert MPII's person center (1-based pixels) and scale; the crop is a square.

    >>> mpii_crop_box((101.0, 201.0), 2.0)
    CropBox(center_xy=(100.0, 230.0), scale_wh=(2.5, 2.5))
    """
    x, y = center_xy
    center = (x - 1, y + MPII_CENTER_DOWN * scale - 1)
    return CropBox(center, (scale * BOX_MARGIN, scale * BOX_MARGIN))


def crop_matrix(box: CropBox, output_wh: tuple[int, int], rotation_deg: float = 0.0) -> np.ndarray:
    """Return the matrix that maps image points into the crop.

    With ``k = W / (200 * scale_w)``, ``d`` the vector from the box's center and ``r`` the rotation:
    ``x' = k (cos r dx + sin r dy) + W/2``, ``y' = k (-sin r dx + cos r dy) + H/2``.

    Args:
        box: Where the crop lies.
        output_wh: Width and height of the crop, or of the heatmaps.
        rotation_deg: Of the crop, in degrees.

    Returns:
        (2, 3) float64.

    >>> (crop_matrix(CropBox((100.0, 120.0), (0.75, 1.0)), (192, 256)).round(4) + 0.0).tolist()
    [[1.28, 0.0, -32.0], [0.0, 1.28, -25.6]]
    """
    return crop_matrices([box], output_wh, rotation_deg)[0]


def crop_matrices(
    boxes: Sequence[CropBox], output_wh: tuple[int, int], rotation_deg: float = 0.0
) -> np.ndarray:
    """Return the matrix of each of several crops; see `crop_matrix`.

    Args:
        boxes: B boxes, where the crops lie.
        output_wh: Width and height of every crop.
        rotation_deg: Of every crop, in degrees.

    Returns:
        (B, 2, 3) float64.
    """
    width, height = output_wh
    x, y, scale = np.array([(*box.center_xy, box.scale_wh[0]) for box in boxes]).T
    factor, angle = width / (SCALE_UNIT_PX * scale), np.deg2rad(rotation_deg)
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    right = [cos, sin, width / 2 - (cos * x + sin * y)]
    down = [-sin, cos, height / 2 - (cos * y - sin * x)]
    return np.array([right, down]).transpose(2, 0, 1)


def inverse_matrix(matrix: np.ndarray) -> np.ndarray:
    """Return the (2, 3) matrix of the opposite direction; of many, (..., 2, 3).

    >>> inverse_matrix(np.array([[2.0, 0.0, 4.0], [0.0, 2.0, 6.0]])).tolist()
    [[0.5, 0.0, -2.0], [0.0, 0.5, -3.0]]
    """
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1) + 0.0


def transform_points(points_xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map points (..., 2) by a (2, 3) matrix.

    Sets of points are mapped by one matrix each: (B, N, 2) by (B, 2, 3), with the same bits.

    >>> transform_points(np.array([[1.0, 2.0]]), np.array([[2.0, 0.0, 4.0], [0.0, 2.0, 6.0]]))
    array([[ 6., 10.]])
    """
    if matrix.ndim == 2:
        return points_xy @ matrix[:, :2].T + matrix[:, 2]
    return points_xy @ matrix[..., :2].swapaxes(-1, -2) + matrix[..., None, :, 2]


def crop_image(image: np.ndarray, matrix: np.ndarray, output_wh: tuple[int, int]) -> np.ndarray:
    """Cut a crop out of an image, bilinearly, black outside of it.

    The official code lets OpenCV do this, which rounds source coordinates to 1/32 px; we do not.

    Args:
        image: (H, W, C) uint8.
        matrix: (2, 3), from the image to the crop.
        output_wh: Width and height of the crop.

    Returns:
        (height, width, C) uint8.
    """
    return crop_images(image[None], matrix[None], output_wh)[0]


def crop_images(images: np.ndarray, matrices: np.ndarray, output_wh: tuple[int, int]) -> np.ndarray:
    """Cut a crop out of each of several images at once; see `crop_image`.

    Args:
        images: (B, H, W, C) uint8.
        matrices: (B, 2, 3), from each image to its crop.
        output_wh: Width and height of the crops.

    Returns:
        (B, height, width, C) uint8.
    """
    grid = torch.from_numpy(_sampling_grid(inverse_matrix(matrices), images.shape[1:3], output_wh))
    planes = torch.empty((len(images), images.shape[3], *grid.shape[1:3]), dtype=torch.uint8)
    for first in range(0, len(images), AT_ONCE):
        few = slice(first, first + AT_ONCE)
        given = torch.from_numpy(np.ascontiguousarray(images[few]))  # mirrored ones run backwards
        pixels = given.permute(0, 3, 1, 2).to(torch.float64, memory_format=torch.contiguous_format)
        levels = F.grid_sample(pixels, grid[few], "bilinear", "zeros", align_corners=True)
        planes[few] = levels.round_()  # means of bytes are bytes
    return np.stack(planes.unbind(1), axis=-1)


def _sampling_grid(
    inverses: np.ndarray, image_hw: tuple[int, ...], output_wh: tuple[int, int]
) -> np.ndarray:
    """Return where in its image each pixel of a crop comes from, as `grid_sample` takes it.

    Args:
        inverses: (B, 2, 3), from each crop to its image.
        image_hw: Height and width of the images.
        output_wh: Width and height of the crops.

    Returns:
        (B, height, width, 2) float64, x and y: -1 and 1 are the centers of the first and last pixel
        of the image; a lone one has both.
    """
    width, height = output_wh
    last_x, last_y = max(image_hw[1] - 1, 1), max(image_hw[0] - 1, 1)
    source = np.empty((len(inverses), height, width, 2))
    if inverses[:, (0, 1), (1, 0)].any():
        rows, columns = np.mgrid[:height, :width]
        places = np.stack([columns, rows], axis=-1).astype(np.float64)
        x, y = np.moveaxis(transform_points(places, inverses[:, None]), -1, 0)
    else:  # Upright, as most are: each axis by itself, with the same bits in a third of the time.
        to_x, to_y = inverses[:, 0], inverses[:, 1]
        x = (np.arange(width) * to_x[:, :1] + to_x[:, 2:])[:, None, :]
        y = (np.arange(height) * to_y[:, 1:2] + to_y[:, 2:])[:, :, None]
    source[..., 0] = x * 2 / last_x - 1
    source[..., 1] = y * 2 / last_y - 1
    return source


def check_keypoints(
    keypoints_xy_image: np.ndarray, visibility: np.ndarray, image_wh: tuple[int, int]
) -> None:
    """Refuse annotations whose visible keypoints are not in their image.

    Args:
        keypoints_xy_image: (..., 2) in image pixels.
        visibility: (...); above 0 if annotated.
        image_wh: Width and height of the image.

    Raises:
        UserError: The shapes disagree, or a visible keypoint is outside or not a number.
    """
    if keypoints_xy_image.shape != (*visibility.shape, 2):
        raise UserError(
            f"keypoints have shape {keypoints_xy_image.shape} and their visibility "
            f"{visibility.shape}; expected one visibility for each (x, y)"
        )
    inside = (keypoints_xy_image >= 0) & (keypoints_xy_image <= np.array(image_wh) - 1)
    wrong = np.argwhere((visibility > 0) & ~inside.all(axis=-1))
    if len(wrong):
        place = tuple(int(index) for index in wrong[0])
        x, y = keypoints_xy_image[place]
        raise UserError(
            f"keypoint {place[-1]} is marked visible at ({x:g}, {y:g}), outside of its image of "
            f"{image_wh[0]} x {image_wh[1]} pixels: correct it, or set its visibility to 0"
        )
