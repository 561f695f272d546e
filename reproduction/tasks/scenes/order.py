"""In which order scenes are trained on: a function of seed and epoch alone."""

from collections.abc import Iterator

import numpy as np

from reproduction.errors import UserError
from reproduction.tasks.scenes.dataset import SPLITS


def batches_of(
    count: int, split: str, *, seed: int, epoch: int, batch_size: int, start: int, what: str
) -> Iterator[tuple[np.ndarray, np.random.Generator | None]]:
    """Yield the indices of each batch of an epoch, and what its augmentation is drawn from.

    Args:
        count: Examples of the split.
        split: ``train``: shuffled, a last short batch left out; ``test``: in order and complete.
        seed: Of the run.
        epoch: From 0.
        batch_size: Examples a batch.
        start: Batches to pass over.
        what: The examples' name, in the plural.

    Raises:
        UserError: The split is unknown or smaller than one training batch.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; use train or test")
    is_train = split == "train"
    if is_train and count < batch_size:
        raise UserError(
            f"batch_size {batch_size} is larger than the {count} {what} to train on: compose more "
            "scenes or use smaller batches"
        )
    order = np.random.default_rng([seed, epoch]).permutation(count) if is_train else None
    steps = count // batch_size if is_train else -(-count // batch_size)
    for step in range(start, steps):
        places = np.arange(step * batch_size, min(count, (step + 1) * batch_size))
        if order is None:
            yield places, None
        else:
            yield order[places], np.random.default_rng([seed, epoch, step])
