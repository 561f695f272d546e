"""The two sides of a comparison with their recipes: loss, optimizer, schedule of learning rates.

The reference's recipe is read from the official yaml file, ours from `TrainConfig`, so that the
static mode compares two sources. The stand-in has no recipe; it is given ours, and the record
says so. Learning rates are followed as published, stepped at the end of an epoch (D4).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR

import reference
from comparison.engine.sides import Side
from reproduction import TrainConfig, UserError
from reproduction.train import learning_rate, make_optimizer

OFFICIAL = "official yaml, section TRAIN"
OURS = "taken from the reproduction: the stand-in has none"


def our_side(model: nn.Module, config: TrainConfig | None = None) -> Side:
    """Give a network our recipe."""
    config = config or TrainConfig()
    return Side(
        model=model,
        loss=F.cross_entropy,
        make_optimizer=partial(make_optimizer, config=config),
        make_scheduler=partial(_our_schedule, config=config),
    )


def reference_side(model: nn.Module, network: str, source: str = "auto") -> tuple[Side, str]:
    """Give a reference network its own recipe; also return where that comes from.

    Raises:
        UserError: The official file names an optimizer that the comparison does not know.
    """
    settings = reference.training_settings(network, source=source)
    if settings is None:
        return our_side(model), OURS
    return official_side(model, settings), OFFICIAL


def official_side(model: nn.Module, settings: Mapping[str, Any]) -> Side:
    """Give a network the recipe of an official file's section TRAIN.

    Raises:
        UserError: The file names an optimizer that the comparison does not know.
    """
    if settings["OPTIMIZER"] != "sgd":
        raise UserError(
            f"the official recipe names the optimizer {settings['OPTIMIZER']!r}; comparison/"
            "recipes.py knows sgd: add the other one there"
        )
    return Side(
        model=model,
        loss=F.cross_entropy,
        make_optimizer=partial(_official_optimizer, settings=settings),
        make_scheduler=partial(_official_schedule, settings=settings),
    )


def _official_optimizer(model: nn.Module, settings: Mapping[str, Any]) -> Optimizer:
    return SGD(
        model.parameters(),
        lr=settings["LR"],
        momentum=settings["MOMENTUM"],
        weight_decay=settings["WD"],
        nesterov=settings["NESTEROV"],
    )


def _official_schedule(optimizer: Optimizer, settings: Mapping[str, Any]) -> LRScheduler:
    return MultiStepLR(optimizer, settings["LR_STEP"], settings["LR_FACTOR"])


def _our_schedule(optimizer: Optimizer, config: TrainConfig) -> LRScheduler:
    def share(epoch: int) -> float:
        return learning_rate(config, epoch, config.epochs) / config.learning_rate

    return LambdaLR(optimizer, share)
