"""MPII's single persons: 16 keypoints each, counted from 1 in the files and from 0 here."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reproduction.errors import UserError
from reproduction.tasks.keypoints.crops import mpii_crop_box
from reproduction.tasks.keypoints.persons import Person
from reproduction.tasks.trees import (
    entries_of,
    expected,
    read_json,
    read_mat,
    require,
    require_files,
)

KEYPOINTS = 16
FIELDS = ("image", "center", "scale", "joints", "joints_vis")


class PckhTruth(NamedTuple):
    """What `pckh` compares predictions with; pixels count from 1, as in the file.

    Attributes:
        keypoints_xy: (N, 16, 2).
        is_visible: (N, 16) bool.
        head_boxes: (N, 4), left, top, right and bottom.
    """

    keypoints_xy: np.ndarray
    is_visible: np.ndarray
    head_boxes: np.ndarray


def read_mpii(folder: Path, split: str) -> tuple[Person, ...]:
    """Read the persons of ``train`` or ``valid``.

    Raises:
        UserError: A file is missing or damaged, or an entry is not as expected.
    """
    path = require("mpii", folder, "annot", f"{split}.json")
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} lists no person: {expected('mpii', folder)}")
    with entries_of(path):
        persons = tuple(_person(folder, entry, index, path) for index, entry in enumerate(entries))
    require_files("mpii", folder, (person.image for person in persons))
    if not any(person.visibility.any() for person in persons):
        raise UserError(f"{path} has no annotated keypoint of {len(persons)} persons")
    return persons


def _person(folder: Path, entry: Any, index: int, path: Path) -> Person:
    if not isinstance(entry, dict) or any(field not in entry for field in FIELDS):
        raise UserError(f"person {index} of {path} lacks one of {', '.join(FIELDS)}")
    points = np.array(entry["joints"], dtype=np.float64)
    visibility = np.array(entry["joints_vis"], dtype=np.int64)
    if points.shape != (KEYPOINTS, 2) or visibility.shape != (KEYPOINTS,):
        raise UserError(
            f"person {index} of {path} has joints {points.shape} and joints_vis "
            f"{visibility.shape}; expected {KEYPOINTS} of (x, y) and {KEYPOINTS}"
        )
    x, y = entry["center"]
    box = mpii_crop_box((float(x), float(y)), float(entry["scale"]))
    image = folder / "images" / entry["image"]
    return Person(image, box, points - 1, visibility, index)


def read_pckh_truth(folder: Path) -> PckhTruth:
    """Read ``annot/gt_valid.mat``; predictions have to be moved by 1 to count from 1.

    Raises:
        UserError: It is missing, damaged, or has not the expected fields.
    """
    path = require("mpii", folder, "annot", "gt_valid.mat")
    points, missing, heads = read_mat(path, "pos_gt_src", "jnt_missing", "headboxes_src")
    count = points.shape[-1]
    shapes = (points.shape, missing.shape, heads.shape)
    if shapes != ((KEYPOINTS, 2, count), (KEYPOINTS, count), (2, 2, count)):
        raise UserError(
            f"{path} has arrays of shape {shapes}; expected (16, 2, N), (16, N) and (2, 2, N)"
        )
    corners = heads.transpose(2, 0, 1).reshape(count, 4).astype(np.float64)
    return PckhTruth(points.transpose(2, 0, 1).astype(np.float64), missing.T == 0, corners)


def check_count(persons: tuple[Person, ...], truth: PckhTruth, folder: Path) -> None:
    """Refuse a ``valid.json`` and a ``gt_valid.mat`` that list different persons.

    Raises:
        UserError: Their numbers differ.
    """
    if len(persons) != len(truth.keypoints_xy):
        raise UserError(
            f"{folder}/annot/valid.json lists {len(persons)} persons and gt_valid.mat "
            f"{len(truth.keypoints_xy)}: take both files of the same release"
        )
