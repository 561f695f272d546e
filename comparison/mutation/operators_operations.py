"""Faults in operations, whatever module holds them: sums, activations, resampling, wiring."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from comparison.engine.sides import Side
from comparison.mutation.fault import BACKWARD, EVAL, STATE, Fault, OperationSite
from comparison.mutation.operations import Change, mutated, operation_sites

Tensor = torch.Tensor
Operands = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
SLIGHTLY = 1 + 1e-6


def operation_faults(model: nn.Module, inputs: Tensor) -> Iterator[Fault]:
    """List all faults of operations of a model.

    Args:
        model: The model, which is run once in eval mode.
        inputs: What it takes.
    """
    sites = operation_sites(model, inputs)
    for site in sites:
        for operator, (family, mode, change) in _CHANGES[site.kind].items():
            yield _fault(operator, family, site, mode, change)
        yield from _clobbering(site)
        if site.kind == "relu":
            yield from _capping(site)
        if site.kind == "norm":
            extra = _result(lambda y: y.clamp_min(0))  # unlike F.relu, may be overwritten
            yield _fault("extra ReLU", "activation", site, EVAL, extra, site.readers)
        else:
            drawing = _result(_with_a_draw)
            yield _fault("random number drawn", "schedule/data/RNG", site, STATE, drawing)
    yield from _stale_inputs(sites)


def neutral_changes(model: nn.Module, inputs: Tensor) -> Iterator[Fault]:
    """List changes of operations that change no value; their `modes` are empty.

    Args:
        model: The model, which is run once in eval mode.
        inputs: What it takes.
    """
    for site in operation_sites(model, inputs):
        for operator, change in _NEUTRAL.get(site.kind, {}).items():
            yield _fault(operator, "", site, "", change)


def _fault(
    operator: str,
    family: str,
    site: OperationSite,
    mode: str,
    change: Change,
    modules: Iterable[str] = (),
) -> Fault:
    def inject(side: Side) -> Side:
        mutated(side.model, site.kind, lambda: {site.call: change})
        return side

    return Fault(
        name=f"{operator} at {site}",
        operator=operator,
        family=family,
        inject=inject,
        modes=(mode,) if mode else (),
        sites=tuple(dict.fromkeys((site.module, *modules))),
        operation=site,
    )


# How a change is made: from the operands of a sum, the input of an operation, or its result.


def _operands(change: Operands) -> Change:
    def changed(func: Any, args: Any, kwargs: Any) -> Any:
        return func(*change(args[0], args[1]), *args[2:], **kwargs)

    return changed


def _input(change: Callable[[Tensor], Tensor], position: int = 0) -> Change:
    def changed(func: Any, args: Any, kwargs: Any) -> Any:
        given = list(args)
        given[position] = change(given[position])
        return func(*given, **kwargs)

    return changed


def _result(change: Callable[[Tensor], Tensor]) -> Change:
    return lambda func, args, kwargs: change(func(*args, **kwargs))


def _instead(change: Callable[[Tensor], Tensor]) -> Change:
    """Compute something else from the first operand, not in place."""
    return lambda _func, args, _kwargs: change(args[0])


# Single changes.


def _with_scaled_gradient(x: Tensor) -> Tensor:
    y = x.view_as(x)
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient * 1.001)
    return y


def _with_a_draw(x: Tensor) -> Tensor:
    torch.rand(1)
    return x


def _rounded(dtype: torch.dtype) -> Change:
    """Compute one operation in another precision."""

    def changed(func: Any, args: Any, kwargs: Any) -> Any:
        own = args[0].dtype
        given = [value.to(dtype) if isinstance(value, Tensor) else value for value in args]
        return func(*given, **kwargs).to(own)

    return changed


def _one_larger(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Interpolate to one row and column too many, then cut them off."""
    height, width = func(*args, **kwargs).shape[-2:]
    size = (height + 1, width + 1)
    larger = F.interpolate(args[0], size=size, mode=kwargs.get("mode", "nearest"))
    return larger[..., :height, :width]


def _bilinear(align_corners: bool) -> Change:
    def changed(func: Any, args: Any, kwargs: Any) -> Tensor:
        size = func(*args, **kwargs).shape[-2:]
        return F.interpolate(args[0], size=size, mode="bilinear", align_corners=align_corners)

    return changed


def _maximum(func: Any, args: Any, kwargs: Any) -> Tensor:
    result = func(*args, **kwargs)
    size = result.shape[2:] if result.dim() == args[0].dim() else 1
    return F.adaptive_max_pool2d(args[0], size).reshape(result.shape)


def _one_value(func: Any, args: Any, kwargs: Any) -> Tensor:
    result = func(*args, **kwargs)
    size = result.shape[2:] if result.dim() == args[0].dim() else 1
    return F.interpolate(args[0], size=size).reshape(result.shape)


