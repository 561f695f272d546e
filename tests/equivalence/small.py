"""A plain classifier, a model around another, and how to compare equal ones."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from comparison import compare
from comparison.engine.report import Report

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *head)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return SGD(model.parameters(), lr=0.1)


class Around(nn.Module):
    """A model inside another, which does something before or after."""

    def __init__(self, call: Callable[..., Any], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner or plain()
        self.call = call

    def forward(self, *inputs: Any) -> Any:
        return self.call(self.inner, *inputs)


def twice(
    make: Callable[[], nn.Module] = plain, inputs: Any = IMAGES, targets: Any = LABELS, **given: Any
) -> Report:
    """Compare a model with an equal one."""
    return compare(make(), make(), inputs, targets, **{"steps": 1, "free_steps": 1, **given})


def trained(make: Callable[[], nn.Module] = plain, **given: Any) -> Report:
    return twice(make, **{"loss": F.cross_entropy, "optimizer": sgd, **given})
