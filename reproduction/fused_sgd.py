"""SGD whose one kernel works on weights as they lie in memory: the same bits, without copies."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.sgd import sgd

SETTINGS = ("lr", "momentum", "weight_decay", "dampening", "nesterov", "maximize")


class FusedSGD(torch.optim.SGD):
    """`torch.optim.SGD` with ``fused=True`` that copies no gradient with channels innermost.

    PyTorch 2.14 brings every such gradient to another layout before its kernel. Here the kernel is
    shown weight, gradient and momentum with the channels as last dimension, as they lie. State and
    bits are those of PyTorch's.
    """

    def __init__(self, parameters: Iterable[Any], **settings: Any) -> None:
        super().__init__(parameters, fused=True, **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient, and return what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            kept = [self.state[parameter].get("momentum_buffer") for parameter in moved]
            inner = [
                all(
                    x is None or x.is_contiguous(memory_format=torch.channels_last)
                    for x in (parameter, parameter.grad, buffer)
                )
                if parameter.ndim == 4
                else False
                for parameter, buffer in zip(moved, kept, strict=True)
            ]
            buffers = _as_they_lie(kept, inner)
            sgd(
                _as_they_lie(moved, inner),
                _as_they_lie([parameter.grad for parameter in moved], inner),
                buffers,
                fused=True,
                **{name: group[name] for name in SETTINGS},
            )
            if group["momentum"]:
                for parameter, buffer, last in zip(moved, buffers, inner, strict=True):
                    made = buffer.permute(0, 3, 1, 2) if last else buffer
                    self.state[parameter]["momentum_buffer"] = made
        return loss


def _as_they_lie(tensors: list[Any], inner: list[bool]) -> list[Any]:
    """Turn (O, C, kh, kw) to (O, kh, kw, C) where channels are innermost; None stays."""
    return [
        x.permute(0, 2, 3, 1) if last and x is not None else x
        for x, last in zip(tensors, inner, strict=True)
    ]
