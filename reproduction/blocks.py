"""Residual units (He et al., CVPR'16) as HRNet uses them: stride 1 everywhere.

The order of operations and of additions is that of the official networks, so that float32 results
agree to the bit. Names follow torchvision's residual networks where the paper has none.
"""

import torch
import torch.nn.functional as F
from torch import nn

from reproduction.config import Upsampling


class ConvNorm(nn.Sequential):
    """Convolution, batch normalization (eps 1e-5) and, if asked for, a ReLU.

    Padding keeps the size at stride 1. A bias before batch normalization has no effect in train
    mode; some heads have one all the same, because official checkpoints hold it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        relu: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias
        )
        self.norm = nn.BatchNorm2d(out_channels)
        if relu:
            self.relu = nn.ReLU(inplace=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity shortcut (CVPR'16, figure 5 left)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.unit1 = ConvNorm(width, width, 3, relu=True)
        self.unit2 = ConvNorm(width, width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, width, H, W) to the same shape."""
        return F.relu(self.unit2(self.unit1(x)) + x, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution; the last one widens fourfold (CVPR'16, figure 5 right).

    The shortcut is a projection where the number of channels changes, else the identity.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.unit1 = ConvNorm(in_channels, width, 1, relu=True)
        self.unit2 = ConvNorm(width, width, 3, relu=True)
        self.unit3 = ConvNorm(width, out_channels, 1)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = ConvNorm(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * width, H, W)."""
        y = self.unit3(self.unit2(self.unit1(x)))
        return F.relu(y + self.shortcut(x), inplace=True)


def upsample(x: torch.Tensor, size: torch.Size, rule: Upsampling) -> torch.Tensor:
    """Bring (B, C, H, W) to (B, C, *size); a map of that size stays as it is."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode=rule.mode, align_corners=rule.align_corners)


def concatenate(streams: list[torch.Tensor], rule: Upsampling) -> torch.Tensor:
    """Stack all streams at the size of the first: the representation V2 (TPAMI'20 section 3.3)."""
    size = streams[0].shape[-2:]
    return torch.cat([upsample(x, size, rule) for x in streams], dim=1)
