"""The number that explains a difference: "weight decay behaves as 0.0005, reference 0.0001".

Every fit has one free number and is believed only if it explains the difference almost entirely.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from comparison.engine.measures import norm

EXPLAINED = 1e-4  # largest share of a difference that a fit may leave unexplained


def fit_scale(reference: torch.Tensor, candidate: torch.Tensor) -> float | None:
    """Return the factor a with candidate = a * reference, if there is one.

    >>> fit_scale(torch.tensor([1.0, -2.0]), torch.tensor([3.0, -6.0]))
    3.0
    >>> fit_scale(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 6.0])) is None
    True
    """
    return fit_share(reference, reference, candidate, at=1.0)


def fit_share(
    part: torch.Tensor, reference: torch.Tensor, candidate: torch.Tensor, *, at: float
) -> float | None:
    """Return the factor of a part in the candidate, if another factor explains the difference.

    Args:
        part: A part of the reference, of its shape.
        reference: The reference: a sum in which the part has the factor ``at``.
        candidate: The candidate.
        at: The factor in the reference.
    """
    difference, basis = (candidate - reference).double().flatten(), part.double().flatten()
    size = torch.dot(basis, basis).item()
    if difference.shape != basis.shape or not size or not norm(difference):
        return None
    share = torch.dot(difference, basis).item() / size
    left = norm(difference - share * basis)
    # Tiny differences carry the rounding of the tensors they were taken from.
    allowed = EXPLAINED * norm(difference) + 1e-14 * norm(reference)
    return at + share if left <= allowed else None


def fit_momentum(
    old: torch.Tensor, reference: torch.Tensor, candidate: torch.Tensor, momentum: float
) -> float | None:
    """Return the momentum by which a running statistic behaves to have moved.

    Args:
        old: The statistic before.
        reference: The reference's after.
        candidate: The candidate's after.
        momentum: The reference's momentum.
    """
    moved = fit_share(reference - old, reference, candidate, at=1.0)
    return None if moved is None else moved * momentum


def fit_eps(
    reference: torch.Tensor,
    candidate: torch.Tensor,
    variance: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
) -> float | None:
    """Return the eps by which a batch normalization in eval mode behaves.

    Args:
        reference: The reference's output (B, C, ...).
        candidate: The candidate's, from the same input.
        variance: Running variances (C,).
        bias: Biases (C,).
        eps: The reference's.
    """
    axes = [axis for axis in range(reference.dim()) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(reference.dim())]
    theirs, ours = reference - bias.view(shape), candidate - bias.view(shape)
    factor = (theirs * ours).sum(axes) / theirs.square().sum(axes)
    left = norm(ours - factor.view(shape) * theirs)
    if left > EXPLAINED * norm(ours - theirs) + 1e-13 * norm(theirs):
        return None
    found = (variance + eps) / factor.square() - variance
    middle = found.median().item()
    spread = (found - middle).abs().max().item()
    return middle if spread <= 1e-2 * abs(middle - eps) + 1e-13 else None


def fit_sgd(
    options: Mapping[str, Any],
    steps: Sequence[Mapping[str, torch.Tensor]],
) -> str:
    """Say which option of SGD explains the candidate's steps; empty if none does alone.

    Args:
        options: The reference's: lr, momentum, weight_decay, dampening, nesterov.
        steps: One parameter over some steps: tensors ``weight``, ``gradient``, ``buffer`` (the
            momentum before; missing at the first step) and ``candidate`` (the weight after).
    """
    for name in ("lr", "weight_decay", "momentum", "dampening"):
        value = _fit_option(name, options, steps)
        if value is not None:
            return f"{name.replace('_', ' ')} behaves as {value:.6g}, reference {options[name]:g}"
    other = {**options, "nesterov": not options["nesterov"]}
    if all(_explains(other, step) for step in steps):
        kind = "Nesterov" if other["nesterov"] else "plain"
        return f"momentum behaves as {kind} momentum, in the reference it does not"
    return ""


def _fit_option(
    name: str, options: Mapping[str, Any], steps: Sequence[Mapping[str, torch.Tensor]]
) -> float | None:
    """Fit one option at the step that it moves most, by secants; it must explain every step."""
    value = float(options[name])
    slope_at = max(steps, key=lambda step: norm(_slope(name, value, options, step)))
    slope = _slope(name, value, options, slope_at)
    if not norm(slope):
        return None
    for _ in range(4):
        wrong = slope_at["candidate"] - _after({**options, name: value}, slope_at)
        slope = _slope(name, value, options, slope_at)
        value += torch.dot(wrong.flatten(), slope.flatten()).item() / norm(slope) ** 2
    return (
        value if all(_explains({**options, name: value}, step, options) for step in steps) else None
    )


def _slope(
    name: str, value: float, options: Mapping[str, Any], step: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    width = 1e-4
    upper = _after({**options, name: value + width}, step)
    return (upper - _after({**options, name: value - width}, step)) / (2 * width)


def _explains(
    options: Mapping[str, Any],
    step: Mapping[str, torch.Tensor],
    reference: Mapping[str, Any] | None = None,
) -> bool:
    left = norm(step["candidate"] - _after(options, step))
    plain = norm(step["candidate"] - _after(reference or options, step))
    increment = norm(step["candidate"] - step["weight"])
    bound = EXPLAINED * plain + 1e-15 * norm(step["weight"]) if reference else 1e-9 * increment
    return left <= bound


def _after(options: Mapping[str, Any], step: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the weight after a step of SGD, by its definition (torch.optim.SGD)."""
    weight = step["weight"]
    gradient = step["gradient"] + options["weight_decay"] * weight
    if options["momentum"]:
        buffer = step.get("buffer")
        moved = (
            gradient
            if buffer is None
            else options["momentum"] * buffer + (1 - options["dampening"]) * gradient
        )
        gradient = gradient + options["momentum"] * moved if options["nesterov"] else moved
    return weight - options["lr"] * gradient
