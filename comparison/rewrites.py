"""Other ways to compute the same: harmless rewrites of the reproduction.

A comparison that calls any of these a difference is of no use; one that tolerates them by loose
bounds misses faults. In float64 each of them stays far below the bounds of `verdict`.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from comparison.sides import Side
from reproduction.hrnet import Fusion


def channels_last(side: Side) -> Side:
    """Lay out images, activations and weights with the channels last."""

    def convert(_module: nn.Module, inputs: Any) -> Any:
        return (inputs[0].contiguous(memory_format=torch.channels_last),)

    side.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    side.model.register_forward_pre_hook(convert)
    return side


def permuted_batch(side: Side) -> Side:
    """Show the images of a batch in another order; what is captured is put back."""
    return replace(side, reordered=True)


def relu_out_of_place(side: Side) -> Side:
    """Let no ReLU module overwrite its input."""
    for module in side.model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return side


def unfolded_convolutions(side: Side) -> Side:
    """Compute all convolutions as one matrix product over unfolded windows."""
    return _reclassed(side, nn.Conv2d, _Unfolded)


def written_out_norms(side: Side) -> Side:
    """Compute all batch normalizations from means and squares."""
    return _reclassed(side, nn.BatchNorm2d, _WrittenOut)


def reversed_sums(side: Side) -> Side:
    """Sum from the last stream to the first in all exchange units."""
    return _reclassed(side, Fusion, _Reversed)


def stacked_sums(side: Side) -> Side:
    """Upsample by repeating rows and columns, and sum a stack, in all exchange units."""
    return _reclassed(side, Fusion, _Stacked)


def _reclassed(side: Side, kind: type[nn.Module], other: type[nn.Module]) -> Side:
    for module in side.model.modules():
        if type(module) is kind:
            module.__class__ = other
    return side


class _Reversed(Fusion):
    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Sum in the other order, pairwise."""
        first, *others = reversed(_terms(self, streams))
        for term in others:
            first = first + term
        return F.relu(first)


class _Stacked(Fusion):
    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Sum all terms in one reduction."""
        return F.relu(torch.stack(_terms(self, streams)).sum(dim=0))


def _terms(fusion: Fusion, streams: list[torch.Tensor]) -> list[torch.Tensor]:
    width = streams[fusion.target].shape[-1]
    paths = [path(x) for x, path in zip(streams, fusion, strict=True)]
    return [
        y.repeat_interleave(width // y.shape[-1], -1).repeat_interleave(width // y.shape[-1], -2)
        for y in paths
    ]


class _Unfolded(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride, padding = self.kernel_size, self.stride, self.padding
        assert not isinstance(padding, str)
        windows = F.unfold(x, kernel, stride=stride, padding=padding)  # (B, C*k*k, H'*W')
        y = self.weight.flatten(1) @ windows
        height = (x.shape[2] + 2 * padding[0] - kernel[0]) // stride[0] + 1
        y = y.unflatten(2, (height, -1))
        return y if self.bias is None else y + self.bias[:, None, None]


class _WrittenOut(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean = x.mean(dim=(0, 2, 3))
            variance = (x - mean[:, None, None]).square().mean(dim=(0, 2, 3))
            count = x.numel() / x.shape[1]
            with torch.no_grad():
                unbiased = variance * count / (count - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
                self.num_batches_tracked += 1
        scale = self.weight / (variance + self.eps).sqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
