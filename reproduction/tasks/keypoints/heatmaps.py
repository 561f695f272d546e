"""Heatmaps of keypoints: targets, and decoding with the quarter offset (CVPR'19 section 3).

Heatmaps have a quarter of the input's resolution. Landmarks of faces follow other rules, which
are in `landmarks`.
"""

import numpy as np
import torch

from reproduction.errors import UserError
from reproduction.tasks.keypoints.crops import (
    CropBox,
    crop_matrix,
    inverse_matrix,
    transform_points,
)

STRIDE = 4


def encode_heatmaps(
    keypoints_xy_crop: np.ndarray,
    visibility: np.ndarray,
    *,
    input_wh: tuple[int, int],
    heatmap_wh: tuple[int, int],
    sigma_px: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Render one Gaussian per visible keypoint, and say which keypoints count in the loss.

    The center is ``trunc(x / 4 + 0.5)``, the peak 1, and the Gaussian ends 3 sigma from it. A
    keypoint whose Gaussian lies outside of the map has weight 0. One that lies just beyond the
    left or top border keeps weight 1 with an empty map, as in the official code.

    Args:
        keypoints_xy_crop: (K, 2) in pixels of the network's input; may lie outside.
        visibility: (K,); above 0 if annotated.
        input_wh: Width and height of the network's input.
        heatmap_wh: Width and height of its heatmaps.
        sigma_px: In heatmap pixels: 2 for 256x192 and 256x256, 3 for 384x288.

    Returns:
        target_heatmaps (K, height, width) and keypoint_weights (K,), both float32.

    Raises:
        UserError: The heatmaps are not a quarter of the input, the shapes disagree, a visible
            keypoint is not a number, or `sigma_px` is not above 0.

    >>> maps, weights = encode_heatmaps(np.array([[10.3, 20.9]]), np.array([1]),
    ...     input_wh=(192, 256), heatmap_wh=(48, 64), sigma_px=2)
    >>> float(maps[0, 5, 3]), float(weights[0])
    (1.0, 1.0)
    """
    _check_targets(keypoints_xy_crop, visibility, input_wh, heatmap_wh)
    check_sigma(sigma_px)
    width, height = heatmap_wh
    maps = np.zeros((len(visibility), height, width), dtype=np.float32)
    weights = (visibility > 0).astype(np.float32)
    visible = np.flatnonzero(weights)
    x, y = np.trunc(keypoints_xy_crop[visible] / STRIDE + 0.5).T
    reach = 3 * sigma_px
    is_beyond = (x - reach >= width) | (y - reach >= height)
    is_beyond |= (x + reach + 1 < 0) | (y + reach + 1 < 0)
    weights[visible[is_beyond]] = 0
    dx, dy = (
        np.arange(side, dtype=np.float32) - centers[~is_beyond, None].astype(np.float32)
        for side, centers in ((width, x), (height, y))
    )
    maps[visible[~is_beyond]] = _gaussians(dx, dy, sigma_px)
    return maps, weights


def _gaussians(dx: np.ndarray, dy: np.ndarray, sigma: float) -> np.ndarray:
    """Return maps (N, H, W) of distances dx (N, W) and dy (N, H) from their peaks."""
    values = np.exp(-(dx[:, None] ** 2 + dy[..., None] ** 2) / (2 * sigma**2))
    is_near = (np.abs(dx) <= 3 * sigma)[:, None] & (np.abs(dy) <= 3 * sigma)[..., None]
    return np.where(is_near, values, 0)


def _check_targets(
    keypoints_xy: np.ndarray,
    visibility: np.ndarray,
    input_wh: tuple[int, int],
    heatmap_wh: tuple[int, int],
) -> None:
    if tuple(STRIDE * side for side in heatmap_wh) != tuple(input_wh):
        raise UserError(
            f"heatmaps of {heatmap_wh[0]} x {heatmap_wh[1]} do not fit an image of {input_wh[0]} x "
            f"{input_wh[1]} pixels (width x height): they must be a quarter of it on both sides"
        )
    if keypoints_xy.shape != (len(visibility), 2):
        raise UserError(
            f"keypoints have shape {keypoints_xy.shape} and there are {len(visibility)} "
            "visibilities; expected one (x, y) for each"
        )
    if not np.isfinite(keypoints_xy[visibility > 0]).all():
        raise UserError("a visible keypoint has a coordinate that is not a finite number")


def check_sigma(sigma_px: float) -> None:
    """Refuse a Gaussian without extent.

    Raises:
        UserError: `sigma_px` is not a finite number above 0.
    """
    if not 0 < sigma_px < float("inf"):
        raise UserError(
            f"sigma_px is {sigma_px}; expected a finite number of heatmap pixels above 0, such as 2"
        )


def decode_heatmaps(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find each map's peak, moved a quarter of a pixel towards its higher neighbor.

    Peaks within one pixel of the border (at 0, 1 or the last index) stay where they are. A map
    without a value above 0 yields (0, 0).

    Args:
        heatmaps: (B, K, H, W).

    Returns:
        keypoints_xy_heatmap (B, K, 2) in heatmap pixels, and scores (B, K), the peaks' values.

    Raises:
        UserError: The heatmaps have not four dimensions.

    >>> maps = torch.zeros(1, 1, 8, 8)
    >>> maps[0, 0, 4, 3], maps[0, 0, 4, 4] = 1.0, 0.5
    >>> decode_heatmaps(maps)[0].tolist()
    [[[3.25, 4.0]]]
    """
    peaks, scores = refined_peaks(heatmaps, first=2)
    return peaks * (scores > 0)[..., None], scores


def refined_peaks(heatmaps: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find each map's largest value and move it a quarter of a pixel towards its higher neighbor.

    Args:
        heatmaps: (B, K, H, W).
        first: Peaks move if both coordinates are from `first` to the last but one.

    Returns:
        peaks_xy_heatmap (B, K, 2) and scores (B, K), the largest values.

    Raises:
        UserError: The heatmaps have not four dimensions.
    """
    if heatmaps.dim() != 4:
        raise UserError(
            f"heatmaps have shape {tuple(heatmaps.shape)}; expected (images, keypoints, H, W)"
        )
    height, width = heatmaps.shape[-2:]
    maps = heatmaps.flatten(2)
    scores, flat = maps.max(dim=2)
    x, y = flat % width, flat // width
    is_inner = (x >= first) & (x < width - 1) & (y >= first) & (y < height - 1)

    def slope(step: int) -> torch.Tensor:
        after, before = (
            maps.gather(2, (flat + move).clamp(0, height * width - 1)[..., None])[..., 0]
            for move in (step, -step)
        )
        return (after - before).sign()

    quarter = 0.25 * torch.stack([slope(1), slope(width)], dim=-1)
    peaks = torch.stack([x, y], dim=-1).to(heatmaps.dtype)
    return peaks + quarter * is_inner[..., None], scores


def heatmap_to_image(
    keypoints_xy_heatmap: np.ndarray, box: CropBox, heatmap_wh: tuple[int, int]
) -> np.ndarray:
    """Map points (..., 2) from a crop's heatmaps to its image; without half-pixel offset.

    >>> box = CropBox((96.0, 128.0), (192 / 200, 256 / 200))
    >>> heatmap_to_image(np.array([20.25, 9.75]), box, (48, 64)).round(6).tolist()
    [81.0, 39.0]
    """
    return transform_points(keypoints_xy_heatmap, inverse_matrix(crop_matrix(box, heatmap_wh)))
