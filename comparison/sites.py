"""Sites: the places at which two networks can be compared, whatever their names and module trees.

Layers (modules with tensors of their own) are matched by a map of names, which is an input. Larger
modules (residual units, exchange blocks, stages) are matched where they hold the same layers and
return tensors of the same shapes; how a network is divided into such modules is its own affair, so
what has no counterpart there is a note. A layer without counterpart is a finding, never skipped.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from comparison.probe import is_layer, tensors_in
from comparison.verdict import Finding

NameMap = Callable[[str], str]
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Site:
    """One module of the reference with its counterpart.

    Attributes:
        name: Path in the reference; empty for the whole network.
        candidate: Path in the candidate.
        op: Class of the reference's module.
        shapes: Shapes of what it returns, without the batch.
        layer: Whether it holds tensors of its own.
    """

    name: str
    candidate: str
    op: str
    shapes: Shapes
    layer: bool


@dataclass(frozen=True)
class Matching:
    """All sites, in the order in which the reference runs them, and what found no counterpart.

    Attributes:
        sites: Layers and larger modules that both sides have.
        findings: Layers that are wrong, missing or beyond the map of names.
        undivided: For each side the larger modules that are called and have no counterpart,
            because the other side is not divided there.
    """

    sites: tuple[Site, ...]
    findings: tuple[Finding, ...]
    undivided: dict[str, tuple[str, ...]]

    def reference_names(self) -> dict[str, str]:
        """Return what `probe.taps` needs to watch the reference."""
        return {site.name: site.name for site in self.sites}

    def candidate_names(self) -> dict[str, str]:
        """Return what `probe.taps` needs to watch the candidate under the reference's names."""
        return {site.candidate: site.name for site in self.sites}

    def layers(self) -> tuple[Site, ...]:
        """Return the sites that are layers."""
        return tuple(site for site in self.sites if site.layer)


@dataclass(frozen=True)
class _Call:
    path: str
    shapes: Shapes


def match(
    reference: nn.Module, candidate: nn.Module, name_of: NameMap, images: torch.Tensor
) -> Matching:
    """Match the modules of two networks.

    Args:
        reference: The reference.
        candidate: The network that is compared with it.
        name_of: Translates the path of a layer of the candidate into that of the reference; it
            raises `KeyError` or `ValueError` for a path that it does not know.
        images: A batch that both accept. Both run once, in eval mode, to see what is called.

    Returns:
        The sites in the order of the reference's calls, and what found no counterpart.
    """
    theirs, ours = call_order(reference, images), call_order(candidate, images)
    layers, findings = _match_layers(reference, candidate, name_of)
    composites, undivided = _match_composites(reference, candidate, layers, theirs, ours)
    pairs = layers | composites
    modules = dict(reference.named_modules())
    called = {call.path for call in ours}
    sites = [
        Site(call.path, pairs[call.path], _op(modules[call.path]), call.shapes, call.path in layers)
        for call in theirs
        if call.path in pairs and pairs[call.path] in called
    ]
    findings += _never_called(layers, theirs, ours)
    return Matching(tuple(sites), tuple(findings), undivided)


def call_order(model: nn.Module, images: torch.Tensor) -> list[_Call]:
    """Run a model once in eval mode; list its modules in the order in which they first return."""
    calls: dict[str, _Call] = {}

    def note(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors_in(output))
            calls.setdefault(path, _Call(path, shapes))

        return hook

    modes = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules()]
    try:
        model.eval()
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return list(calls.values())


def _match_layers(
    reference: nn.Module, candidate: nn.Module, name_of: NameMap
) -> tuple[dict[str, str], list[Finding]]:
    theirs, pairs, findings = _layers(reference), dict[str, str](), list[Finding]()
    for path, module in _layers(candidate).items():
        try:
            name = name_of(path)
        except (KeyError, ValueError):
            findings.append(Finding(path, "the map of names does not know this layer"))
            continue
        if name not in theirs:
            findings.append(Finding(name, f"{path} has no counterpart in the reference"))
        elif name in pairs:
            findings.append(Finding(name, f"claimed by both {pairs[name]} and {path}"))
        else:
            pairs[name] = path
            if (op := _op(module)) != _op(theirs[name]):
                findings.append(Finding(name, f"is a {op}, in the reference {_op(theirs[name])}"))
    findings += [
        Finding(name, "has no counterpart in the reproduction")
        for name in theirs
        if name not in pairs
    ]
    return pairs, findings


def _match_composites(
    reference: nn.Module,
    candidate: nn.Module,
    layers: dict[str, str],
    theirs: list[_Call],
    ours: list[_Call],
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    to_reference = {path: name for name, path in layers.items()}
    their_groups = _by_layers(reference, theirs, {name: name for name in layers})
    our_groups = _by_layers(candidate, ours, to_reference)
    pairs: dict[str, str] = {}
    for held, their_calls in their_groups.items():
        # Innermost first: modules that hold the same layers are nested in one another.
        nested = zip(their_calls, our_groups.get(held, []), strict=False)
        pairs |= {a.path: b.path for a, b in nested if a.shapes == b.shapes}
    undivided = {
        "reference": _without(their_groups, pairs.keys()),
        "reproduction": _without(our_groups, pairs.values()),
    }
    return pairs, undivided


def _without(groups: dict[frozenset[str], list[_Call]], matched: Iterable[str]) -> tuple[str, ...]:
    taken = set(matched)
    calls = [call.path for calls in groups.values() for call in calls]
    return tuple(path for path in calls if path not in taken)


def _by_layers(
    model: nn.Module, calls: Iterable[_Call], names: dict[str, str]
) -> dict[frozenset[str], list[_Call]]:
    modules = dict(model.named_modules())
    groups: dict[frozenset[str], list[_Call]] = defaultdict(list)
    for call in calls:
        prefix = f"{call.path}." if call.path else ""
        held = [prefix + path for path in _layers(modules[call.path]) if path]
        if call.path and held and not is_layer(modules[call.path]):
            groups[frozenset(names.get(path, path) for path in held)].append(call)
    return groups


def _never_called(
    layers: dict[str, str], theirs: Iterable[_Call], ours: Iterable[_Call]
) -> list[Finding]:
    in_reference, in_candidate = {call.path for call in theirs}, {call.path for call in ours}
    return [
        Finding(name, "is called by one side only")
        for name, path in layers.items()
        if (name in in_reference) != (path in in_candidate)
    ]


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in model.named_modules() if is_layer(module)}


def _op(module: nn.Module) -> str:
    """Name the class; a subclass of one of PyTorch's layers counts as that layer."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch.nn.modules"):
            return kind.__name__ if kind is not nn.Module else type(module).__name__
    return type(module).__name__
