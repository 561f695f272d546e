"""Where a network first computes something that is not finite; asked only once a loss is not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from reproduction.errors import UserError
from reproduction.tasks.task import Batch, Loss


class Diverged(UserError):
    """The loss is not finite; the message says what came first."""


def first_not_finite(
    model: nn.Module, batch: Batch, loss_of: Callable[[nn.Module, Batch], Loss]
) -> str:
    """Run a batch again and name what is the first to be not finite.

    Args:
        model: The network; its batch statistics move on by one more batch.
        batch: The batch whose loss is not finite.
        loss_of: The task's loss.

    Returns:
        The images, a parameter or buffer, a layer's output, or else the loss itself.
    """
    if not _finite(batch.images):
        return "the images"
    for name, value in model.state_dict().items():
        if not _finite(value):
            return f"the weights {name}"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(f"the output of {name}")

        return hook

    leaves = [(name, it) for name, it in model.named_modules() if not list(it.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            loss_of(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss itself"


def _finite(values: Any) -> bool:
    if isinstance(values, torch.Tensor):
        return not values.is_floating_point() or bool(torch.isfinite(values).all())
    return all(_finite(value) for value in values) if isinstance(values, list | tuple) else True
