"""The two sides of a comparison: a network with its loss and its optimizer, and a shared state.

Fresh initialization would hide swapped or ignored statistics (scale 1, mean 0), so the state that
both sides start from is drawn at random in every tensor, or comes from training.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from comparison.probe import Sink
from comparison.sites import NameMap
from reproduction.config import TrainConfig
from reproduction.train import make_optimizer

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
OptimizerFactory = Callable[[nn.Module], torch.optim.Optimizer]


class Batch(NamedTuple):
    """Images (B, C, H, W) and labels (B,)."""

    images: torch.Tensor
    labels: torch.Tensor


def recipe_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of the classification recipe at its first learning rate."""
    return make_optimizer(model, TrainConfig())


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two networks, and how it is trained.

    Attributes:
        model: The network.
        name_of: Translates its module paths and state-dict keys into the reference's.
        loss: From logits and labels to a scalar.
        make_optimizer: Builds the optimizer for the model.
        reordered: Whether this side sees the images of a batch in the opposite order.
    """

    model: nn.Module
    name_of: NameMap = str
    loss: Loss = F.cross_entropy
    make_optimizer: OptimizerFactory = recipe_optimizer
    reordered: bool = False

    def copied(self, dtype: torch.dtype) -> Self:
        """Return this side with a copy of its model in the given precision."""
        return replace(self, model=copy.deepcopy(self.model).to(dtype))

    def sees(self, batch: Batch) -> Batch:
        """Return a batch in the order and the precision of this side."""
        dtype = next(self.model.parameters()).dtype
        images, labels = batch.images.to(dtype), batch.labels
        return Batch(images.flip(0), labels.flip(0)) if self.reordered else Batch(images, labels)

    def restoring(self, sink: Sink) -> Sink:
        """Return a sink that puts the images of a batch back into their order first."""
        if not self.reordered:
            return sink
        return lambda key, tensor: sink(key, tensor.flip(0))

    def named(self, key: str) -> str:
        """Translate one of this side's names; one that the map does not know is marked so."""
        try:
            return self.name_of(key)
        except (KeyError, ValueError):
            return f"{key} (not in the map of names)"

    def state(self) -> dict[str, torch.Tensor]:
        """Return all parameters and buffers, not copied, under the reference's names."""
        return {self.named(key): tensor for key, tensor in self.model.state_dict().items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return all parameters under the reference's names."""
        return {self.named(key): value for key, value in self.model.named_parameters()}


def random_state(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Draw a state in which no tensor is trivial, from the seed and the names of the tensors.

    Weights keep the size of signals (variance 1 / fan-in); scales lie in [0.25, 0.75), variances
    in [0.5, 1.5), means and biases are normal times 0.1, counters lie in [2, 100).

    Args:
        model: The reference; only names, shapes and types are read.
        seed: Any whole number.
    """
    return {key: _draw(key, tensor, seed) for key, tensor in model.state_dict().items()}


def load_state(side: Side, state: Mapping[str, torch.Tensor]) -> None:
    """Copy a state under the reference's names into a side.

    What only one of them has is left alone: the static mode reports it.
    """
    with torch.no_grad():
        for name, tensor in side.state().items():
            if name in state and state[name].shape == tensor.shape:
                tensor.copy_(state[name])


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return one digest over the names, types and bytes of a state."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def random_batch(shape: tuple[int, ...], num_classes: int, seed: int | str) -> Batch:
    """Draw a batch of normal images and uniform labels from a seed, in float64.

    The images hold float32 values, so that both precisions see the same.
    """
    generator = _generator(f"batch/{seed}")
    images = generator.standard_normal(shape).astype(np.float32)
    labels = generator.integers(0, num_classes, shape[0])
    return Batch(torch.from_numpy(images).double(), torch.from_numpy(labels))


def _draw(key: str, tensor: torch.Tensor, seed: int) -> torch.Tensor:
    generator, shape = _generator(f"state/{seed}/{key}"), tuple(tensor.shape)
    values: np.ndarray
    if not tensor.is_floating_point():
        values = generator.integers(2, 100, shape)
    elif len(shape) > 1:
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("running_var"):
        values = generator.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * generator.standard_normal(shape)
    else:
        values = generator.uniform(0.25, 0.75, shape)
    return torch.as_tensor(np.asarray(values)).to(tensor.dtype)


def _generator(name: str) -> np.random.Generator:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))
