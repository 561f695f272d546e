"""Parameters and cost of the networks for dense tasks, beside every published figure.

Published figures follow several conventions. Each row is computed by the convention that explains
it, and the verdict says how the printed digits come about: by rounding, by cutting digits off,
nearly, or not at all. No figure is forced to match.
"""

from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from functools import cache
from typing import Any

import torch
from torch import nn

from comparison.published import DenseFigure, dense_figures
from reproduction import network_config
from reproduction.networks import CLASSES

NEARLY = 0.002
CITYSCAPES_SIZE = (1024, 2048)
# In the paper's tables only: a width that no official segmentation file has.
UNCONFIGURED = {"seg_hrnet_w40_cityscapes": ("seg_hrnet_w48_cityscapes", 40)}

# What the rest of a Faster R-CNN for 80 classes and background has, and does for 512 proposals.
CHANNELS, ANCHORS, KINDS, PROPOSALS = 256, 3, 81, 512
HIDDEN, POOLED = 1024, 7
RPN_OUTPUTS, BOX_OUTPUTS = ANCHORS * 5, KINDS * 5

EXPLAINED = {
    "own": "the network itself, MACs / 2^30",
    "area": "MACs / 2^30 of the Cityscapes network, scaled by the number of pixels",
    "detector": "a whole Faster R-CNN: parameters / 2^20, MACs / 2^30 with 512 proposals",
}


@cache
def build_on_meta(name: str) -> nn.Module:
    """Build a network without memory for its weights, and without drawing any."""
    base, width = UNCONFIGURED.get(name, (name, None))
    config = network_config(base)
    if width is not None:
        config = replace(config, name=name, width=width)
    with torch.device("meta"):
        return CLASSES[config.task](config, config.outputs)


@cache
def parameters_of(name: str) -> int:
    """Count the trainable elements of a network."""
    return sum(parameter.numel() for parameter in build_on_meta(name).parameters())


@cache
def macs_of(name: str, image_size: tuple[int, int]) -> int:
    """Count the multiply-accumulates of all convolutions for one image, from shapes alone."""
    return count_macs(build_on_meta(name), image_size)


def count_macs(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Count the multiply-accumulates of convolutions and linear layers; biases are not counted.

    Args:
        model: A network on PyTorch's device ``meta``, of which nothing is computed.
        image_size: Height and width.
    """
    total = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        total += output.numel() // weight.shape[0] * weight.numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad():
            model.eval()(torch.empty(1, 3, *image_size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return total


def detector_parameters() -> int:
    """Count what a Faster R-CNN has beside backbone and pyramid."""
    proposal = (9 * CHANNELS + 1) * CHANNELS + (CHANNELS + 1) * RPN_OUTPUTS
    flat = CHANNELS * POOLED**2
    return proposal + (flat + 1) * HIDDEN + (HIDDEN + 1) * (HIDDEN + BOX_OUTPUTS)


def detector_macs(image_size: tuple[int, int]) -> int:
    """Count what a Faster R-CNN computes beside backbone and pyramid."""
    height, width = (side // 4 for side in image_size)
    places = sum((height // 2**level) * (width // 2**level) for level in range(5))
    proposal = places * CHANNELS * (9 * CHANNELS + RPN_OUTPUTS)
    box = CHANNELS * POOLED**2 * HIDDEN + HIDDEN * (HIDDEN + BOX_OUTPUTS)
    return proposal + PROPOSALS * box


def _own(figure: DenseFigure) -> float:
    if figure.quantity == "parameters_m":
        return parameters_of(figure.network) / 1e6
    return macs_of(figure.network, figure.image_size) / 2**30


def _area(figure: DenseFigure) -> float:
    height, width = figure.image_size
    share = height * width / (CITYSCAPES_SIZE[0] * CITYSCAPES_SIZE[1])
    return macs_of("seg_hrnet_w48_cityscapes", CITYSCAPES_SIZE) / 2**30 * share


def _detector(figure: DenseFigure) -> float:
    if figure.quantity == "parameters_m":
        return (parameters_of(figure.network) + detector_parameters()) / 2**20
    size = figure.image_size
    return (macs_of(figure.network, size) + detector_macs(size)) / 2**30


CONVENTIONS: dict[str, Callable[[DenseFigure], float]] = {
    "own": _own,
    "area": _area,
    "detector": _detector,
}


def manner(printed: str, value: float) -> str:
    """Say how printed digits come from a value.

    >>> manner("65.9", 65.859), manner("65.8", 65.859), manner("399.1", 399.32)
    ('rounded', 'truncated', 'within 0.2 %')
    """
    digits = Decimal(printed)
    unit = Decimal(1).scaleb(int(digits.as_tuple().exponent))
    exact = Decimal(str(value))
    if abs(exact - digits) <= unit / 2:
        return "rounded"
    if exact.quantize(unit, rounding=ROUND_DOWN) == digits:
        return "truncated"
    return "within 0.2 %" if abs(value / float(printed) - 1) <= NEARLY else "not reproduced"


def table() -> list[dict[str, Any]]:
    """Lay every published figure of a dense network beside what is counted."""
    return [_row(figure) for figure in dense_figures()]


def _row(figure: DenseFigure) -> dict[str, Any]:
    value = CONVENTIONS[figure.convention](figure)
    own = _own(figure)
    return {
        "network": figure.network,
        "quantity": figure.quantity,
        "image_size": " x ".join(map(str, figure.image_size)),
        "published": figure.printed,
        "by": figure.by,
        "convention": EXPLAINED[figure.convention],
        "value": value,
        "own": own,
        "manner": manner(figure.printed, value),
    }
