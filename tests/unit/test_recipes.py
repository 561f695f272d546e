"""The reference trains by the official file, ours by its own recipe; the static mode compares."""

from typing import Any

import pytest
import torch

from comparison import recipes
from comparison.engine.modes.static import learning_rates, optimizer_findings, scheduler_findings
from comparison.engine.sides import Side
from reproduction import TrainConfig, UserError
from tests.unit.toys import Theirs

OFFICIAL: dict[str, Any] = {
    **{"OPTIMIZER": "sgd", "LR": 0.05, "MOMENTUM": 0.9, "WD": 0.0001, "NESTEROV": True},
    **{"LR_STEP": [30, 60, 90], "LR_FACTOR": 0.1},
}


def differences(settings: dict[str, Any], config: TrainConfig | None = None) -> list[str]:
    sides = recipes.official_side(Theirs(), settings), recipes.our_side(Theirs(), config)
    made, names = [], []
    for side in sides:
        assert side.make_optimizer is not None
        made.append(side.make_optimizer(side.model))
        names.append({id(p): name for name, p in side.model.named_parameters()})
    _, options = optimizer_findings(*made, *names)
    _, rates = scheduler_findings(*sides, 100)
    return [finding.text for finding in (*options, *rates)]


def test_our_recipe_is_the_official_one() -> None:
    assert differences(OFFICIAL) == []


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("WD", 0.0005, "weight decay is 0.0001 for 11 of 11 parameters, in the reference 0.0005"),
        ("NESTEROV", False, "nesterov is True"),
        ("LR", 0.1, "lr is 0.05"),
        ("LR_STEP", [29, 59, 89], "it changes at epochs 30, 60, 90, in the reference at 29, 59"),
        ("LR_FACTOR", 0.2, "the learning rate of epoch 30 is 0.005, in the reference 0.01"),
    ],
)
def test_another_official_value_is_a_difference(key: str, value: Any, told: str) -> None:
    found = differences({**OFFICIAL, key: value})
    assert any(told in text for text in found), found


def test_our_own_recipe_is_asked_not_the_official_one() -> None:
    found = differences(OFFICIAL, TrainConfig(momentum=0.91))
    assert any("momentum is 0.91" in text for text in found)


def test_rates_fall_at_the_published_epochs() -> None:
    rates = learning_rates(recipes.our_side(Theirs()), 100)
    assert [i for i in range(1, 100) if rates[i] < rates[i - 1]] == [30, 60, 90]


def test_an_optimizer_that_is_not_known_is_a_sentence() -> None:
    with pytest.raises(UserError, match="names the optimizer 'lion'"):
        recipes.official_side(Theirs(), {**OFFICIAL, "OPTIMIZER": "lion"})


def test_the_stand_in_is_given_ours_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference.training_settings", lambda network, source: None)
    side, said = recipes.reference_side(Theirs(), "cls_hrnet_w18", "timm")
    assert isinstance(side, Side) and "taken from the reproduction" in said
    assert isinstance(side.model, Theirs) and torch.is_grad_enabled()
