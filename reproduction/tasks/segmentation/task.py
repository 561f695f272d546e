"""Segmentation of real data as a task: batches of crops, the loss, and the mean IoU."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from reproduction.tasks.order import (
    digest_of,
    identity_of,
    normalized,
    read_batches,
    stacked,
    steps_of,
)
from reproduction.tasks.segmentation.augmentation import Augmentation, augment, resize
from reproduction.tasks.segmentation.folders import CLASSES, IGNORED, LabeledImages
from reproduction.tasks.segmentation.inference import (
    Evaluation,
    Network,
    class_scores,
    multi_scale_scores,
    resize_short_side,
)
from reproduction.tasks.segmentation.losses import (
    LossSettings,
    combined_loss,
    pixel_losses,
    resize_logits,
)
from reproduction.tasks.segmentation.metrics import confusion_matrix, segmentation_scores
from reproduction.tasks.task import Batch, Loss, evaluating, outputs_of

PADDING_KEPT = ("ade20k",)  # what is predicted for the padding is not cut off (official code)


@dataclass(frozen=True)
class SegmentationResult:
    """How a split is segmented.

    Attributes:
        loss: Mean cross-entropy of the labeled pixels, without class weights.
        scores: ``miou``, ``miou_of_present`` (without classes that never appear, D28),
            ``pixel_accuracy`` and ``mean_accuracy``, in percent.
        confusion: (classes, classes), rows by label.
        remark: What classes that never appear do to the mean; none if all appear.
    """

    loss: float
    scores: dict[str, float]
    confusion: np.ndarray
    remark: str | None = None


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Tell the class of each pixel; a task of `reproduction.train`.

    Attributes:
        train: To be trained on; may be empty.
        test: To be evaluated, whole image by whole image.
        augmentation: Of training images.
        settings: The loss.
        rule: How images are evaluated.
        scales: At which; one alone unless multi-scale figures are wanted.
        short_side: Test images are resized to this shorter side and seen whole, at one scale,
            without windows: PASCAL-Context and ADE20K in the current official code.
        workers: Threads that read images; without effect on what they yield.
    """

    train: LabeledImages
    test: LabeledImages
    augmentation: Augmentation
    settings: LossSettings
    rule: Evaluation
    scales: tuple[float, ...] = (1.0,)
    short_side: int | None = None
    workers: int = 0

    @property
    def identity(self) -> list[Any]:
        """Name and augmentation, and a digest of the files' names."""
        pairs = (*self.train.pairs, *self.test.pairs)
        return [
            self.train.name,
            f"{self.augmentation} {self.settings}",
            identity_of([pair.image.name for pair in pairs]),
        ]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return steps_of(len(self.train.pairs), "train", batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 1, start: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch (`read_batches`); targets are labels (B, H, W) int64.

        Test images are whole, and their labels as they come: of LIP the image alone is resized.
        """
        data = self.train if split == "train" else self.test

        def read(index: int, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
            image, labels = data.read(index)
            if rng is not None:
                return augment(image, labels, self.augmentation, rng)
            fixed = self.augmentation.fixed_hw
            return (resize(image, labels, fixed)[0] if fixed else image), labels

        for samples in read_batches(
            read,
            len(data.pairs),
            split,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            start=start,
            workers=self.workers,
        ):
            images, labels = (list(values) for values in zip(*samples, strict=True))
            targets = torch.from_numpy(stacked(labels).astype(np.int64))
            yield Batch(normalized(images), targets, digest_of(*images, *labels))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the loss of all outputs of the network."""
        return Loss(combined_loss(outputs_of(model, batch.images), batch.targets, self.settings))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> SegmentationResult:
        """Segment every test image and compare with its labels, at their size."""
        classes = CLASSES[self.test.name]
        confusion = np.zeros((classes, classes), np.int64)
        plain = LossSettings(align_corners=self.rule.align_corners)
        losses, labeled = 0.0, 0

        with evaluating(model):
            for images, labels, _ in self.batches("test"):
                scores = self._scores(lambda seen: outputs_of(model, seen)[-1], images.to(device))
                scores = resize_logits(scores.cpu(), labels.shape[-2:], self.rule.align_corners)
                # The scores are exp(logits), summed over scales: their logarithm is a logit.
                logits = scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
                losses += float(pixel_losses(logits, labels, plain).sum())
                labeled += int((labels != IGNORED).sum())
                confusion += confusion_matrix(
                    scores.argmax(dim=1).numpy(), labels.numpy(), classes, IGNORED
                )
        found = segmentation_scores(confusion)
        figures = {
            "miou": found.mean_iou,
            "miou_of_present": found.mean_iou_of_present,
            "pixel_accuracy": found.pixel_accuracy,
            "mean_accuracy": found.mean_accuracy,
        }
        percent = {name: 100 * value for name, value in figures.items()}
        return SegmentationResult(losses / labeled, percent, confusion, found.remark())

    def _scores(self, network: Network, images: torch.Tensor) -> torch.Tensor:
        if self.short_side is None:
            return multi_scale_scores(network, images, self.rule, self.scales)
        padded = resize_short_side(images, self.short_side)
        scores = class_scores(network, padded, self.rule)
        if self.test.name in PADDING_KEPT:
            return scores
        factor = self.short_side / min(images.shape[-2:])
        height, width = (round(side * factor) for side in images.shape[-2:])
        return scores[..., :height, :width]
