"""Whole networks: body, head and initialization (TPAMI'20 section 3.3; the official factories)."""

import torch
from torch import nn

from reproduction.config import NetworkConfig, network_config
from reproduction.errors import UserError
from reproduction.heads.classification import ClassificationHead
from reproduction.heads.heatmap import HeatmapHead
from reproduction.heads.landmark import LandmarkHead
from reproduction.heads.ocr import OCRHead
from reproduction.heads.pyramid import Pyramid
from reproduction.heads.segmentation import SegmentationHead
from reproduction.hrnet import HRNet
from reproduction.initialization import initialize

HEADS: dict[str, type[nn.Module]] = {
    "classification": ClassificationHead,
    "pose": HeatmapHead,
    "segmentation": SegmentationHead,
    "ocr": OCRHead,
    "landmarks": LandmarkHead,
}


class Network(nn.Module):
    """HRNet with the head of its task.

    Args:
        config: The network.
        outputs: Classes, keypoints or landmarks.
        in_channels: Channels of the image.
    """

    def __init__(self, config: NetworkConfig, outputs: int, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.backbone = HRNet(config, in_channels)
        self.head = HEADS[config.task](config, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map normalized images (B, in_channels, H, W) to what the head puts out."""
        return self.head(self.streams(images))

    def streams(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the streams that the head reads, highest resolution first."""
        return self.backbone(images)


class ClassificationNetwork(Network):
    """HRNet with the classification head ("HRNet-W#-C"): its output is one tensor of logits."""

    head: ClassificationHead


class PyramidNetwork(nn.Module):
    """HRNet with the feature pyramid: what a detector calls its backbone and its neck.

    The body's attribute is not called ``backbone``, because official detection files put that
    word in front of the official names, and ours must stay apart from them.

    Args:
        config: The network.
        channels: Channels of every level.
        in_channels: Channels of the image.
    """

    def __init__(self, config: NetworkConfig, channels: int, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.body = HRNet(config, in_channels)
        self.neck = Pyramid(config, channels)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map normalized images (B, in_channels, H, W) to five levels, finest first."""
        return self.neck(self.streams(images))

    def streams(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the four streams that the pyramid reads, highest resolution first."""
        return self.body(images)


CLASSES: dict[str, type[Network] | type[PyramidNetwork]] = {
    **dict.fromkeys(HEADS, Network),
    "classification": ClassificationNetwork,
    "detection": PyramidNetwork,
}


def build_network(
    name: str, *, num_classes: int | None = None, in_channels: int = 3
) -> Network | PyramidNetwork:
    """Build a network by its official name, freshly initialized, on the CPU, in train mode.

    Args:
        name: A key of `reproduction.NETWORKS`, e.g. ``cls_hrnet_w18``.
        num_classes: Classes, keypoints or landmarks (detection: channels of the pyramid), at
            least 1; the official number unless given.
        in_channels: Channels of the image, at least 1.

    Returns:
        The network.

    Raises:
        UserError: The name is unknown or a count is not a whole number of at least 1.
    """
    return make_network(network_config(name), num_classes=num_classes, in_channels=in_channels)


def make_network(
    config: NetworkConfig, *, num_classes: int | None = None, in_channels: int = 3
) -> Network | PyramidNetwork:
    """Build any network that a configuration describes, as `build_network` does by name.

    Raises:
        UserError: A count is not a whole number of at least 1.
    """
    outputs = config.outputs if num_classes is None else num_classes
    for what, count in (("num_classes", outputs), ("in_channels", in_channels)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UserError(f"{what} is {count!r}; give a whole number of at least 1")
    network = CLASSES[config.task](config, outputs, in_channels)
    set_momentum(network, config.norm_momentum)
    initialize(network, config.task)
    return network


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set how far one batch moves the running statistics, in every batch normalization."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