# Every second operand is the term that is added; the first is the sum so far.
_SUM: dict[str, tuple[str, str, Change]] = {
    "added term dropped": ("fusion", EVAL, _instead(torch.clone)),
    "sum so far dropped": ("fusion", EVAL, lambda _f, args, _k: args[1].clone()),
    "added term doubled": ("fusion", EVAL, _operands(lambda a, b: (a, b * 2))),
    "added term x(1+1e-6)": ("fusion", EVAL, _operands(lambda a, b: (a, b * SLIGHTLY))),
    "added term x0.9": ("fusion", EVAL, _operands(lambda a, b: (a, b * 0.9))),
    "sum x0.5": ("fusion", EVAL, _result(lambda y: y * 0.5)),
    "subtracted": ("fusion", EVAL, _operands(lambda a, b: (a, -b))),
    "sum so far added twice": ("fusion", EVAL, lambda _f, args, _k: args[0] + args[0]),
    "added term added twice": ("fusion", EVAL, lambda _f, args, _k: args[1] + args[1]),
    "channels of added term rolled": ("wiring", EVAL, _operands(lambda a, b: (a, b.roll(1, 1)))),
    "added term mirrored": ("wiring", EVAL, _operands(lambda a, b: (a, b.flip(-1)))),
    "added term detached": ("backward", BACKWARD, _operands(lambda a, b: (a, b.detach()))),
    "sum so far detached": ("backward", BACKWARD, lambda _f, args, _k: args[0].detach() + args[1]),
    "gradient of added term x1.001": ("backward", BACKWARD, _input(_with_scaled_gradient, 1)),
    "sum in float32": ("precision", EVAL, _rounded(torch.float32)),
}
_RELU: dict[str, tuple[str, str, Change]] = {
    "ReLU skipped": ("activation", EVAL, _instead(torch.clone)),
    "leaky ReLU, slope 1e-3": ("activation", EVAL, _instead(lambda x: F.leaky_relu(x, 1e-3))),
    "softplus for ReLU": ("activation", EVAL, _instead(lambda x: F.softplus(x, beta=20))),
}
_CONV: dict[str, tuple[str, str, Change]] = {
    "convolution in float32": ("precision", EVAL, _rounded(torch.float32)),
    "convolution in bfloat16": ("precision", EVAL, _rounded(torch.bfloat16)),
    "input of convolution detached": ("backward", BACKWARD, _input(torch.detach)),
    "weight of convolution detached": ("backward", BACKWARD, _input(torch.detach, 1)),
    "gradient of weight x1.001": ("backward", BACKWARD, _input(_with_scaled_gradient, 1)),
    "gradient into convolution x1.001": ("backward", BACKWARD, _input(_with_scaled_gradient)),
}
_CHANGES: dict[str, dict[str, tuple[str, str, Change]]] = {
    "sum": _SUM,
    "relu": _RELU,
    "conv": _CONV,
    "norm": {},
    "linear": {
        "classifier in float32": ("precision", EVAL, _rounded(torch.float32)),
        "gradient into classifier x1.001": ("backward", BACKWARD, _input(_with_scaled_gradient)),
    },
    "interpolate": {
        "bilinear for nearest": ("fusion", EVAL, _bilinear(False)),
        "bilinear, corners aligned": ("fusion", EVAL, _bilinear(True)),
        "interpolated to another size": ("fusion", EVAL, _one_larger),
        "interpolation in float32": ("precision", EVAL, _rounded(torch.float32)),
    },
    "pool": {
        "maximum for mean": ("fusion", EVAL, _maximum),
        "one value for mean": ("fusion", EVAL, _one_value),
    },
    "flatten": {"features flattened in reverse": ("wiring", EVAL, _result(lambda y: y.flip(1)))},
}
_NEUTRAL: dict[str, dict[str, Change]] = {
    "sum": {
        "operands of sum exchanged": lambda _f, args, _k: args[1] + args[0],
        "sum negated twice": lambda _f, args, _k: -(-args[0] - args[1]),
    },
    "relu": {
        "ReLU twice": _result(F.relu),
        "ReLU as a maximum": _instead(lambda x: x.clamp_min(0)),
        "ReLU not in place": _instead(F.relu),
    },
    "conv": {"input of convolution copied": _input(torch.clone)},
    "interpolate": {"interpolated tensor copied": _result(torch.clone)},
}


def _capping(site: OperationSite) -> Iterator[Fault]:
    """Cap an activation where it reaches the cap."""
    for cap in (6.0, 3.0, 1.0):
        if site.largest > cap:
            change = _instead(partial(F.hardtanh, min_val=0.0, max_val=cap))
            yield _fault(f"ReLU{cap:g}", "activation", site, EVAL, change)


def _clobbering(site: OperationSite) -> Iterator[Fault]:
    """Overwrite an operand behind autograd's back, after the operation has read it."""
    position = {"sum": 1, "conv": 0}.get(site.kind)
    if position is None or position >= len(site.later) or site.later[position] is None:
        return
    readers = site.later[position] or ()
    if site.kind == "sum" and not readers:
        return

    def change(func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        args[position].data.mul_(1.001)
        return result

    mode = EVAL if readers else BACKWARD
    yield _fault(f"operand of {site.kind} overwritten", "backward", site, mode, change, readers)


def _stale_inputs(sites: list[OperationSite]) -> Iterator[Fault]:
    """Let a convolution read what an earlier one of the same shape has read."""
    earlier: dict[tuple[int, ...], list[OperationSite]] = defaultdict(list)
    for site in (one for one in sites if one.kind == "conv"):
        for source in earlier[site.shape][-2:]:
            yield _stale(source, site)
        earlier[site.shape].append(site)


def _stale(source: OperationSite, site: OperationSite) -> Fault:
    def make() -> dict[int, Change]:
        kept: list[Tensor] = []

        def keep(func: Any, args: Any, kwargs: Any) -> Any:
            kept.append(args[0])
            return func(*args, **kwargs)

        return {source.call: keep, site.call: _input(lambda _x: kept[0])}

    def inject(side: Side) -> Side:
        mutated(side.model, site.kind, make)
        return side

    parent = site.module.rpartition(".")[0]
    return Fault(
        name=f"stale input of {site}, that of {source.module or source}",
        operator="stale input of convolution",
        family="wiring",
        inject=inject,
        modes=(EVAL,),
        sites=tuple(dict.fromkeys((site.module, parent))),
        operation=site,
    )
