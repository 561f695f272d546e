"""Optimizers and schedules, compared without training: groups, options, the learning rate."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from comparison.engine.sides import Side
from comparison.engine.verdict import Finding
from reproduction.errors import UserError

# How an optimizer computes, not what.
_IGNORED = ("params", "foreach", "fused", "capturable", "differentiable", "maximize_", "initial_lr")


def optimizer_findings(
    theirs: Optimizer,
    ours: Optimizer,
    their_names: Mapping[int, str],
    our_names: Mapping[int, str],
) -> tuple[int, list[Finding]]:
    """Compare two optimizers, parameter by parameter.

    Args:
        theirs: The reference's.
        ours: The candidate's.
        their_names: Name of each parameter of the reference, by its `id`.
        our_names: Name in the reference of each parameter of the candidate, by its `id`.

    Returns:
        How many facts were compared, and those that differ; the same difference of many
        parameters is one finding.
    """
    left, right = _options(theirs, their_names), _options(ours, our_names)
    findings = []
    if _class(theirs) != _class(ours):
        findings.append(
            Finding("optimizer", f"is {_class(ours)}, in the reference {_class(theirs)}")
        )
    for name in left:
        if name not in right:
            findings.append(Finding(name, "is left out by the candidate's optimizer"))
    for name in right:
        if name not in left:
            findings.append(Finding(name, "is left out by the reference's optimizer"))
    facts = 1
    differing: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name in left.keys() & right.keys():
        for option, value in left[name].items():
            facts += 1
            if right[name].get(option) != value:
                differing[option, str(right[name].get(option)), str(value)].append(name)
    for (option, own, value), names in differing.items():
        text = f"{option.replace('_', ' ')} is {own} for {len(names)} of {len(left)} parameters, "
        findings.append(Finding("optimizer", f"{text}in the reference {value}"))
    return facts, findings


def scheduler_findings(reference: Side, candidate: Side, epochs: int) -> tuple[int, list[Finding]]:
    """Compare the learning rates of all epochs, stepped once per epoch, without training.

    Args:
        reference: The reference, with optimizer and schedule.
        candidate: The candidate, with both.
        epochs: How many epochs to follow.
    """
    theirs, ours = learning_rates(reference, epochs), learning_rates(candidate, epochs)
    parted = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if not _close(a, b)]
    if not parted:
        return epochs, []
    text = (
        f"the learning rate of epoch {parted[0]} is {ours[parted[0]]:g}, in the reference "
        f"{theirs[parted[0]]:g}"
    )
    changes = [_changes(rates) for rates in (theirs, ours)]
    if changes[0] != changes[1] and all(0 < len(change) <= 10 for change in changes):
        said = [", ".join(map(str, change)) for change in changes]
        text += f"; it changes at epochs {said[1]}, in the reference at {said[0]}"
    return epochs, [Finding("scheduler", text)]


def learning_rates(side: Side, epochs: int) -> list[float]:
    """Return the learning rate of the first group in every epoch; a copy is stepped.

    Raises:
        UserError: The schedule is shorter.
    """
    assert side.make_optimizer and side.make_scheduler
    model = side.copied().model
    model.zero_grad(set_to_none=True)
    optimizer = side.make_optimizer(model)
    scheduler = side.make_scheduler(optimizer)
    rates = [float(optimizer.param_groups[0]["lr"])]
    while len(rates) < epochs:
        optimizer.step()
        try:
            scheduler.step()
        except ValueError as error:
            raise UserError(
                f"the schedule ends after {len(rates)} epochs ({error}): give epochs={len(rates)}"
            ) from error
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


def _options(optimizer: Optimizer, names: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    return {
        names.get(id(parameter), "a tensor outside the model"): {
            option: value for option, value in group.items() if option not in _IGNORED
        }
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def _class(optimizer: Optimizer) -> str:
    return next(c.__name__ for c in type(optimizer).__mro__ if c.__module__.startswith("torch."))


def _changes(rates: list[float]) -> list[int]:
    return [i for i in range(1, len(rates)) if not _close(rates[i - 1], rates[i])]


def _close(a: float, b: float) -> bool:
    return bool(
        torch.isclose(torch.tensor(a).double(), torch.tensor(b).double(), rtol=1e-12, atol=0)
    )
