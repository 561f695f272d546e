"""Losses of segmentation: cross-entropy, hard pixels alone (OHEM), and OCR's auxiliary output.

Networks put out a quarter of the image's resolution; logits are brought to the labels' size here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from reproduction.errors import UserError

# Inverse to how often a class occurs; no other data set is weighted.
CITYSCAPES_CLASS_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)
# The raw label of each of the 19 classes; every other is ignored.
CITYSCAPES_RAW_LABELS = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What the official configurations vary.

    Attributes:
        class_weights: One for each class, or none.
        ignore_label: Pixels with this label do not count.
        align_corners: How logits are resized (D1).
        balance: Weights of a network's outputs; OCR puts the auxiliary one first.
        ohem_min_kept: Hard pixels that count at least; none for all pixels.
        ohem_threshold: A pixel is hard if its class has less than this probability.
    """

    class_weights: tuple[float, ...] | None = None
    ignore_label: int = 255
    align_corners: bool = False
    balance: tuple[float, ...] = (1.0,)
    ohem_min_kept: int | None = None
    ohem_threshold: float = 0.9


OCR_BALANCE = (0.4, 1.0)
OHEM_MIN_KEPT = 131072
PLAIN = LossSettings()


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, settings: LossSettings = PLAIN
) -> torch.Tensor:
    """Return the weighted mean cross-entropy of the labeled pixels.

    With class weights the sum of weighted losses is divided by the sum of the weights.

    Args:
        logits: (B, classes, h, w), of any size.
        labels: (B, H, W) int64.
        settings: Class weights, ignored label and resizing.

    Returns:
        A scalar.

    Raises:
        UserError: Shapes do not fit, a label is no class, or every pixel is ignored.

    >>> logits = torch.log(torch.tensor([0.25, 0.75])).view(1, 2, 1, 1)
    >>> round(float(cross_entropy(logits, torch.tensor([[[1]]]))), 6)
    0.287682
    """
    _check_any_labeled(labels != settings.ignore_label, settings)
    return _cross_entropy(logits, labels, settings, "mean")


def pixel_losses(
    logits: torch.Tensor, labels: torch.Tensor, settings: LossSettings = PLAIN
) -> torch.Tensor:
    """Return each pixel's cross-entropy times its class's weight; 0 where the label is ignored.

    Args:
        logits: (B, classes, h, w), of any size.
        labels: (B, H, W) int64.
        settings: Class weights, ignored label and resizing.

    Returns:
        (B, H, W).

    Raises:
        UserError: Shapes do not fit, or a label is no class.
    """
    return _cross_entropy(logits, labels, settings, "none")


def _cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, settings: LossSettings, reduction: str
) -> torch.Tensor:
    check_labels(logits, labels, settings.ignore_label)
    weights = _class_weights(logits, settings)
    resized = resize_logits(logits, labels.shape[-2:], settings.align_corners)
    return F.cross_entropy(
        resized, labels, weights, ignore_index=settings.ignore_label, reduction=reduction
    )


def ohem_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, settings: LossSettings
) -> torch.Tensor:
    """Return the mean cross-entropy of hard pixels (online hard example mining).

    Pixels count whose class has a probability below ``t = max(p[min(min_kept, n - 1)], 0.9)``,
    where ``p`` are the n labeled pixels' probabilities, ascending. If none is below, the official
    mean over nothing is NaN; here the loss is then 0.

    Args:
        logits: (B, classes, h, w), of any size.
        labels: (B, H, W) int64.
        settings: With `ohem_min_kept`.

    Returns:
        A scalar.

    Raises:
        UserError: Shapes do not fit, a label is no class, or every pixel is ignored.
    """
    assert settings.ohem_min_kept is not None
    losses = pixel_losses(logits, labels, settings)
    labeled = labels != settings.ignore_label
    _check_any_labeled(labeled, settings)
    with torch.no_grad():
        resized = resize_logits(logits, labels.shape[-2:], settings.align_corners)
        true_class = torch.where(labeled, labels, 0)[:, None]
        of_class = resized.softmax(dim=1).gather(1, true_class)[:, 0][labeled]
        ascending = of_class.sort().values
        limit = ascending[min(settings.ohem_min_kept, len(ascending) - 1)]
        is_hard = of_class < limit.clamp(min=settings.ohem_threshold)
    return losses[labeled][is_hard].sum() / is_hard.sum().clamp(min=1)


