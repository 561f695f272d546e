"""The official backbone and feature pyramid of detection, put together as one network.

Detection has no yaml file: its configuration is code, and the facts below are what it says.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor, nn

OUT_CHANNELS = 256
BLOCKS, MODULES = 4, (1, 4, 3)


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


def extra(width: int) -> dict[str, dict[str, Any]]:
    """Return the official description of the four stages of a standard body."""
    first = {
        "num_modules": 1,
        "num_branches": 1,
        "block": "BOTTLENECK",
        "num_blocks": (BLOCKS,),
        "num_channels": (64,),
        "fuse_method": "SUM",
    }
    stages = {"stage1": first}
    for streams, modules in zip((2, 3, 4), MODULES, strict=True):
        stages[f"stage{streams}"] = {
            "num_modules": modules,
            "num_branches": streams,
            "block": "BASIC",
            "num_blocks": (BLOCKS,) * streams,
            "num_channels": tuple(width * 2**r for r in range(streams)),
            "fuse_method": "SUM",
        }
    return stages


def build(backbone: ModuleType, neck: ModuleType, width: int) -> PyramidNetwork:
    """Build body and pyramid from the two official files.

    The body's switch that keeps batch normalization in eval mode is off (`norm_eval`), so that
    train mode is train mode.
    """
    body = backbone.HighResolutionNet(extra(width), norm_eval=False)
    return PyramidNetwork(body, neck.HRFPN([width * 2**r for r in range(4)], OUT_CHANNELS))
