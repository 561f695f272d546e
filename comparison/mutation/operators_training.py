"""Faults in training: loss, optimizer, learning rates."""

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from comparison.engine.sides import Batch, Loss, Side
from comparison.mutation.fault import LATER, LOSS, STATE, STATIC, Fault, Inject
from comparison.mutation.operators_data import data_faults, has_labels

EPOCHS = 120
SLIGHTLY = 1 + 1e-6


def training_faults(side: Side, batch: Batch) -> Iterator[Fault]:
    """List all faults of a side outside its model.

    Args:
        side: The candidate; what it lacks, such as a schedule, cannot be wrong.
        batch: What it sees; labels allow faults that numbers as targets do not.
    """
    if side.loss:
        changes = _LOSSES | (_LABEL_LOSSES if has_labels(batch) else {})
        for operator, change in changes.items():
            yield _fault(operator, "loss", (LOSS,), "loss", _losing(change))
    if side.make_optimizer:
        yield from _optimizer_faults(side)
    if side.make_scheduler and side.make_optimizer:
        for operator, bent in _SCHEDULES.items():
            inject = _scheduling(bent)
            yield _fault(operator, "schedule/data/RNG", (STATIC,), "scheduler", inject)
    yield from data_faults(batch)


def _fault(
    operator: str, family: str, modes: tuple[str, ...], site: str, inject: Inject, *modules: str
) -> Fault:
    name = " ".join((operator, *modules))
    # Whoever treats one parameter wrongly has to be told which: "optimizer" is not enough.
    sites = tuple(path.rpartition(".")[0] for path in modules) or (site,)
    return Fault(
        name=name, operator=operator, family=family, inject=inject, modes=modes, sites=sites
    )


# Loss


def _losing(change: Callable[[Loss, Any, Any], torch.Tensor]) -> Inject:
    def inject(side: Side) -> Side:
        assert side.loss
        original = side.loss
        return replace(side, loss=lambda output, target: change(original, output, target))

    return inject


