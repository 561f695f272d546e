"""Images with their label maps as the data sets come, and what their numbers mean.

A set is a list of pairs of files, found by the names that the set gives its files or read from a
list in the form of the official code (a line has an image and its labels, relative to the folder).
Classes count from 0; 255 is ignored.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reproduction.errors import UserError
from reproduction.tasks.segmentation.losses import CITYSCAPES_RAW_LABELS
from reproduction.tasks.trees import (
    expected,
    read_indices,
    read_mat,
    read_rgb,
    read_words,
    require,
    require_files,
)

IGNORED = 255
UNKNOWN = -1  # in a table of labels: what the set does not have
CLASSES = {
    **{"cityscapes": 19, "ade20k": 150, "lip": 20},
    **{"pascal_ctx": 59, "pascal_ctx60": 60},
}
# What the 59 classes are called where the list of all 459 labels calls them otherwise.
CONTEXT_ALIASES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


@dataclass(frozen=True)
class Pair:
    """An image file and the file of its labels."""

    image: Path
    labels: Path


@dataclass(frozen=True)
class LabeledImages:
    """A split of a data set.

    Attributes:
        name: A key of CLASSES.
        pairs: The files.
        table: By raw label its class, IGNORED or UNKNOWN.
    """

    name: str
    pairs: tuple[Pair, ...]
    table: np.ndarray

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (H, W, 3) uint8 and its classes (H, W) uint8.

        Raises:
            UserError: A file cannot be read, the two have different sizes, or a label is not one
                of the set.
        """
        pair = self.pairs[index]
        image = read_rgb(pair.image)
        if pair.labels.suffix == ".mat":
            raw = read_mat(pair.labels, "LabelMap")[0].astype(np.int64)
        else:
            raw = read_indices(pair.labels)
        if raw.shape != image.shape[:2]:
            raise UserError(
                f"{pair.image} has {image.shape[0]} rows of {image.shape[1]} pixels and its labels "
                f"{pair.labels} have {raw.shape[0]} of {raw.shape[1]}: they do not belong together"
            )
        outside = (raw < 0) | (raw >= len(self.table))
        classes = np.where(outside, UNKNOWN, self.table[np.where(outside, 0, raw)])
        if (classes == UNKNOWN).any():
            number = int(raw[classes == UNKNOWN][0])
            raise UserError(
                f"{pair.labels} has label {number}, which {self.name} with its {CLASSES[self.name]}"
                " classes does not have: it is not the file of raw labels, or of another data set"
            )
        return image, classes.astype(np.uint8)


def _listed(folder: Path, list_file: Path) -> tuple[Pair, ...]:
    if not list_file.is_file():
        raise UserError(f"the list {list_file} does not exist")
    pairs = []
    for number, line in enumerate(read_words(list_file).splitlines(), 1):
        names = line.split()
        if len(names) != 2:
            raise UserError(
                f"line {number} of {list_file} has {len(names)} names; expected an image and its "
                "labels, relative to the folder"
            )
        pairs.append(Pair(folder / names[0], folder / names[1]))
    return tuple(pairs)


def _city_pairs(folder: Path, split: str) -> list[Pair]:
    """Pair Cityscapes' files; one that lies there without the other is found missing later."""
    sides = (("leftImg8bit", "_leftImg8bit.png"), ("gtFine", "_gtFine_labelIds.png"))
    found = {
        (path.parent.name, path.name.removesuffix(ending))
        for side, ending in sides
        for path in require("cityscapes", folder, side, split).glob(f"*/*{ending}")
    }
    return [
        Pair(*(folder / side / split / city / f"{shot}{ending}" for side, ending in sides))
        for city, shot in sorted(found)
    ]


# By data set and split, the folders of images and of labels, which have equal names.
PLACES = {
    "ade20k": {
        "train": ("images/training", "annotations/training"),
        "val": ("images/validation", "annotations/validation"),
    },
    "lip": {
        split: (
            f"TrainVal_images/{split}_images",
            f"TrainVal_parsing_annotations/{split}_segmentations",
        )
        for split in ("train", "val")
    },
}


