"""The segmentation head (TPAMI'20 section 3.3, "HRNetV2"): all streams, concatenated."""

import torch
from torch import nn

from reproduction.blocks import ConvNorm, concatenate
from reproduction.config import NetworkConfig


class PixelClassifier(nn.Sequential):
    """Mix the channels of every pixel by a 1x1 convolution, then map them to scores."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.mix = ConvNorm(width, width, 1, relu=True, bias=True)
        self.predict = nn.Conv2d(width, outputs, 1)


class SegmentationHead(nn.Module):
    """All streams in, one map of scores for each class out.

    Args:
        config: The network: widths of the streams and how they are upsampled.
        classes: Number of maps.
    """

    def __init__(self, config: NetworkConfig, classes: int) -> None:
        super().__init__()
        self.upsampling = config.upsampling
        self.classify = PixelClassifier(sum(config.stream_widths(config.final_streams)), classes)

    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Map the streams to scores (B, classes, H/4, W/4); labels are four times as large."""
        return self.classify(concatenate(streams, self.upsampling))
