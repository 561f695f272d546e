"""Which samples make up the batches of an epoch, and what each of them draws from.

Order follows from (seed, epoch), the draws of a sample from (seed, epoch, sample): no global
generator is read, and neither threads nor the size of a batch change what a sample looks like.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from reproduction.errors import UserError
from reproduction.tasks.classification.data import MEAN, STD

SPLITS = ("train", "test")
READ_AHEAD = 1  # batches that are read while one is trained on
Sample = TypeVar("Sample")
Read = Callable[[int, np.random.Generator | None], Sample]


def steps_of(count: int, split: str, batch_size: int) -> int:
    """Return how many batches an epoch has; in training a last short one is left out.

    >>> steps_of(10, "train", 4), steps_of(10, "test", 4)
    (2, 3)
    """
    return count // batch_size if split == "train" else -(-count // batch_size)


def chosen_batches(
    count: int,
    split: str,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    start: int = 0,
    what: str = "training samples",
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each batch of an epoch, from `start`, and the indices of its samples.

    Args:
        count: Number of samples.
        split: ``train``: shuffled, full batches; or ``test``: in order, complete.
        seed: Seed of the run.
        epoch: Epoch from 0.
        batch_size: Samples a batch.
        start: Batches to pass over.
        what: The samples' name, in the plural.

    Raises:
        UserError: The split is unknown, or smaller than one training batch.

    >>> [indices.tolist() for _, indices in
    ...     chosen_batches(5, "test", seed=0, epoch=0, batch_size=2, start=1)]
    [[2, 3], [4]]
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; use train or test")
    steps = steps_of(count, split, batch_size)
    if split == "train" and not steps:
        raise UserError(
            f"batch_size {batch_size} is larger than the {count} {what}: use a smaller one, or "
            "more data"
        )
    order = np.arange(count)
    if split == "train":
        order = np.random.default_rng([seed, epoch]).permutation(count)
    for step in range(start, steps):
        yield step, order[step * batch_size : (step + 1) * batch_size]


def read_batches(
    read: Read[Sample],
    count: int,
    split: str,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    start: int = 0,
    workers: int = 0,
) -> Iterator[list[Sample]]:
    """Yield the samples of each batch of an epoch, from `start`.

    Args:
        read: Reads one sample, augmented by draws from the generator if there is one.
        count: Number of samples.
        split: ``train``: shuffled, augmented, full batches; or ``test``: in order, complete.
        seed: Seed of the run.
        epoch: Epoch from 0.
        batch_size: Samples a batch.
        start: Batches to pass over.
        workers: Threads that read.

    Raises:
        UserError: The split is unknown, or smaller than one training batch.
    """

    def one(index: int) -> Sample:
        rng = np.random.default_rng([seed, epoch, index]) if split == "train" else None
        return read(index, rng)

    under_way: deque[Iterator[Sample]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for _, chosen in chosen_batches(
            count, split, seed=seed, epoch=epoch, batch_size=batch_size, start=start
        ):
            under_way.append(pool.map(one, chosen.tolist()))
            if len(under_way) > READ_AHEAD:
                yield list(under_way.popleft())
        while under_way:
            yield list(under_way.popleft())


def stacked(arrays: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Stack images or label maps of a batch, unless they are one array already.

    Raises:
        UserError: The sizes differ.
    """
    if isinstance(arrays, np.ndarray):
        return arrays
    sizes = sorted({array.shape[:2] for array in arrays})
    if len(sizes) > 1:
        raise UserError(
            f"images or labels of a batch have sizes {sizes}: whole images of different sizes need "
            "batch_size 1"
        )
    return np.stack(arrays)


def normalized(images: Sequence[np.ndarray] | np.ndarray) -> torch.Tensor:
    """Stack images (H, W, 3) uint8 of one size, or (B, H, W, 3), as the networks take them.

    Returns:
        (B, 3, H, W) float32.

    Raises:
        UserError: The sizes differ.
    """
    pixels = np.ascontiguousarray(stacked(images).transpose(0, 3, 1, 2))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return torch.from_numpy(pixels).float().div_(255).sub_(mean).div_(std)


def digest_of(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of some arrays.

    >>> digest_of(np.zeros(2)) == digest_of(np.zeros(1), np.zeros(1))
    True
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def identity_of(names: Sequence[object]) -> str:
    """Name a data set by what it lists: a digest over the text of each entry."""
    return hashlib.sha256("\n".join(str(name) for name in names).encode()).hexdigest()