def _pairs_of_equal_names(folder: Path, name: str, split: str) -> list[Pair]:
    images, labels = (require(name, folder, place) for place in PLACES[name][split])
    stems = {path.stem for path in (*images.glob("*.jpg"), *labels.glob("*.png"))}
    return [Pair(images / f"{stem}.jpg", labels / f"{stem}.png") for stem in sorted(stems)]


def _context_pairs(folder: Path, name: str, split: str) -> list[Pair]:
    names = read_words(require(name, folder, "ImageSets", "Main", f"{split}.txt")).split()
    return [
        Pair(folder / "JPEGImages" / f"{number}.jpg", folder / "trainval" / f"{number}.mat")
        for number in names
    ]


def _pairs(folder: Path, name: str, split: str) -> list[Pair]:
    if name == "cityscapes":
        return _city_pairs(folder, split)
    find = _pairs_of_equal_names if name in PLACES else _context_pairs
    return find(folder, name, split)


def label_table(folder: Path, name: str) -> np.ndarray:
    """Return by raw label its class, IGNORED or UNKNOWN.

    PASCAL-Context has 459 labels. Of these, 59 are classes, in the order of ``59_labels.txt``; all
    others are ignored, or with 60 classes the background, which is class 0. Where released weights
    have another order, put the lines of that file into theirs.

    Raises:
        UserError: A file of PASCAL-Context's names is missing or names something else.
    """
    table = np.full(256, UNKNOWN)
    table[IGNORED] = IGNORED
    if name == "cityscapes":
        table[:34] = IGNORED
        table[list(CITYSCAPES_RAW_LABELS)] = np.arange(CLASSES[name])
    elif name == "ade20k":
        table[0], table[1 : CLASSES[name] + 1] = IGNORED, np.arange(CLASSES[name])
    elif name == "lip":
        table[: CLASSES[name]] = np.arange(CLASSES[name])
    else:
        return _context_table(folder, name)
    return table


def _context_table(folder: Path, name: str) -> np.ndarray:
    numbers = {
        label: number for number, label in _names(require(name, folder, "labels.txt")).items()
    }
    chosen = _names(require(name, folder, "59_labels.txt"))
    with_background = CLASSES[name] == 60
    table = np.full(max(numbers.values(), default=0) + 1, 0 if with_background else IGNORED)
    for place, label in enumerate(chosen.values()):
        known = label if label in numbers else CONTEXT_ALIASES.get(label, label)
        if known not in numbers:
            raise UserError(f"{folder}/59_labels.txt has {label!r}, which labels.txt has not")
        table[numbers[known]] = place + with_background
    if len(chosen) != 59:
        raise UserError(f"{folder}/59_labels.txt has {len(chosen)} names; expected 59")
    return table


def _names(path: Path) -> dict[int, str]:
    """Read lines like ``2: aeroplane``; without the spaces of names."""
    lines = [line for line in read_words(path).splitlines() if line.strip()]
    parts = [line.partition(":") for line in lines]
    if not all(number.strip().isdigit() for number, _, _ in parts):
        raise UserError(f"{path} is not as expected: a line is a number, a colon and a name")
    return {int(number): label.replace(" ", "") for number, _, label in parts}


def read_labeled(
    folder: Path, name: str, split: str, *, list_file: Path | None = None
) -> LabeledImages:
    """List a split of a data set.

    Args:
        folder: As `reproduction.tasks.trees.TREES` says.
        name: A key of CLASSES.
        split: ``train``, ``val`` or ``trainval``.
        list_file: The pairs, instead of all files of the split.

    Raises:
        UserError: The data set or split is unknown, or a file is missing.
    """
    if name not in CLASSES:
        raise UserError(f"data set {name!r} is unknown; use {', '.join(CLASSES)}")
    parts = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
    if split not in parts:
        raise UserError(f"split {split!r} is unknown; use {', '.join(parts)}")
    if list_file is not None:
        pairs = _listed(folder, list_file)
    else:
        pairs = tuple(pair for part in parts[split] for pair in _pairs(folder, name, part))
    if not pairs:
        raise UserError(f"{folder} has no image of {split}: {expected(name, folder)}")
    require_files(name, folder, [file for pair in pairs for file in (pair.image, pair.labels)])
    return LabeledImages(name, pairs, label_table(folder, name))
