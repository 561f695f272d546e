"""Random crops of persons and faces (CVPR'19 section 4.1, TPAMI'20 section 7, official yaml files).

All draws come from the generator that is passed, in one order: half body, scale, rotation, mirror.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from reproduction.tasks.keypoints.crops import (
    SCALE_UNIT_PX,
    CropBox,
    coco_crop_box,
)
from reproduction.tasks.keypoints.flipping import Pairs, mirrored_order
from reproduction.tasks.keypoints.persons import Person

HALF_BODY_MARGIN = 1.5
# Upper bodies are chosen where a normal draw is below this: 69 % of the time, not half of it.
HALF_BODY_LIMIT = 0.5
SHRUNK_FROM = 2.0  # faces larger than twice the crop are first shrunk to its size


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How crops are varied in training.

    Attributes:
        scale: Poses: standard deviation of the factor on the box, which stays within ``1 -+
            scale``; faces: the factor is uniform between these.
        rotation_deg: Poses: standard deviation, at most twice that; faces: uniform within it.
        rotation_share: How often there is a rotation at all.
        flip_share: How often the image is mirrored.
        is_normal: Whether scale and rotation are normal, as for poses, or uniform.
        half_body_share: How often a person is reduced to the upper or lower half.
        half_body_above: Only persons with more visible keypoints than this are.
        upper_body: Keypoints of the upper half.
        mirror_offset: Mirrored points are ``width - mirror_offset - x``: 1 is exact, and what poses
            have; the official landmark code has 0.
    """

    scale: float
    rotation_deg: float
    rotation_share: float = 0.6
    flip_share: float = 0.5
    is_normal: bool = True
    half_body_share: float = 0.0
    half_body_above: int = 8
    upper_body: tuple[int, ...] = ()
    mirror_offset: int = 1


@dataclass(frozen=True)
class Variation:
    """What has been drawn for one crop.

    Attributes:
        box: Half of the body or all of it, larger or smaller.
        rotation_deg: Of the crop.
        is_mirrored: Whether the image is mirrored first.
    """

    box: CropBox
    rotation_deg: float = 0.0
    is_mirrored: bool = False


def draw_variation(
    person: Person,
    augmentation: Augmentation,
    input_wh: tuple[int, int],
    rng: np.random.Generator,
) -> Variation:
    """Draw how a person's crop is varied.

    Args:
        person: With keypoints.
        augmentation: What may be drawn.
        input_wh: Width and height of the network's input.
        rng: Source of all draws.
    """
    box = person.box
    is_whole = (person.visibility > 0).sum() > augmentation.half_body_above
    if is_whole and rng.random() < augmentation.half_body_share:
        box = half_body_box(person, augmentation.upper_body, input_wh, rng)
    spread, angle = augmentation.scale, augmentation.rotation_deg
    if augmentation.is_normal:
        factor = np.clip(rng.normal() * spread + 1, 1 - spread, 1 + spread)
        rotation = np.clip(rng.normal() * angle, -2 * angle, 2 * angle)
    else:
        factor = rng.uniform(1 - spread, 1 + spread)
        rotation = rng.uniform(-angle, angle)
    is_rotated = rng.random() < augmentation.rotation_share
    is_mirrored = bool(rng.random() < augmentation.flip_share)
    width, height = box.scale_wh
    box = CropBox(box.center_xy, (float(width * factor), float(height * factor)))
    return Variation(box, float(rotation) if is_rotated else 0.0, is_mirrored)


def half_body_box(
    person: Person,
    upper_body: tuple[int, ...],
    input_wh: tuple[int, int],
    rng: np.random.Generator,
) -> CropBox:
    """Return the box around the visible keypoints of the upper or the lower half of a body.

    The upper half is meant if the draw says so and it has more than two keypoints, or if the lower
    half has not more than two. With less than two keypoints the whole person stays.
    """
    is_upper = np.isin(np.arange(len(person.visibility)), upper_body)
    visible = person.visibility > 0
    upper, lower = person.keypoints_xy[visible & is_upper], person.keypoints_xy[visible & ~is_upper]
    wants_upper = rng.normal() < HALF_BODY_LIMIT
    chosen = upper if (wants_upper and len(upper) > 2) or len(lower) <= 2 else lower
    if len(chosen) < 2:
        return person.box
    left, top = chosen.min(axis=0)
    width, height = np.maximum(chosen.max(axis=0) - (left, top), 1.0)
    return coco_crop_box((left, top, width, height), input_wh, HALF_BODY_MARGIN)


def vary(
    image: np.ndarray, person: Person, variation: Variation, pairs: Pairs, offset: int = 1
) -> tuple[np.ndarray, Person, CropBox]:
    """Mirror an image with all that is annotated in it, if that was drawn.

    Args:
        image: (H, W, 3) uint8.
        person: In this image.
        variation: What was drawn.
        pairs: Keypoints that trade places in a mirror.
        offset: `Augmentation.mirror_offset`.

    Returns:
        The image, the person and the box of its crop.
    """
    if not variation.is_mirrored:
        return image, person, variation.box
    last = image.shape[1] - offset
    order = mirrored_order(len(person.visibility), pairs)
    points = person.keypoints_xy[order].copy()
    points[:, 0] = last - points[:, 0]
    x, y = variation.box.center_xy
    mirrored = replace(person, keypoints_xy=points, visibility=person.visibility[order])
    return image[:, ::-1], mirrored, CropBox((last - x, y), variation.box.scale_wh)


def shrink(
    image: np.ndarray, box: CropBox, input_wh: tuple[int, int]
) -> tuple[np.ndarray, CropBox]:
    """Shrink an image whose box is at least twice as large as the crop, so that none is skipped.

    Args:
        image: (H, W, 3) uint8.
        box: In this image.
        input_wh: Width and height of the crop.

    Returns:
        The image, and the box in it.
    """
    factor = SCALE_UNIT_PX * box.scale_wh[0] / input_wh[0]
    if factor < SHRUNK_FROM:
        return image, box
    height, width = image.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR)
    ratio = np.array(size) / (width, height)
    x, y = np.array(box.center_xy) * ratio
    scales = np.array(box.scale_wh) * ratio
    return np.array(small), CropBox((float(x), float(y)), (float(scales[0]), float(scales[1])))
