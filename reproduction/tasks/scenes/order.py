"""In which order scenes are trained on: a function of seed and epoch alone."""

from collections.abc import Iterator

import numpy as np

from reproduction.tasks.order import chosen_batches


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
    for step, indices in chosen_batches(
        count,
        split,
        seed=seed,
        epoch=epoch,
        batch_size=batch_size,
        start=start,
        what=f"{what} to train on",
    ):
        yield indices, np.random.default_rng([seed, epoch, step]) if split == "train" else None
