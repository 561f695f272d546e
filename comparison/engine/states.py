"""What two models can share: a state that is random in every tensor, and random batches.

A fresh initialization would hide what is swapped or ignored: scales of 1, means of 0.
"""

import hashlib
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn

from comparison.engine.sides import Batch


def random_state(
    model: nn.Module, seed: int, constants: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Draw a state in which no tensor is trivial, from the seed and the names of the tensors.

    Weights keep the size of signals (variance 1 / fan-in); scales lie in [0.25, 0.75), variances
    in [0.5, 1.5), means and biases are normal times 0.1, counters lie in [2, 100). Other whole
    numbers (indices, masks) and the constants that are named are left out: they mean something.
    """
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    return {
        name: _draw(name, tensor, seed)
        for name, tensor in tensors.items()
        if name not in constants
        and (tensor.is_floating_point() or name.endswith("num_batches_tracked"))
    }


def load_state(
    model: nn.Module, state: Mapping[str, torch.Tensor], names: Mapping[str, str] | None = None
) -> None:
    """Copy a state into a model; ``names`` translates the model's names into the state's."""
    with torch.no_grad():
        for own, tensor in (*model.named_parameters(), *model.named_buffers()):
            name = own if names is None else names.get(own, "")
            if name in state and state[name].shape == tensor.shape:
                tensor.copy_(state[name])


def share_parameters(model: nn.Module, owner: nn.Module, names: Mapping[str, str]) -> None:
    """Let a model's parameters lie in another's memory, where they are equal.

    Args:
        model: The model whose own copies are dropped.
        owner: The model that holds them.
        names: Name of a tensor in the model to its name in the owner.
    """
    theirs = dict(owner.named_parameters())
    for name, parameter in model.named_parameters():
        other = theirs.get(names.get(name, ""))
        if other is not None and other.dtype == parameter.dtype and torch.equal(other, parameter):
            parameter.data = other.data


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return one digest over the names, types and bytes of a state."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def random_batch(shape: tuple[int, ...], num_classes: int, seed: int | str) -> Batch:
    """Draw a batch of normal images and uniform labels from a seed, in float64.

    The images hold float32 values, so that both precisions see the same.
    """
    generator = _generator(f"batch/{seed}")
    images = generator.standard_normal(shape).astype(np.float32)
    labels = generator.integers(0, num_classes, shape[0])
    return Batch(torch.from_numpy(images).double(), torch.from_numpy(labels))


def _draw(name: str, tensor: torch.Tensor, seed: int) -> torch.Tensor:
    generator, shape = _generator(f"state/{seed}/{name}"), tuple(tensor.shape)
    values: np.ndarray
    if not tensor.is_floating_point():
        values = generator.integers(2, 100, shape)
    elif len(shape) > 1:
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = generator.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * generator.standard_normal(shape)
    else:
        values = generator.uniform(0.25, 0.75, shape)
    return torch.as_tensor(np.asarray(values)).to(tensor.dtype)


def _generator(name: str) -> np.random.Generator:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))
