"""Mode "static": what two models are, rather than what they compute.

State tensors must map one to one, with equal shapes, types and, where the weights are given, equal
values; every layer must have the same hyperparameters, whether a module holds them or a function
is called with them; the same operations must draw random numbers.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from comparison.engine.alignment import NodeMatch
from comparison.engine.matching import StateMatch
from comparison.engine.measures import same_bits
from comparison.engine.rows import Key, measure
from comparison.engine.trace import Node
from comparison.engine.verdict import Finding

# What decides nothing: writing in place, and sizes that the shapes of the results show.
_IGNORED = ("inplace", "size", "scale_factor", "recompute_scale_factor", "kernel_size", "training")
_ARGUMENTS: dict[str, tuple[tuple[str, Any], ...]] = {
    "conv2d": tuple(
        zip(
            ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
            (None, None, None, 1, 0, 1, 1),
            strict=True,
        )
    ),
    **{
        function.__name__: tuple(
            (name, None if parameter.default is inspect.Parameter.empty else parameter.default)
            for name, parameter in inspect.signature(function).parameters.items()
        )
        for function in (F.batch_norm, F.interpolate, F.dropout, F.layer_norm, F.group_norm)
    },
}
_PAIRS = ("stride", "padding", "dilation")


def state_findings(
    reference: nn.Module, candidate: nn.Module, match: StateMatch, *, values: bool
) -> tuple[int, list[Finding]]:
    """Compare the state tensors of two models.

    Args:
        reference: The reference.
        candidate: The candidate.
        match: The pairs of state tensors.
        values: Whether their values must agree to the bit.

    Returns:
        How many facts were compared, and those that differ.
    """
    findings = [
        Finding(name, "has no counterpart in the candidate") for name in match.unmatched_reference
    ]
    findings += [
        Finding(name, "has no counterpart in the reference") for name in match.unmatched_candidate
    ]
    left, right = _state(reference), _state(candidate)
    for ours, theirs in match.pairs.items():
        findings += _tensor_findings(theirs, left[theirs], right[ours], values=values)
    return len(left), findings


def hyperparameter_findings(
    reference: nn.Module,
    candidate: nn.Module,
    state: StateMatch,
    theirs: Sequence[Node],
    ours: Sequence[Node],
    match: NodeMatch,
) -> tuple[int, list[Finding]]:
    """Compare the constants of paired modules and the arguments of paired operations."""
    facts, found = 0, dict[tuple[str, str], Finding]()
    left, right = dict(reference.named_modules()), dict(candidate.named_modules())
    for mine, other in _module_pairs(state).items():
        if _class(left[other]) != _class(right[mine]):
            continue
        for name, value in _constants(left[other]).items():
            facts += 1
            if (own := _constants(right[mine]).get(name)) != value:
                found[other, name] = Finding(other, f"{name} is {own}, in the reference {value}")
    for b, a in match.pairs.items():
        place = theirs[a].place
        for name, value, own in _argument_pairs(theirs[a], ours[b]):
            facts += 1
            if own != value and (place.module, name) not in found:
                text = f"{name} is {own}, in the reference {value}"
                found[place.module, name] = Finding(str(place), text)
    return facts, list(found.values())


def draw_findings(
    theirs: Sequence[Node], ours: Sequence[Node], match: NodeMatch
) -> tuple[int, list[Finding]]:
    """Compare which operations draw random numbers; an extra one is named by what it follows."""
    paired = match.pairs
    findings = []
    before = ""
    for b, node in enumerate(ours):
        a = paired.get(b)
        before = before if a is None else str(theirs[a].place)
        if node.draws and (a is None or not theirs[a].draws):
            text = f"draws random numbers ({node.place} in the candidate), the reference none there"
            findings.append(Finding(before or str(node.place), text))
    drawn = {paired.get(b) for b, node in enumerate(ours) if node.draws}
    findings += [
        Finding(str(node.place), "draws random numbers, the candidate none there")
        for a, node in enumerate(theirs)
        if node.draws and a not in drawn
    ]
    return len(theirs), findings


def _tensor_findings(
    name: str, theirs: torch.Tensor, ours: torch.Tensor, *, values: bool
) -> Iterator[Finding]:
    if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
        described = [f"{t.dtype} {tuple(t.shape)}".removeprefix("torch.") for t in (ours, theirs)]
        yield Finding(name, f"is {described[0]}, in the reference {described[1]}")
        return
    if theirs.requires_grad != ours.requires_grad:
        kind = "is not" if theirs.requires_grad else "is"
        yield Finding(name, f"{kind} trained, unlike in the reference")
    if values and not same_bits(theirs, ours):
        row = measure(Key("static", name, "value"), theirs.detach(), ours.detach())
        said = row.note or f"values differ by up to {row.relative:.1e} of the largest"
        yield Finding(name, said)


def _module_pairs(state: StateMatch) -> dict[str, str]:
    return {b.rpartition(".")[0]: a.rpartition(".")[0] for b, a in state.pairs.items()}


def _constants(module: nn.Module) -> dict[str, Any]:
    names = getattr(module, "__constants__", ())
    return {
        name: getattr(module, name)
        for name in names
        if hasattr(module, name) and name not in _IGNORED
    }


def _class(module: nn.Module) -> type:
    return next(kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn"))


def _argument_pairs(theirs: Node, ours: Node) -> Iterator[tuple[str, Any, Any]]:
    op = theirs.place.op
    if op != ours.place.op or op not in _ARGUMENTS:
        return
    left, right = _arguments(theirs), _arguments(ours)
    for name, value in left.items():
        yield name, value, right.get(name)


def _arguments(node: Node) -> dict[str, Any]:
    """Return the arguments of an operation by name, with defaults, tensors left out."""
    declared = _ARGUMENTS[node.place.op]
    values: Mapping[str, Any] = dict(node.options)
    arguments = {}
    for position, (name, default) in enumerate(declared):
        value = values.get(name, values.get(str(position), default))
        if name in _PAIRS and isinstance(value, int):
            value = (value, value)
        if name == "align_corners":
            value = bool(value)  # unset means False
        if name not in _IGNORED and name not in ("input", "weight", "bias"):
            arguments[name] = value
    return arguments


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict((*model.named_parameters(), *model.named_buffers()))
