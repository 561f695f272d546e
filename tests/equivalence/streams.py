"""A small network of two streams with every kind of part, flat as well, and how to compare it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from comparison import compare
from comparison.engine.compare import Report


class Unit(nn.Module):
    """Convolution and batch normalization; the ReLU is called twice, in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=True)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class Fuse(nn.Module):
    """Two streams that exchange; writes into the list that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.high = nn.Sequential(Unit(4), Unit(4))
        self.low = nn.Sequential(Unit(8))
        self.down = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.up = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))

    def paths(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return what goes down and what goes up."""
        return [self.down(streams[0]), F.interpolate(self.up(streams[1]), scale_factor=2)]

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        streams[0], streams[1] = self.high(streams[0]), self.low(streams[1])
        down, up = self.paths(streams)
        return [F.relu(streams[0] + up), F.relu(streams[1] + down)]


class Net(nn.Module):
    """Stem, two streams, and a head whose convolution has a bias in front of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))
        self.born = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.fuse = Fuse()
        self.head = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6))
        self.classifier = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        high, low = self.fuse([x, F.relu(self.born(x))])
        y = F.relu(self.head(F.max_pool2d(high, 2).repeat(1, 2, 1, 1) + low))
        return self.classifier(y.mean((2, 3)))


Change = Callable[[Net], Any]
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}


def sgd(**options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), **{**SGD, **options})


def inputs(size: int = 16, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def pair(change: Change = lambda net: None) -> tuple[Net, Net]:
    torch.manual_seed(0)
    reference = Net().double()
    for tensor in (*reference.parameters(), *reference.buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.add_(torch.rand_like(tensor) * 0.3 + 0.05)
    candidate = copy.deepcopy(reference)
    change(candidate)
    return reference, candidate


def run(change: Change = lambda net: None, **options: Any) -> Report:
    reference, candidate = pair(change)
    return against(reference, candidate, **options)


def against(reference: nn.Module, candidate: nn.Module, **options: Any) -> Report:
    given = {"loss": F.cross_entropy, "optimizer": sgd(), "weights": "given", **options}
    return compare(reference, candidate, inputs(), torch.tensor([0, 1, 2, 3]), **given)


def failed(report: Report) -> list[str]:
    return [verdict.mode for verdict in report.modes if verdict.outcome == "not reproduced"]


def modules(report: Report) -> set[str]:
    return {origin.module for origin in report.origins}


class Flat(nn.Module):
    """The same network, flat, with functional ReLUs, other names and another order of sums."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        kept = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
        self.parts = nn.ModuleList(copy.deepcopy(m) for m in reversed(kept))
        self.order = len(kept)

    def at(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Apply a layer, counted as the network defines them."""
        return self.parts[self.order - 1 - index](x)

    def unit(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Apply a residual unit."""
        y = torch.relu(self.at(index + 1, self.at(index, x)))
        return torch.relu(x + self.at(index + 3, self.at(index + 2, y)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.at(1, self.at(0, x)))
        low = self.unit(12, F.relu(self.at(3, self.at(2, x))))
        high = self.unit(8, self.unit(4, x))
        down = self.at(17, self.at(16, high))
        up = F.interpolate(self.at(19, self.at(18, low)), scale_factor=2)
        pooled = F.max_pool2d(torch.relu(up + high), 2).repeat(1, 2, 1, 1)
        y = pooled + torch.relu(down + low)
        y = F.relu(self.at(21, self.at(20, y)))
        return self.at(22, y.mean((2, 3)))
