"""Taps on activations and their gradients: what flows, copied the moment it flows.

HRNet's official code works in place (ReLU, residual sum) and writes into the lists it is given, so
a tensor that was merely kept would change afterwards: every tap hands its tensor on at once, and
`Recording` clones. Gradients are taken by tensor hooks set on the output itself before anything
can overwrite it; module backward hooks would replace the output by a view and forbid in-place
work. A tap changes no bit of the run it watches (tested).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from comparison.verdict import Key, Row, compare, missing

Sink = Callable[[Key, torch.Tensor], None]


class Recording:
    """A sink that keeps a copy of everything, in order of arrival."""

    def __init__(self) -> None:
        self.tensors: dict[Key, torch.Tensor] = {}

    def __call__(self, key: Key, tensor: torch.Tensor) -> None:
        """Keep a copy of a tensor.

        Raises:
            ValueError: The key was used before; one tensor would hide another.
        """
        if key in self.tensors:
            raise ValueError(f"{key} was recorded twice; give every tap a name of its own")
        self.tensors[key] = tensor.detach().clone(memory_format=torch.contiguous_format)

    def copied(self) -> "Recording":
        """Return a recording of copies of all tensors."""
        copies = Recording()
        for key, tensor in self.tensors.items():
            copies(key, tensor)
        return copies


class Checking:
    """A sink that compares with a recording at once and keeps only the result.

    Args:
        recording: What the reference did.
        bound_of: The largest relative error allowed for a key.
    """

    def __init__(self, recording: Recording, bound_of: Callable[[Key], float]) -> None:
        self._recorded = recording.tensors
        self._bound_of = bound_of
        self._rows: dict[Key, Row] = {}

    def __call__(self, key: Key, tensor: torch.Tensor) -> None:
        """Compare a tensor with the recorded one of the same key."""
        bound = self._bound_of(key)
        tensor = tensor.detach()
        if key in self._rows:
            raise ValueError(f"{key} was compared twice; give every tap a name of its own")
        if key in self._recorded:
            self._rows[key] = compare(key, self._recorded[key], tensor, bound)
        else:
            self._rows[key] = missing(key, tuple(tensor.shape), bound, "reference")

    def rows(self, expected: Callable[[Key], bool] = lambda _key: True) -> list[Row]:
        """Return one row for every tensor of either side, in the reference's order.

        Args:
            expected: Tells of a recorded key whether the candidate had to report it.
        """
        rows = [
            self._rows.get(key)
            or missing(key, tuple(tensor.shape), self._bound_of(key), "reproduction")
            for key, tensor in self._recorded.items()
            if expected(key)
        ]
        return rows + [row for key, row in self._rows.items() if key not in self._recorded]


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested lists, tuples and mappings, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


@contextmanager
def taps(
    model: nn.Module,
    names: Mapping[str, str],
    sink: Sink,
    mode: str,
    *,
    gradient_mode: str | None = None,
) -> Iterator[None]:
    """Report what the named modules of a model read and return while the context is open.

    Inputs are reported for modules that hold tensors of their own (layers), outputs for all. The
    second call of a module is reported as "call 2", a list of outputs as "output 0", "output 1".

    Args:
        model: The model to watch.
        names: Path of a module in this model to the name it is reported under.
        sink: Receives every tensor at once, before anything can overwrite it.
        mode: The mode in the keys of activations.
        gradient_mode: The mode in the keys of the gradients of outputs; none are taken without.

    Raises:
        KeyError: The model has no module of that path.
    """
    modules = dict(model.named_modules())
    handles = []
    for path, name in names.items():
        if path not in modules:
            raise KeyError(f"the model has no module {path!r}; check the map of names")
        tap = _Tap(name, sink, mode, gradient_mode)
        if is_layer(modules[path]):
            handles.append(modules[path].register_forward_pre_hook(tap.before))
        handles.append(modules[path].register_forward_hook(tap.after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module holds parameters or buffers of its own."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return bool(own)


class _Tap:
    def __init__(self, name: str, sink: Sink, mode: str, gradient_mode: str | None) -> None:
        self._name = name
        self._sink = sink
        self._mode = mode
        self._gradient_mode = gradient_mode
        self._calls = 0

    def before(self, _module: nn.Module, inputs: Any) -> None:
        self._report(self._mode, "input", tensors_in(inputs), call=self._calls + 1)

    def after(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._calls += 1
        outputs = tensors_in(output)
        self._report(self._mode, "output", outputs, call=self._calls)
        if self._gradient_mode:
            self._await_gradients(outputs, self._calls)

    def _report(self, mode: str, part: str, tensors: list[torch.Tensor], call: int) -> None:
        for index, tensor in enumerate(tensors):
            self._sink(self._key(mode, part, call, index, len(tensors)), tensor.detach())

    def _await_gradients(self, outputs: list[torch.Tensor], call: int) -> None:
        assert self._gradient_mode
        for index, tensor in enumerate(outputs):
            if tensor.requires_grad:
                key = self._key(self._gradient_mode, "gradient", call, index, len(outputs))
                tensor.register_hook(self._hand_on(key))

    def _hand_on(self, key: Key) -> Callable[[torch.Tensor], None]:
        def hand_on(gradient: torch.Tensor) -> None:
            self._sink(key, gradient)

        return hand_on

    def _key(self, mode: str, part: str, call: int, index: int, count: int) -> Key:
        indexed = f"{part} {index}" if count > 1 else part
        return Key(mode, self._name, indexed if call == 1 else f"{indexed}, call {call}")
