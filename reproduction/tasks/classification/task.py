"""Classification as the training loop sees it: cross-entropy, and top-1 and top-5 accuracy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from reproduction.evaluate import Evaluation, evaluate
from reproduction.tasks.classification.data import Dataset
from reproduction.tasks.classification.metrics import top_k_correct
from reproduction.tasks.task import Batch, Loss


def classification_loss(model: nn.Module, batch: Batch) -> Loss:
    """Return the mean cross-entropy of a batch, and count the right decisions."""
    logits = model(batch.images)
    correct = top_k_correct(logits.detach(), batch.targets, 1).sum()
    return Loss(F.cross_entropy(logits, batch.targets), {"top1": int(correct)})


@dataclass(frozen=True)
class Classification:
    """Classify the images of a data set."""

    dataset: Dataset

    @property
    def identity(self) -> list[Any]:
        """Name, digest and image size of the data."""
        return [self.dataset.name, self.dataset.sha256, self.dataset.image_size]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return self.dataset.steps("train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 128, start: int = 0
    ) -> Iterator[Batch]:
        """Yield the data set's batches (`Dataset.batches`); targets are labels (B,) int64."""
        for images, labels, digest in self.dataset.batches(
            split, seed=seed, epoch=epoch, batch_size=batch_size, start=start
        ):
            yield Batch(images, labels, digest)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean cross-entropy, and count the right decisions."""
        return classification_loss(model, batch)

    def evaluate(self, model: nn.Module, device: torch.device) -> Evaluation:
        """Decide every test image."""
        return evaluate(model, self.dataset, device=device)
