"""Two tiny networks that compute the same under different names, with HRNet's awkward habits.

`Theirs` works in place, calls one ReLU for everything and writes into the list it is given;
`Ours` does none of this and is cut into modules differently.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from comparison.engine.sides import Side
from comparison.engine.states import load_state, random_batch, random_state
from comparison.pairing import Pair
from reproduction import small_maps

CLASSES = 5
TO_THEIRS = {
    "first.conv": "conv1",
    "first.norm": "bn1",
    "second.conv": "conv2",
    "second.norm": "bn2",
    "paths.0": "fuse.0",
    "paths.1": "fuse.1",
    "head": "classifier",
}


class Theirs(nn.Module):
    """A residual unit, a list that is overwritten, a sum of two paths, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)  # its bias has no effect in train mode
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.fuse = Fuse()
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        streams = [self.relu(y), x]
        return self.classifier(self.fuse(streams)[0].mean((2, 3)))


class Fuse(nn.ModuleList):
    """Sums two paths; overwrites the list it was given, like the official exchange module."""

    def __init__(self) -> None:
        super().__init__([nn.Conv2d(4, 4, 1, bias=False) for _ in range(2)])

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        for i, conv in enumerate(self):
            streams[i] = conv(streams[i])
        return [streams[0] + streams[1], streams[1]]


class Unit(nn.Module):
    """Convolution and normalization."""

    def __init__(self, bias: bool, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Ours(nn.Module):
    """The same network, functional and out of place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Unit(True, 3)
        self.second = Unit(False, 4)
        self.paths = nn.ModuleList(nn.Conv2d(4, 4, 1, bias=False) for _ in range(2))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        streams = [F.relu(self.second(x) + x), x]
        total = reduce(torch.add, (path(s) for path, s in zip(self.paths, streams, strict=True)))
        return self.head(total.mean((2, 3)))


def name_of(name: str) -> str:
    """Translate Ours to Theirs."""
    if name in TO_THEIRS:
        return TO_THEIRS[name]
    layer, _, tensor = name.rpartition(".")
    return f"{TO_THEIRS[layer]}.{tensor}"


def toy_pair(count: int = 2) -> Pair:
    """Return both toys in one random state, with small batches."""
    sides = [
        Side(model=model.double(), loss=F.cross_entropy, make_optimizer=_sgd)
        for model in (Theirs(), Ours())
    ]
    state = random_state(sides[0].model, seed=0)
    load_state(sides[0].model, state)
    load_state(sides[1].model, state, {own: name_of(own) for own in sides[1].model.state_dict()})
    return Pair(
        reference=sides[0],
        reproduction=sides[1],
        name_map=name_of,
        batches=tuple(random_batch((4, 3, 6, 6), CLASSES, f"toy/{i}") for i in range(count)),
        inputs={"reference_recipe": "a toy", "weights": {}, "data": {}},
    )


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def dropping(reach: Callable[..., small_maps.Reach]) -> Callable[..., small_maps.Reach]:
    """Plant a fault in products over taps: the last tap of every longer kernel is left out."""

    def faulty(*sizes: int) -> small_maps.Reach:
        found = reach(*sizes)
        if found.taps == 1:
            return found
        crop, padding = ((a, b - 1) for a, b in (found.crop, found.padding))
        return found._replace(taps=found.taps - 1, crop=crop, padding=padding)

    return faulty


def without_spread(var_mean: Callable[..., Any]) -> Callable[..., Any]:
    """Plant a fault in the sums over wide rows: the spread between a channel's columns is lost."""

    def faulty(*args: Any, **options: Any) -> Any:
        between, mean = var_mean(*args, **options)
        return torch.zeros_like(between), mean

    return faulty
