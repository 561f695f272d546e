"""Start weights, as the official code of each task draws them.

Batch normalization starts as the identity everywhere, which is what PyTorch's layers do.
"""

from collections.abc import Callable, Iterator

from torch import nn

SMALL_STD = 0.001

Rule = Callable[[nn.Conv2d], None]


def kaiming(convolution: nn.Conv2d) -> None:
    """Draw weights normally with the variance that ReLU keeps backwards; the bias stays."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def small(convolution: nn.Conv2d) -> None:
    """Draw weights normally with standard deviation 0.001; the bias stays."""
    nn.init.normal_(convolution.weight, std=SMALL_STD)


def small_without_bias(convolution: nn.Conv2d) -> None:
    """Draw weights normally with standard deviation 0.001; set the bias to zero."""
    small(convolution)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def linear_without_bias(convolution: nn.Conv2d) -> None:
    """Draw weights normally with the variance that a linear layer keeps; the bias is zero."""
    nn.init.kaiming_normal_(convolution.weight, a=1)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def untouched(convolution: nn.Conv2d) -> None:
    """Keep what PyTorch's convolution starts with."""


# Body and head by task. The OCR code passes over every name with "cls", "aux" or "ocr" in it,
# which is its whole head; the classifier of the classification head is no convolution.
RULES: dict[str, tuple[Rule, Rule]] = {
    "classification": (kaiming, kaiming),
    "pose": (small_without_bias, small_without_bias),
    "segmentation": (small, small),
    "ocr": (small, untouched),
    "landmarks": (small, small),
    "detection": (kaiming, linear_without_bias),
}


def initialize(network: nn.Module, task: str) -> None:
    """Draw the start weights of a network's convolutions in place.

    Args:
        network: A body and a head, in this order.
        task: A key of `RULES`.
    """
    for part, rule in zip(network.children(), RULES[task], strict=True):
        for convolution in _convolutions(part):
            rule(convolution)


def _convolutions(part: nn.Module) -> Iterator[nn.Conv2d]:
    return (module for module in part.modules() if isinstance(module, nn.Conv2d))
