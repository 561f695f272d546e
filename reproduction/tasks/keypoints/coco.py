"""COCO's keypoints: 17 of each person, boxes that are annotated or come from a detector.

Persons without keypoints and crowds are left out of training and evaluation by annotated boxes, as
COCO's own evaluation leaves them out. Boxes are clipped to their image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.errors import UserError
from reproduction.tasks.keypoints.crops import check_keypoints, coco_crop_box
from reproduction.tasks.keypoints.metrics import OKS_NMS_THRESHOLD, instance_score, oks_nms
from reproduction.tasks.keypoints.persons import Person
from reproduction.tasks.trees import entries_of, expected, read_json, require, require_files

KEYPOINTS = 17
PERSON = 1  # COCO's number of the category


@dataclass(frozen=True)
class CocoSplit:
    """The persons of a split, and what `keypoint_ap` compares predictions with.

    Attributes:
        persons: One crop each.
        truth: In COCO's format.
    """

    persons: tuple[Person, ...]
    truth: dict[str, Any]


def read_coco(
    folder: Path,
    split: str,
    input_wh: tuple[int, int],
    *,
    detections: Path | None = None,
    least_score: float = 0.0,
) -> CocoSplit:
    """Read ``train`` or ``val`` of 2017.

    Args:
        folder: As `reproduction.tasks.trees.TREES` says.
        split: ``train`` or ``val``.
        input_wh: Width and height of the network's input, whose aspect ratio the boxes get.
        detections: COCO results with boxes of persons, instead of the annotated ones; published
            figures take the detector file of 56.4 AP.
        least_score: Detections below are left out.

    Raises:
        UserError: A file is missing or damaged, is of another task or split, annotates a keypoint
            outside of its image, or has no annotated keypoint at all.
    """
    path = require("coco", folder, "annotations", f"person_keypoints_{split}2017.json")
    truth = read_json(path)
    place = require("coco", folder, "images", f"{split}2017")
    with entries_of(path):
        _check_truth(truth, path)
        images = {image["id"]: image for image in truth["images"]}
        files = {number: place / image["file_name"] for number, image in images.items()}
        annotated = _annotated(truth, images, files, input_wh, path) if detections is None else ()
    persons = annotated
    if detections is not None:
        with entries_of(detections):
            persons = _detected(detections, images, files, input_wh, least_score)
    require_files("coco", folder, (person.image for person in persons))
    return CocoSplit(persons, truth)


def _check_truth(truth: Any, path: Path) -> None:
    sections = ("images", "annotations", "categories")
    if not isinstance(truth, dict) or any(name not in truth for name in sections):
        raise UserError(f"{path} has not the sections {', '.join(sections)}: not COCO's format")
    entries = truth["annotations"]
    other = [entry for entry in entries if len(entry.get("keypoints", ())) != 3 * KEYPOINTS]
    if other:
        kinds = ", ".join(sorted(other[0]))
        raise UserError(
            f"{path} has annotations without {KEYPOINTS} keypoints, of {kinds}: a file of another "
            f"task of COCO; {expected('coco', path.parents[1])}"
        )
    if not any(entry["num_keypoints"] for entry in entries):
        raise UserError(f"{path} has no annotated keypoint in {len(entries)} annotations")


def _clipped(
    box_xywh: list[float], image: dict[str, Any]
) -> tuple[float, float, float, float] | None:
    """Return the part of a box inside of its image; none if nothing is."""
    x, y, width, height = box_xywh
    left, right = max(0.0, x), min(float(image["width"]), x + width)
    top, bottom = max(0.0, y), min(float(image["height"]), y + height)
    return (left, top, right - left, bottom - top) if left < right and top < bottom else None


def _annotated(
    truth: dict[str, Any],
    images: dict[int, dict[str, Any]],
    files: dict[int, Path],
    input_wh: tuple[int, int],
    path: Path,
) -> tuple[Person, ...]:
    persons = []
    for entry in truth["annotations"]:
        number = entry["image_id"]
        if number not in images:
            raise UserError(f"{path} annotates image {number}, which it does not list: get it anew")
        box = _clipped(entry["bbox"], images[number])
        if entry["iscrowd"] or not entry["num_keypoints"] or box is None:
            continue
        triples = np.array(entry["keypoints"], dtype=np.float64).reshape(KEYPOINTS, 3)
        points, visibility = triples[:, :2], triples[:, 2].astype(np.int64)
        size = (images[number]["width"], images[number]["height"])
        try:
            check_keypoints(points, visibility, size)
        except UserError as error:
            raise UserError(f"annotation {entry['id']} of {path}: {error}") from error
        crop = coco_crop_box(box, input_wh)
        persons.append(Person(files[number], crop, points, visibility, number))
    return tuple(persons)


def _detected(
    path: Path,
    images: dict[int, dict[str, Any]],
    files: dict[int, Path],
    input_wh: tuple[int, int],
    least_score: float,
) -> tuple[Person, ...]:
    if not path.is_file():
        raise UserError(f"the detections {path} do not exist; give a json file of COCO results")
    persons = []
    for entry in read_json(path):
        if not {"image_id", "category_id", "bbox", "score"} <= set(entry):
            raise UserError(
                f"{path} has an entry of {', '.join(sorted(entry))}; expected image_id, "
                "category_id, bbox and score"
            )
        if entry["category_id"] != PERSON or entry["score"] < least_score:
            continue
        number = entry["image_id"]
        if number not in images:
            raise UserError(
                f"{path} has boxes in image {number}, which is not in this split: take the "
                "detections of the split that is evaluated"
            )
        box = _clipped(entry["bbox"], images[number])
        if box is not None:
            unknown = np.zeros((KEYPOINTS, 2)), np.zeros(KEYPOINTS, np.int64)
            crop = coco_crop_box(box, input_wh)
            persons.append(Person(files[number], crop, *unknown, number, entry["score"]))
    if not persons:
        raise UserError(f"{path} has no person with a score of at least {least_score}")
    return tuple(persons)


def coco_results(
    persons: Sequence[Person],
    keypoints_xy: np.ndarray,
    keypoint_scores: np.ndarray,
    most_oks: float = OKS_NMS_THRESHOLD,
) -> list[dict[str, Any]]:
    """Write predictions in COCO's format of results, similar ones of an image left out.

    Args:
        persons: N.
        keypoints_xy: (N, K, 2) in image pixels.
        keypoint_scores: (N, K).
        most_oks: Of two more similar than this, the better one is kept.
    """
    totals = np.array(
        [instance_score(p.score, row) for p, row in zip(persons, keypoint_scores, strict=True)]
    )
    areas = np.array([person.box.area_px for person in persons])
    numbers = np.array([person.image_id for person in persons])
    results = []
    for number in np.unique(numbers):
        members = np.flatnonzero(numbers == number)
        of_image = (keypoints_xy[members], totals[members], areas[members])
        for kept in members[oks_nms(*of_image, threshold=most_oks)]:
            triples = np.column_stack([keypoints_xy[kept], keypoint_scores[kept]])
            results.append(
                {
                    "image_id": int(number),
                    "category_id": PERSON,
                    "keypoints": triples.ravel().tolist(),
                    "score": float(totals[kept]),
                }
            )
    return results
