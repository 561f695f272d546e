"""Gradient errors: measured against float64, judged against the reference's own."""

import doctest
from typing import Any

import pytest
import torch

from comparison import gradient_error
from comparison.gradient_error import REFERENCE, distance, summarize
from comparison.speed import errors
from comparison.speed.contenders import Setup
from comparison.tune import candidates
from reproduction.forms import EAGER, Form

SHAPE = {"network": "n", "image_size": 32, "batch_size": 8}


def rows(form: str, errors: list[float]) -> list[dict[str, Any]]:
    """Make a row a seed."""
    return [
        {**SHAPE, "form": form, "seed": seed, "error": error, "worst_error": 2 * error}
        for seed, error in enumerate(errors)
    ]


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ([2.0] * 6, "larger than the reference's own"),
        ([0.5] * 6, "smaller than the reference's own"),
        ([0.5, 2.0] * 3, "not distinguishable from the reference's own"),
        ([2.0] * 5, "no statement: too few seeds for an interval of 95%"),
    ],
)
def test_a_form_that_is_worse_says_so(factors: list[float], said: str) -> None:
    own = [1e-3 * (seed + 1) for seed in range(len(factors))]
    form = rows("fast", [a * b for a, b in zip(own, factors, strict=True)])
    found = {row["form"]: row for row in summarize([*rows(REFERENCE, own), *form])}
    assert found["fast"]["statement"] == said
    assert found[REFERENCE]["statement"] == "the reference's own"
    assert found[REFERENCE]["ratio"] == 1
    assert found["fast"]["error_low"] == min(row["error"] for row in form)
    assert found["fast"]["seeds"] == len(factors)


def test_the_worst_tensor_is_one_whose_gradient_is_not_zero_in_exact_arithmetic() -> None:
    exact = {"a": torch.tensor([1.0]), "bias": torch.tensor([1e-15])}
    found = {"a": torch.tensor([1.001]), "bias": torch.tensor([1e-9])}
    assert distance(found, exact)["worst_tensor"] == "a"
    with pytest.raises(KeyError, match="bias"):
        distance({"a": exact["a"]}, exact)


@pytest.mark.reference
def test_forms_are_near_float64_and_bfloat16_is_further_off() -> None:
    forms = [
        EAGER,
        Form(name="products", channels_last=True, gemm_limit=4),
        Form(name="bfloat16", autocast="bfloat16"),
    ]
    found = gradient_error.gradient_errors("cls_hrnet_w18_small_v1", 64, 2, forms, seeds=[0])
    off = {row["form"]: row["error"] for row in found}
    assert off[REFERENCE] == off["eager"]  # C7: equal to the bit
    assert 0 < off["products"] < 0.01
    assert off["products"] != off["eager"]
    assert off["bfloat16"] > 10 * off["products"]


def test_the_examples_in_the_docstrings_hold() -> None:
    done = doctest.testmod(gradient_error)
    assert done.attempted > 0 and done.failed == 0


def test_all_timed_forms_are_shown_and_only_the_chosen_one_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup(
        network="cls_hrnet_w18_small_v1", task="training", image_size=(32, 32), batch_size=128
    )
    asked: list[str] = []

    def taken(network: str, size: int, batch: int, forms: list[Form], seeds: object) -> list[Any]:
        asked.extend(form.name for form in forms)
        found = rows("reference", [1e-6] * 6)
        return [*found, *(row for name in asked for row in rows(name, [3e-6] * 6))]

    monkeypatch.setattr(gradient_error, "gradient_errors", taken)
    laid_out, _ = errors.of_training(setup)
    timed = {form.name for form in candidates("float32", 32)}
    assert {row["form"] for row in laid_out} == timed == set(asked)
    judged = {row["form"] for row in laid_out if row["verdict"]}
    assert judged == {"eager", "channels last, products to 2x2"}
    tuned = [row for row in laid_out if row["tuned"] is not None]  # what the committed table timed
    assert judged <= {row["form"] for row in tuned}
    assert all(row["tuned_low"] <= row["tuned"] <= row["tuned_high"] for row in tuned)
    assert all("3 [3, 3] times the reference's own" in row["reason"] for row in laid_out)
