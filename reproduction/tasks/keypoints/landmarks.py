"""Facial landmarks: heatmaps, decoding and the normalized mean error (TPAMI'20 section 7).

The rules differ from those of human pose, and from what the paper says, by rounding; all of it is
kept, because the published errors come from it.
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
from reproduction.tasks.keypoints.heatmaps import check_sigma, refined_peaks
from reproduction.tasks.keypoints.losses import check_heatmaps

SIGMAS_PX = {"wflw": 1.5, "aflw": 1.5, "cofw": 1.5, "300w": 1.0}
# The two landmarks (from 0) whose distance normalizes errors; AFLW takes the size of the box.
NORMALIZING_LANDMARKS = {"wflw": (60, 72), "300w": (36, 45), "cofw": (8, 9)}
DATASETS = ("wflw", "300w", "cofw", "aflw")
FAILURE_THRESHOLDS = (0.08, 0.10)


def encode_landmarks(
    landmarks_xy_heatmap: np.ndarray,
    is_drawn: np.ndarray,
    heatmap_wh: tuple[int, int],
    sigma_px: float,
) -> np.ndarray:
    """Render one Gaussian per landmark; there are no weights.

    Coordinates are cut to whole pixels, and so are the corners of the patch ``p - 3 sigma``. With
    sigma 1.5 the peak of a coordinate from 0 to 4 therefore lies one pixel too far right or down.

    Args:
        landmarks_xy_heatmap: (L, 2) in heatmap pixels.
        is_drawn: (L,) bool; the official code draws landmarks with ``y > 0`` in the image.
        heatmap_wh: Width and height.
        sigma_px: 1.0 for 300W, else 1.5.

    Returns:
        (L, height, width) float32.

    Raises:
        UserError: The shapes disagree, or `sigma_px` is not above 0.

    >>> maps = encode_landmarks(np.array([[20, 4]]), np.array([True]), (64, 64), 1.5)
    >>> [int(index) for index in np.unravel_index(maps[0].argmax(), (64, 64))]
    [5, 20]
    """
    if landmarks_xy_heatmap.shape != (len(is_drawn), 2):
        raise UserError(
            f"landmarks have shape {landmarks_xy_heatmap.shape} and is_drawn {is_drawn.shape}; "
            "expected one (x, y) for each"
        )
    check_sigma(sigma_px)
    width, height = heatmap_wh
    maps = np.zeros((len(is_drawn), height, width), dtype=np.float32)
    x, y = np.trunc(landmarks_xy_heatmap[is_drawn]).T
    dx, in_columns = _offsets(x, width, sigma_px)
    dy, in_rows = _offsets(y, height, sigma_px)
    values = np.exp(-(dx[:, None] ** 2 + dy[..., None] ** 2) / (2 * sigma_px**2))
    maps[is_drawn] = np.where(in_columns[:, None] & in_rows[..., None], values, 0)
    return maps


def _offsets(centers: np.ndarray, size: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's distance (N, size) from N peaks, and whether their patches are there."""
    first = np.trunc(centers - 3 * sigma)[:, None]
    end = np.trunc(centers + 3 * sigma + 1)[:, None]
    side = int(6 * sigma + 1)
    in_patch = np.arange(size) - first
    is_inside = (in_patch >= 0) & (in_patch < side) & (np.arange(size) < end)
    return (in_patch - side // 2).astype(np.float32), is_inside


def landmark_mse(heatmaps: torch.Tensor, target_heatmaps: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error over everything.

    Raises:
        UserError: Maps are no tensor, or their shapes differ.

    >>> float(landmark_mse(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)))
    1.0
    """
    check_heatmaps(heatmaps, target_heatmaps)
    return ((heatmaps - target_heatmaps) ** 2).mean()


def decode_landmarks(heatmaps: torch.Tensor, boxes: list[CropBox]) -> np.ndarray:
    """Find landmarks in their images, in whole pixels that count from 1.

    Peaks count from 1. Those with ``1 < p < size`` on both axes move a quarter of a pixel towards
    the higher neighbor, all by half a pixel. Points go to the image counted from 0, are cut to
    whole pixels, and count from 1 again. A map without a value above 0 has its peak at (0, 0).

    Args:
        heatmaps: (B, L, H, W).
        boxes: The crop of each image.

    Returns:
        (B, L, 2) float64.

    Raises:
        UserError: There is not one box for each image.

    >>> maps = torch.zeros(1, 1, 64, 64)
    >>> maps[0, 0, 10, 20] = 1.0
    >>> decode_landmarks(maps, [CropBox((128.0, 128.0), (1.28, 1.28))]).tolist()
    [[[83.0, 43.0]]]
    """
    if len(boxes) != len(heatmaps):
        raise UserError(f"there are {len(heatmaps)} heatmaps and {len(boxes)} boxes; give one each")
    height, width = heatmaps.shape[-2:]
    peaks, scores = refined_peaks(heatmaps, first=1)
    counted_from_1 = ((peaks.double() + 1) * (scores > 0)[..., None]).numpy() + 0.5
    found = []
    for points, box in zip(counted_from_1 - 1, boxes, strict=True):
        to_image = inverse_matrix(crop_matrix(box, (width, height)))
        # Rounded first: 83 computed as 82.999… must not become 82.
        found.append(np.trunc(transform_points(points, to_image).round(9)) + 1)
    return np.stack(found)


def normalized_mean_errors(
    predicted_xy: np.ndarray,
    landmarks_xy: np.ndarray,
    dataset: str,
    box_sizes_px: np.ndarray | None = None,
) -> np.ndarray:
    """Return each face's mean distance, divided by a length of the face.

    The length is the distance of the outer eye corners (WFLW, 300W), of two landmarks of the eyes
    (COFW), or the size of the face's box (AFLW).

    Args:
        predicted_xy: (N, L, 2) in image pixels.
        landmarks_xy: (N, L, 2) in the same frame.
        dataset: ``wflw``, ``300w``, ``cofw`` or ``aflw``.
        box_sizes_px: (N,), for ``aflw`` alone.

    Returns:
        (N,) fractions; papers print them in percent.

    Raises:
        UserError: There is no face, the data set is unknown, the shapes disagree, or a length is
            missing or 0.

    >>> face = np.zeros((1, 29, 2))
    >>> face[0, 9] = (50.0, 0.0)
    >>> normalized_mean_errors(face + [3.0, 4.0], face, "cofw").tolist()
    [0.1]
    """
    if predicted_xy.shape != landmarks_xy.shape or landmarks_xy.ndim != 3:
        raise UserError(
            f"predictions and landmarks have shapes {predicted_xy.shape} and {landmarks_xy.shape}; "
            "expected (faces, landmarks, 2) for both"
        )
    if not len(landmarks_xy):
        raise UserError("the ground truth has no face: nothing can be scored")
    lengths = _face_lengths(landmarks_xy, dataset, box_sizes_px)
    if lengths.shape != (len(landmarks_xy),) or not (lengths > 0).all():
        raise UserError(
            f"the lengths that normalize {len(landmarks_xy)} faces of {dataset} are "
            f"{lengths.tolist()}; expected one above 0 for each"
        )
    distances = np.linalg.norm(predicted_xy - landmarks_xy, axis=2)
    return distances.mean(axis=1) / lengths


def _face_lengths(
    landmarks_xy: np.ndarray, dataset: str, box_sizes_px: np.ndarray | None
) -> np.ndarray:
    if dataset not in DATASETS:
        raise UserError(f"data set {dataset!r} is unknown; use {', '.join(DATASETS)}")
    if (box_sizes_px is not None) != (dataset == "aflw"):
        raise UserError("box sizes normalize the errors of aflw, and of no other data set")
    if box_sizes_px is not None:
        return np.asarray(box_sizes_px)
    first, second = NORMALIZING_LANDMARKS[dataset]
    if landmarks_xy.shape[1] <= second:
        raise UserError(
            f"errors of {dataset} are divided by the distance of landmarks {first} and {second}, "
            f"but there are {landmarks_xy.shape[1]} landmarks"
        )
    return np.linalg.norm(landmarks_xy[:, first] - landmarks_xy[:, second], axis=1)


def failure_rate(errors: np.ndarray, threshold: float) -> float:
    """Return the share of faces whose normalized mean error is above a threshold.

    >>> failure_rate(np.array([0.05, 0.1, 0.2, 0.3]), 0.1)
    0.5
    """
    return float((errors > threshold).mean())
