"""The folders that real data sets come in, and one sentence where a folder is not like that.

Images are decoded by Pillow as RGB; the official code decodes them by OpenCV, as BGR, and turns
the channels around. Both decoders follow the JPEG standard, which leaves room for differences of
single gray levels.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reproduction.errors import UserError
from reproduction.tasks.matfile import read_arrays

# Pillow knows others that start programs (PostScript) or are hardly ever looked after.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


@dataclass(frozen=True)
class Tree:
    """How a data set's folder looks.

    Attributes:
        files: Patterns of what must lie in it.
        source: Where the data set is to be had.
    """

    files: tuple[str, ...]
    source: str


def _faces(name: str, splits: str, source: str) -> Tree:
    return Tree((f"face_landmarks_{name}_{{{splits}}}.csv", "images/…"), source)


_CONTEXT = Tree(
    (
        "JPEGImages/ID.jpg",
        "ImageSets/Main/{train,val}.txt",
        "trainval/ID.mat",
        "labels.txt",
        "59_labels.txt",
    ),
    "VOC2010 of host.robots.ox.ac.uk/pascal/VOC; labels of cs.stanford.edu/~roozbeh/pascal-context",
)

TREES = {
    "coco": Tree(
        (
            "annotations/person_keypoints_{train,val}2017.json",
            "images/{train,val}2017/ID.jpg",
        ),
        "cocodataset.org, 2017",
    ),
    "mpii": Tree(
        ("annot/{train,valid}.json", "annot/gt_valid.mat", "images/ID.jpg"),
        "human-pose.mpi-inf.mpg.de; annot as the official pose repository offers it",
    ),
    "cityscapes": Tree(
        (
            "leftImg8bit/{train,val}/CITY/ID_leftImg8bit.png",
            "gtFine/{train,val}/CITY/ID_gtFine_labelIds.png",
        ),
        "cityscapes-dataset.com",
    ),
    "ade20k": Tree(
        ("images/{training,validation}/ID.jpg", "annotations/{training,validation}/ID.png"),
        "ADEChallengeData2016 of sceneparsing.csail.mit.edu",
    ),
    "lip": Tree(
        (
            "TrainVal_images/{train,val}_images/ID.jpg",
            "TrainVal_parsing_annotations/{train,val}_segmentations/ID.png",
        ),
        "sysu-hcp.net/lip, single person",
    ),
    "pascal_ctx": _CONTEXT,
    "pascal_ctx60": _CONTEXT,
    "wflw": _faces(
        "wflw",
        "train,test,test_blur,test_expression,…",
        "wywu.github.io/projects/LAB/WFLW.html; csv files as the official landmark code offers",
    ),
    "300w": _faces(
        "300w",
        "train,valid,valid_common,valid_challenge,test",
        "ibug.doc.ic.ac.uk/resources/300-W; csv files as the official landmark code offers them",
    ),
    "aflw": _faces(
        "aflw",
        "train,test,test_frontal",
        "tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw; csv files likewise",
    ),
    "cofw": _faces(
        "cofw",
        "train,test",
        "data.caltech.edu; its mat files have to be converted to csv files like those of wflw",
    ),
}


def expected(name: str, folder: Path) -> str:
    """Say in half a sentence how a data set's folder must look and where the data are had.

    >>> expected("ade20k", Path("D"))[:68]
    'ade20k needs D/images/{training,validation}/ID.jpg, D/annotations/{t'
    """
    tree = TREES[name]
    files = ", ".join(f"{folder}/{pattern}" for pattern in tree.files)
    return f"{name} needs {files} ({tree.source})"


def require(name: str, folder: Path, *parts: str) -> Path:
    """Return a file or folder of a data set.

    Raises:
        UserError: It is not there.
    """
    place = folder.joinpath(*parts)
    if not place.exists():
        raise UserError(f"{place} is missing: {expected(name, folder)}")
    return place


def require_files(name: str, folder: Path, paths: Iterable[Path]) -> None:
    """Refuse a data set of which only a part is there; each folder is listed once.

    Raises:
        UserError: A file is missing or empty, or lies elsewhere.
    """
    listed: dict[Path, set[str]] = {}
    wanted = list(dict.fromkeys(paths))
    for path in wanted:
        if not path.is_relative_to(folder) or {"..", "\0"} & {*path.parts, *str(path)}:
            raise UserError(f"{path} is no file of the data set in {folder}: get its lists again")
    for parent in {path.parent for path in wanted}:
        listed[parent] = set()
        if parent.is_dir():
            with os.scandir(parent) as entries:
                files = (entry for entry in entries if entry.is_file())  # no link to nowhere
                listed[parent] = {entry.name for entry in files if entry.stat().st_size}
    missing = [path for path in wanted if path.name not in listed[path.parent]]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(wanted)} files are missing or empty, such as {missing[0]}: "
            f"the data set was not downloaded or unpacked to its end; {expected(name, folder)}"
        )


def open_image(path: Path) -> Image.Image:
    """Decode an image file.

    Raises:
        UserError: It cannot be read, or not to its end; it is of a format that no data set has, or
            claims more than Pillow's limit of 179 million pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as opened:
            opened.load()
            return opened
    except Exception as error:  # decoders raise many types on damaged bytes
        raise UserError(f"{path} cannot be read as an image: remove or replace it") from error


def read_rgb(path: Path) -> np.ndarray:
    """Return an image as (H, W, 3) uint8.

    Raises:
        UserError: It cannot be read.
    """
    return np.array(open_image(path).convert("RGB"))


def read_indices(path: Path) -> np.ndarray:
    """Return an image whose pixels are numbers of classes, (H, W) int64.

    Raises:
        UserError: It cannot be read, or has colors.
    """
    image = open_image(path)
    if image.mode not in ("L", "P", "I", "I;16"):
        raise UserError(
            f"{path} has {len(image.getbands())} channels ({image.mode}); labels are one number a "
            "pixel: take the files of class numbers, not those made to be looked at"
        )
    return np.asarray(image).astype(np.int64)


def read_words(path: Path) -> str:
    """Return what a text file holds.

    Raises:
        UserError: It cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): get it again") from error


def read_json(path: Path) -> Any:
    """Return what a json file holds.

    Raises:
        UserError: It is damaged.
    """
    try:
        return json.loads(read_words(path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): get it again") from error


def read_mat(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Return arrays of numbers that a mat file of MATLAB holds.

    Raises:
        UserError: It is damaged or of another version, lacks one of them, or has no numbers there.
    """
    try:
        found = read_arrays(path.read_bytes(), names)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): get it again") from error
    if any(name not in found for name in names):
        raise UserError(f"{path} lacks one of {', '.join(names)}: it is another file")
    return tuple(found[name] for name in names)


@contextmanager
def entries_of(path: Path) -> Iterator[None]:
    """Turn what goes wrong with an entry of unexpected form into a sentence about its file.

    Raises:
        UserError: An entry lacks something, or has another type or size.
    """
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} has an entry that is not as expected ({type(error).__name__}: {told}): get it "
            "again"
        ) from error
