"""Faults in single modules: batch normalization, convolutions, classifiers, swapped blocks."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from comparison.engine.sides import Side
from comparison.mutation.fault import BACKWARD, EVAL, STATE, TRAIN, Fault, reclassed

Change = Callable[[Any], None]
Weight = Callable[[torch.Tensor], torch.Tensor]
SLIGHTLY = 1 + 1e-6


def module_faults(model: nn.Module) -> Iterator[Fault]:
    """List all faults of single modules of a model."""
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            yield from _norm_faults(path, module)
        elif isinstance(module, _ConvNd | nn.Linear):
            yield from _weight_faults(path, module)
        elif isinstance(module, nn.ReLU):
            yield _fault("ReLU module removed", "activation", path, EVAL, _removed)
        yield from _swapped_children(path, module)


def weak_fault(path: str) -> Fault:
    """Return the weakest fault that must still be seen: a layer's weight is wrong by 3e-9.

    Args:
        path: Of a convolution or a linear layer.
    """
    change = _computing_with(lambda weight: weight * (1 + 3e-9))
    return _fault("weight x(1+3e-9)", "convolution", path, EVAL, change)


def _fault(
    operator: str, family: str, path: str, mode: str, change: Change, *, changes_state: bool = False
) -> Fault:
    def inject(side: Side) -> Side:
        change(side.model.get_submodule(path))
        return side

    return Fault(
        name=f"{operator} in {path or 'network'}",
        operator=operator,
        family=family,
        inject=inject,
        modes=(mode,),
        sites=(path,),
        changes_state=changes_state,
    )


def _set(**values: Any) -> Change:
    def change(module: nn.Module) -> None:
        for name, value in values.items():
            setattr(module, name, value)

    return change


def _norm_faults(path: str, norm: _BatchNorm) -> Iterator[Fault]:
    for factor in (1.1, 3.0, 100.0):
        change = _set(eps=norm.eps * factor)
        yield _fault(f"BN eps x{factor:g}", "BN forward", path, EVAL, change)
    if norm.affine:
        for names in (("weight",), ("bias",), ("weight", "bias")):
            operator = f"BN {' and '.join(names)} ignored"
            yield _fault(operator, "BN forward", path, EVAL, _ignoring(*names))
    if not norm.track_running_stats:
        return
    for momentum in (0.11, 0.01, 0.2, None):
        if momentum != norm.momentum:
            change = _set(momentum=momentum)
            yield _fault(f"BN momentum {momentum}", "BN state", path, STATE, change)
    yield _fault("BN frozen", "BN state", path, TRAIN, _frozen)
    yield _fault("BN running_var biased", "BN state", path, STATE, _biased)
    yield _fault("BN num_batches_tracked stands still", "BN state", path, STATE, _uncounted)
    off = _set(track_running_stats=False)
    yield _fault("BN statistics not updated", "BN state", path, STATE, off)
    none = _set(track_running_stats=False, running_mean=None, running_var=None)
    yield _fault("BN statistics not kept", "BN state", path, EVAL, none)


def _ignoring(*names: str) -> Change:
    """Compute without some parameters, which stay where they are."""

    def forward(original: Any, module: nn.Module, *inputs: Any) -> Any:
        kept = {name: module._parameters[name] for name in names}
        module._parameters.update(dict.fromkeys(names))
        try:
            return original(module, *inputs)
        finally:
            module._parameters.update(kept)

    return lambda module: reclassed(module, forward)


def _frozen(norm: nn.Module) -> None:
    def forward(original: Any, module: nn.Module, *inputs: Any) -> Any:
        training, module.training = module.training, False
        try:
            return original(module, *inputs)
        finally:
            module.training = training

    reclassed(norm, forward)


def _biased(norm: nn.Module) -> None:
    def forward(original: Any, module: Any, x: torch.Tensor) -> Any:
        old = module.running_var.clone()
        y = original(module, x)
        if module.training:
            n, variance = x.numel() / x.shape[1], module.running_var
            share = module.momentum or 1 / module.num_batches_tracked.item()
            added = variance - (1 - share) * old
            variance.data.copy_((1 - share) * old + added * (n - 1) / n)  # autograd holds it
        return y

    reclassed(norm, forward)


def _uncounted(norm: nn.Module) -> None:
    def forward(original: Any, module: Any, x: torch.Tensor) -> Any:
        count = module.num_batches_tracked.clone()
        y = original(module, x)
        module.num_batches_tracked.copy_(count)
        return y

    reclassed(norm, forward)


def _removed(module: nn.Module) -> None:
    reclassed(module, lambda _original, _module, x: x)


def _weight_faults(path: str, layer: _ConvNd | nn.Linear) -> Iterator[Fault]:
    for operator, weight in _COMPUTED_WEIGHTS.items():
        if _suits(layer, operator):
            yield _fault(operator, "convolution", path, EVAL, _computing_with(weight))
    for operator, weight in _STORED_WEIGHTS.items():
        if _suits(layer, operator):
            change = _storing(weight)
            yield _fault(operator, "convolution", path, EVAL, change, changes_state=True)
    if layer.bias is not None:
        yield _fault("bias ignored", "convolution", path, EVAL, _ignoring("bias"))
        yield _fault("bias dropped", "convolution", path, EVAL, _set(bias=None))
    yield _fault("weight not trained", "backward", path, BACKWARD, _untrained)
    if isinstance(layer, _ConvNd) and layer.padding_mode == "zeros" and any(layer.padding):
        for mode in ("reflect", "replicate", "circular"):
            change = _set(padding_mode=mode)
            yield _fault(f"padding mode {mode}", "convolution", path, EVAL, change)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.padding == (1, 1):
        change = _set(dilation=(2, 2), padding=(2, 2))
        yield _fault("dilation 2", "convolution", path, EVAL, change)


def _suits(layer: _ConvNd | nn.Linear, operator: str) -> bool:
    spatial = tuple(layer.weight.shape[2:])
    if operator in ("kernel mirrored", "kernel turned"):
        return bool(spatial) and spatial[-1] > 1
    if operator == "kernel transposed":
        return len(spatial) == 2 and spatial[0] == spatial[1] > 1
    return min(layer.weight.shape[:2]) > 1


def _computing_with(change: Weight) -> Change:
    def forward(_original: Any, layer: Any, x: torch.Tensor) -> torch.Tensor:
        weight = change(layer.weight)
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, layer.bias)
        return layer._conv_forward(x, weight, layer.bias)

    return lambda layer: reclassed(layer, forward)


def _storing(change: Weight) -> Change:
    def store(module: Any) -> None:
        with torch.no_grad():
            module.weight.copy_(change(module.weight.clone()))

    return store


def _untrained(module: Any) -> None:
    module.weight.requires_grad_(False)


def _first_two_swapped(weight: torch.Tensor, dim: int) -> torch.Tensor:
    order = [1, 0, *range(2, weight.shape[dim])]
    return weight.index_select(dim, torch.tensor(order))


def _one_filter_scaled(weight: torch.Tensor) -> torch.Tensor:
    factor = torch.ones_like(weight)
    factor[0] = 1.01
    return weight * factor


# What a wrong implementation computes with ...
_COMPUTED_WEIGHTS: dict[str, Weight] = {
    "weight x(1+1e-6)": lambda weight: weight * SLIGHTLY,
    "kernel mirrored": lambda weight: weight.flip(-1),
    "kernel turned": lambda weight: weight.flip(-1, -2) if weight.dim() > 3 else weight.flip(-1),
    "kernel transposed": lambda weight: weight.transpose(-1, -2),
}
# ... and what a wrong conversion of weights stores.
_STORED_WEIGHTS: dict[str, Weight] = {
    "stored weight x(1+1e-6)": lambda weight: weight * SLIGHTLY,
    "one filter x1.01": _one_filter_scaled,
    "two filters swapped": lambda weight: _first_two_swapped(weight, 0),
    "two input channels swapped": lambda weight: _first_two_swapped(weight, 1),
}


def _swapped_children(path: str, parent: nn.Module) -> Iterator[Fault]:
    """Swap neighbors among the children of one module that could stand for each other."""
    alike: dict[Any, list[str]] = defaultdict(list)
    for name, child in parent.named_children():
        shapes = tuple((key, tuple(value.shape)) for key, value in child.state_dict().items())
        if next(child.parameters(), None) is not None:
            alike[repr(child), shapes].append(name)
    for names in alike.values():
        for one, other in pairwise(names):
            yield _swap(path, parent, one, other)


def _swap(path: str, parent: nn.Module, one: str, other: str) -> Fault:
    def inject(side: Side) -> Side:
        children = side.model.get_submodule(path)._modules
        children[one], children[other] = children[other], children[one]
        return side

    prefix = f"{path}." if path else ""
    sites = [prefix + name for name in (one, other)]
    for name in (one, other):
        inner = parent.get_submodule(name).named_modules()
        sites += [f"{prefix}{name}.{deeper}" for deeper, _ in inner if deeper]
    return Fault(
        name=f"same-shape blocks swapped: {prefix}{one} and {other}",
        operator="same-shape blocks swapped",
        family="wiring",
        inject=inject,
        modes=(EVAL,),
        sites=tuple(sites),
        changes_state=True,
    )
