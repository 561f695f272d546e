"""Segmentation of composed scenes: a digit or background for every pixel.

Scenes are seen whole and as they are. The official recipes also mirror, scale and crop: a mirrored
digit is no digit, and places and scales are drawn anew for every scene anyway.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from reproduction.tasks.order import digest_of, normalized, steps_of
from reproduction.tasks.scenes.dataset import NUM_CLASSES, Scenes
from reproduction.tasks.scenes.order import batches_of
from reproduction.tasks.segmentation.losses import LossSettings, combined_loss, resize_logits
from reproduction.tasks.segmentation.metrics import confusion_matrix, segmentation_scores
from reproduction.tasks.task import Batch, Loss, evaluating, outputs_of

TEST_BATCH = 16


@dataclass(frozen=True)
class Labeled:
    """Label maps that a network gave to the test scenes.

    Attributes:
        loss: Mean over scenes.
        scores: ``miou`` and ``pixel_accuracy`` in percent.
        predictions: (N, H, W) uint8.
    """

    loss: float
    scores: Mapping[str, float]
    predictions: np.ndarray


@dataclass(frozen=True)
class SceneLabeling:
    """Label the pixels of scenes; OCR differs by its two outputs and their balance alone.

    Attributes:
        train: Scenes to train on.
        test: Scenes that share no digit with them.
        settings: The loss.
    """

    train: Scenes
    test: Scenes
    settings: LossSettings

    @property
    def identity(self) -> list[Any]:
        """Digests of both sets, and the settings of the loss."""
        return [self.train.sha256, self.test.sha256, f"{self.settings}"]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return steps_of(len(self.train.images), "train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 16, start: int = 0
    ) -> Iterator[Batch]:
        """Yield scenes; targets are labels (B, H, W) int64.

        Raises:
            UserError: The split is unknown or smaller than one training batch.
        """
        scenes = self.train if split == "train" else self.test
        for indices, _ in batches_of(
            len(scenes.images),
            split,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            start=start,
            what="scenes",
        ):
            labels = scenes.labels[indices]
            yield batch_of(
                scenes.images[indices], labels, torch.from_numpy(labels.astype(np.int64))
            )

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the weighted cross-entropy of the network's outputs."""
        return Loss(combined_loss(outputs_of(model, batch.images), batch.targets, self.settings))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> Labeled:
        """Label every test scene by the last output."""
        losses, predictions = [], []
        with evaluating(model):
            for batch in self.batches("test", batch_size=TEST_BATCH):
                moved = batch.to(device)
                outputs = outputs_of(model, moved.images)
                loss = combined_loss(outputs, moved.targets, self.settings)
                losses.append(float(loss) * len(batch.images))
                predictions.append(self.decide(outputs))
        return self.scored(np.concatenate(predictions), sum(losses) / len(self.test.images))

    def decide(self, outputs: list[torch.Tensor]) -> np.ndarray:
        """Return the class of every pixel, (B, H, W) uint8, of a network's outputs."""
        size, aligned = self.test.labels.shape[1:], self.settings.align_corners
        logits = resize_logits(outputs[-1], size, aligned)
        return logits.argmax(dim=1).cpu().numpy().astype(np.uint8)

    def scored(self, predictions: np.ndarray, loss: float) -> Labeled:
        """Score label maps of all test scenes."""
        found = segmentation_scores(confusion_matrix(predictions, self.test.labels, NUM_CLASSES))
        scores = {"miou": 100 * found.mean_iou, "pixel_accuracy": 100 * found.pixel_accuracy}
        return Labeled(loss, scores, predictions)

    def trivial(self) -> dict[str, float]:
        """Score what needs no network: background everywhere."""
        return dict(self.scored(np.zeros_like(self.test.labels), float("nan")).scores)


def batch_of(images: np.ndarray, hashed: np.ndarray, targets: Any) -> Batch:
    """Normalize images (B, H, W, 3) uint8; the digest is of their bytes and of `hashed`."""
    return Batch(normalized(images), targets, digest_of(images, hashed))
