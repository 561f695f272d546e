"""PCKh of MPII, and OKS with the average precision of COCO keypoints by pycocotools."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reproduction.errors import UserError
from reproduction.tasks.average_precision import evaluate_coco

# COCO's constants of the 17 keypoints; OKS uses twice their values.
COCO_SIGMAS = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
)
AP_NAMES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
OKS_NMS_THRESHOLD = 0.9
KEYPOINT_SCORE_THRESHOLD = 0.2

MPII_GROUPS = {
    "Head": (9,),
    "Shoulder": (12, 13),
    "Elbow": (11, 14),
    "Wrist": (10, 15),
    "Hip": (2, 3),
    "Knee": (1, 4),
    "Ankle": (0, 5),
}
MPII_LEFT_OUT = (6, 7)  # pelvis and thorax: not in the mean
HEAD_SHARE = 0.6  # of the head box's diagonal: the length that distances are divided by
# What the official code prints as "Mean@0.1" is this threshold: an index off by one.
OFFICIAL_MEAN_01_THRESHOLD = 0.11


class PckhScores(NamedTuple):
    """Shares in percent; NaN where no keypoint is visible.

    Attributes:
        groups: By name of MPII's groups, the mean of left and right.
        mean: Over keypoints but pelvis and thorax, weighted by how often each is visible.
        keypoints: (16,).
    """

    groups: dict[str, float]
    mean: float
    keypoints: np.ndarray


def pckh(
    predicted_xy: np.ndarray,
    keypoints_xy: np.ndarray,
    is_visible: np.ndarray,
    head_boxes: np.ndarray,
    threshold: float = 0.5,
) -> PckhScores:
    """Score MPII keypoints: correct within a share of the head's size (PCKh).

    Args:
        predicted_xy: (N, 16, 2) in image pixels.
        keypoints_xy: (N, 16, 2) in the same frame.
        is_visible: (N, 16) bool.
        head_boxes: (N, 4), left, top, right and bottom of the head.
        threshold: Share of 0.6 times the head box's diagonal; a distance equal to it counts.

    Returns:
        The scores.

    Raises:
        UserError: There is no person, no keypoint is visible, a shape is wrong, or a head box has
            no extent.
    """
    count = len(keypoints_xy)
    shapes = (predicted_xy.shape, keypoints_xy.shape, is_visible.shape, head_boxes.shape)
    if shapes != ((count, 16, 2), (count, 16, 2), (count, 16), (count, 4)):
        raise UserError(
            f"predictions, keypoints, visibility and head boxes have shapes {shapes}; expected "
            "(N, 16, 2), (N, 16, 2), (N, 16) and (N, 4)"
        )
    if not is_visible.any():
        raise UserError("the ground truth has no visible keypoint: nothing can be scored")
    sizes = HEAD_SHARE * np.linalg.norm(head_boxes[:, 2:] - head_boxes[:, :2], axis=1)
    if not (sizes > 0).all():
        raise UserError(f"the head box of person {int(np.argmin(sizes > 0))} has no extent")
    distances = np.linalg.norm(predicted_xy - keypoints_xy, axis=2) / sizes[:, None]
    visible = is_visible.sum(axis=0)
    correct = ((distances <= threshold) & is_visible).sum(axis=0)
    keypoints = np.full(16, np.nan)
    np.divide(100.0 * correct, visible, out=keypoints, where=visible > 0)
    groups = {name: float(keypoints[list(group)].mean()) for name, group in MPII_GROUPS.items()}
    counted = np.setdiff1d(np.arange(16), MPII_LEFT_OUT)
    total = visible[counted].sum()
    mean = 100.0 * correct[counted].sum() / total if total else np.nan
    return PckhScores(groups, float(mean), keypoints)


def oks(
    keypoints_xy: np.ndarray,
    others_xy: np.ndarray,
    area_px: float,
    other_areas_px: np.ndarray,
    sigmas: np.ndarray = COCO_SIGMAS,
) -> np.ndarray:
    """Return the object keypoint similarity of one detection with others.

    ``mean_k exp(-d_k^2 / ((2 sigma_k)^2 (a + a') / 2 * 2))``.

    Args:
        keypoints_xy: (K, 2).
        others_xy: (N, K, 2).
        area_px: Of the detection.
        other_areas_px: (N,).
        sigmas: (K,).

    Returns:
        (N,) in [0, 1].

    >>> oks(np.zeros((1, 2)), np.array([[[3.0, 4.0]]]), 50.0, np.array([50.0]), np.array([0.5]))
    array([0.77880078])
    """
    squares = ((others_xy - keypoints_xy) ** 2).sum(axis=2)
    areas = (area_px + np.asarray(other_areas_px)) / 2 + np.spacing(1)
    return np.exp(-squares / ((2 * sigmas) ** 2 * areas[:, None] * 2)).mean(axis=1)


def oks_nms(
    keypoints_xy: np.ndarray,
    scores: np.ndarray,
    areas_px: np.ndarray,
    threshold: float = OKS_NMS_THRESHOLD,
    sigmas: np.ndarray = COCO_SIGMAS,
) -> list[int]:
    """Keep detections, best first, whose similarity with every kept one is within a threshold.

    Args:
        keypoints_xy: (N, K, 2), the detections of one image.
        scores: (N,).
        areas_px: (N,).
        threshold: A detection more similar than this to a better one is dropped.
        sigmas: (K,).

    Returns:
        Indices of those kept, by falling score.
    """
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        similar = oks(
            keypoints_xy[index], keypoints_xy[kept], areas_px[index], areas_px[kept], sigmas
        )
        if not (similar > threshold).any():
            kept.append(int(index))
    return kept


def instance_score(box_score: float, keypoint_scores: np.ndarray) -> float:
    """Multiply a box's score by the mean score of the keypoints found in it.

    Only keypoints that score above 0.2 count; without one the score is 0.

    >>> instance_score(0.5, np.array([0.8, 0.6, 0.2]))
    0.35
    """
    found = keypoint_scores[keypoint_scores > KEYPOINT_SCORE_THRESHOLD]
    return float(box_score * found.mean()) if len(found) else 0.0


def keypoint_ap(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    sigmas: np.ndarray = COCO_SIGMAS,
) -> dict[str, float]:
    """Compute COCO's average precision and recall of keypoints, by pycocotools.

    Args:
        ground_truth: In COCO's format: ``images``, ``categories`` and ``annotations``.
        detections: In the format of COCO's results: ``image_id``, ``category_id``, ``score`` and
            ``keypoints`` as K triples (x, y, anything).
        sigmas: (K,), for keypoints other than COCO's.

    Returns:
        The ten figures by name, in [0, 1]; NaN where the ground truth has no person of that size.

    Raises:
        UserError: The ground truth has no person with visible keypoints outside of crowds, or an
            annotation or detection has another number of keypoints or names an unknown image.
    """
    _check_coco(ground_truth, detections, len(sigmas))
    return evaluate_coco(ground_truth, detections, "keypoints", AP_NAMES, sigmas)


def _check_coco(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], keypoints: int
) -> None:
    annotations = ground_truth["annotations"]
    if not any(entry["num_keypoints"] and not entry.get("iscrowd") for entry in annotations):
        raise UserError(
            f"the ground truth has {len(annotations)} annotations and no visible keypoint: nothing "
            "can be scored (crowds do not count); give a split with annotations"
        )
    images = {image["id"] for image in ground_truth["images"]}
    for kind, entries in (("an annotation", annotations), ("a detection", detections)):
        for entry in entries:
            if len(entry["keypoints"]) != 3 * keypoints:
                raise UserError(
                    f"image {entry['image_id']} has {kind} with {len(entry['keypoints'])} keypoint "
                    f"values; expected {3 * keypoints}, three for each of {keypoints} keypoints"
                )
            if entry["image_id"] not in images:
                raise UserError(
                    f"image {entry['image_id']} of {kind} is not in the ground truth: evaluate "
                    "on the split that was predicted"
                )
