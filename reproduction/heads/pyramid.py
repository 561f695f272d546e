"""The feature pyramid of detection (TPAMI'20 section 3.3, "HRNetV2p")."""

import torch
import torch.nn.functional as F
from torch import nn

from reproduction.blocks import concatenate
from reproduction.config import BILINEAR, NetworkConfig
from reproduction.errors import UserError

LEVELS = 5
COARSEST = 2 ** (LEVELS - 1)  # pixels of the finest level in one of the coarsest


class Pyramid(nn.Module):
    """All streams in, five maps of halving resolution out.

    Args:
        config: The network: widths of the streams. The body of detection networks upsamples to
            the nearest neighbor, the pyramid bilinearly.
        channels: Channels of every level.
    """

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        width = sum(config.stream_widths(config.final_streams))
        self.reduce = nn.Conv2d(width, channels, 1)
        self.levels = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(LEVELS)
        )

    def forward(self, streams: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Map the streams to levels (B, channels, H / (4 * 2**l), W / (4 * 2**l)), rounded down.

        Raises:
            UserError: The coarsest level would be empty.
        """
        finest = self.reduce(concatenate(streams, BILINEAR))
        if min(finest.shape[2:]) < COARSEST:
            height, width = (4 * side for side in finest.shape[2:])
            raise UserError(
                f"images are about {height}x{width}, and a pyramid of {LEVELS} levels needs at "
                f"least {4 * COARSEST}x{4 * COARSEST}: use larger images"
            )
        maps = (finest, *(F.avg_pool2d(finest, 2**level) for level in range(1, LEVELS)))
        return tuple(smooth(x) for smooth, x in zip(self.levels, maps, strict=True))
