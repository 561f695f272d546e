"""Accuracy of training forms: over seeds, beside eager execution, with a verdict that can fail."""

from dataclasses import replace

import pytest

from comparison import parameters
from comparison.speed import learning
from comparison.study import load_study
from reproduction import UserError
from reproduction.forms import EAGER, Form
from workflow.jobs import jobs_of

FAST = Form(name="fast", channels_last=True, fused_optimizer=True)
EQUAL = [94.0, 94.5, 93.5, 94.2, 93.8, 94.1]


@pytest.mark.parametrize(
    ("form", "shift", "verdict"),
    [
        (FAST, 0.1, "within tolerance"),
        (FAST, -6.0, "not reproduced"),
        (FAST, -2.0, "undecided"),
        (replace(FAST, autocast="bfloat16"), -6.0, "not comparable"),
    ],
)
def test_a_form_is_judged_by_what_it_learned(form: Form, shift: float, verdict: str) -> None:
    row = learning.row_of(form, EQUAL, [value + shift for value in reversed(EQUAL)])
    assert row["verdict"] == verdict
    assert row["value"] - row["reference"] == pytest.approx(shift)
    assert f"difference to eager {shift:+.2f} [" in row["reason"]


def test_one_seed_decides_nothing() -> None:
    row = learning.row_of(FAST, [94.0], [94.0])
    assert row["verdict"] == "undecided" and "[none, none]" in row["reason"]


def test_nothing_is_trained_without_need() -> None:
    assert learning.measure(EAGER, 6) == [] == learning.measure(FAST, 0)


@pytest.mark.full
def test_one_epoch_is_trained_in_both() -> None:
    recipe = replace(learning.RECIPE, epochs=1)
    eager, again = (learning.accuracies(form, 1, recipe) for form in (EAGER, EAGER))
    assert eager == again
    assert 0 < learning.accuracies(FAST, 1, recipe)[0] <= 100


def test_the_plan_asks_for_it_where_it_says_so() -> None:
    jobs = {job.run_id: job.parameters for job in jobs_of(load_study("standard"))}
    assert jobs["cls_hrnet_w18_small_v1.training.32.b128.float32"]["accuracy_seeds"] == 6
    assert "accuracy_seeds" not in jobs["cls_hrnet_w18.training.224.b8.float32"]
    asked = parameters.check("04_speed", {"accuracy_seeds": 6}).decisive()
    assert asked["accuracy_seeds"] == 6
    assert "accuracy_seeds" not in parameters.check("04_speed", {}).decisive()
    with pytest.raises(UserError, match="accuracy_seeds"):
        parameters.check("04_speed", {"accuracy_seeds": -1})
