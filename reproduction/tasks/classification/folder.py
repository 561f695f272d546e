"""A folder of images in ImageNet's layout, read as the official recipe reads it (appendix B).

Training: a random resized crop (area 8-100 %, aspect 3/4-4/3) and a horizontal flip. Test: the
shorter side to 256/224 of the input size, then the central crop.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reproduction.errors import UserError
from reproduction.tasks.classification.data import Dataset
from reproduction.tasks.trees import open_image

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
RESIZE_RATIO = 256 / 224
CROP_AREA = (0.08, 1.0)
CROP_LOG_ASPECT = (np.log(3 / 4), np.log(4 / 3))
CROP_TRIES = 10


@dataclass(frozen=True)
class FolderSplit:
    """Image files, decoded when they are read.

    Attributes:
        paths: The files.
        labels: (N,) int64.
        image_size: Pixels of height and width after cropping.
        workers: Threads that decode.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    image_size: int
    workers: int = 0

    def read(self, indices: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Return (B, 3, image_size, image_size) uint8."""
        seeds = rng.integers(0, 2**63, len(indices)) if rng else [None] * len(indices)
        paths = [self.paths[index] for index in indices]
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            return np.stack(list(pool.map(self._read_one, paths, seeds)))

    def _read_one(self, path: Path, seed: int | None) -> np.ndarray:
        image = open_image(path).convert("RGB")
        if seed is None:
            return _to_array(_central_crop(image, self.image_size))
        rng = np.random.default_rng(seed)
        crop = _random_crop(image, self.image_size, rng)
        return _to_array(crop)[:, :, ::-1] if rng.random() < 0.5 else _to_array(crop)


def read_image_folder(folder: Path, image_size: int, workers: int) -> Dataset:
    """Index ``folder/{train,val}/<class>/<image>``.

    Raises:
        UserError: A folder is missing, empty, or the two splits have different classes.
    """
    classes = _classes(folder, "train")
    if _classes(folder, "val") != classes:
        raise UserError(f"{folder}: train and val have different class folders; make them equal")
    splits, digest = [], hashlib.sha256()
    for name in ("train", "val"):
        files = [
            (path, label)
            for label, class_name in enumerate(classes)
            for path in sorted((folder / name / class_name).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]
        if not files:
            raise UserError(f"{folder / name} holds no images ({', '.join(SUFFIXES)})")
        for path, label in files:
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} {label}\n".encode())
        labels = np.array([label for _, label in files], dtype=np.int64)
        splits.append(FolderSplit(tuple(path for path, _ in files), labels, image_size, workers))
    return Dataset(
        name="image_folder",
        train=splits[0],
        test=splits[1],
        num_classes=len(classes),
        image_size=image_size,
        sha256=digest.hexdigest(),
        source="a folder of the user's (digest over relative paths, sizes and labels)",
        license="as the user's data set",
    )


def _classes(folder: Path, split: str) -> list[str]:
    place = folder / split
    names = sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    if not names:
        raise UserError(
            f"{place} has no class folders; expected {folder}/train/CLASS/IMAGE and "
            f"{folder}/val/CLASS/IMAGE"
        )
    return names


def _to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def _central_crop(image: Image.Image, size: int) -> Image.Image:
    scale = round(size * RESIZE_RATIO) / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(*CROP_AREA)
        aspect = np.exp(rng.uniform(*CROP_LOG_ASPECT))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            box = (left, top, left + w, top + h)
            return image.resize((size, size), Image.Resampling.BILINEAR, box)
    return _central_crop(image, size)
