"""Check a folder of real data: ``python -m reproduction.tasks.data NAME FOLDER``.

Names are the keys of `reproduction.tasks.trees.TREES`, which says what each folder must hold;
without arguments the command prints that. It reads all lists and annotations, looks for every file
that they name, decodes the first image of each split, and prints how many there are.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reproduction.errors import UserError
from reproduction.tasks.keypoints.coco import read_coco
from reproduction.tasks.keypoints.faces import read_faces
from reproduction.tasks.keypoints.mpii import check_count, read_mpii, read_pckh_truth
from reproduction.tasks.keypoints.persons import Person, check_near
from reproduction.tasks.segmentation.folders import CLASSES, read_labeled
from reproduction.tasks.trees import TREES, expected, read_rgb

FACE_SPLITS = {"300w": ("train", "valid")}


def check_folder(name: str, folder: Path) -> list[str]:
    """Return a line for each split of a data set.

    Raises:
        UserError: The name is unknown, or the folder is not as it must be.
    """
    if name not in TREES:
        raise UserError(f"data set {name!r} is unknown; use {', '.join(TREES)}")
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; {expected(name, folder)}")
    check: Callable[[str, Path], list[str]] = _check_faces
    if name in CLASSES:
        check = _check_labeled
    elif name in ("coco", "mpii"):
        check = _check_coco if name == "coco" else _check_mpii
    return check(name, folder)


def _check_labeled(name: str, folder: Path) -> list[str]:
    lines = []
    for split in ("train", "val"):
        data = read_labeled(folder, name, split)
        _, labels = data.read(0)
        found = len(np.unique(labels[labels != 255]))
        lines.append(f"{split}: {len(data.pairs)} images; {found} classes in the first")
    return lines


def _persons(split: str, persons: tuple[Person, ...]) -> str:
    image = read_rgb(persons[0].image)
    check_near(persons[0], (image.shape[1], image.shape[0]))
    images = len({person.image for person in persons})
    points = sum(int((person.visibility > 0).sum()) for person in persons)
    return f"{split}: {len(persons)} boxes in {images} images, {points} annotated points"


def _check_coco(name: str, folder: Path) -> list[str]:
    splits = ("train", "val")
    return [_persons(split, read_coco(folder, split, (192, 256)).persons) for split in splits]


def _check_mpii(name: str, folder: Path) -> list[str]:
    train, valid = (read_mpii(folder, split) for split in ("train", "valid"))
    check_count(valid, read_pckh_truth(folder), folder)
    return [_persons("train", train), _persons("valid", valid)]


def _check_faces(name: str, folder: Path) -> list[str]:
    splits = FACE_SPLITS.get(name, ("train", "test"))
    return [_persons(split, read_faces(folder, name, split)) for split in splits]


def main(arguments: list[str]) -> int:
    """Run the command; 2 if the folder is not as it must be."""
    if len(arguments) != 2:
        for name in TREES:
            print(expected(name, Path("FOLDER")))
        return 0 if not arguments else 2
    try:
        print("\n".join(check_folder(arguments[0], Path(arguments[1]).expanduser())))
    except (UserError, RuntimeError) as error:  # the latter: nobody's home folder
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
