"""The official backbone and feature pyramid of detection, put together as one network.

Detection has no yaml file: its configuration is code, and the facts below are what it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the official classes take; the defaults are those of the standard networks.

    Attributes:
        width: Channels of the first stream.
        stage1_blocks: Bottleneck blocks in stage 1.
        stage1_width: Inner width of those blocks.
        modules: Exchange modules in stages 2, 3 and 4.
        blocks: Basic blocks a stream in each module.
        channels: Of every level of the pyramid.
    """

    width: int
    stage1_blocks: int = 4
    stage1_width: int = 64
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    channels: int = 256


class PyramidNetwork(nn.Module):
    """A backbone and a neck, called in turn.

    Args:
        backbone: maps images to a list of four streams.
        neck: maps these to five levels.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W), H and W whole multiples of 32, to five levels."""
        return tuple(self.neck(self.backbone(images)))


def extra(shape: Shape) -> dict[str, dict[str, Any]]:
    """Return the official description of the four stages of a body."""
    first = {
        "num_modules": 1,
        "num_branches": 1,
        "block": "BOTTLENECK",
        "num_blocks": (shape.stage1_blocks,),
        "num_channels": (shape.stage1_width,),
        "fuse_method": "SUM",
    }
    stages = {"stage1": first}
    for streams, modules in zip((2, 3, 4), shape.modules, strict=True):
        stages[f"stage{streams}"] = {
            "num_modules": modules,
            "num_branches": streams,
            "block": "BASIC",
            "num_blocks": (shape.blocks,) * streams,
            "num_channels": tuple(shape.width * 2**r for r in range(streams)),
            "fuse_method": "SUM",
        }
    return stages


def build(backbone: ModuleType, neck: ModuleType, shape: Shape) -> PyramidNetwork:
    """Build body and pyramid from the two official files.

    The body's switch that keeps batch normalization in eval mode is off (`norm_eval`), so that
    train mode is train mode.
    """
    body = backbone.HighResolutionNet(extra(shape), norm_eval=False)
    widths = [shape.width * 2**r for r in range(4)]
    return PyramidNetwork(body, neck.HRFPN(widths, shape.channels))
