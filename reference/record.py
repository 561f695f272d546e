"""Record what a network computes, by the recipe of `traces/README.md`.

The recipe names every number after the official state-dict key or module path it belongs to, so
it applies to any implementation that can translate its own names: pass `name_of`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from reference.recorded import compare, load_trace, recorded_networks, summarize

__all__ = ["compare", "fill", "load_trace", "recorded_networks", "rng", "summarize", "trace"]

TRACED_LAYERS = (nn.Conv2d, _BatchNorm, nn.Linear)
STEP: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
SAMPLES = 8

NameOf = Callable[[str], str]
Rows = dict[str, np.ndarray]


def same_name(path: str) -> str:
    """Name a path as it is: for networks that have the official names themselves."""
    return path


def rng(name: str) -> np.random.Generator:
    """Return the generator that belongs to a name.

    >>> bool(rng("input").random() == rng("input").random())
    True
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def draw(key: str, shape: Sequence[int]) -> np.ndarray:
    """Draw one state-dict entry from the generator of its official key."""
    generator, shape = rng(key), tuple(shape)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape)
    if len(shape) >= 2:
        return generator.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    if key.endswith("running_var"):
        return generator.uniform(0.5, 1.5, shape)
    if key.endswith(("running_mean", "bias")):
        return generator.standard_normal(shape) * 0.1
    return generator.uniform(0.25, 0.75, shape)


def fill(model: nn.Module, *, name_of: NameOf = same_name) -> None:
    """Set every parameter and buffer to the values of the recipe, in place.

    Args:
        name_of: translates the model's own state-dict key into the official one.
    """
    with torch.no_grad():
        for key, entry in model.state_dict().items():
            entry.copy_(torch.from_numpy(np.asarray(draw(name_of(key), entry.shape))))


def row(name: str, tensor: Tensor) -> np.ndarray:
    """Reduce a tensor to 12 numbers: count, L2 norm, mean, largest magnitude, 8 elements."""
    values = tensor.detach().cpu().contiguous().numpy().reshape(-1)
    positions = rng(f"sample:{name}").integers(0, values.size, SAMPLES)
    head = [values.size, np.linalg.norm(values), values.mean(), np.abs(values).max()]
    return np.concatenate([np.array(head, dtype=np.float64), values[positions]])


def trace(model: nn.Module, input_shape: Sequence[int], *, name_of: NameOf = same_name) -> Rows:
    """Record forward, loss, gradients, buffers and one optimizer step of a network.

    The model is copied first: its weights, mode and precision stay as they are.

    Args:
        input_shape: (B, C, H, W).
        name_of: translates the model's module path or state-dict key into the official name.

    Returns:
        12 numbers for each row key, in the recipe's order.
    """
    with one_thread():
        model = copy.deepcopy(model).cpu().double()
        fill(model, name_of=name_of)
        images = torch.from_numpy(rng("input").standard_normal(tuple(input_shape)))
        return {
            **forward_rows(model, images, name_of),
            **training_rows(model, images, name_of),
        }


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, which fixes the order of its sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def forward_rows(model: nn.Module, images: Tensor, name_of: NameOf) -> Rows:
    """Record every convolution, BN and Linear layer and the outputs, in eval mode."""
    rows: Rows = {}

    def take(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            rows[name] = row(name, output)  # at once: later layers may overwrite it in place

        return hook

    layers = [(p, m) for p, m in model.named_modules() if isinstance(m, TRACED_LAYERS)]
    handles = [m.register_forward_hook(take(f"forward/{name_of(p)}")) for p, m in layers]
    try:
        with torch.no_grad():
            outputs = as_tuple(model.eval()(images))
    finally:
        for handle in handles:
            handle.remove()
    outputs_rows = {f"output/{i}": row(f"output/{i}", out) for i, out in enumerate(outputs)}
    return {**rows, **outputs_rows}


def training_rows(model: nn.Module, images: Tensor, name_of: NameOf) -> Rows:
    """Record loss, gradients and buffers of one pass in train mode, then one SGD step."""
    model.train()
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), **STEP)
    loss = recipe_loss(as_tuple(model(images)))
    loss.backward()
    parameters = {name_of(key): value for key, value in model.named_parameters()}
    buffers = {name_of(key): value for key, value in model.named_buffers()}
    statistics = {k: v for k, v in buffers.items() if k.endswith(("running_mean", "running_var"))}
    gradients = {key: gradient_of(value) for key, value in parameters.items()}
    rows = {
        "loss": row("loss", loss),
        **rows_of("grad", gradients),
        **rows_of("buffer", statistics),
    }
    optimizer.step()
    return {**rows, **rows_of("step", parameters)}


def gradient_of(parameter: Tensor) -> Tensor:
    """Return the gradient, zero for a parameter that took no part in the loss."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def recipe_loss(outputs: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`\sum_i \mathrm{mean}(y_i t_i) + \mathrm{mean}(y_i^2) / 2`."""
    losses = []
    for i, output in enumerate(outputs):
        target = torch.from_numpy(rng(f"target/{i}").standard_normal(tuple(output.shape)))
        losses.append((output * target).mean() + 0.5 * (output**2).mean())
    return torch.stack(losses).sum()


def rows_of(phase: str, tensors: Mapping[str, Tensor]) -> Rows:
    """Make a row for each tensor, in a phase such as `grad`."""
    return {f"{phase}/{key}": row(f"{phase}/{key}", value) for key, value in tensors.items()}


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Treat a network of one output as one of several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
