"""What is measured about a difference, and on what: both arms with the same start weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from comparison import arms
from comparison.study import ARMS

CLASSES = 1000
IMAGE_SIZE = 64
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a difference does.

    Attributes:
        what: What was measured.
        value: The number, or None where it cannot be measured on this machine.
        unit: Its unit.
        holds: Whether the behavior is still the documented one.
    """

    what: str
    value: float | None
    unit: str
    holds: bool


@dataclass(frozen=True)
class Subjects:
    """Both arms of one network with the same start weights, in float64."""

    network: str
    seed: int

    @cached_property
    def models(self) -> dict[str, nn.Module]:
        """The arms by name, in eval mode."""
        return {
            arm: arms.build_from_seed(arm, self.network, CLASSES, self.seed).double().eval()
            for arm in ARMS
        }

    def images(self, count: int, size: int) -> torch.Tensor:
        """Draw a batch from the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


@contextmanager
def train_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into train mode for a while; running statistics and gradients are undone."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    try:
        yield model
    finally:
        model.eval()
        model.zero_grad(set_to_none=True)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def relative(changed: torch.Tensor, original: torch.Tensor) -> float:
    """L2 norm of the change, relative to that of the original."""
    return float(torch.linalg.vector_norm(changed - original) / torch.linalg.vector_norm(original))
