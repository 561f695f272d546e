"""The classification head (TPAMI'20 section 3.3 and appendix B, "HRNet-W#-C").

The four streams are widened by one bottleneck block each, summed from high to low resolution
through strided convolutions, projected to 2048 channels, averaged over the map and classified.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from reproduction.blocks import Bottleneck, ConvNorm
from reproduction.config import NetworkConfig

HEAD_WIDTHS = (32, 64, 128, 256)
FEATURES = 2048


class ClassificationHead(nn.Module):
    """Four streams in, one vector of logits out.

    Args:
        config: The network: widths of the four streams.
        num_classes: Length of the logits.
    """

    def __init__(self, config: NetworkConfig, num_classes: int) -> None:
        super().__init__()
        widths = [width * Bottleneck.expansion for width in HEAD_WIDTHS]
        self.widen = nn.ModuleList(
            Bottleneck(stream, width)
            for stream, width in zip(
                config.stream_widths(len(HEAD_WIDTHS)), HEAD_WIDTHS, strict=True
            )
        )
        self.descend = nn.ModuleList(
            ConvNorm(high, low, 3, stride=2, relu=True, bias=True) for high, low in pairwise(widths)
        )
        self.project = ConvNorm(widths[-1], FEATURES, 1, relu=True, bias=True)
        self.classifier = nn.Linear(FEATURES, num_classes)

    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Map four streams to logits (B, num_classes)."""
        y = self.widen[0](streams[0])
        for stream, widen, descend in zip(streams[1:], self.widen[1:], self.descend, strict=True):
            y = widen(stream) + descend(y)
        y = self.project(y)  # (B, 2048, H/32, W/32)
        y = F.avg_pool2d(y, kernel_size=y.shape[-2:]).flatten(1)  # (B, 2048)
        return self.classifier(y)
