"""Mode M0 on fresh initializations: equal ones pass at the stated rate, others are named."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

import reference
from comparison import arms, compare
from comparison.engine.modes.fresh import compare_fresh
from reproduction import UserError, build_network
from tests.equivalence.streams import Net, against, pair


def small(
    *, mode: str = "fan_out", std: float = 0.01, last_scale: float = 1.0, bias: float = 0.0
) -> Callable[[], nn.Module]:
    """Return what makes a small network with a given initialization."""

    def make() -> nn.Module:
        convs = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 16, 3)
        norms = nn.BatchNorm2d(8), nn.BatchNorm2d(16)
        head = nn.Linear(16, 10)
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
        nn.init.normal_(head.weight, std=std)
        nn.init.constant_(norms[1].weight, last_scale)
        nn.init.constant_(head.bias, bias)
        return nn.Sequential(convs[0], norms[0], convs[1], norms[1], nn.Flatten(), head)

    return make


NAMES = [n for n, _ in (*small()().named_parameters(), *small()().named_buffers())]
NETWORKS_TRIED = [
    "cls_hrnet_w18_small_v1",
    pytest.param("cls_hrnet_w18", marks=pytest.mark.full),
]
SAME = {name: name for name in NAMES}


def named(**changed: Any) -> dict[str, str]:
    found = compare_fresh(small(), small(**changed), SAME)
    return {finding.name: finding.text for finding in found.findings}


def test_equal_initializations_pass_for_every_seed() -> None:
    found = [compare_fresh(small(), small(), SAME, seed=seed) for seed in range(50)]
    assert sum(bool(one.findings) for one in found) == 0
    assert {(one.drawn, one.fixed) for one in found} == {(4, 11)}


def test_the_rate_of_alarms_keeps_to_its_level() -> None:
    draws, level = 100, 0.05
    alarms = sum(
        bool(compare_fresh(small(), small(), SAME, seed=seed, level=level).findings)
        for seed in range(draws)
    )
    assert 0 < alarms <= stats.binom.ppf(0.99, draws, level)


def test_fan_in_for_fan_out_is_named_with_both_deviations() -> None:
    found = named(mode="fan_in")
    assert set(found) == {"0.weight", "2.weight"}
    theirs, ours = (2 / 72) ** 0.5, (2 / 27) ** 0.5
    for value in (theirs, ours):
        assert any(abs(float(word.strip(",()")) / value - 1) < 0.05 for word in numbers(found))
    assert "Kolmogorov-Smirnov statistic" in found["0.weight"]


def numbers(found: dict[str, str]) -> list[str]:
    return [word for word in found["0.weight"].split() if word.strip(",()")[0].isdigit()]


def test_a_tenth_of_the_deviation_is_named() -> None:
    assert set(named(std=0.001)) == {"5.weight"}


def test_a_zero_scale_of_the_last_norm_is_named_exactly() -> None:
    assert named(last_scale=0.0) == {"3.weight": "is 0 when fresh, in the reference 1"}


def test_what_is_fixed_on_one_side_and_drawn_on_the_other_is_named() -> None:
    def drawn() -> nn.Module:
        model = small()()
        nn.init.normal_(model.get_parameter("5.bias"))
        return model

    (finding,) = compare_fresh(small(), drawn, SAME).findings
    assert str(finding.text) == "is drawn when fresh, in the reference it is always 0"


def test_too_few_values_say_so() -> None:
    def one() -> nn.Module:
        return nn.Linear(1, 1)

    found = compare_fresh(one, one, {"weight": "weight", "bias": "bias"}, seeds=3)
    assert found.small == ("weight", "bias")
    assert "2 have too few values to tell" in str(found)
    assert compare_fresh(one, one, {"weight": "weight", "bias": "bias"}, seeds=20).small == ()


def test_compare_reports_it_in_the_mode_static() -> None:
    reference, candidate = pair()
    equal = against(reference, candidate, steps=0, free_steps=0, fresh=(Net, Net))
    assert equal.exit_code == 0, str(equal)
    assert any("fresh initializations: " in note for note in equal.notices)
    model = small()().double()
    images = torch.randn(8, 3, 5, 5)
    report = compare(model, model, images, fresh=(small(), small(std=0.1)), weights="given")
    assert report.mode("static").outcome == "not reproduced"
    assert "5.weight: is drawn from another distribution" in report.mode("static").reason
    assert report.mode("forward eval").outcome == "reproduced"


@pytest.mark.parametrize(
    ("fresh", "said"),
    [
        (small(), "fresh is a function: give a pair of functions"),
        ((small(), lambda: None), "the fresh candidate is NoneType: give functions that make"),
        ((nn.Identity, small()), "the fresh reference has no"),
    ],
)
def test_what_makes_no_fresh_model_gets_a_sentence(fresh: Any, said: str) -> None:
    model = small()()
    with pytest.raises(UserError, match=said):
        compare(model, model, torch.randn(8, 3, 5, 5), fresh=fresh)


@pytest.mark.reference
@pytest.mark.parametrize("network", NETWORKS_TRIED)
def test_the_reproduction_starts_as_the_reference_does_after_its_own_initialization(
    network: str,
) -> None:
    def initialized() -> Any:
        model: Any = arms.build("reference", network)
        model.init_weights()
        return model

    ours = arms.build("reproduction", network)
    names = arms.name_of(ours)
    pairs = {name: names(name) for name in ours.state_dict()}
    found = compare_fresh(initialized, partial(arms.build, "reproduction", network), pairs, seeds=2)
    assert found.findings == ()
    assert found.facts == len(pairs) and found.drawn > 90 and not found.small


@pytest.mark.skipif(
    not reference.identity()["official"],
    reason="the official code is not there: python -m reference fetch --from PATH",
)
def test_official_code_that_is_only_constructed_starts_from_another_distribution() -> None:
    network = "cls_hrnet_w18_small_v1"
    official, ours = partial(arms.build, "reference", network), partial(build_network, network)
    names = arms.name_of(ours())
    (name,) = [own for own in ours().state_dict() if names(own) == "conv1.weight"]
    (finding,) = compare_fresh(official, ours, {name: "conv1.weight"}, seeds=2).findings
    assert finding.name == "conv1.weight" and "another distribution" in finding.text
