"""What the training loop asks of a task: batches that follow from a seed, a loss, an evaluation.

`reproduction.train` knows no task by name. Whatever a head puts out (logits, heatmaps, OCR's pair,
a detector's losses) is the task's affair alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import nn


class Batch(NamedTuple):
    """What one step sees.

    Attributes:
        images: (B, 3, H, W) float32, normalized.
        targets: Tensors, or lists, tuples and mappings of them.
        digest: SHA-256 of what the images and targets were made from.
    """

    images: torch.Tensor
    targets: Any
    digest: str

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with all its tensors on a device."""
        return Batch(self.images.to(device), _moved(self.targets, device), self.digest)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(entry, device) for key, entry in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(entry, device) for entry in value))
    if isinstance(value, list | tuple):
        return type(value)(_moved(entry, device) for entry in value)
    return value


@dataclass(frozen=True)
class Loss:
    """The loss of one batch.

    Attributes:
        value: A scalar that can be differentiated: the mean over the batch's images.
        counts: In how many images something holds, by name; an epoch's row in the history gives
            its share in percent as ``train_<name>``.
    """

    value: torch.Tensor
    counts: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and back into the mode it had."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class Result(Protocol):
    """What a trained network reaches on the test split."""

    @property
    def loss(self) -> float:
        """Mean over images."""
        ...

    @property
    def scores(self) -> Mapping[str, float]:
        """Figures by name; the history has them as ``test_<name>``."""
        ...


ResultT = TypeVar("ResultT", bound=Result, covariant=True)


class Task(Protocol[ResultT]):
    """Data with a loss and an evaluation."""

    @property
    def identity(self) -> list[Any]:
        """All that decides the batches beside the seed: plain values, for JSON."""
        ...

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        ...

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 1, start: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, from `start`; they follow from seed and epoch alone.

        Args:
            split: ``train``: shuffled, augmented, all batches full; or ``test``: in order, whole.
            seed: Seed of the run.
            epoch: Epoch from 0.
            batch_size: Images a batch.
            start: Batches to pass over, for resuming within an epoch.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Run the model, in train mode, on a batch and return the loss."""
        ...

    def evaluate(self, model: nn.Module, device: torch.device) -> ResultT:
        """Score the model on the test split, in eval mode; its mode is restored."""
        ...


def outputs_of(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return what a network puts out as a list, the one that counts last."""
    outputs = model(images)
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
