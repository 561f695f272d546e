"""Whole networks: body, head and initialization (TPAMI'20 appendix B; the official factory)."""

import torch
from torch import nn

from reproduction.config import NetworkConfig, network_config
from reproduction.errors import UserError
from reproduction.heads.classification import ClassificationHead
from reproduction.hrnet import STREAMS, HRNet


class ClassificationNetwork(nn.Module):
    """HRNet with the classification head ("HRNet-W#-C").

    Args:
        config: Widths and depths.
        num_classes: Length of the logits.
        in_channels: Channels of the image.
    """

    def __init__(self, config: NetworkConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = HRNet(config, in_channels)
        self.head = ClassificationHead(config.stream_widths(STREAMS), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images (B, in_channels, H, W) to logits (B, num_classes)."""
        return self.head(self.streams(images))

    def streams(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the four streams that the head reads, highest resolution first."""
        return self.backbone(images)


def build_network(
    name: str, *, num_classes: int = 1000, in_channels: int = 3
) -> ClassificationNetwork:
    """Build a network by its official name, freshly initialized, on the CPU, in train mode.

    Args:
        name: A key of `reproduction.NETWORKS`, e.g. ``cls_hrnet_w18``.
        num_classes: Length of the logits, at least 1.
        in_channels: Channels of the image, at least 1.

    Returns:
        The network.

    Raises:
        UserError: The name is unknown or a count is not a whole number of at least 1.
    """
    for what, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UserError(f"{what} is {count!r}; give a whole number of at least 1")
    network = ClassificationNetwork(network_config(name), num_classes, in_channels)
    initialize(network)
    return network


def initialize(network: nn.Module) -> None:
    """Draw start weights in place, as the official classification factory does.

    Convolution weights are Kaiming-normal (fan out, ReLU). Everything else keeps what PyTorch's
    layers start with, which is also what the official networks start with: batch normalization as
    the identity, convolution biases and the classifier uniform within 1 / sqrt(fan in).
    """
    for convolution in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
