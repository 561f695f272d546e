"""Random scale, crop and mirror of labeled images (TPAMI'20 section 5, official yaml files).

Images are resized bilinearly and labels by their nearest neighbor, both without smoothing, which
is what the official code has OpenCV do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from reproduction.tasks.segmentation.folders import IGNORED

FIRST_SCALE = 0.5
SCALE_STEP = 0.1


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How images are varied in training.

    Attributes:
        crop_hw: Height and width of what the network sees.
        base_size: The longer side at scale 1, in pixels.
        scale_steps: Scales are 0.5 and up to this many tenths more.
        flip_share: How often the image is mirrored.
        flip_pairs: Classes that trade places in a mirror.
        fixed_hw: Height and width that every image is resized to before all else, or none.
        short_side: What the shorter side is resized to before all else, or none.
    """

    crop_hw: tuple[int, int]
    base_size: int
    scale_steps: int
    flip_share: float = 0.5
    flip_pairs: tuple[tuple[int, int], ...] = ()
    fixed_hw: tuple[int, int] | None = None
    short_side: int | None = None


def augment(
    image: np.ndarray, labels: np.ndarray, rule: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw scale, place of the crop and mirror, in this order.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8.
        rule: What may be drawn.
        rng: Source of all draws.

    Returns:
        The crop, black and ignored where it reaches beyond the image, and its labels.
    """
    image, labels = resize(image, labels, first_size(labels.shape, rule))
    height, width = scaled_size(labels.shape, rule, int(rng.integers(0, rule.scale_steps + 1)))
    crop_h, crop_w = rule.crop_hw
    top = int(rng.integers(0, max(0, height - crop_h) + 1))
    left = int(rng.integers(0, max(0, width - crop_w) + 1))
    place = (slice(top, top + crop_h), slice(left, left + crop_w))
    image, labels = resize(image, labels, (height, width))
    image, labels = pad_to(image[place], labels[place], rule.crop_hw)
    if rng.random() < rule.flip_share:
        image, labels = image[:, ::-1], swapped(labels[:, ::-1], rule.flip_pairs)
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def first_size(size_hw: Sequence[int], rule: Augmentation) -> tuple[int, int]:
    """Return the height and width that an image is resized to before scales are drawn.

    >>> rule = {"crop_hw": (9, 9), "base_size": 9, "scale_steps": 0}
    >>> first_size((100, 150), Augmentation(**rule, short_side=50))
    (50, 75)
    >>> first_size((100, 150), Augmentation(**rule, fixed_hw=(40, 30)))
    (40, 30)
    """
    height, width = rule.fixed_hw or size_hw
    factor = rule.short_side / min(height, width) if rule.short_side else 1.0
    return int(height * factor + 0.5), int(width * factor + 0.5)


def scaled_size(size_hw: Sequence[int], rule: Augmentation, step: int) -> tuple[int, int]:
    """Return an image's height and width at one of the scales.

    >>> rule = Augmentation(crop_hw=(512, 1024), base_size=2048, scale_steps=16)
    >>> scaled_size((1024, 2048), rule, 0), scaled_size((1024, 2048), rule, 16)
    ((512, 1024), (2151, 4301))
    """
    height, width = size_hw
    target = rule.base_size * (FIRST_SCALE + SCALE_STEP * step)
    factor = int(target + 0.5) / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize(
    image: np.ndarray, labels: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image (H, W, 3) bilinearly and its labels (H, W) by nearest neighbor."""
    if labels.shape == size_hw:
        return image, labels
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, size_hw, mode="bilinear", align_corners=False)
    numbers = torch.from_numpy(np.ascontiguousarray(labels))[None, None]
    nearest = F.interpolate(numbers, size_hw, mode="nearest")
    return resized[0].permute(1, 2, 0).numpy(), nearest[0, 0].numpy()


def pad_to(
    image: np.ndarray, labels: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pad an image with black and its labels with IGNORED, on the right and at the bottom."""
    down, right = (max(0, side - have) for side, have in zip(size_hw, labels.shape, strict=True))
    image = np.pad(image, ((0, down), (0, right), (0, 0)))
    return image, np.pad(labels, ((0, down), (0, right)), constant_values=IGNORED)


def swapped(labels: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Exchange the classes that trade places in a mirror.

    >>> swapped(np.array([14, 15, 3], np.uint8), ((14, 15),)).tolist()
    [15, 14, 3]
    """
    table = np.arange(256, dtype=np.uint8)
    for first, second in pairs:
        table[first], table[second] = second, first
    return table[labels]
