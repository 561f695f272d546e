"""Count parameters and operations of a network, in three named conventions (D9).

One forward pass of one 224 x 224 image is traced by fvcore. Its counters by operator give

- ``gmacs``: multiply-accumulates of convolutions and linear layers / 10^9;
- ``published_gflops``: the same / 2^30, which is what the official README prints;
- ``fvcore_gflops``: all that fvcore counts / 10^9: besides the above two operations for every
  element that batch normalization puts out, one for every upsampled element, and pooling where
  it is written as adaptive pooling.

Additions, ReLU and convolution biases enter none of the three. ReLU and every form of pooling are
counted besides, because mmpretrain's published figure includes them.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    # fvcore compiles losses that nobody asked for with the deprecated torch.jit.script.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

IMAGE_SIZE = 224
# First component of an official layer name -> the part of the network it belongs to.
PARTS = {
    "conv1": "stem",
    "bn1": "stem",
    "conv2": "stem",
    "bn2": "stem",
    "layer1": "stage1",
    "transition1": "transition1",
    "stage2": "stage2",
    "transition2": "transition2",
    "stage3": "stage3",
    "transition3": "transition3",
    "stage4": "stage4",
    "incre_modules": "head",
    "downsamp_modules": "head",
    "final_layer": "head",
    "classifier": "head",
}
OPERATORS = {
    "convolution": ("conv",),
    "linear": ("linear", "addmm"),
    "batch normalization": ("batch_norm",),
    "upsampling": ("upsample_nearest2d", "upsample_bilinear2d"),
    "ReLU": ("relu", "relu_"),
    "pooling": ("adaptive_avg_pool2d", "avg_pool2d", "mean"),
}
MACS = OPERATORS["convolution"] + OPERATORS["linear"]
# Operators that fvcore leaves out and that are counted here besides, one for every input element.
ADDED = ("relu", "relu_", "avg_pool2d", "mean")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one network holds and computes; counts, nothing rounded.

    Attributes:
        parameters: Trainable elements, by part.
        macs: Multiply-accumulates of convolutions and linear layers, by part.
        operators: Everything counted, by fvcore's name of the operator.
        conv_biases: Trainable elements that are biases of convolutions.
    """

    parameters: dict[str, int]
    macs: dict[str, int]
    operators: dict[str, int]
    conv_biases: int

    def count(self, operator: str) -> int:
        """Sum the counts of one line of ``OPERATORS``."""
        return sum(self.operators.get(name, 0) for name in OPERATORS[operator])

    @property
    def total_parameters(self) -> int:
        """All trainable elements."""
        return sum(self.parameters.values())

    @property
    def parameters_m(self) -> float:
        """All trainable elements, in millions."""
        return self.total_parameters / 1e6

    @property
    def total_macs(self) -> int:
        """Convolution and linear, from fvcore's counters by operator."""
        return self.count("convolution") + self.count("linear")

    @property
    def fvcore_total(self) -> int:
        """What fvcore counts without the operators added here."""
        return sum(n for name, n in self.operators.items() if name not in ADDED)

    @property
    def counted_pooling(self) -> int:
        """The part of fvcore's total that is pooling, which depends on how pooling is written."""
        return sum(self.operators.get(n, 0) for n in OPERATORS["pooling"] if n not in ADDED)

    @property
    def gmacs(self) -> float:
        """Convention ``gmacs``."""
        return self.total_macs / 1e9

    @property
    def published_gflops(self) -> float:
        """Convention ``published_gflops``."""
        return self.total_macs / 2**30

    @property
    def fvcore_gflops(self) -> float:
        """Convention ``fvcore_gflops``."""
        return self.fvcore_total / 1e9

    @property
    def mmpretrain_flops(self) -> int:
        """mmpretrain's convention: every layer of the body and head, but not the classifier."""
        counted = ("convolution", "batch normalization", "upsampling", "ReLU", "pooling")
        return sum(self.count(operator) for operator in counted)


def _input_elements(inputs: list[Any], outputs: list[Any]) -> int:
    """Count one operation for every element that goes in."""
    return int(torch.Size(get_shape(inputs[0])).numel())


def _trace(model: nn.Module, image_size: int) -> FlopCountAnalysis:
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, image_size, image_size))
    analysis.unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    return analysis.set_op_handle(**{f"aten::{name}": _input_elements for name in ADDED})


def part_of(official: str) -> str:
    """Name the part that an official layer or tensor belongs to.

    >>> part_of("layer1.0.conv1.weight")
    'stage1'
    """
    return PARTS[official.partition(".")[0]]


def count_parameters(model: nn.Module, name_of: Callable[[str], str]) -> dict[str, int]:
    """Count trainable elements by part; ``name_of`` turns a tensor's name into the official one."""
    counts = Counter(dict.fromkeys(PARTS.values(), 0))
    for name, tensor in model.named_parameters():
        counts[part_of(name_of(name))] += tensor.numel()
    return dict(counts)


def measure(
    model: nn.Module, name_of: Callable[[str], str] = str, image_size: int = IMAGE_SIZE
) -> Cost:
    """Count what a network holds and what one image costs; puts the network into eval mode.

    Args:
        model: The network, on the CPU, for images of 3 channels.
        name_of: Turns the network's own names into official ones.
        image_size: Height and width of the image.
    """
    analysis = _trace(model.eval(), image_size)
    leaves = {name for name, module in model.named_modules() if not any(module.children())}
    macs = Counter(dict.fromkeys(PARTS.values(), 0))
    for module, counts in analysis.by_module_and_operator().items():
        counted = sum(counts[operator] for operator in MACS)
        if module in leaves and counted:
            macs[part_of(name_of(module))] += int(counted)
    return Cost(
        parameters=count_parameters(model, name_of),
        macs=dict(macs),
        operators={name: int(count) for name, count in analysis.by_operator().items()},
        conv_biases=sum(bias.numel() for bias in conv_biases(model)),
    )


def conv_biases(model: nn.Module) -> list[torch.Tensor]:
    """List the biases of all convolutions, in the order of the modules."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return [conv.bias for conv in convolutions if conv.bias is not None]
