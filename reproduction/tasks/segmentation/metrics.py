"""Mean intersection over union from a confusion matrix."""

from typing import NamedTuple

import numpy as np

from reproduction.errors import UserError


def confusion_matrix(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Count pixels by label and prediction; matrices of several images add up.

    Args:
        predicted: Classes, of any shape.
        labels: As large.
        num_classes: Number of classes.
        ignore_label: Pixels with this label do not count.

    Returns:
        (num_classes, num_classes) int64, rows by label and columns by prediction.

    Raises:
        UserError: The shapes differ, or a label or prediction is no class.

    >>> confusion_matrix(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 255]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    if predicted.shape != labels.shape:
        raise UserError(
            f"predictions have shape {predicted.shape} and labels {labels.shape}: resize the "
            "predictions to the labels' size first"
        )
    counted = labels != ignore_label
    true, found = labels[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for what, values in (("label", true), ("prediction", found)):
        wrong = values[(values < 0) | (values >= num_classes)]
        if len(wrong):
            raise UserError(
                f"{what} {wrong[0]} is outside of the {num_classes} classes: expected 0 to "
                f"{num_classes - 1}, or {ignore_label} for labels to be ignored"
            )
    pairs = np.bincount(true * num_classes + found, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


class SegmentationScores(NamedTuple):
    """Shares in [0, 1].

    Attributes:
        mean_iou: Over all classes; one that never appears counts as 0, as in the official code.
        mean_iou_of_present: Over the classes that labels or predictions contain.
        pixel_accuracy: Of all labeled pixels.
        mean_accuracy: Mean recall over all classes.
        ious: (classes,), 0 for a class that never appears.
        absent_classes: Those in neither labels nor predictions.
    """

    mean_iou: float
    mean_iou_of_present: float
    pixel_accuracy: float
    mean_accuracy: float
    ious: np.ndarray
    absent_classes: tuple[int, ...]

    def remark(self) -> str | None:
        """Say in a sentence what absent classes do to the mean; nothing if there are none."""
        if not self.absent_classes:
            return None
        names = ", ".join(str(label) for label in self.absent_classes)
        return (
            f"{len(self.absent_classes)} of {len(self.ious)} classes never appear in labels or "
            f"predictions ({names}): they count as 0 in the mean IoU of {self.mean_iou:.2%}, which "
            f"is {self.mean_iou_of_present:.2%} without them"
        )


def segmentation_scores(confusion: np.ndarray) -> SegmentationScores:
    """Score a confusion matrix.

    ``IoU_c = TP_c / max(1, labels_c + predictions_c - TP_c)``.

    Args:
        confusion: (classes, classes), rows by label, as `confusion_matrix` returns it.

    Raises:
        UserError: It counts no pixel.

    >>> scores = segmentation_scores(np.array([[2, 1, 0], [0, 1, 0], [0, 0, 0]]))
    >>> scores.ious.round(3).tolist(), scores.absent_classes
    ([0.667, 0.5, 0.0], (2,))
    >>> round(scores.mean_iou, 3), round(scores.mean_iou_of_present, 3)
    (0.389, 0.583)
    """
    if not confusion.sum():
        raise UserError("the ground truth has no labeled pixel: nothing can be scored")
    correct = np.diag(confusion)
    labeled, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    union = labeled + predicted - correct
    ious = correct / np.maximum(1, union)
    return SegmentationScores(
        mean_iou=float(ious.mean()),
        mean_iou_of_present=float(ious[union > 0].mean()),
        pixel_accuracy=float(correct.sum() / labeled.sum()),
        mean_accuracy=float((correct / np.maximum(1, labeled)).mean()),
        ious=ious,
        absent_classes=tuple(int(label) for label in np.flatnonzero(union == 0)),
    )