def combined_loss(
    outputs: Sequence[torch.Tensor], labels: torch.Tensor, settings: LossSettings
) -> torch.Tensor:
    """Sum the losses of a network's outputs, weighted by `LossSettings.balance`.

    With OHEM only the last output keeps to hard pixels. The others take the mean over all pixels
    then, ignored ones (which add 0) included: so does the official code.

    Args:
        outputs: Logits (B, classes, h, w) each; for OCR the auxiliary ones, then the main ones.
        labels: (B, H, W) int64.
        settings: Which loss, and how much of each.

    Returns:
        A scalar.

    Raises:
        UserError: There are more or fewer outputs than weights, or what `cross_entropy` raises.
    """
    if len(outputs) != len(settings.balance):
        raise UserError(
            f"the network has {len(outputs)} outputs and the loss {len(settings.balance)} weights "
            f"{settings.balance}: give one weight for each output"
        )
    with_ohem = settings.ohem_min_kept is not None
    others = [
        pixel_losses(logits, labels, settings).mean()
        if with_ohem
        else cross_entropy(logits, labels, settings)
        for logits in outputs[:-1]
    ]
    last = (ohem_cross_entropy if with_ohem else cross_entropy)(outputs[-1], labels, settings)
    weighted = [
        weight * loss for weight, loss in zip(settings.balance, [*others, last], strict=True)
    ]
    return torch.stack(weighted).sum()


def resize_logits(
    logits: torch.Tensor, size: Sequence[int], align_corners: bool = False
) -> torch.Tensor:
    """Resize (B, classes, h, w) bilinearly to `size` (H, W); as they are if it is theirs."""
    if logits.shape[-2:] == torch.Size(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)


def check_labels(logits: torch.Tensor, labels: torch.Tensor, ignore_label: int) -> None:
    """Refuse labels that do not belong to the logits.

    Raises:
        UserError: The shapes do not fit, the labels are not int64, or a label is neither a class
            nor the ignored one.
    """
    if logits.dim() != 4 or labels.dim() != 3 or len(logits) != len(labels):
        raise UserError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; expected "
            "(B, classes, h, w) and (B, H, W)"
        )
    if labels.dtype != torch.int64:
        raise UserError(
            f"labels are of type {str(labels.dtype).removeprefix('torch.')}; expected int64: give "
            "whole numbers, as labels.long() makes them"
        )
    classes = logits.shape[1]
    wrong = labels[(labels != ignore_label) & ((labels < 0) | (labels >= classes))]
    if len(wrong):
        raise UserError(
            f"{len(wrong)} pixels have labels outside of the {classes} classes, such as "
            f"{int(wrong[0])}: labels are 0 to {classes - 1}, or {ignore_label} to be ignored"
        )


def _class_weights(logits: torch.Tensor, settings: LossSettings) -> torch.Tensor | None:
    if settings.class_weights is None:
        return None
    if len(settings.class_weights) != logits.shape[1]:
        raise UserError(
            f"there are {len(settings.class_weights)} class weights and {logits.shape[1]} classes; "
            "give one for each"
        )
    return logits.new_tensor(settings.class_weights)


def _check_any_labeled(labeled: torch.Tensor, settings: LossSettings) -> None:
    if not labeled.any():
        raise UserError(
            f"all {labeled.numel()} pixels of the batch carry the ignored label "
            f"{settings.ignore_label}: there is nothing to learn from"
        )
