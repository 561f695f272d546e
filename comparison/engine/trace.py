"""What a model does, operation by operation: the nodes of one run, whatever its module tree.

`Watch` sees every PyTorch function that is called from Python while a model runs. Each call that
returns a tensor is a node, named by the innermost running module, the operation and its count
there; so functional layers, sums between modules and reused modules have names of their own. What
a node returns is handed to a visitor the moment it exists, before anything can overwrite it in
place, and its gradient by a tensor hook. Watching changes no bit of the run (tested).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from comparison.engine.measures import PART
from comparison.engine.operations import operation

SEED = 20190820  # of the random numbers that a model draws while it runs; the same on both sides
INPUT = -1  # the producer of what the caller gave
UNSEEN = -2  # the producer of what came into being out of sight
# Operations that may hand through what they were given.
_HANDING = ("contiguous", "to", "double", "float", "type", "cpu", "reshape", "dropout", "expand")


class Place(NamedTuple):
    """The name of a node: module path, operation, and its count in that module, from 0."""

    module: str
    op: str
    number: int

    def __str__(self) -> str:
        count = f" {self.number + 1}" if self.number else ""
        return f"{self.module or 'network'} ({self.op}{count})"


@dataclass(frozen=True)
class Node:
    """One operation of a run.

    Attributes:
        place: Its name.
        inputs: Producers of the tensors it was given, in order: a node's index, `INPUT` or
            `UNSEEN`; parameters and what is made of parameters alone are left out.
        reads: Names of the parameters and buffers that it reads, directly or through operations
            on parameters alone.
        roles: For those read directly, the position among the arguments.
        shape: Shape of what it returns.
        options: Its other arguments, by position or name.
        draws: Whether the state of the random number generator moved.
        derived: Whether it is made of parameters alone.
        mark: Norm and a weighted sum of what it returned: equal tensors have equal marks.
        alive: Bytes of all that the run's operations returned and still held at that moment.
    """

    place: Place
    inputs: tuple[int, ...]
    reads: tuple[str, ...]
    roles: tuple[tuple[int, str], ...]
    shape: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]
    draws: bool
    derived: bool
    mark: tuple[float, float] = (math.nan, math.nan)
    alive: int = 0

    def resembles(self, other: "Node") -> bool:
        """Tell whether another node returned the same values, up to rounding."""
        if self.shape != other.shape:
            return False
        (norm, total), (other_norm, other_total) = self.mark, other.mark
        bound = 1e-9 * max(norm, other_norm)
        return abs(norm - other_norm) <= bound and abs(total - other_total) <= bound


class Visitor(Protocol):
    """Receives what flows, at once."""

    def arrives(self, place: Place, position: int, tensor: torch.Tensor) -> torch.Tensor:
        """See a tensor that an operation is about to read; return what it shall read."""

    def returned(self, place: Place, tensor: torch.Tensor) -> None:
        """See a tensor that an operation returned; it may be overwritten."""


class Watch(TorchFunctionMode):
    """Names the operations of a run and shows a visitor what flows; a context manager.

    Args:
        model: The model to watch. Its modules get hooks for as long as the context is open.
        visitor: Sees tensors; without one, nodes are listed only.
        draws: Whether to note which operations draw random numbers (costs a comparison each).
    """

    def __init__(
        self, model: nn.Module, visitor: Visitor | None = None, *, draws: bool = False
    ) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._model = model
        self._visitor = visitor
        self._draws = draws
        self._path: list[str] = [""]
        self._counts: dict[tuple[str, str], int] = {}
        self._handles: list[Any] = []
        self._producer: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._names: WeakIdKeyDictionary = WeakIdKeyDictionary()
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._names[tensor] = name

    def given(self, inputs: Any) -> None:
        """Say which tensors are the caller's."""
        for tensor in tensors_in(inputs):
            self._producer[tensor] = INPUT

    def __enter__(self) -> "Watch":
        for path, module in self._model.named_modules():
            self._handles.append(
                module.register_forward_pre_hook(self._entering(path), prepend=True)
            )
            self._handles.append(module.register_forward_hook(self._leaving, always_call=True))
        self._handles.append(_WatchedFunctions(self._record))
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*problem)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        op = operation(func)
        return self._record(op, func, args, kwargs or {}) if op else func(*args, **(kwargs or {}))

    def _record(self, op: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        place = Place(self._path[-1], op, self._counts.get((self._path[-1], op), 0))
        given = tensors_in(args) + tensors_in(kwargs)
        sources = [self._source(tensor) for tensor in given]
        if self._visitor and _reads_state(sources):
            args, kwargs = self._show_arrivals(place, given, sources, args, kwargs)
        before = torch.get_rng_state() if self._draws else None
        result = func(*args, **kwargs)
        returned = [tensor for tensor in tensors_in(result) if tensor.numel() or tensor.dim()]
        if not returned or all(self._is_old(tensor, given, op) for tensor in returned):
            return result
        self._counts[place.module, op] = place.number + 1
        drew = before is not None and not torch.equal(before, torch.get_rng_state())
        for index, tensor in enumerate(returned):
            at = place if not index else place._replace(op=f"{op} output {index + 1}")
            self._add(at, sources, tensor, _options(args, kwargs), drew)
        return result

    def _add(
        self, place: Place, sources: list[Any], tensor: torch.Tensor, options: Any, drew: bool
    ) -> None:
        inputs, reads, roles = [], dict[str, None](), []
        for position, source in enumerate(sources):
            if isinstance(source, str):
                reads[source] = None
                roles.append((position, source))
            elif source >= 0 and self.nodes[source].derived:
                reads |= dict.fromkeys(self.nodes[source].reads)
            else:
                inputs.append(source)
        node = Node(
            place=place,
            inputs=tuple(inputs),
            reads=tuple(reads),
            roles=tuple(roles),
            shape=tuple(tensor.shape),
            options=options,
            draws=drew,
            derived=bool(reads) and not inputs,
        )
        self._producer[tensor] = len(self.nodes)
        self.nodes.append(node)
        if self._visitor and not node.derived:
            with torch._C.DisableTorchFunction():
                self._visitor.returned(place, tensor)

    def _source(self, tensor: torch.Tensor) -> Any:
        """Return the name of a parameter or buffer, else the index of what made the tensor."""
        name = self._names.get(tensor)
        return name if name is not None else self._producer.get(tensor, UNSEEN)

    def _show_arrivals(
        self, place: Place, given: list[torch.Tensor], sources: list[Any], args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        assert self._visitor
        changed: dict[int, torch.Tensor] = {}
        position = 0
        with torch._C.DisableTorchFunction():
            for tensor, source in zip(given, sources, strict=True):
                if isinstance(source, str) or (source >= 0 and self.nodes[source].derived):
                    continue
                shown = self._visitor.arrives(place, position, tensor)
                position += 1
                if shown is not tensor:
                    changed[id(tensor)] = shown
        return (_replaced(args, changed), _replaced(kwargs, changed)) if changed else (args, kwargs)

    def _is_old(self, tensor: torch.Tensor, given: list[torch.Tensor], op: str) -> bool:
        """Tell a tensor that was merely handed through from one that was written in place."""
        if not any(tensor is one for one in given):
            return False
        return self._names.get(tensor) is not None or op in _HANDING

    def _entering(self, path: str) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            self._path.append(path)

        return enter

    def _leaving(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._path.pop()


class _WatchedFunctions:
    """Make each call of a `torch.autograd.Function` one operation, until removed.

    Its gradient is its own; what it calls inside is no part of the graph.
    """

    def __init__(self, record: Callable[..., Any]) -> None:
        self._plain = plain = torch.autograd.Function.__dict__["apply"]

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction():
                return record(cls.__name__, plain.__get__(None, cls), args, kwargs)

        torch.autograd.Function.apply = classmethod(apply)  # type: ignore[method-assign]

    def remove(self) -> None:
        """Put PyTorch's own back."""
        torch.autograd.Function.apply = self._plain


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested lists, tuples and mappings, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model with one tensor or a tuple of positional arguments."""
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put modes, buffers and the random state back at the end; drop gradients."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        model.zero_grad(set_to_none=True)


def trace(model: nn.Module, inputs: Any, *, train: bool) -> list[Node]:
    """Run a model once without gradients and list its nodes; the model stays as it is.

    Args:
        model: The model.
        inputs: One tensor, or a tuple of positional arguments.
        train: Whether in train mode.
    """
    marks = _Marks()
    with restored(model), torch.no_grad():
        model.train(train)
        torch.manual_seed(SEED)
        watch = Watch(model, marks, draws=True)
        watch.given(inputs)
        with watch:
            call(model, inputs)
    return [replace(node, **marks.of.get(node.place, {})) for node in watch.nodes]


class _Marks:
    """Notes a mark of everything that is returned, and what is alive then."""

    def __init__(self) -> None:
        self.of: dict[Place, dict[str, Any]] = {}
        self._alive: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._row: torch.Tensor | None = None

    def arrives(self, place: Place, position: int, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def returned(self, place: Place, tensor: torch.Tensor) -> None:
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        parts = [part.double() for part in real.detach().reshape(-1).split(PART)]
        weights = self._weights(real)
        norm = math.hypot(*(part.norm().item() for part in parts))
        sums = [torch.dot(part, weights[: len(part)]).item() for part in parts]
        mark = norm, math.fsum(one * math.cos(n) for n, one in enumerate(sums))
        self._alive[tensor] = None
        held = (one.untyped_storage() for one in self._alive)
        alive = sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())
        self.of[place] = {"mark": mark, "alive": alive}

    def _weights(self, like: torch.Tensor) -> torch.Tensor:
        """Return the weights of a marked sum, as many as any tensor so far needed."""
        count = min(like.numel(), PART)
        if self._row is None or len(self._row) < count or self._row.device != like.device:
            steps = torch.arange(count, dtype=torch.float64, device=like.device)
            self._row = (0.37 * steps).cos()
        return self._row


def _reads_state(sources: list[Any]) -> bool:
    return len(sources) > 0


def _options(args: Any, kwargs: Any) -> tuple[tuple[str, Any], ...]:
    values = [(str(index), value) for index, value in enumerate(args)] + sorted(kwargs.items())
    return tuple((name, value) for name, value in values if not tensors_in(value))


def _replaced(value: Any, changed: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return changed.get(id(value), value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, changed) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_replaced(item, changed) for item in value]
        return type(value)(items) if type(value) in (list, tuple) else value
    return value
