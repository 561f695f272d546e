"""Operations of a forward pass: listed in one dry run, and one of them changed.

A network of which an operation is changed runs its own forward under a `TorchFunctionMode`, so the
change works whatever its modules are and leaves module paths and state-dict keys as they are.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from comparison.mutation.fault import OperationSite, reclassed

_KINDS = {
    "add": "sum",
    "iadd": "sum",
    "radd": "sum",
    "relu": "relu",
    "conv1d": "conv",
    "conv2d": "conv",
    "conv3d": "conv",
    "batch_norm": "norm",
    "linear": "linear",
    "interpolate": "interpolate",
    "avg_pool2d": "pool",
    "adaptive_avg_pool2d": "pool",
    "mean": "pool",
    "flatten": "flatten",
}
# Takes the function that was called, and its positional and named arguments; returns the result.
Change = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def _kind(func: Any, args: tuple[Any, ...]) -> str:
    """Say what a call is; empty if it is nothing that faults are made for."""
    kind = _KINDS.get(getattr(func, "__name__", "").strip("_"), "")
    operands = args[:2] if kind == "sum" else args[:1]
    dims = 2 if kind == "linear" else 3
    if not kind or len(operands) < 1 + (kind == "sum"):
        return ""
    return kind if all(_is_activation(operand, dims) for operand in operands) else ""


def _is_activation(value: Any, dims: int) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() >= dims


class Mutation(TorchFunctionMode):
    """Changes one operation of a forward pass, or several.

    Args:
        kind: Kind of the operation.
        changes: What to do instead, by the count of the call within its kind.
    """

    def __init__(self, kind: str, changes: dict[int, Change]) -> None:
        super().__init__()
        self._kind = kind
        self._changes = changes
        self._calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if _kind(func, args) != self._kind:
            return func(*args, **kwargs)
        change = self._changes.get(self._calls)
        self._calls += 1
        return change(func, args, kwargs) if change else func(*args, **kwargs)


def mutated(model: nn.Module, kind: str, make: Callable[[], dict[int, Change]]) -> None:
    """Change operations of a model, in place.

    Args:
        model: The whole model.
        kind: Kind of the operations.
        make: Makes the changes anew for every forward pass, since they may remember tensors.
    """

    def forward(original: Any, module: nn.Module, *inputs: Any, **options: Any) -> Any:
        with Mutation(kind, make()):
            return original(module, *inputs, **options)

    reclassed(model, forward)


class _Seen(NamedTuple):
    site: OperationSite
    operands: tuple[int | None, ...]  # storages of the operands that the pass made
    result: int
    end: int  # how many reads there were by then


class _Dry(TorchFunctionMode):
    """Notes the operations of a pass, and which module reads which storage when."""

    def __init__(self) -> None:
        super().__init__()
        self.path = [""]
        self.seen: list[_Seen] = []
        self.reads: list[tuple[int, str]] = []
        self.made: dict[int, torch.Tensor] = {}  # kept, so that no address comes twice
        self.counts: dict[str, int] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor):
            return result
        storages = [_storage(value) for value in _tensors(args)]
        self.reads += [(storage, self.path[-1]) for storage in storages]
        kind = _kind(func, args)
        if kind:
            call = self.counts[kind] = self.counts.get(kind, -1) + 1
            shape, largest = tuple(args[0].shape), result.max().item()
            site = OperationSite(kind, call, self.path[-1], shape=shape, largest=largest)
            known = tuple(one if one in self.made else None for one in storages)
            self.seen.append(_Seen(site, known, _storage(result), len(self.reads)))
        if _storage(result) not in storages or _storage(result) in self.made:
            self.made[_storage(result)] = result
        return result

    def sites(self) -> list[OperationSite]:
        """Return the operations with who reads what afterwards."""
        return [
            replace(
                one.site,
                readers=self._readers(one.result, one.end),
                later=tuple(
                    None if storage is None else self._readers(storage, one.end)
                    for storage in one.operands
                ),
            )
            for one in self.seen
        ]

    def _readers(self, storage: int, start: int) -> tuple[str, ...]:
        modules = [module for read, module in self.reads[start:] if read == storage]
        return tuple(dict.fromkeys(modules))


def _tensors(args: tuple[Any, ...]) -> list[torch.Tensor]:
    flat = [item for value in args for item in (value if isinstance(value, list) else [value])]
    return [value for value in flat if isinstance(value, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def operation_sites(model: nn.Module, inputs: torch.Tensor) -> list[OperationSite]:
    """List the operations of one forward pass in eval mode; the model stays as it is.

    Args:
        model: The model.
        inputs: What it takes.
    """
    dry = _Dry()
    handles = []
    for path, module in model.named_modules():
        enter = _entering(dry.path, path)
        handles.append(module.register_forward_pre_hook(enter, prepend=True))
        handles.append(module.register_forward_hook(lambda *_: _left(dry.path), always_call=True))
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), dry:
            model.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return dry.sites()


def _entering(path: list[str], name: str) -> Callable[[nn.Module, Any], None]:
    def enter(_module: nn.Module, _inputs: Any) -> None:
        path.append(name)

    return enter


def _left(path: list[str]) -> None:
    path.pop()
