"""COCO's average precision and recall, by pycocotools, of boxes or of keypoints."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluate_coco(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    kind: str,
    names: Sequence[str],
    sigmas: np.ndarray | None = None,
) -> dict[str, float]:
    """Run pycocotools quietly on what has been checked.

    Args:
        ground_truth: In COCO's format, with at least one annotation.
        detections: In the format of COCO's results.
        kind: ``bbox`` or ``keypoints``.
        names: Of the figures, in pycocotools' order.
        sigmas: (K,), constants of keypoints.

    Returns:
        The figures by name, in [0, 1]: 0 without detections, NaN where the ground truth has no
        object of that size.
    """
    if not detections:
        return dict.fromkeys(names, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**ground_truth, "info": ground_truth.get("info", {})}
        truth.createIndex()
        found = truth.loadRes([dict(detection) for detection in detections])
        evaluation = COCOeval(truth, found, kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools marks what cannot be computed by -1.
    return {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(names, evaluation.stats, strict=True)
    }
