"""Convolutions on small maps as one matrix product: the same sums, and no others.

Where a map is hardly larger than the kernel, most taps see nothing but padding: of a 3x3 kernel
with stride 2 on a 2x2 map only 4 taps of 9 touch data. Here the others are left out, and what is
left is one matrix product, for which linear algebra libraries are fast at shapes where convolution
libraries are slow. The result differs from `torch.nn.functional.conv2d` by the rounding of another
order of summation; the gradient of a tap that touches nothing is exactly zero.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


class Reach(NamedTuple):
    """How a kernel meets a map along one axis.

    Attributes:
        outputs: Size of the map behind it.
        taps: How many taps touch data somewhere; they lie side by side.
        crop: Taps to take off before and behind them, as negative padding of the kernel.
        padding: Zeros to put before and behind the map for them; negative where it is cropped.
        stride: Step between two outputs.
    """

    outputs: int
    taps: int
    crop: tuple[int, int]
    padding: tuple[int, int]
    stride: int


def reach(size: int, kernel: int, stride: int, padding: int) -> Reach:
    """Find the taps of a kernel that touch data on a map of the given size.

    >>> reach(2, 3, 2, 1)
    Reach(outputs=1, taps=2, crop=(-1, 0), padding=(0, 0), stride=2)
    """
    outputs = (size + 2 * padding - kernel) // stride + 1
    touching = [
        tap
        for tap in range(kernel)
        if any(0 <= o * stride - padding + tap < size for o in range(outputs))
    ]
    first, last = touching[0], touching[-1]
    before = padding - first
    behind = (outputs - 1) * stride + last - first + 1 - size - before
    return Reach(outputs, len(touching), (-first, last + 1 - kernel), (before, behind), stride)


class SmallMapConvolution(torch.autograd.Function):
    """Convolve (B, C, H, W) with a weight (O, C, kh, kw), over the taps that touch data.

    What goes in may lie in any memory format; what comes out has channels innermost.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        rows: Reach,
        columns: Reach,
    ) -> torch.Tensor:
        """Return (B, O, H', W')."""
        read = _read(x, rows, columns)
        ctx.save_for_backward(read, weight)
        ctx.shape, ctx.reach = x.shape, (rows, columns)
        y = F.linear(read, _touching(weight, rows, columns).flatten(1), bias)
        return y.view(x.shape[0], rows.outputs, columns.outputs, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of map, weight and bias."""
        read, weight = ctx.saved_tensors
        taps = _touching(weight, *ctx.reach)
        grads = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])  # (B * H' * W', O)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _spread(grads @ taps.flatten(1), ctx.shape, *ctx.reach)
        if ctx.needs_input_grad[1]:
            grad_taps = (grads.t() @ read).view(taps.shape)
            grad_weight = _uncropped(grad_taps, weight, *ctx.reach)
        if ctx.needs_input_grad[2]:
            grad_bias = grads.sum(0)
        return grad_x, grad_weight, grad_bias, None, None


def _read(x: torch.Tensor, rows: Reach, columns: Reach) -> torch.Tensor:
    """Collect what each output reads: (B * H' * W', taps * C)."""
    padding = (*columns.padding, *rows.padding)
    x = (F.pad(x, padding) if any(padding) else x).permute(0, 2, 3, 1)
    read = x.unfold(1, rows.taps, rows.stride).unfold(2, columns.taps, columns.stride)
    return read.permute(0, 1, 2, 4, 5, 3).reshape(
        x.shape[0] * rows.outputs * columns.outputs, rows.taps * columns.taps * x.shape[3]
    )


def _spread(grads: torch.Tensor, shape: torch.Size, rows: Reach, columns: Reach) -> torch.Tensor:
    """Add up, for each pixel of a map (B, C, H, W), the gradients of all who read it."""
    batch, channels, height, width = shape
    reads = grads.view(batch, rows.outputs, columns.outputs, rows.taps, columns.taps, channels)
    if rows.outputs == columns.outputs == 1:
        padded = reads[:, 0, 0]
    else:
        size = (batch, height + sum(rows.padding), width + sum(columns.padding), channels)
        padded = reads.new_zeros(size, dtype=torch.promote_types(reads.dtype, torch.float32))
        for row in range(rows.taps):
            below = slice(row, row + rows.stride * (rows.outputs - 1) + 1, rows.stride)
            for column in range(columns.taps):
                end = column + columns.stride * (columns.outputs - 1) + 1
                padded[:, below, column : end : columns.stride] += reads[:, :, :, row, column]
    padded = padded.to(reads.dtype).permute(0, 3, 1, 2)
    padding = tuple(-zeros for zeros in (*columns.padding, *rows.padding))
    return F.pad(padded, padding) if any(padding) else padded


def _touching(weight: torch.Tensor, rows: Reach, columns: Reach) -> torch.Tensor:
    """Return the taps that touch data, (O, taps, taps, C), of a weight (O, C, kh, kw)."""
    return _window(weight, rows, columns).permute(0, 2, 3, 1)


def _uncropped(
    taps: torch.Tensor, weight: torch.Tensor, rows: Reach, columns: Reach
) -> torch.Tensor:
    """Put taps (O, taps, taps, C) in the place they have in a weight, with zeros around them."""
    taps = taps.permute(0, 3, 1, 2)
    if taps.shape == weight.shape:
        return taps
    whole = torch.zeros_like(weight)
    _window(whole, rows, columns).copy_(taps)
    return whole


def _window(weight: torch.Tensor, rows: Reach, columns: Reach) -> torch.Tensor:
    return weight.narrow(2, -rows.crop[0], rows.taps).narrow(3, -columns.crop[0], columns.taps)


class SmallMapConv2d(nn.Conv2d):
    """A convolution that does small maps, or large weights, as matrix products; else as ever.

    Made by `reproduction.forms.prepare` alone. With groups or dilation all maps take PyTorch's
    convolution.
    """

    gemm_limit: int
    gemm_weights: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, O, H', W')."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if not plain or isinstance(self.padding, str):
            return super().forward(x)
        rows, columns = (
            reach(x.shape[2 + axis], self.kernel_size[axis], self.stride[axis], self.padding[axis])
            for axis in range(2)
        )
        is_small = max(rows.outputs, columns.outputs) <= self.gemm_limit
        if not is_small and not 0 < self.gemm_weights <= self.weight.numel():
            return super().forward(x)
        given: list[torch.Tensor | None] = [x, self.weight, self.bias]
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            given = [None if each is None else each.to(dtype) for each in given]
        return SmallMapConvolution.apply(*given, rows, columns)
