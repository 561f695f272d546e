"""How each fault is put into the reproduction: small changes to a side, whose model is a copy.

They work on the reproduction's own modules, found by official names where a layer is meant. Hooks
change what flows between modules, another class what a module does, a setting what it was told.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from comparison.sides import Side, recipe_optimizer
from reproduction.checkpoints import our_name
from reproduction.hrnet import Fusion

Inject = Callable[[Side], Side]


def layer(side: Side, official: str) -> Any:
    """Find a layer of the reproduction by its official name."""
    return side.model.get_submodule(our_name(official))


def setting(official: str, **values: Any) -> Inject:
    """Set attributes of one layer."""

    def inject(side: Side) -> Side:
        for attribute, value in values.items():
            assert hasattr(layer(side, official), attribute)
            setattr(layer(side, official), attribute, value)
        return side

    return inject


def becoming(official: str, kind: type[nn.Module]) -> Inject:
    """Give one layer another class, with all it holds."""

    def inject(side: Side) -> Side:
        layer(side, official).__class__ = kind
        return side

    return inject


class AlwaysEval(nn.BatchNorm2d):
    """Batch normalization that never looks at its batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize by the running statistics, in train mode too."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class NeverCounts(nn.BatchNorm2d):
    """Batch normalization whose counter of batches stands still."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize as usual and take back the count."""
        y = super().forward(x)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.sub_(1)
        return y


def without_relu(side: Side) -> Side:
    """Leave out the ReLU between the two convolutions of a residual unit."""
    side.model.get_submodule("backbone.stage2.0.streams.0.0.unit1").relu = nn.Identity()
    return side


def with_relu(side: Side) -> Side:
    """Add a ReLU at the end of an exchange path, where the official network has none."""
    path = side.model.get_submodule("backbone.stage3.0.exchange.paths.2.0.1")
    path.add_module("relu", nn.ReLU())
    return side


def swapped_blocks(side: Side) -> Side:
    """Swap two residual units of the same shape."""
    units = side.model.get_submodule("backbone.stage4.0.streams.0")
    assert isinstance(units, nn.Sequential)
    units[0], units[1] = units[1], units[0]
    return side


def swapped_filters(side: Side) -> Side:
    """Swap two output channels of one convolution."""
    weight = layer(side, "transition2.2.0.0").weight
    with torch.no_grad():
        weight[[0, 1]] = weight[[1, 0]]
    return side


def scaled_weight(side: Side) -> Side:
    """Make the weights of one convolution larger by a millionth."""
    with torch.no_grad():
        layer(side, "stage4.0.branches.3.0.conv2").weight.mul_(1 + 1e-6)
    return side


def without_bias(side: Side) -> Side:
    """Remove a bias in front of batch normalization, as other ports of HRNet do."""
    layer(side, "downsamp_modules.0.0").register_parameter("bias", None)
    return side


def changing_path(path: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Inject:
    """Change what one exchange path hands to the sum."""

    def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return change(output)

    def inject(side: Side) -> Side:
        side.model.get_submodule(f"backbone.{path}").register_forward_hook(hook)
        return side

    return inject


class _Bilinear(Fusion):
    @staticmethod
    def _at(size: torch.Size, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear")


def bilinear_upsampling(side: Side) -> Side:
    """Upsample as the paper writes, not as the official code does, in one fusion."""
    side.model.get_submodule("backbone.stage4.0.exchange.paths.0").__class__ = _Bilinear
    return side


def slightly_scaled(y: torch.Tensor) -> torch.Tensor:
    """Make a tensor larger by a millionth."""
    return y * (1 + 1e-6)


def with_scaled_gradient(y: torch.Tensor) -> torch.Tensor:
    """Make the gradient that flows back through a tensor larger by a thousandth."""
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient * 1.001)
    return y


def stale_transition(side: Side) -> Side:
    """Feed the new stream from what stream 2 was before the last exchange of stage 3."""
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        kept[:] = [output]

    def hand_over(_module: nn.Module, _inputs: Any) -> tuple[torch.Tensor, ...]:
        return (kept.pop(),)

    stage = side.model.get_submodule("backbone.stage3")
    last = len(list(stage.children())) - 1
    stage.get_submodule(f"{last}.streams.2").register_forward_hook(keep)
    born = side.model.get_submodule("backbone.transition3.paths.3")
    born.register_forward_pre_hook(hand_over)
    return side


def another_loss(**options: Any) -> Inject:
    """Use cross-entropy with other options."""

    def inject(side: Side) -> Side:
        return replace(side, loss=partial(F.cross_entropy, **options))

    return inject


def optimizer_options(**options: Any) -> Inject:
    """Change options of the optimizer for all parameters."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = recipe_optimizer(model)
        for group in optimizer.param_groups:
            group.update(options)
        return optimizer

    return lambda side: replace(side, make_optimizer=make)


def without_decay_on_norms(side: Side) -> Side:
    """Take batch normalization and biases out of weight decay, as many recipes do."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = recipe_optimizer(model)
        group = optimizer.param_groups[0]
        vectors = [p for p in group["params"] if p.dim() == 1]
        group["params"] = [p for p in group["params"] if p.dim() > 1]
        optimizer.add_param_group({**group, "params": vectors, "weight_decay": 0.0})
        return optimizer

    return replace(side, make_optimizer=make)


def without_reset(side: Side) -> Side:
    """Forget to reset the gradients between steps."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = recipe_optimizer(model)
        optimizer.__class__ = _NeverResets
        return optimizer

    return replace(side, make_optimizer=make)


class _NeverResets(torch.optim.SGD):
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Keep the gradients, so that they add up over steps."""
