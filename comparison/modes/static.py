"""Mode "static": what can be compared without running anything but one batch for the call order.

State-dict keys must map one to one, with equal shapes and types; every layer must have the same
hyperparameters; the optimizers must treat the same parameters in the same way.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from comparison.sides import Side
from comparison.sites import Matching
from comparison.verdict import Finding

MODE = "static"
_ABSENT = "absent"


class Inventory(NamedTuple):
    """How many facts were compared, and those that differ."""

    facts: int
    findings: tuple[Finding, ...]


def inspect(reference: Side, candidate: Side, matching: Matching) -> Inventory:
    """Compare everything that is written down in the two sides rather than computed."""
    theirs = dict(_facts(reference, {site.name: site.name for site in matching.layers()}))
    ours = dict(_facts(candidate, {site.candidate: site.name for site in matching.layers()}))
    findings = [
        Finding(name, f"{what} is {ours.get((name, what), _ABSENT)}, in the reference {value}")
        for (name, what), value in theirs.items()
        if ours.get((name, what), _ABSENT) != value
    ]
    findings += [
        Finding(name, f"{what} is {value}, in the reference {_ABSENT}")
        for (name, what), value in ours.items()
        if (name, what) not in theirs
    ]
    findings += _duplicates(candidate)
    return Inventory(len(theirs), matching.findings + tuple(findings))


_Fact = tuple[tuple[str, str], Any]


def _facts(side: Side, layers: dict[str, str]) -> Iterator[_Fact]:
    modules = dict(side.model.named_modules())
    for path, name in layers.items():
        for what, value in _hyperparameters(modules[path]).items():
            yield (name, what), value
    for name, parameter in side.parameters().items():
        yield (name, "parameter"), _described(parameter)
        yield (name, "requires_grad"), parameter.requires_grad
    for key, buffer in side.model.named_buffers():
        yield (side.named(key), "buffer"), _described(buffer)
    yield from _optimizer_facts(side)


def _hyperparameters(layer: nn.Module) -> dict[str, Any]:
    """Read what PyTorch itself lists as the constants of a layer."""
    constants = getattr(layer, "__constants__", ())
    return {name: getattr(layer, name) for name in constants if hasattr(layer, name)}


def _optimizer_facts(side: Side) -> Iterator[_Fact]:
    optimizer = side.make_optimizer(side.model)
    names = {id(parameter): name for name, parameter in side.parameters().items()}
    yield ("optimizer", "class"), torch_class(optimizer)
    for group in optimizer.param_groups:
        options = {key: value for key, value in group.items() if key != "params"}
        for parameter in group["params"]:
            for option, value in options.items():
                yield (names[id(parameter)], option), value


def torch_class(value: object) -> str:
    """Name the first class of PyTorch's own among an object's classes."""
    return next(c.__name__ for c in type(value).__mro__ if c.__module__.startswith("torch."))


def _described(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")


def _duplicates(candidate: Side) -> list[Finding]:
    """Find names that two keys of the candidate translate to: no one-to-one map."""
    keys = list(candidate.model.state_dict())
    names = [candidate.named(key) for key in keys]
    return [
        Finding(name, f"{key} is not the only key of this name")
        for name, key in zip(names, keys, strict=True)
        if names.count(name) > 1
    ]
