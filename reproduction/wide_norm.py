"""Batch normalization of channels-last maps over wide rows: the same sums, in shorter chains.

With channels innermost, PyTorch's kernels add up row after row, each as short as a map has
channels: 18 of them leave half of a processor's vector unused, and thousands of rows make chains
of additions that round thousands of times. Here neighboring pixels are read as one wide row, every
column is added up by the same kernels, and the columns of one channel are brought together in
float64. The result differs from `torch.nn.BatchNorm2d` by the rounding of another order of
summation.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

WIDTH = 1024  # floats in a row: enough for vectors and threads, few enough to stay in the cache
PIXELS = 20_000  # from which on the chains are long enough to be worth the trouble
TYPES = (torch.float32, torch.float64)


def pixels_in_a_row(pixels: int, channels: int) -> int:
    """Return how many pixels make one wide row: a power of two that divides them all.

    >>> pixels_in_a_row(8 * 56 * 56, 18)
    32
    """
    together = 1
    while 2 * together * channels <= WIDTH and pixels % (2 * together) == 0:
        together *= 2
    return together


class WideBatchNorm(torch.autograd.Function):
    """Normalize (B, C, H, W), channels innermost, by its own statistics, and differentiate that."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the normalized map, and mean and biased variance (C,) of each channel, float64."""
        channels = x.shape[1]
        rows = _rows(x)
        means, variances = torch.batch_norm_update_stats(_as_map(rows), None, None, 0.0)
        between, mean = torch.var_mean(means.double().view(-1, channels), 0, correction=0)
        variance = variances.view(-1, channels).mean(0, dtype=torch.float64).add_(between)
        inverse = variance.add(eps).rsqrt_()
        scale = inverse * weight
        shifts, scales = _tiled(rows, bias - mean * scale, scale)
        y = torch.empty_like(x)  # no view: what follows may work in place
        torch.addcmul(shifts, rows, scales, out=_rows(y))
        ctx.save_for_backward(x, mean, inverse, scale)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of map, weight and bias."""
        x, mean, inverse, scale = ctx.saved_tensors
        pixels = x.numel() // x.shape[1]
        rows, grads = _rows(x), _rows(grad.contiguous(memory_format=torch.channels_last))
        centered, plain = _column_sums(grads, rows, *_tiled(rows, mean))
        grad_bias = plain.view(-1, x.shape[1]).sum(0, dtype=torch.float64)
        grad_weight = centered.view(-1, x.shape[1]).sum(0, dtype=torch.float64) * inverse
        slope = grad_weight * inverse * scale / -pixels
        offset = grad_bias * scale / -pixels - slope * mean
        offsets, slopes, scales = _tiled(rows, offset, slope, scale)
        grad_x = torch.empty_like(x)
        torch.addcmul(offsets, rows, slopes, out=_rows(grad_x)).addcmul_(grads, scales)
        return grad_x, grad_weight.to(x.dtype), grad_bias.to(x.dtype), None


def _column_sums(
    grads: torch.Tensor, rows: torch.Tensor, means: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each column the sum of gradient times centered value, and of the gradient."""
    ones = torch.ones_like(means)
    _, centered, plain = torch.ops.aten.native_batch_norm_backward(
        _as_map(grads), _as_map(rows), ones, means, ones, None, None, False, 0.0,
        [False, True, True],
    )  # fmt: skip
    return centered, plain


def _rows(x: torch.Tensor) -> torch.Tensor:
    """View channels-last (B, C, H, W) as wide rows."""
    columns = pixels_in_a_row(x.numel() // x.shape[1], x.shape[1]) * x.shape[1]
    return x.as_strided((x.numel() // columns, columns), (columns, 1))


def _as_map(rows: torch.Tensor) -> torch.Tensor:
    """View rows as a channels-last map with the columns as channels."""
    return rows.t()[None, :, :, None]


def _tiled(rows: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Repeat values (C,) for all columns, in the type of the rows."""
    together = rows.shape[1] // len(values[0])
    return torch.stack(values).to(rows.dtype).repeat(1, together).unbind()


class WideBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that sums over wide rows in training; otherwise as ever.

    Made by `reproduction.forms.prepare` alone. Small maps, maps that are not channels last, other
    types than float32 and float64, and evaluation take PyTorch's normalization.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        if (
            not self.training
            or self.momentum is None
            or not self.track_running_stats
            or not self.affine
            or x.numel() < PIXELS * x.shape[1]
            or x.dtype not in TYPES
            or x.dtype != self.weight.dtype
            or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return super().forward(x)
        y, mean, variance = WideBatchNorm.apply(x, self.weight, self.bias, self.eps)
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        pixels = x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(x.dtype), self.momentum)
            unbiased = variance.mul_(pixels / (pixels - 1)).to(x.dtype)
            self.running_var.lerp_(unbiased, self.momentum)
        return y