def _weighted(_loss: Loss, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    weight = torch.linspace(0.5, 1.5, output.shape[1], dtype=output.dtype)
    return F.cross_entropy(output, target, weight=weight)


_LOSSES: dict[str, Callable[[Loss, Any, Any], torch.Tensor]] = {
    "loss x1.001": lambda loss, output, target: loss(output, target) * 1.001,
    "loss x(1+1e-6)": lambda loss, output, target: loss(output, target) * SLIGHTLY,
    "loss summed": lambda loss, output, target: loss(output, target) * len(output),
    "loss over one sample more": (
        lambda loss, output, target: loss(output, target) * len(output) / (len(output) + 1)
    ),
    "loss without last sample": lambda loss, output, target: loss(output[:-1], target[:-1]),
    "loss at temperature 1.01": lambda loss, output, target: loss(output / 1.01, target),
}
_LABEL_LOSSES: dict[str, Callable[[Loss, Any, Any], torch.Tensor]] = {
    "labels smoothed by 0.1": (
        lambda _loss, output, target: F.cross_entropy(output, target, label_smoothing=0.1)
    ),
    "labels smoothed by 0.001": (
        lambda _loss, output, target: F.cross_entropy(output, target, label_smoothing=0.001)
    ),
    "classes weighted": _weighted,
}


# Optimizer


def _optimizing(change: Callable[[nn.Module, Optimizer], None]) -> Inject:
    def inject(side: Side) -> Side:
        assert side.make_optimizer
        original = side.make_optimizer

        def make(model: nn.Module) -> Optimizer:
            optimizer = original(model)
            change(model, optimizer)
            return optimizer

        return replace(side, make_optimizer=make)

    return inject


def _optimizer_faults(side: Side) -> Iterator[Fault]:
    assert side.make_optimizer
    options = side.make_optimizer(side.model).param_groups[0]
    for operator, (name, change, modes) in _OPTIONS.items():
        if name in options and change(options[name]) != options[name]:
            inject = _optimizing(_with_option(name, change))
            yield _fault(operator, "optimizer", modes, "optimizer", inject)
    for operator, (whole, modes) in _OPTIMIZERS.items():
        yield _fault(operator, "optimizer", modes, "optimizer", _optimizing(whole))
    for name, _ in side.model.named_parameters():
        for operator, single in _PARAMETERS.items():
            inject = _optimizing(single(name))
            yield _fault(operator, "optimizer", (STATE,), "optimizer", inject, name)


def _with_option(name: str, change: Callable[[Any], Any]) -> Callable[[nn.Module, Optimizer], None]:
    def set_option(_model: nn.Module, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            group[name] = change(group[name])

    return set_option


def _decay_decoupled(_model: nn.Module, optimizer: Optimizer) -> None:
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0

    def decay(*_: Any) -> None:
        for group, factor in zip(optimizer.param_groups, decays, strict=True):
            for parameter in group["params"]:
                parameter.data.mul_(1 - group["lr"] * factor)

    optimizer.register_step_pre_hook(decay)


def _decay_on_matrices_only(_model: nn.Module, optimizer: Optimizer) -> None:
    for group in list(optimizer.param_groups):
        vectors = [p for p in group["params"] if p.dim() == 1]
        group["params"] = [p for p in group["params"] if p.dim() > 1]
        if vectors:
            optimizer.add_param_group({**group, "params": vectors, "weight_decay": 0.0})


def _gradients_kept(_model: nn.Module, optimizer: Optimizer) -> None:
    kind = type(optimizer)
    keep = {"zero_grad": lambda self, set_to_none=True: None}
    optimizer.__class__ = type(kind.__name__, (kind,), keep)


def _gradients_clipped(model: nn.Module, optimizer: Optimizer) -> None:
    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    optimizer.register_step_pre_hook(clip)


def _momentum_lost(_model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.register_step_pre_hook(lambda *_: optimizer.state.clear())


def _left_out(name: str) -> Callable[[nn.Module, Optimizer], None]:
    def leave_out(model: nn.Module, optimizer: Optimizer) -> None:
        parameter = model.get_parameter(name)
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p is not parameter]

    return leave_out


def _sign_changed(name: str) -> Callable[[nn.Module, Optimizer], None]:
    def change_sign(model: nn.Module, optimizer: Optimizer) -> None:
        def negate(*_: Any) -> None:
            gradient = model.get_parameter(name).grad
            if gradient is not None:
                gradient.neg_()

        optimizer.register_step_pre_hook(negate)

    return change_sign


_OPTIONS: dict[str, tuple[str, Callable[[Any], Any], tuple[str, ...]]] = {
    "momentum 0.91": ("momentum", lambda _: 0.91, LATER),
    "momentum 0.85": ("momentum", lambda _: 0.85, LATER),
    "dampening 0.1": ("dampening", lambda _: 0.1, LATER),
    "other kind of momentum": ("nesterov", lambda nesterov: not nesterov, LATER),
    "weight decay 5e-4": ("weight_decay", lambda _: 5e-4, (STATE,)),
    "weight decay x1.01": ("weight_decay", lambda decay: decay * 1.01, (STATE,)),
    "no weight decay": ("weight_decay", lambda _: 0.0, (STATE,)),
    "learning rate x(1+1e-6)": ("lr", lambda rate: rate * SLIGHTLY, (STATE,)),
    "learning rate x1.01": ("lr", lambda rate: rate * 1.01, (STATE,)),
}
_OPTIMIZERS: dict[str, tuple[Callable[[nn.Module, Optimizer], None], tuple[str, ...]]] = {
    "weight decay decoupled": (_decay_decoupled, (STATE,)),
    "no weight decay on vectors": (_decay_on_matrices_only, (STATE,)),
    "gradients not reset": (_gradients_kept, LATER),
    "gradients clipped": (_gradients_clipped, (STATE,)),
    "momentum lost": (_momentum_lost, LATER),
}
_PARAMETERS: dict[str, Callable[[str], Callable[[nn.Module, Optimizer], None]]] = {
    "parameter left out of optimizer:": _left_out,
    "update in the wrong direction:": _sign_changed,
}


# Schedule


class _Fixed(LRScheduler):
    """Learning rates read from a table: one list an epoch, one rate a group."""

    def __init__(self, optimizer: Optimizer, table: list[list[float]]) -> None:
        self._table = table
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rates of the current epoch."""
        return [*self._table[min(self.last_epoch, len(self._table) - 1)]]


def rates(make: Callable[[Optimizer], LRScheduler], optimizer: Optimizer) -> list[list[float]]:
    """Return the learning rates of all groups over `EPOCHS` epochs; the optimizer stays as it is.

    Args:
        make: Builds the schedule.
        optimizer: Has the groups that the schedule is for.
    """
    groups = [
        {**copy.copy(group), "params": [nn.Parameter(torch.zeros(1))]}
        for group in optimizer.param_groups
    ]
    stand_in = SGD([{**group, "params": group["params"]} for group in groups], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer step is meant to come before
        scheduler = make(stand_in)
        table = []
        for _ in range(EPOCHS):
            table.append([float(group["lr"]) for group in stand_in.param_groups])
            scheduler.step()
    return table


Table = list[list[float]]


def _scheduling(bent: Callable[[Table], Table]) -> Inject:
    def inject(side: Side) -> Side:
        assert side.make_scheduler
        original = side.make_scheduler

        def make(optimizer: Optimizer) -> LRScheduler:
            return _Fixed(optimizer, bent(rates(original, optimizer)))

        return replace(side, make_scheduler=make)

    return inject


def _another_gamma(table: Table) -> Table:
    """Decay by 0.2 where the schedule decays by 0.1."""
    power = 0.69897
    return [
        [start * (rate / start) ** power for rate, start in zip(row, table[0], strict=True)]
        for row in table
    ]


def _another_warmup(table: Table) -> Table:
    """Leave the warmup out; where there is none, warm up over five epochs."""
    best = max(table)
    top = table.index(best)
    if top:
        return [best] * top + table[top:]
    ramp = [[rate * (epoch + 1) / 5 for rate in table[epoch]] for epoch in range(4)]
    return ramp + table[4:]


_SCHEDULES: dict[str, Callable[[Table], Table]] = {
    "schedule one epoch early": lambda table: table[1:],
    "schedule one epoch late": lambda table: table[:1] + table,
    "schedule stepped every batch": lambda table: table[::7],
    "schedule with another gamma": _another_gamma,
    "schedule with another warmup": _another_warmup,
    "schedule never stepped": lambda table: table[:1],
}
