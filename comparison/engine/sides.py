"""The two sides of a comparison: a model with its loss, optimizer and schedule."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Loss = Callable[[Any, Any], torch.Tensor]
OptimizerFactory = Callable[[nn.Module], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Batch(NamedTuple):
    """Inputs (B, ...) and whatever the loss takes beside the output."""

    inputs: torch.Tensor
    targets: Any = None


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models, and how it is trained.

    Attributes:
        model: The model.
        loss: From output and targets to a scalar; backward and steps are not run without.
        make_optimizer: Builds the optimizer for a model; steps are not run without.
        make_scheduler: Builds the schedule of learning rates, stepped once per epoch.
    """

    model: nn.Module
    loss: Loss | None = None
    make_optimizer: OptimizerFactory | None = None
    make_scheduler: SchedulerFactory | None = None

    def copied(self, dtype: torch.dtype | None = None) -> Self:
        """Return this side with a copy of its model, in the given precision."""
        return replace(self, model=copy.deepcopy(self.model).to(dtype))

    def twin(self) -> Self:
        """Return this side with modules and buffers of its own, but the same parameters."""
        kept = {id(parameter): parameter for parameter in self.model.parameters()}
        return replace(self, model=copy.deepcopy(self.model, kept))

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the model: that of its first floating-point tensor."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float64)

    def sees(self, batch: Batch) -> Batch:
        """Return a batch in the precision of this side."""
        return Batch(_cast(batch.inputs, self.dtype), _cast(batch.targets, self.dtype))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype, copy=True)
    return value
