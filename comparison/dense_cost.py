"""Parameters and cost of the networks for dense tasks, beside every published figure.

Published figures follow several conventions. Each row is computed by the convention that explains
it, and the verdict says how the printed digits come about: by rounding, by cutting digits off,
nearly, or not at all. No figure is forced to match.
"""

import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from functools import cache, lru_cache
from typing import Any

import torch
from torch import nn

import reference
from comparison.published import DenseFigure, dense_figures
from comparison.study import ARMS
from reference.errors import ReferenceAbsent
from reproduction import network_config
from reproduction.networks import CLASSES

NEARLY = 0.002
CITYSCAPES_SIZE = (1024, 2048)
# In the paper's tables only: a width that no official file has, put into the file of W48.
UNCONFIGURED = {"seg_hrnet_w40_cityscapes": ("seg_hrnet_w48_cityscapes", 40)}

# What the rest of a Faster R-CNN for 80 classes and background has, and does for 512 proposals.
CHANNELS, ANCHORS, KINDS, PROPOSALS = 256, 3, 81, 512
HIDDEN, POOLED = 1024, 7
RPN_OUTPUTS, BOX_OUTPUTS = ANCHORS * 5, KINDS * 5

Macs = Callable[[str, tuple[int, int]], int]
EXPLAINED = {
    "own": "the network, MACs / 2^30",
    "area": "Cityscapes' network, MACs / 2^30, by area",
    "detector": "a Faster R-CNN / 2^20, / 2^30",
}


@lru_cache(maxsize=1)  # several counts of one network follow one another
def build_on_meta(name: str, arm: str = "reproduction") -> nn.Module | None:
    """Build a network without memory for its weights, and without drawing any.

    Returns:
        The network; None for a reference that is not there.

    Raises:
        ReferenceUnavailable: The official files were altered.
    """
    base, width = UNCONFIGURED.get(name, (name, None))
    with torch.device("meta"):
        if arm == "reference":
            try:
                return reference.build(base, settings=_widths(width) if width else None)
            except ReferenceAbsent:
                return None
        config = network_config(base)
        if width is not None:
            config = replace(config, name=name, width=width)
        return CLASSES[config.task](config, config.outputs)


def _widths(width: int) -> dict[str, list[int]]:
    """Say in the words of the official yaml how wide the streams of stages 2 to 4 are."""
    return {
        f"MODEL.EXTRA.STAGE{streams}.NUM_CHANNELS": [width * 2**r for r in range(streams)]
        for streams in (2, 3, 4)
    }


@cache
def parameters_of(name: str, arm: str = "reproduction") -> int | None:
    """Count the trainable elements of a network; None if the arm does not have it."""
    model = build_on_meta(name, arm)
    return None if model is None else sum(p.numel() for p in model.parameters())


@cache
def macs_of(name: str, image_size: tuple[int, int], arm: str = "reproduction") -> int | None:
    """Count the multiply-accumulates of all convolutions for one image, from shapes alone."""
    model = build_on_meta(name, arm)
    return None if model is None else count_macs(model, image_size)


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
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*upsample.* is deprecated")  # the reference
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


def _own(figure: DenseFigure, parameters: int, macs: Macs) -> float:
    if figure.quantity == "parameters_m":
        return parameters / 1e6
    return macs(figure.network, figure.image_size) / 2**30


def _area(figure: DenseFigure, parameters: int, macs: Macs) -> float:
    height, width = figure.image_size
    share = height * width / (CITYSCAPES_SIZE[0] * CITYSCAPES_SIZE[1])
    return macs("seg_hrnet_w48_cityscapes", CITYSCAPES_SIZE) / 2**30 * share


def _detector(figure: DenseFigure, parameters: int, macs: Macs) -> float:
    if figure.quantity == "parameters_m":
        return (parameters + detector_parameters()) / 2**20
    size = figure.image_size
    return (macs(figure.network, size) + detector_macs(size)) / 2**30


Convention = Callable[[DenseFigure, int, Macs], float]
CONVENTIONS: dict[str, Convention] = {"own": _own, "area": _area, "detector": _detector}


def _value(figure: DenseFigure, arm: str, convention: str) -> float | None:
    """Count in one arm what a figure counts; None if the arm is not there."""

    def macs(network: str, image_size: tuple[int, int]) -> int:
        return macs_of(network, image_size, arm) or 0

    parameters = parameters_of(figure.network, arm)
    return None if parameters is None else CONVENTIONS[convention](figure, parameters, macs)


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


def verdict(figure: DenseFigure, how: str, values: dict[str, float | None]) -> str:
    """Judge a printed figure: how it comes about, and whether both arms have it.

    Digits that were cut off, and figures of something larger than the network, are met and
    explained, not met as they are printed.
    """
    theirs = values["reference"]
    if how == "not reproduced" or theirs not in (None, values["reproduction"]):
        return "not reproduced"
    if how == "within 0.2 %":
        return "within tolerance"
    plain = how == "rounded" and figure.convention == "own"
    return "reproduced" if plain else "explained difference"


def table(
    networks: Collection[str] | None = None, arms: Collection[str] = ARMS
) -> list[dict[str, Any]]:
    """Lay published figures of dense networks beside what is counted.

    Args:
        networks: About which; all unless given.
        arms: Counted in which; ours always.
    """
    chosen = [f for f in dense_figures() if networks is None or f.network in networks]
    return [_row(figure, arms) for figure in chosen]


def _row(figure: DenseFigure, arms: Collection[str]) -> dict[str, Any]:
    def count(arm: str) -> float | None:
        return _value(figure, arm, figure.convention) if arm in arms else None

    values = {"reference": count("reference"), "reproduction": count("reproduction")}
    ours = values["reproduction"]
    assert ours is not None
    how = manner(figure.printed, ours)
    return {
        "network": figure.network,
        "quantity": figure.quantity,
        "image_size": " x ".join(map(str, figure.image_size)),
        "paper": figure.printed,
        **values,
        "own": _value(figure, "reproduction", "own"),
        "convention": EXPLAINED[figure.convention],
        "manner": how,
        "verdict": verdict(figure, how, values),
        "source": figure.by,
    }
