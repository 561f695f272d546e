"""The heatmap head (TPAMI'20 section 3.3, "HRNetV1"): one convolution on the first stream."""

import torch
from torch import nn

from reproduction.config import NetworkConfig


class HeatmapHead(nn.Module):
    """The highest-resolution stream in, one map for each keypoint out.

    Args:
        config: The network; only the width of its first stream matters here.
        keypoints: Number of maps.
    """

    def __init__(self, config: NetworkConfig, keypoints: int) -> None:
        super().__init__()
        self.heatmaps = nn.Conv2d(config.width, keypoints, 1)

    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Map the first stream (B, C, H/4, W/4) to heatmaps (B, keypoints, H/4, W/4)."""
        return self.heatmaps(streams[0])
