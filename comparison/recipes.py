"""The two sides of a comparison with their recipes: loss, optimizer, schedule of learning rates.

The reference's recipe is read from the official yaml file, ours from `TrainConfig` or
`comparison.dense`, so that the static mode compares two sources. The stand-in has no recipe; it
is given ours, and the record says so. Learning rates are followed as published, stepped at the
end of an epoch (D4).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR

import reference
from comparison import dense
from comparison.engine.sides import Loss, Side
from reproduction import NETWORKS, NetworkConfig, TrainConfig, UserError
from reproduction.recipe import Recipe
from reproduction.train import learning_rate, make_optimizer

OFFICIAL = "official yaml, section TRAIN"
OURS = "taken from the reproduction: the reference has none"
FACTOR, POWER = 0.1, 0.9  # of official schedules whose file names neither


def our_side(
    model: nn.Module, config: TrainConfig | Recipe | None = None, loss: Loss = F.cross_entropy
) -> Side:
    """Give a network our recipe."""
    config = config or TrainConfig()
    return Side(
        model=model,
        loss=loss,
        make_optimizer=partial(make_optimizer, config=config),
        make_scheduler=partial(_our_schedule, config=config),
    )


def our_dense_side(model: nn.Module, config: NetworkConfig) -> Side:
    """Give a network for a dense task our recipe of it."""
    return our_side(model, dense.recipe_of(config), dense.loss_of(config))


def reference_side(model: nn.Module, network: str, source: str = "auto") -> tuple[Side, str]:
    """Give a reference network its own recipe; also return where that comes from.

    Raises:
        UserError: The official file names an optimizer that the comparison does not know.
    """
    config = NETWORKS[network]
    is_classifier = config.task == "classification"
    settings = reference.training_settings(network, source=source)
    if settings is None:
        return our_side(model) if is_classifier else our_dense_side(model, config), OURS
    loss = F.cross_entropy if is_classifier else dense.loss_of(config)
    return official_side(model, settings, loss), OFFICIAL


def official_side(
    model: nn.Module, settings: Mapping[str, Any], loss: Loss = F.cross_entropy
) -> Side:
    """Give a network the recipe of an official file's section TRAIN.

    Raises:
        UserError: The file names an optimizer that the comparison does not know.
    """
    if settings["OPTIMIZER"] not in _OFFICIAL_OPTIMIZERS:
        raise UserError(
            f"the official recipe names the optimizer {settings['OPTIMIZER']!r}; comparison/"
            f"recipes.py knows {' and '.join(_OFFICIAL_OPTIMIZERS)}: add the other one there"
        )
    return Side(
        model=model,
        loss=loss,
        make_optimizer=partial(_OFFICIAL_OPTIMIZERS[settings["OPTIMIZER"]], settings=settings),
        make_scheduler=partial(_official_schedule, settings=settings),
    )


def _official_sgd(model: nn.Module, settings: Mapping[str, Any]) -> Optimizer:
    return SGD(
        model.parameters(),
        lr=settings["LR"],
        momentum=settings["MOMENTUM"],
        weight_decay=settings["WD"],
        nesterov=settings["NESTEROV"],
    )


def _official_adam(model: nn.Module, settings: Mapping[str, Any]) -> Optimizer:
    """Make Adam as the official scripts do: without the file's weight decay (D19)."""
    return Adam(model.parameters(), lr=settings["LR"])


_OFFICIAL_OPTIMIZERS = {"sgd": _official_sgd, "adam": _official_adam}


def _official_schedule(optimizer: Optimizer, settings: Mapping[str, Any]) -> LRScheduler:
    """Follow the file's drops, or, where it has none, the polynomial decay, once an epoch."""
    if "LR_STEP" in settings:
        return MultiStepLR(optimizer, settings["LR_STEP"], settings.get("LR_FACTOR", FACTOR))
    return LambdaLR(optimizer, lambda epoch: _poly(epoch, settings["END_EPOCH"]))


def _poly(epoch: int, epochs: int) -> float:
    return max(0.0, 1 - epoch / epochs) ** POWER


def _our_schedule(optimizer: Optimizer, config: TrainConfig | Recipe) -> LRScheduler:
    def share(epoch: int) -> float:
        return learning_rate(config, epoch, config.epochs) / config.learning_rate

    return LambdaLR(optimizer, share)
