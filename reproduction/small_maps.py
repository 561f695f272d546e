"""Convolutions on small maps as one matrix product: the same sums, and no others.

Where a map is hardly larger than the kernel, most taps see nothing but padding: of a 3x3 kernel
with stride 2 on a 2x2 map only 4 taps of 9 touch data. Here the others are left out, and what is
left is one matrix product, for which linear algebra libraries are fast at shapes where convolution
libraries are slow. The result differs from `torch.nn.functional.conv2d` by the rounding of another
order of summation; the gradient of a tap that touches nothing is exactly zero.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


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


def small_map_convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rows: Reach, columns: Reach
) -> torch.Tensor:
    """Convolve (B, C, H, W) with a weight (O, C, kh, kw), over the taps that touch data."""
    x = _padded(x, (*columns.padding, *rows.padding)).permute(0, 2, 3, 1)
    weight = _padded(weight, (*columns.crop, *rows.crop)).permute(0, 2, 3, 1)
    read = x.unfold(1, rows.taps, rows.stride).unfold(2, columns.taps, columns.stride)
    read = read.permute(0, 1, 2, 4, 5, 3).flatten(3)  # (B, H', W', taps * C)
    return F.linear(read, weight.flatten(1), bias).permute(0, 3, 1, 2)


def _padded(x: torch.Tensor, padding: tuple[int, ...]) -> torch.Tensor:
    return F.pad(x, padding) if any(padding) else x


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
            reach(x.shape[2 + axis], self.kernel_size[axis], self.stride[axis], self.padding[axis])
            for axis in range(2)
        )
        if max(rows.outputs, columns.outputs) > self.gemm_limit:
            return super().forward(x)
        return small_map_convolution(x, self.weight, self.bias, rows, columns)
