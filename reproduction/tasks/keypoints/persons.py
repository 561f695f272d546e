"""One person or face of a data set, before any cropping."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reproduction.errors import UserError
from reproduction.tasks.keypoints.crops import CropBox

BEYOND = 1.0  # how far outside of its image a point may be annotated, in lengths of its sides


@dataclass(frozen=True)
class Person:
    """A box in an image, with keypoints where they are annotated.

    Attributes:
        image: The file.
        box: What the network sees of it.
        keypoints_xy: (K, 2) float64 in image pixels.
        visibility: (K,) int64, above 0 if annotated.
        image_id: COCO's number of the image; elsewhere the place in the list.
        score: Of a detector; 1 for an annotated box.
        size_px: AFLW's size of the face's box, else 0.
    """

    image: Path
    box: CropBox
    keypoints_xy: np.ndarray
    visibility: np.ndarray
    image_id: int
    score: float = 1.0
    size_px: float = 0.0


def check_near(person: Person, image_wh: tuple[int, int]) -> None:
    """Refuse annotated points that are far away from their image.

    Points of cut persons and faces are annotated a little outside of it in MPII and in all sets of
    landmarks; one further away than the image is large comes from another image or another scale.

    Raises:
        UserError: A point is not a number or too far away.
    """
    points = person.keypoints_xy[person.visibility > 0]
    size = np.array(image_wh)
    near = (points >= -BEYOND * size) & (points <= (1 + BEYOND) * size)
    if not near.all():
        x, y = points[~near.all(axis=1)][0]
        raise UserError(
            f"{person.image} has {image_wh[0]} x {image_wh[1]} pixels and a keypoint at ({x:g}, "
            f"{y:g}): the annotation belongs to another image, or to another size of this one"
        )
