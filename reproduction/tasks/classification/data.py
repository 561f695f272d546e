"""Batches of images as a function of the seed alone.

Order and augmentation of an epoch follow from (seed, epoch), those of an image from its place in
the epoch: no global generator is read, so that two implementations see the same batches, and a
resumed run sees those it would have seen.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from reproduction.errors import UserError

# ImageNet statistics on the [0, 1] scale, RGB: the official normalization, for every data set.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MAX_SHIFT_PX = 2


class Batch(NamedTuple):
    """What one step sees.

    Attributes:
        images: (B, 3, H, W) float32, normalized.
        labels: (B,) int64.
        digest: SHA-256 of the augmented 8-bit images and the labels.
    """

    images: torch.Tensor
    labels: torch.Tensor
    digest: str


class Split(Protocol):
    """Labeled images that can be read by index, augmented or as they are."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        ...

    def read(self, indices: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Return (B, C, H, W) uint8, augmented by draws from `rng` if there is one."""
        ...


@dataclass(frozen=True)
class ArraySplit:
    """Images held in memory, all of one size.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        flip: Whether augmentation mirrors half of the images.
    """

    images: np.ndarray
    labels: np.ndarray
    flip: bool = False

    def read(self, indices: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Return the images, shifted by up to two pixels and mirrored if augmented."""
        images = self.images[indices]
        if rng is None:
            return images
        size = images.shape[-2:]
        offsets = rng.integers(0, 2 * MAX_SHIFT_PX + 1, (len(images), 2))
        mirrored = rng.random(len(images)) < 0.5
        pad = ((0, 0), (0, 0), (MAX_SHIFT_PX, MAX_SHIFT_PX), (MAX_SHIFT_PX, MAX_SHIFT_PX))
        padded = np.pad(images, pad)
        rows = offsets[:, :1] + np.arange(size[0])
        columns = offsets[:, 1:] + np.arange(size[1])
        if self.flip:
            columns[mirrored] = columns[mirrored, ::-1]
        channels = np.arange(images.shape[1])[None, :, None, None]
        return padded[
            np.arange(len(images))[:, None, None, None],
            channels,
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]


@dataclass(frozen=True)
class Dataset:
    """A data set with its two splits and where it comes from.

    Attributes:
        name: ``digits``, ``fashion_mnist`` or ``image_folder``.
        train: Training images.
        test: Images that are never trained on.
        num_classes: Number of labels.
        image_size: Height and width in pixels of what the network sees.
        sha256: Digest of the files or arrays that it was read from.
        source: Where it comes from.
        license: Under which terms.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    image_size: int
    sha256: str
    source: str
    license: str

    def split(self, name: str) -> Split:
        """Return ``train`` or ``test``.

        Raises:
            UserError: There is no such split.
        """
        if name not in ("train", "test"):
            raise UserError(f"split {name!r} is unknown; use train or test")
        return self.train if name == "train" else self.test

    def steps(self, split: str, batch_size: int) -> int:
        """Return how many batches `batches` yields from its start."""
        count = len(self.split(split).labels)
        return count // batch_size if split == "train" else -(-count // batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 128, start: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Training batches are shuffled and augmented, and a last short batch is left out; test
        batches come in order and complete.

        Args:
            split: ``train`` or ``test``.
            seed: Seed of the run.
            epoch: Epoch from 0.
            batch_size: Images a batch.
            start: Batches to pass over, for resuming within an epoch.

        Raises:
            UserError: The split is unknown or smaller than one training batch.
        """
        data = self.split(split)
        count = len(data.labels)
        if split == "train" and count < batch_size:
            raise UserError(
                f"batch_size {batch_size} is larger than the {count} training images of "
                f"{self.name}: use a smaller one"
            )
        order = np.arange(count)
        if split == "train":
            order = np.random.default_rng([seed, epoch]).permutation(count)
        for step in range(start, self.steps(split, batch_size)):
            indices = order[step * batch_size : (step + 1) * batch_size]
            rng = np.random.default_rng([seed, epoch, step]) if split == "train" else None
            yield _as_batch(data.read(indices, rng), data.labels[indices])


def _as_batch(images: np.ndarray, labels: np.ndarray) -> Batch:
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    digest.update(labels.astype(np.int64).tobytes())
    tensor = torch.from_numpy(np.ascontiguousarray(images)).float().div_(255)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    # A gray image broadcasts to three channels here: both arms take RGB only.
    normalized = (tensor - mean) / std
    return Batch(normalized, torch.from_numpy(labels.astype(np.int64)), digest.hexdigest())
