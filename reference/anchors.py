"""A second, independent set of check values: outputs under another filling rule.

Where a trace has a row for every layer of some networks, an anchor has a few numbers of the
output of every network. The rule is the one of `traces/README.md`, "Anchors": an integer hash of
the official key and the flat index, so that it can be computed without any random generator.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reference.record import NameOf, same_name
from reference.recorded import TRACES

WORD = np.uint64(0xFFFFFFFF)


def load_anchors(folder: Path = TRACES) -> dict[str, dict]:
    """Return the recorded anchors by their names, such as `cls_w18_small_v1`."""
    return json.loads((folder / "anchors.json").read_text(encoding="utf-8"))


def uniform(name: str, count: int) -> np.ndarray:
    """Return numbers in (0, 1) that depend on the name and the flat index alone."""
    mixed = np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
    mixed = (mixed + np.uint64(zlib.crc32(name.encode()))) & WORD
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        mixed ^= mixed >> np.uint64(shift)
        mixed = (mixed * np.uint64(factor)) & WORD
    mixed ^= mixed >> np.uint64(16)
    return (mixed.astype(np.float64) + 0.5) / 2.0**32


def draw(key: str, shape: Sequence[int]) -> np.ndarray:
    """Return one state-dict entry: float64 arithmetic, rounded to float32."""
    shape = tuple(shape)
    u = uniform(key, int(np.prod(shape)))
    if key.endswith("num_batches_tracked"):
        values = np.zeros_like(u)
    elif key.endswith("running_mean"):
        values = 0.2 * (2 * u - 1)
    elif key.endswith("running_var"):
        values = 0.5 + u
    elif key.endswith(".bias"):
        values = 0.1 * (2 * u - 1)
    elif len(shape) == 1:
        values = 0.5 + 0.5 * u
    else:
        values = (2 * u - 1) * np.sqrt(3 / np.prod(shape[1:]))
    return values.astype(np.float32).reshape(shape)


def fill(model: nn.Module, *, name_of: NameOf = same_name) -> None:
    """Set every parameter and buffer to the anchors' values, in place.

    Args:
        name_of: translates the model's own state-dict key into the official one.
    """
    with torch.no_grad():
        for key, entry in model.state_dict().items():
            entry.copy_(torch.from_numpy(draw(name_of(key), entry.shape)))


def image(shape: Sequence[int]) -> Tensor:
    """Return the anchors' input (B, C, H, W), float32."""
    values = 4 * uniform("input", int(np.prod(tuple(shape)))) - 2
    return torch.from_numpy(values.astype(np.float32).reshape(tuple(shape)))
