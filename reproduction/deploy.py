"""The form of a network that only predicts: batch normalization folded into the convolutions.

In eval mode batch normalization is a fixed scale and shift of every channel. A convolution in
front of it absorbs both exactly, so that the network computes the same function with a third fewer
passes over memory. Which runtime then runs this form fastest is the matter of
`reproduction.runtimes`.
"""

import copy
from collections import Counter
from itertools import pairwise
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reproduction.errors import UserError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


class DeployForm(nn.Module):
    """A network without batch normalization, which predicts and cannot be trained.

    Args:
        network: The folded network, in eval mode.
        precision: A key of `PRECISIONS`: the arithmetic inside. What goes in and comes out keeps
            the caller's precision.
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network = network
        self.dtype = PRECISIONS[precision]
        self.requires_grad_(False)
        self.train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map images (B, C, H, W) to the network's output, or to a tuple of its outputs."""
        outputs = self.network(images.to(self.dtype, memory_format=torch.channels_last))
        if isinstance(outputs, torch.Tensor):
            return outputs.to(images.dtype)
        return tuple(output.to(images.dtype) for output in outputs)

    def train(self, mode: bool = True) -> "DeployForm":
        """Stay in eval mode.

        Raises:
            UserError: Train mode is asked for.
        """
        if mode:
            raise UserError(
                "a deploy form has no batch normalization left and cannot be trained: train the "
                "network that it was made from, then fold it again"
            )
        return super().train(mode)


def fold(model: nn.Module, precision: str = "float32") -> DeployForm:
    r"""Copy a network for prediction, every batch normalization folded into its convolution.

    .. math:: W' = W\,\gamma / \sqrt{\sigma^2 + \epsilon},\qquad
              b' = (b - \mu)\,\gamma / \sqrt{\sigma^2 + \epsilon} + \beta

    computed in float64 and then rounded once to the precision asked for.

    Args:
        model: Any network in which a convolution stands right before every batch normalization,
            in one `nn.Sequential`; it stays as it is.
        precision: ``float32``, ``bfloat16`` or ``float64``.

    Returns:
        The copy, in channels-last layout, on the model's device.

    Raises:
        UserError: The precision is unknown, or some batch normalization cannot be folded.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use {', '.join(PRECISIONS)}")
    folded = copy.deepcopy(model).double().eval()
    places = Counter(id(m) for _, m in folded.named_modules(remove_duplicate=False))
    for module in folded.modules():
        if isinstance(module, nn.Sequential):
            _fold_within(module, places)
    left = [name for name, module in folded.named_modules() if isinstance(module, _BatchNorm)]
    if left:
        raise UserError(
            f"{len(left)} batch normalizations cannot be folded, the first is {left[0]!r}: each "
            "needs running statistics and a convolution of its own right before it in one "
            "nn.Sequential; run this network as it is"
        )
    folded = folded.to(PRECISIONS[precision]).to(memory_format=torch.channels_last)
    return DeployForm(folded, precision)


def _fold_within(sequence: nn.Sequential, places: Counter[int]) -> None:
    """Replace each pair of a convolution and its normalization by one convolution."""
    for (name, conv), (norm_name, norm) in pairwise(list(sequence.named_children())):
        if _is_foldable(conv, norm) and places[id(conv)] == places[id(norm)] == 1:
            setattr(
                sequence, name, fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm))
            )
            delattr(sequence, norm_name)


def _is_foldable(conv: Any, norm: Any) -> bool:
    return (
        isinstance(conv, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.running_var is not None
        and conv.out_channels == norm.num_features
    )
