"""The facial landmark head (TPAMI'20 section 3.3, "HRNetV2"): all streams, concatenated."""

import torch
from torch import nn

from reproduction.blocks import concatenate
from reproduction.config import NetworkConfig
from reproduction.heads.segmentation import PixelClassifier


class LandmarkHead(nn.Module):
    """All streams in, one map for each landmark out.

    Args:
        config: The network: widths of the streams and how they are upsampled.
        landmarks: Number of maps.
    """

    def __init__(self, config: NetworkConfig, landmarks: int) -> None:
        super().__init__()
        self.upsampling = config.upsampling
        self.locate = PixelClassifier(sum(config.stream_widths(config.final_streams)), landmarks)

    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Map the streams to heatmaps (B, landmarks, H/4, W/4)."""
        return self.locate(concatenate(streams, self.upsampling))
