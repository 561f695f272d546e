"""What the processes of a group run in tests, in float64: `python -m tests.two_processes FOLDER`.

Alone or in a group, it trains by each way of normalizing into `FOLDER/<network>.<way>`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from reproduction import UserError, build_network, distributed
from reproduction.evaluate import Evaluation, evaluate
from reproduction.forms import EAGER, Form
from reproduction.recipe import Recipe
from reproduction.tasks.classification.data import ArraySplit
from reproduction.tasks.classification.sources import load_dataset
from reproduction.tasks.classification.task import Classification
from reproduction.tasks.task import Batch, Loss
from reproduction.train import train
from tests.unit.test_train import CPU, toy_dataset, toy_model

SEED = 0
IMAGES = 64
FAST = Form(name="fast", channels_last=True, gemm_limit=4, fused_optimizer=True)
# Whether batch normalization is synchronized, and the form of the steps.
WAYS = {
    "own": (False, EAGER),
    "synchronized": (True, EAGER),
    "own, fast": (False, FAST),
    "synchronized, fast": (True, FAST),
}


@dataclass(frozen=True)
class Precise(Classification):
    """A classification in float64, its batches in order or backwards."""

    backwards: bool = False

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 8, start: int = 0
    ) -> Iterator[Batch]:
        for batch in super().batches(
            split, seed=seed, epoch=epoch, batch_size=batch_size, start=start
        ):
            images, targets = batch.images.double(), batch.targets
            if self.backwards and split == "train":
                images, targets = images.flip(0), targets.flip(0)
            yield Batch(images, targets, batch.digest)

    def evaluate(self, model: nn.Module, device: torch.device) -> Evaluation:
        return evaluate(model, self.dataset, device=device, dtype=torch.float64)


@dataclass(frozen=True)
class Diverging(Precise):
    """A classification whose loss is not finite in one process, on every image of class 1."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        found = super().loss(model, batch)
        broken = distributed.current().rank == 1 and bool((batch.targets == 1).any())
        return replace(found, value=found.value * torch.nan) if broken else found


def task_of(network: str, backwards: bool = False) -> Precise:
    """Return what a network is trained for; backwards, the same sums in another order."""
    if network in ("toy", "diverging"):
        return {"toy": Precise, "diverging": Diverging}[network](toy_dataset(), backwards)
    digits = load_dataset("digits")
    few = ArraySplit(digits.train.read(np.arange(IMAGES), None), digits.train.labels[:IMAGES])
    return Precise(replace(digits, train=few, test=few), backwards)


def model_of(network: str) -> nn.Module:
    """Build a network in float64; the same weights in every process."""
    if network in ("toy", "diverging"):
        return toy_model().double()
    torch.manual_seed(SEED)
    return build_network(network, num_classes=10).double()


def recipe_of(network: str, synchronized: bool) -> Recipe:
    """Return few steps with momentum and weight decay."""
    return Recipe(
        optimizer="sgd",
        learning_rate=0.05 if network == "toy" else 1e-3,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        batch_size=8 if network == "toy" else 32,
        epochs=2,
        sync_norm=synchronized,
    )


def main(folder: Path, network: str) -> None:
    """Train by each way of normalizing."""
    with distributed.joined(CPU):
        for way, (synchronized, form) in WAYS.items():
            train(
                model_of(network),
                task_of(network),
                recipe_of(network, synchronized),
                seed=SEED,
                out_dir=folder / f"{network}.{way}",
                device=CPU,
                form=form,
                show_progress=False,
            )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except UserError as problem:
        sys.exit(str(problem))
