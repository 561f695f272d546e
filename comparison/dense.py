"""Batches and losses of dense tasks, for the comparison of their networks.

A network takes part in a comparison as it is trained: with the loss of its task on every output,
and by the published recipe of its repository. Official loss code is not loaded, so both sides are
given ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from comparison.engine.sides import Batch, Loss
from comparison.engine.states import random_batch
from reproduction import NetworkConfig
from reproduction.published_recipes import published_recipe
from reproduction.recipe import Recipe
from reproduction.tasks.keypoints.landmarks import landmark_mse
from reproduction.tasks.keypoints.losses import keypoint_mse
from reproduction.tasks.segmentation.losses import (
    CITYSCAPES_CLASS_WEIGHTS,
    OCR_BALANCE,
    LossSettings,
    combined_loss,
)

STRIDE = 4
IGNORED_SHARE = 0.1


# The one pinned official file of a task, for whatever data a network of it is made.
PINNED = {"segmentation": "seg_cityscapes", "ocr": "ocr_cityscapes"}


def recipe_of(config: NetworkConfig) -> Recipe:
    """Return the published recipe that a network is compared with: that of the pinned file."""
    return published_recipe(PINNED.get(config.task, config.name)).training()


@dataclass(frozen=True)
class TaskLoss:
    """The loss of a network for a dense task, on all its outputs.

    Args:
        config: The network; decides the task, class weights and how logits are resized.
    """

    config: NetworkConfig

    def __call__(self, outputs: Any, targets: Any) -> torch.Tensor:
        """Return a scalar."""
        return LOSSES[self.config.task](self.config, outputs, targets)


def _of_heatmaps(config: NetworkConfig, heatmaps: torch.Tensor, targets: Any) -> torch.Tensor:
    return keypoint_mse(heatmaps, *targets)


def _of_landmarks(config: NetworkConfig, heatmaps: torch.Tensor, targets: Any) -> torch.Tensor:
    return landmark_mse(heatmaps, targets[0])


def _of_logits(config: NetworkConfig, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    weights = CITYSCAPES_CLASS_WEIGHTS if config.name.endswith("cityscapes") else None
    settings = LossSettings(
        class_weights=weights,
        align_corners=bool(config.upsampling.align_corners),
        balance=OCR_BALANCE if config.task == "ocr" else (1.0,),
    )
    outputs = outputs if config.task == "ocr" else [outputs]
    return combined_loss(outputs, labels, settings)


def _of_levels(config: NetworkConfig, levels: Any, targets: Any) -> torch.Tensor:
    """Stand in for a detector: the network is only its body, and every level has a part."""
    return torch.stack([((level - 1) ** 2).mean() for level in levels]).sum()


LOSSES: dict[str, Callable[[NetworkConfig, Any, Any], torch.Tensor]] = {
    "pose": _of_heatmaps,
    "landmarks": _of_landmarks,
    "segmentation": _of_logits,
    "ocr": _of_logits,
    "detection": _of_levels,
}


def loss_of(config: NetworkConfig) -> Loss:
    """Return the loss of a network's task."""
    return TaskLoss(config)


def batch_of(config: NetworkConfig, shape: tuple[int, int, int, int], seed: str) -> Batch:
    """Draw images and targets of a network's task from a seed, in float64.

    Args:
        config: The network.
        shape: (B, 3, H, W) of the images.
        seed: Decides the batch.
    """
    images = random_batch(shape, 1, seed).inputs
    count, _, height, width = shape
    draw = np.random.default_rng(list(f"targets/{seed}".encode()))
    if config.task in ("segmentation", "ocr"):
        labels = draw.integers(0, config.outputs, (count, height, width))
        labels[draw.random(labels.shape) < IGNORED_SHARE] = 255
        return Batch(images, torch.from_numpy(labels))
    if config.task == "detection":
        return Batch(images, None)
    maps = draw.random((count, config.outputs, height // STRIDE, width // STRIDE))
    visible = (draw.random((count, config.outputs)) < 1 - IGNORED_SHARE).astype(float)
    return Batch(images, (torch.from_numpy(maps), torch.from_numpy(visible)))
