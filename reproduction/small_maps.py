"""Convolutions on small maps as matrix products: the same sums, and no others.

Where a map is hardly larger than the kernel, most taps see nothing but padding: of a 3x3 kernel
with stride 2 on a 2x2 map only 4 taps of 9 touch data. Here the others are left out, and what is
left is one matrix product a kernel row, for which linear algebra libraries are fast at shapes where
convolution libraries are slow. The result differs from `torch.nn.functional.conv2d` by the
rounding of another order of summation; the gradient of a tap that touches nothing is exactly zero.
"""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable


class Tap(NamedTuple):
    """One index of a kernel along one axis, the outputs that it feeds, the inputs they read."""

    at: int
    outputs: slice
    inputs: slice


class Axis(NamedTuple):
    """How a kernel meets a map along one axis: taps that touch data, sizes before and after."""

    taps: tuple[Tap, ...]
    inputs: int
    outputs: int

    @property
    def is_plain(self) -> bool:
        """Whether every output reads the one input at its own place."""
        return len(self.taps) == 1 and self.taps[0].inputs == slice(0, self.outputs, 1)


def meet(size: int, kernel: int, stride: int, padding: int) -> Axis:
    """List the taps of a kernel that touch data on a map of the given size.

    >>> [tap.at for tap in meet(2, 3, 2, 1).taps], meet(2, 3, 2, 1).outputs
    ([1, 2], 1)
    """
    outputs = (size + 2 * padding - kernel) // stride + 1
    taps = []
    for index in range(kernel):
        fed = [o for o in range(outputs) if 0 <= o * stride - padding + index < size]
        if fed:
            start = fed[0] * stride - padding + index
            inputs = slice(start, start + (len(fed) - 1) * stride + 1, stride)
            taps.append(Tap(index, slice(fed[0], fed[-1] + 1), inputs))
    return Axis(tuple(taps), size, outputs)


class SmallMapConvolution(torch.autograd.Function):
    """`torch.nn.functional.conv2d` (no groups, no dilation), forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        rows: Axis,
        columns: Axis,
    ) -> torch.Tensor:
        """Map (B, C, H, W) to (B, O, H', W')."""
        nhwc = x.permute(0, 2, 3, 1)
        read = [_gather(nhwc, row, rows, columns) for row in rows.taps]
        blocks = _blocks(weight, rows, columns)
        y = torch.mm(read[0], blocks[0].t())
        for values, block in zip(read[1:], blocks[1:], strict=True):
            y.addmm_(values, block.t())
        if bias is not None:
            y += bias
        ctx.save_for_backward(weight, *read)
        ctx.geometry = rows, columns
        return y.view(len(x), rows.outputs, columns.outputs, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Give the gradients of input, weight and bias."""
        weight, *read = ctx.saved_tensors
        rows, columns = ctx.geometry
        g = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            blocks = _blocks(weight, rows, columns)
            for_x = _scatter([torch.mm(g, block) for block in blocks], len(gradient), rows, columns)
        if ctx.needs_input_grad[1]:
            for_weight = torch.zeros_like(weight, memory_format=torch.channels_last)
            for values, block in zip(read, _blocks(for_weight, rows, columns), strict=True):
                torch.mm(g.t(), values, out=block)
        if ctx.needs_input_grad[2]:
            for_bias = g.sum(0)
        return for_x, for_weight, for_bias, None, None


def _blocks(weight: torch.Tensor, rows: Axis, columns: Axis) -> list[torch.Tensor]:
    """View what touches data of a weight (O, C, kh, kw): for each kernel row (O, taps * C)."""
    channels, width = weight.shape[1], weight.shape[3]
    matrix = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
    starts = [(row.at * width + columns.taps[0].at) * channels for row in rows.taps]
    return [matrix[:, start : start + len(columns.taps) * channels] for start in starts]


def _gather(nhwc: torch.Tensor, row: Tap, rows: Axis, columns: Axis) -> torch.Tensor:
    """Collect what one kernel row reads at each output: (B * H' * W', taps * C)."""
    images, channels = len(nhwc), nhwc.shape[-1]
    if rows.is_plain and columns.is_plain:
        return nhwc.reshape(-1, channels)
    shape = (images, rows.outputs, columns.outputs, len(columns.taps), channels)
    values = nhwc.new_zeros(shape)
    for place, column in enumerate(columns.taps):
        values[:, row.outputs, column.outputs, place] = nhwc[:, row.inputs, column.inputs]
    return values.view(-1, len(columns.taps) * channels)


def _scatter(parts: list[torch.Tensor], images: int, rows: Axis, columns: Axis) -> torch.Tensor:
    """Add up, for each input, what came back from the outputs that read it: (B, C, H, W)."""
    channels = parts[0].shape[1] // len(columns.taps)
    if rows.is_plain and columns.is_plain:
        total = parts[0].view(images, rows.inputs, columns.inputs, channels)
        return total.permute(0, 3, 1, 2)
    total = parts[0].new_zeros(images, rows.inputs, columns.inputs, channels)
    for row, part in zip(rows.taps, parts, strict=True):
        shaped = part.view(images, rows.outputs, columns.outputs, len(columns.taps), channels)
        for place, column in enumerate(columns.taps):
            total[:, row.inputs, column.inputs] += shaped[:, row.outputs, column.outputs, place]
    return total.permute(0, 3, 1, 2)


class SmallMapConv2d(nn.Conv2d):
    """A convolution that does small maps as matrix products, and larger ones as ever.

    Made by `reproduction.forms.prepare` alone. Under autocast, and with groups or dilation, all
    maps take PyTorch's convolution.
    """

    gemm_limit: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, O, H', W')."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if not plain or isinstance(self.padding, str) or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        rows, columns = (
            meet(x.shape[2 + i], self.kernel_size[i], self.stride[i], self.padding[i])
            for i in range(2)
        )
        if max(rows.outputs, columns.outputs) > self.gemm_limit:
            return super().forward(x)
        return SmallMapConvolution.apply(x, self.weight, self.bias, rows, columns)
