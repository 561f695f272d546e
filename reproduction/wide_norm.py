"""Batch normalization of channels-last maps over wide rows, and what follows it, in fewer passes.

With channels innermost, PyTorch's kernels add up row after row, each as short as a map has
channels. 18 of them leave half of a processor's vector unused, the sums of two threads lie in one
line of the cache, and thousands of rows make chains of additions that round thousands of times.
Here neighboring pixels are read as one wide row, every column is added up by the same kernels, and
then the columns of one channel. The addition of a shortcut and the ReLU that follow are done while
the values are in the cache. The result differs from PyTorch's by the rounding of another order of
summation; bfloat16 is rounded once, behind them all.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from reproduction.blocks import BasicBlock, Bottleneck, ConvNorm

WIDTH = 1024  # numbers in a row: enough for vectors and threads, few enough to stay in the cache
BLOCK = 2**19  # numbers worked on together: a few blocks fit in the cache
LANES = 16  # numbers in a vector and in a line of the cache
PIXELS = 20_000  # from which on the chains are long enough to be worth the trouble
PIXELS_OFF_LINE = 5_000  # where channels do not fill lines of the cache
PARAMETERS = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.bfloat16: torch.float32,
}  # of a map's type: the type of its parameters and of all sums
SUMS = [False, True, True]  # of the gradients of map, weight and bias
norm_backward = torch.ops.aten.native_batch_norm_backward.default
relu_backward = torch.ops.aten.threshold_backward.grad_input


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
    """Normalize (B, C, H, W), channels innermost, by its own statistics; add; rectify."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        shortcut: torch.Tensor | None,
        norm: nn.BatchNorm2d,
        relu: bool,
    ) -> torch.Tensor:
        """Return a map like `x`, and bring the running statistics of `norm` up to date."""
        channels, pixels = x.shape[1], x.numel() // x.shape[1]
        together = pixels_in_a_row(pixels, channels)
        shape, dtype = (pixels // together, together * channels), weight.dtype
        # In bfloat16 the type of running statistics, here left alone, decides that of the sums.
        alone = None if x.dtype == dtype else weight.new_zeros(shape[1])
        y = torch.empty_like(x)  # no view: what follows may work in place
        blocks = list(_blocks(shape, x, y, shortcut))
        found = [
            torch.batch_norm_update_stats(_as_map(part, part.shape), alone, alone, 0.0)
            for part, _, _ in blocks
        ]
        means, variances = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
        between, mean = torch.var_mean(means.view(-1, channels), 0, correction=0)
        variance = variances.view(-1, channels).mean(0).add_(between)
        inverse = (variance + norm.eps).rsqrt_()
        scale = inverse * weight
        scales = _wide(scale, together)
        shifts = _wide(torch.addcmul(bias, mean, scale, value=-1), together)
        for part, out, other in blocks:
            values = part.to(dtype)
            made = torch.addcmul(shifts, values, scales, out=out if values is part else values)
            if other is not None:
                made.add_(other)
            if relu:
                made.clamp_min_(0)
            if made is not out:
                out.copy_(made)
        _keep(norm, mean, variance.mul_(pixels / (pixels - 1)))
        ctx.save_for_backward(x, y if relu else None, mean, inverse, scale, scales)
        ctx.shape, ctx.adds = shape, shortcut is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of map, weight, bias and shortcut."""
        x, y, mean, inverse, scale, scales = ctx.saved_tensors
        shape, dtype, channels = ctx.shape, mean.dtype, x.shape[1]
        together = shape[1] // channels
        grad = grad.contiguous(memory_format=torch.channels_last)
        passed = grad if y is None else torch.empty_like(x)  # the gradient before the ReLU
        grad_x = torch.empty_like(x) if y is None or ctx.adds else passed
        blocks = list(_blocks(shape, x, grad, y, passed, grad_x))
        means, ones = _wide(mean, together), _ones(shape[1], dtype)
        sums = []
        for part, g, rectified, out, _ in blocks:
            if rectified is not None:
                relu_backward(g, rectified, 0, grad_input=out)
            maps = (_as_map(out, out.shape), _as_map(part, part.shape))
            # Of gradient times centered map, and of the gradient.
            sums += norm_backward(*maps, ones, None, None, means, ones, True, 0.0, SUMS)[1:]
        found = torch.stack(sums).view(len(blocks), 2, together, channels).sum((0, 2))
        grad_weight, grad_bias = found[0] * inverse, found[1]
        share = scale * (-channels / x.numel())
        slope = grad_weight * inverse * share
        offset = torch.addcmul(grad_bias * share, slope, mean, value=-1)
        offsets, slopes = _wide(offset, together), _wide(slope, together)
        for part, _, _, g, out in blocks:
            values = part.to(dtype)
            into = out if values is part else values
            unread = None if into is out and grad_x is passed else into
            made = torch.addcmul(offsets, values, slopes, out=unread)
            torch.addcmul(made, g.to(dtype), scales, out=into)
            if into is not out:
                out.copy_(into)
        return grad_x, grad_weight, grad_bias, passed if ctx.adds else None, None, None


def _blocks(shape: tuple[int, int], *maps: torch.Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Yield all maps in blocks of equally many wide rows; None stays."""
    count = rows_in_a_block(*shape)
    rows = [None if x is None else x.as_strided(shape, (shape[1], 1)) for x in maps]
    if count == shape[0]:
        yield tuple(rows)
        return
    for first in range(0, shape[0], count):
        yield tuple(None if x is None else x[first : first + count] for x in rows)


def rows_in_a_block(rows: int, columns: int) -> int:
    """Return how many rows are worked on together: blocks are of one size, or all rows are one.

    >>> rows_in_a_block(6272, 1024), rows_in_a_block(4099, 1024)
    (448, 4099)
    """
    fit = min(rows, max(1, BLOCK // columns))
    equal = next(n for n in range(fit, 0, -1) if rows % n == 0)
    return equal if 8 * equal >= fit else rows


def _wide(x: torch.Tensor, together: int) -> torch.Tensor:
    """Repeat what is there once a channel for each pixel of a wide row."""
    return x.expand(together, -1).contiguous().view(-1)


@functools.cache
def _ones(columns: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.ones(columns, dtype=dtype, device="cpu")


def _as_map(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """View a map, or rows of it, as a channels-last map with the columns as channels."""
    rows, columns = shape
    return x.as_strided((1, columns, rows, 1), (rows * columns, 1, columns, columns))


def _keep(norm: nn.BatchNorm2d, mean: torch.Tensor, unbiased: torch.Tensor) -> None:
    """Bring running statistics up to date, as `torch.nn.BatchNorm2d` does."""
    count, means, variances = norm.num_batches_tracked, norm.running_mean, norm.running_var
    assert count is not None and means is not None and variances is not None
    assert norm.momentum is not None
    count.add_(1)
    means.lerp_(mean, norm.momentum)
    variances.lerp_(unbiased, norm.momentum)


class WideBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that sums over wide rows in training; otherwise as ever.

    Made by `reproduction.forms.prepare` alone. Small maps, maps that are not channels last or not
    on the CPU, types that do not fit the parameters, and evaluation take PyTorch's normalization.
    """

    def forward(
        self, x: torch.Tensor, shortcut: torch.Tensor | None = None, relu: bool = False
    ) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W): normalize, add the shortcut if any, then rectify."""
        if self._takes(x) and (shortcut is None or _alike(shortcut, x)):
            return WideBatchNorm.apply(x, self.weight, self.bias, shortcut, self, relu)
        return followed(super().forward(x), shortcut, relu)

    def _takes(self, x: torch.Tensor) -> bool:
        return (
            self.training
            and x.device.type == "cpu"
            and self.momentum is not None
            and self.track_running_stats
            and self.affine
            and PARAMETERS.get(x.dtype) == self.weight.dtype
            and x.is_contiguous(memory_format=torch.channels_last)
            and x.numel() >= _least_pixels(x) * x.shape[1]
        )


def _least_pixels(x: torch.Tensor) -> float:
    """Return from how many pixels on wide rows are faster, or closer to float64."""
    whole_lines = x.shape[1] % LANES == 0
    if x.dtype == torch.bfloat16:
        return math.inf if whole_lines else PIXELS
    return PIXELS if whole_lines else PIXELS_OFF_LINE


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()


def followed(y: torch.Tensor, shortcut: torch.Tensor | None, relu: bool) -> torch.Tensor:
    """Add a shortcut to a normalized map (B, C, H, W), if any, then rectify, if asked for.

    The map is overwritten where it can be: normalization does not need it in the backward pass.
    """
    if shortcut is not None:
        y = y.add_(shortcut) if _alike(shortcut, y) else y + shortcut
    return F.relu(y, inplace=True) if relu else y


class FusedConvNorm(ConvNorm):
    """`ConvNorm` whose normalization does what follows it, the sum with a shortcut included."""

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W'); a shortcut is rectified too."""
        y, norm = self.conv(x), self.norm
        relu = shortcut is not None or "relu" in self._modules
        if type(norm) is WideBatchNorm2d:
            return norm(y, shortcut, relu)
        return followed(norm(y), shortcut, relu)  # one over all processes


class FusedBasicBlock(BasicBlock):
    """`BasicBlock` of `FusedConvNorm`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, width, H, W) to the same shape."""
        return self.unit2(self.unit1(x), x)


class FusedBottleneck(Bottleneck):
    """`Bottleneck` of `FusedConvNorm`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * width, H, W)."""
        return self.unit3(self.unit2(self.unit1(x)), self.shortcut(x))


OF_EAGER: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: WideBatchNorm2d,
    ConvNorm: FusedConvNorm,
    BasicBlock: FusedBasicBlock,
    Bottleneck: FusedBottleneck,
}
