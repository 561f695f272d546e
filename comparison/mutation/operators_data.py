"""Faults in the data path: order, augmentation, normalization, labels."""

from collections.abc import Callable, Iterable, Iterator

import torch

from comparison.engine.sides import Batch
from comparison.mutation.fault import DATA, Fault, InjectData


def has_labels(batch: Batch) -> bool:
    """Tell whether the targets of a batch are labels rather than numbers."""
    return isinstance(batch.targets, torch.Tensor) and not batch.targets.is_floating_point()


def data_faults(batch: Batch) -> Iterator[Fault]:
    """List the faults of a data path; those of images and labels only where there are any.

    Args:
        batch: One of the batches.
    """
    changes = dict(_BATCHES)
    if batch.inputs.dim() == 4:
        changes |= {name: _each(change) for name, change in _IMAGES.items()}
    if has_labels(batch):
        changes["one label wrong"] = _first(_with_a_wrong_label)
    for operator, change in changes.items():
        yield Fault(
            name=operator,
            operator=operator,
            family="schedule/data/RNG",
            modes=(DATA,),
            sites=("data",),
            inject_data=change,
        )


def _each(change: Callable[[torch.Tensor], torch.Tensor]) -> InjectData:
    return lambda batches: [Batch(change(inputs), targets) for inputs, targets in batches]


def _first(change: Callable[[Batch], Batch]) -> InjectData:
    def inject(batches: Iterable[Batch]) -> list[Batch]:
        first, *others = batches
        return [change(first), *others]

    return inject


def _reordered(batch: Batch) -> Batch:
    order = [1, 0, *range(2, len(batch.inputs))]
    targets = batch.targets[order] if isinstance(batch.targets, torch.Tensor) else batch.targets
    return Batch(batch.inputs[order], targets)


def _with_a_wrong_label(batch: Batch) -> Batch:
    targets = batch.targets.clone()
    targets.view(-1)[0] = targets.view(-1)[0] - 1 if targets.view(-1)[0] else 1
    return Batch(batch.inputs, targets)


def _one_mirrored(batch: Batch) -> Batch:
    inputs = batch.inputs.clone()
    inputs[0] = inputs[0].flip(-1)
    return Batch(inputs, batch.targets)


def _shortened(batches: Iterable[Batch]) -> list[Batch]:
    *others, last = batches
    targets = last.targets[:-1] if isinstance(last.targets, torch.Tensor) else last.targets
    return [*others, Batch(last.inputs[:-1], targets)]


def _exchanged(batches: Iterable[Batch]) -> list[Batch]:
    first, second, *others = batches
    return [second, first, *others]


_BATCHES: dict[str, InjectData] = {
    "batches in another order": _exchanged,
    "samples in another order": _first(_reordered),
    "last batch dropped": lambda batches: list(batches)[:-1],
    "last batch shortened": _shortened,
    "one sample mirrored": _first(_one_mirrored),
}
_IMAGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "all images mirrored": lambda images: images.flip(-1),
    "images normalized by another deviation": lambda images: images * 1.01,
    "images normalized by another mean": lambda images: images + 0.01,
    "BGR for RGB": lambda images: images.flip(1),
    "crop off by one pixel": lambda images: images.roll(1, -1),
    "images in steps of 1/64": lambda images: (images * 64).round() / 64,
}
