"""Object-contextual representations (Yuan et al., ECCV'20) on top of HRNetV2.

A first, auxiliary segmentation says softly which pixels belong to which class. Every class is
described by the mean of its pixels, every pixel is then described by the classes it resembles.
"""

import torch
from torch import nn

from reproduction.blocks import ConvNorm, concatenate
from reproduction.config import NetworkConfig
from reproduction.heads.segmentation import PixelClassifier

DROPOUT = 0.05


def describe_classes(scores: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    r"""Average the pixels of each class (ECCV'20 equation 2).

    .. math:: f_k = \sum_i \mathrm{softmax}_i(s_{ki})\, x_i

    Args:
        scores: (B, K, H, W).
        pixels: (B, C, H, W).

    Returns:
        (B, C, K, 1): one vector for each class, laid out as a map.
    """
    membership = scores.flatten(2).softmax(dim=-1)  # (B, K, HW)
    classes = membership @ pixels.flatten(2).transpose(1, 2)  # (B, K, C)
    return classes.transpose(1, 2).unsqueeze(-1)


class ClassAttention(nn.Module):
    r"""Describe every pixel by the classes that it resembles (ECCV'20 equations 3 and 4).

    .. math:: y_i = \rho\Big(\sum_k \mathrm{softmax}_k(q_i \cdot k_k / \sqrt{d})\, v_k\Big)
    """

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__()
        self.query = self._two_units(width, key_width)
        self.key = self._two_units(width, key_width)
        self.value = ConvNorm(width, key_width, 1, relu=True)
        self.restore = ConvNorm(key_width, width, 1, relu=True)
        self.scale = key_width**-0.5

    @staticmethod
    def _two_units(width: int, key_width: int) -> nn.Sequential:
        return nn.Sequential(
            ConvNorm(width, key_width, 1, relu=True), ConvNorm(key_width, key_width, 1, relu=True)
        )

    def forward(self, pixels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Map pixels (B, C, H, W) and classes (B, C, K, 1) to context (B, C, H, W)."""
        queries = self.query(pixels).flatten(2).transpose(1, 2)  # (B, HW, D)
        keys = self.key(classes).flatten(2)  # (B, D, K)
        values = self.value(classes).flatten(2).transpose(1, 2)  # (B, K, D)
        attention = (self.scale * (queries @ keys)).softmax(dim=-1)  # (B, HW, K)
        context = (attention @ values).transpose(1, 2).contiguous()  # (B, D, HW)
        return self.restore(context.unflatten(2, pixels.shape[-2:]))


class OCRHead(nn.Module):
    """All streams in; auxiliary and final scores out.

    Args:
        config: The network: widths of the streams and how they are upsampled.
        classes: Number of maps of each output.
    """

    def __init__(self, config: NetworkConfig, classes: int) -> None:
        super().__init__()
        width = sum(config.stream_widths(config.final_streams))
        self.upsampling = config.upsampling
        pixel_width, key_width = config.ocr_widths
        self.represent = ConvNorm(width, pixel_width, 3, relu=True, bias=True)
        self.attention = ClassAttention(pixel_width, key_width)
        self.merge = ConvNorm(2 * pixel_width, pixel_width, 1, relu=True)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.predict = nn.Conv2d(pixel_width, classes, 1)
        self.auxiliary = PixelClassifier(width, classes)

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map the streams to [auxiliary scores, scores], each (B, classes, H/4, W/4)."""
        features = concatenate(streams, self.upsampling)
        scores = self.auxiliary(features)
        pixels = self.represent(features)
        context = self.attention(pixels, describe_classes(scores, pixels))
        merged = self.dropout(self.merge(torch.cat([context, pixels], dim=1)))
        return [scores, self.predict(merged)]
