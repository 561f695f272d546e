"""Evaluation with mirror images and several scales (TPAMI'20 section 5).

What is added up over scales is ``exp(logits)``, without the division that a softmax would make, as
in the official code. Images are resized after their normalization, where that code resizes 8-bit
images: the same but for rounding to whole gray levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from reproduction.errors import UserError
from reproduction.tasks.classification.data import MEAN, STD
from reproduction.tasks.keypoints.flipping import mirrored_order
from reproduction.tasks.segmentation.losses import resize_logits

Network = Callable[[torch.Tensor], torch.Tensor]
# Classes of LIP that trade places in a mirror: arms, legs and shoes.
LIP_FLIP_PAIRS = ((14, 15), (16, 17), (18, 19))
PADDED_TO = 8  # sides of test images whose shorter side is resized


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a data set's images are evaluated.

    Attributes:
        base_size: The longer side at scale 1, in pixels.
        crop_hw: Height and width of a window, that of training or testing.
        stride_hw: From one window to the next.
        shift_last: Whether the last window is shifted to end with the image; else it reaches
            beyond, and sees black there.
        whole_up_to: Scales up to this see the whole image at once.
        flip: Whether to average with the mirror image.
        flip_pairs: Classes that trade places in it.
        align_corners: How logits are resized (D1).
    """

    base_size: int
    crop_hw: tuple[int, int]
    stride_hw: tuple[int, int]
    shift_last: bool = False
    whole_up_to: float = 0.0
    flip: bool = True
    flip_pairs: tuple[tuple[int, int], ...] = ()
    align_corners: bool = False


CITYSCAPES = Evaluation(
    base_size=2048,
    crop_hw=(1024, 2048),
    stride_hw=(1024, 2048),
    shift_last=True,
    whole_up_to=1.0,
)


def windowed(
    base_size: int, crop_hw: tuple[int, int], flip_pairs: tuple[tuple[int, int], ...] = ()
) -> Evaluation:
    """Return the evaluation of the other data sets: windows that overlap by a third.

    >>> windowed(520, (480, 480)).stride_hw
    (320, 320)
    """
    stride = (int(crop_hw[0] * 2 / 3), int(crop_hw[1] * 2 / 3))
    return Evaluation(base_size=base_size, crop_hw=crop_hw, stride_hw=stride, flip_pairs=flip_pairs)


def class_scores(network: Network, images: torch.Tensor, rule: Evaluation) -> torch.Tensor:
    """Return ``exp(logits)`` at the size of the images, averaged over the flip before ``exp``.

    Args:
        network: From (B, 3, H, W) to the logits of the main output (B, classes, h, w).
        images: (B, 3, H, W), normalized.
        rule: Flip and resizing.

    Returns:
        (B, classes, H, W), above 0.

    Raises:
        UserError: A flip pair names a class that the network lacks, or one twice.
    """
    size = images.shape[-2:]
    logits = resize_logits(network(images), size, rule.align_corners)
    if rule.flip:
        mirrored = resize_logits(network(images.flip(-1)), size, rule.align_corners).flip(-1)
        order = mirrored_order(logits.shape[1], rule.flip_pairs, "classes")
        logits = 0.5 * (logits + mirrored[:, order])
    return logits.exp()


def window_starts(length: int, crop: int, stride: int, shift_last: bool) -> list[int]:
    """List where windows start along one side until they cover it.

    >>> window_starts(1200, 480, 320, shift_last=False)
    [0, 320, 640, 960]
    >>> window_starts(1200, 480, 320, shift_last=True)
    [0, 320, 640, 720]
    >>> window_starts(300, 480, 320, shift_last=True)
    [0]
    """
    beyond = max(0, length - crop)
    starts = [index * stride for index in range(-(-beyond // stride) + 1)]
    return [min(start, beyond) for start in starts] if shift_last else starts


def windowed_scores(network: Network, images: torch.Tensor, rule: Evaluation) -> torch.Tensor:
    """Average `class_scores` over overlapping windows; what reaches beyond the image is black.

    Args:
        network: As in `class_scores`.
        images: (B, 3, H, W), normalized.
        rule: Windows, flip and resizing.

    Returns:
        (B, classes, H, W).
    """
    height, width = images.shape[-2:]
    crop_h, crop_w = rule.crop_hw
    tops = window_starts(height, crop_h, rule.stride_hw[0], rule.shift_last)
    lefts = window_starts(width, crop_w, rule.stride_hw[1], rule.shift_last)
    size = (max(height, tops[-1] + crop_h), max(width, lefts[-1] + crop_w))
    padded = pad_black(images, size)
    total: torch.Tensor | None = None
    count = images.new_zeros(padded.shape[-2:])
    for top in tops:
        for left in lefts:
            place = (..., slice(top, top + crop_h), slice(left, left + crop_w))
            scores = class_scores(network, padded[place], rule)
            if total is None:
                total = scores.new_zeros(*scores.shape[:2], *padded.shape[-2:])
            total[place] += scores
            count[place] += 1
    assert total is not None
    return (total / count)[..., :height, :width]


def multi_scale_scores(
    network: Network, images: torch.Tensor, rule: Evaluation, scales: Sequence[float]
) -> torch.Tensor:
    """Sum the scores of an image seen at several scales; the largest is the predicted class.

    Args:
        network: As in `class_scores`.
        images: (B, 3, H, W), normalized.
        rule: How the data set is evaluated.
        scales: Factors of the base size.

    Returns:
        (B, classes, H, W).

    Raises:
        UserError: There is no scale, one is not above 0, or logits are too large for ``exp``.
    """
    if not scales or min(scales) <= 0:
        raise UserError(f"scales are {tuple(scales)}; give at least one, all above 0")
    size = images.shape[-2:]
    total = torch.zeros(())
    for scale in scales:
        factor = rule.base_size * scale / max(size)
        resized = resize_logits(images, [max(1, round(side * factor)) for side in size])
        see = class_scores if scale <= rule.whole_up_to else windowed_scores
        total = total + resize_logits(see(network, resized, rule), size, rule.align_corners)
    if not torch.isfinite(total).all():
        raise UserError(
            f"exp of the logits overflows {total.dtype}: evaluate in a wider type, or check the "
            "weights that were loaded"
        )
    return total


def resize_short_side(images: torch.Tensor, base_size: int) -> torch.Tensor:
    """Resize the shorter side to `base_size`, then pad right and bottom to a multiple of 8.

    PASCAL-Context, COCO-Stuff and ADE20K are tested so. The padding has the mean color, which is
    0 after normalization; what is predicted for it is cut off again, except for ADE20K.

    >>> resize_short_side(torch.zeros(1, 3, 100, 150), 60).shape
    torch.Size([1, 3, 64, 96])
    """
    height, width = images.shape[-2:]
    factor = base_size / min(height, width)
    size = (round(height * factor), round(width * factor))
    padding = [-side % PADDED_TO for side in size]
    return F.pad(resize_logits(images, size), (0, padding[1], 0, padding[0]))


def pad_black(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pad normalized RGB images on the right and at the bottom with black.

    Args:
        images: (B, 3, H, W).
        size: Height and width afterwards, at least as large.

    Returns:
        (B, 3, *size).
    """
    black = -torch.tensor(np.divide(MEAN, STD), dtype=images.dtype, device=images.device)
    padded = black[:, None, None].expand(len(images), 3, *size).clone()
    padded[..., : images.shape[2], : images.shape[3]] = images
    return padded
