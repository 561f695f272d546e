"""COCO's average precision of boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

from reproduction.errors import UserError
from reproduction.tasks.average_precision import evaluate_coco

BOX_NAMES = (
    *("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"),
    *("AR1", "AR10", "AR100", "AR_S", "AR_M", "AR_L"),
)


def box_ap(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Compute COCO's average precision and recall of boxes, by pycocotools.

    Args:
        ground_truth: In COCO's format: ``images``, ``categories`` and ``annotations``.
        detections: In the format of COCO's results: ``image_id``, ``category_id``, ``score`` and
            ``bbox`` as left, top, width and height.

    Returns:
        The twelve figures by name, in [0, 1]: 0 without detections, NaN where the ground truth has
        no object of that size.

    Raises:
        UserError: The ground truth has no box but those of crowds, or a detection names an image
            or a class that the ground truth does not have.
    """
    if all(annotation.get("iscrowd") for annotation in ground_truth["annotations"]):
        raise UserError(
            f"the ground truth has {len(ground_truth['images'])} images and no box: nothing can be "
            "scored (crowds do not count); give a split with annotations"
        )
    for name, kind in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in ground_truth[kind]}
        unknown = sorted({detection[name] for detection in detections} - known)
        if unknown:
            raise UserError(
                f"a detection has {name} {unknown[0]}, which is not among the {len(known)} "
                f"{kind} of the ground truth: evaluate on the split that was predicted"
            )
    return evaluate_coco(ground_truth, detections, "bbox", BOX_NAMES)
