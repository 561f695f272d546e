"""The two sides of a comparison: a model with its loss, optimizer and schedule."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from reproduction.errors import UserError

Loss = Callable[[Any, Any], torch.Tensor]
OptimizerFactory = Callable[[nn.Module], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Batch(NamedTuple):
    """Inputs (B, ...) and whatever the loss takes beside the output."""

    inputs: Any
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
        """Return this side with a copy of its model, and of a loss module, in a precision.

        Hooks on gradients of parameters belong to what a model does, and are copied too.

        Raises:
            UserError: The model cannot be copied.
        """
        try:
            model = copy.deepcopy(self.model)
        except (RuntimeError, TypeError) as error:
            said = str(error).partition("\n")[0].partition(". ")[0]
            raise UserError(
                f"a {type(self.model).__name__} cannot be copied ({said}): rebuild it without "
                "what cannot, such as locks, open files and tensors that carry a graph (the old "
                "torch.nn.utils.weight_norm makes those; parametrizations.weight_norm does not)"
            ) from error
        for own, copied in zip(self.model.parameters(), model.parameters(), strict=True):
            for hook in (own._backward_hooks or {}).values():
                copied.register_hook(hook)
        loss = self.loss
        if isinstance(loss, nn.Module):
            loss = copy.deepcopy(loss).to(dtype)
        return replace(self, model=model.to(dtype), loss=loss)

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

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(self.dtype, copy=True) if tensor.is_floating_point() else tensor

        return Batch(mapped(batch.inputs, cast), mapped(batch.targets, cast))


def mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Change every tensor in nested lists, tuples and mappings.

    >>> mapped({"a": [torch.tensor(1)], "b": 2}, lambda tensor: tensor + 1)
    {'a': [tensor(2)], 'b': 2}
    """
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
