"""How far the float32 gradient of each training form is from the float64 gradient.

A faster form sums in another order, so its rounding differs. Whether that is worse than the
rounding of the reference's own float32 is measured here, seed by seed on the same weights and
images, and said plainly.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from torch import nn

from comparison import arms
from comparison.arms import OFFICIAL_CLASSES as CLASSES
from comparison.speed.timing import median_interval
from reproduction.forms import EAGER, Form, prepare
from reproduction.tasks.classification.task import classification_loss
from reproduction.tasks.task import Batch

REFERENCE = "reference"
SEEDS = tuple(range(8))
# Tensors whose gradient is smaller than this share of the largest are not taken as the worst.
NEGLIGIBLE = 1e-6

Gradient = dict[str, torch.Tensor]


def gradient_errors(
    network: str,
    image_size: int,
    batch_size: int,
    forms: Sequence[Form],
    seeds: Iterable[int] = SEEDS,
) -> list[dict[str, Any]]:
    """Measure the gradient of one batch's loss at start weights, for the reference and each form.

    Args:
        network: Official name of a network for classification.
        image_size: Height and width of the images.
        batch_size: Images in the batch; with few values a channel, gradients explode.
        forms: What is measured beside the reference's float32.
        seeds: Each decides weights, images and labels.

    Returns:
        A row for each seed and form: ``network``, ``image_size``, ``batch_size``, ``form``,
        ``seed``, ``error`` (relative L2 norm over the whole gradient), ``worst_error`` (the
        largest of a single tensor) and ``worst_tensor`` (its official name).

    Raises:
        UserError: The network is unknown.
    """
    rows = []
    for seed in seeds:
        batch = _batch(image_size, batch_size, seed)
        double = batch._replace(images=batch.images.double())
        models = {
            arm: arms.build_from_seed(arm, network, CLASSES, seed)
            for arm in (REFERENCE, "reproduction")
        }
        exact = _gradient(deepcopy(models["reproduction"]).double(), double, EAGER)
        found = {REFERENCE: _gradient(models[REFERENCE], batch, EAGER)}
        for form in forms:
            found[form.name] = _gradient(deepcopy(models["reproduction"]), batch, form)
        shape = {"network": network, "image_size": image_size, "batch_size": batch_size}
        rows += [
            {**shape, "form": name, "seed": seed, **distance(gradient, exact)}
            for name, gradient in found.items()
        ]
    return rows


def _batch(image_size: int, batch_size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
    return Batch(images, torch.randint(CLASSES, (batch_size,), generator=generator), "")


def _gradient(model: nn.Module, batch: Batch, form: Form) -> Gradient:
    """Return the gradient of the loss by official name of the parameter."""
    prepare(model.train(), form)
    with form.precision(batch.images.device):
        loss = classification_loss(model, batch._replace(images=form.place(batch.images)))
    loss.value.backward()
    name_of = arms.name_of(model)
    return {
        name_of(name): parameter.grad.double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def distance(
    found: Mapping[str, torch.Tensor], exact: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Compare two gradients: over all tensors, and the worst single one.

    >>> exact = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    >>> distance({"a": torch.tensor([3.0]), "b": torch.tensor([5.0])}, exact)
    {'error': 0.2, 'worst_error': 0.25, 'worst_tensor': 'b'}

    Raises:
        KeyError: One of them lacks a tensor of the other.
    """
    if set(found) != set(exact):
        raise KeyError(f"only one gradient has {sorted(set(found) ^ set(exact))[:3]}")
    off = {name: float((found[name] - exact[name]).norm()) for name in exact}
    size = {name: float(exact[name].norm()) for name in exact}
    # A bias before batch normalization has gradient zero; what is not zero there is rounding.
    floor = NEGLIGIBLE * max(size.values())
    single = {name: off[name] / size[name] for name in exact if size[name] > floor}
    worst = max(single, key=lambda name: single[name])
    total = (sum(x**2 for x in off.values()) / sum(x**2 for x in size.values())) ** 0.5
    return {"error": total, "worst_error": single[worst], "worst_tensor": worst}


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Say for each form whether its gradient is further off than the reference's own float32.

    The seeds' ratios of errors, form to reference, decide by the median's 95 % interval.

    Args:
        rows: Of `gradient_errors`, of any number of shapes.

    Returns:
        A row for each shape and form: ``error`` (median), ``error_low`` and ``error_high``
        (range), ``worst_error`` (largest), ``ratio`` to the reference (median) with ``ratio_low``
        and ``ratio_high``, ``seeds`` and ``statement``.
    """
    return [_summary(rows, shape, form) for shape, form in _kinds(rows)]


def _kinds(rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[Any, ...], str]]:
    return list(dict.fromkeys((_shape(row), row["form"]) for row in rows))


def _shape(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["network"], row["image_size"], row["batch_size"]


def _summary(
    rows: Sequence[Mapping[str, Any]], shape: tuple[Any, ...], form: str
) -> dict[str, Any]:
    of_form = [row for row in rows if (_shape(row), row["form"]) == (shape, form)]
    own = {
        row["seed"]: row["error"]
        for row in rows
        if (_shape(row), row["form"]) == (shape, REFERENCE)
    }
    errors = [row["error"] for row in of_form]
    ratio = median_interval([row["error"] / own[row["seed"]] for row in of_form])
    return {
        **dict(zip(("network", "image_size", "batch_size"), shape, strict=True)),
        "form": form,
        "error": median(errors),
        "error_low": min(errors),
        "error_high": max(errors),
        "worst_error": max(row["worst_error"] for row in of_form),
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "seeds": len(of_form),
        "statement": _statement(form, ratio.low, ratio.high),
    }


def _statement(form: str, low: float | None, high: float | None) -> str:
    if form == REFERENCE:
        return "the reference's own"
    if low is None or high is None:
        return "no statement: too few seeds for an interval of 95%"
    if low > 1:
        return "larger than the reference's own"
    if high < 1:
        return "smaller than the reference's own"
    return "not distinguishable from the reference's own"
