"""Timing takes turns, warms up, repeats what is short, and leaves weights alone."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from comparison.speed import contenders, timing
from comparison.speed.timing import median_interval

CPU = torch.device("cpu")
THREE = ("reference", "fast", "deploy")


def constant(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def test_every_arm_has_every_place_and_every_round_goes_there_and_back() -> None:
    order: list[str] = []

    def timing_of(arm: str) -> Callable[[], float]:
        return lambda: order.append(arm) or 1.0

    rounds = list(timing.interleave({arm: timing_of(arm) for arm in THREE}, 3))

    turns = [order[6 * number : 6 * number + 6] for number in range(3)]
    assert all(turn == turn[::-1] for turn in turns)
    for place in range(3):
        assert {turn[place] for turn in turns} == set(THREE)
    assert [entry["round"] for entry in rounds] == [1, 2, 3]


def test_a_drifting_machine_leaves_the_ratio_of_equal_work_at_one() -> None:
    clock = itertools.count(start=10)  # every turn takes one second more than the one before
    timed = lambda: float(next(clock))  # noqa: E731

    rounds = list(timing.interleave(dict.fromkeys(THREE, timed), 6))

    for arm in THREE:
        found = timing.ratio_of(arm, rounds)
        assert found is not None and (found.low, found.value, found.high) == (1.0, 1.0, 1.0)
    assert rounds[0]["reference_ratio"] == 15 / 10


def test_without_the_reference_there_is_no_ratio() -> None:
    rounds = list(timing.interleave({"fast": constant(1.0)}, 6))
    assert timing.ratio_of("fast", rounds) is None
    assert "reference_ratio" not in rounds[0]


def test_a_ratio_above_one_means_faster() -> None:
    rounds = list(timing.interleave({"reference": constant(3.0), "fast": constant(2.0)}, 6))
    found = timing.ratio_of("fast", rounds)
    assert found is not None and found.value == 1.5


@pytest.mark.parametrize("count", range(1, 60))
def test_the_interval_is_the_shortest_that_covers_the_median(count: int) -> None:
    def missed(k: int) -> float:  # probability that the median lies outside of [x_k, x_(n+1-k)]
        return 2 * sum(math.comb(count, j) for j in range(k)) / 2**count

    values = [float(v) for v in range(1, count + 1)]
    found = median_interval(values[::-1])

    if found.low is None or found.high is None:
        assert missed(1) > 0.05
    else:
        k = round(found.low)
        assert found.high == count + 1 - k
        assert missed(k) <= 0.05 < missed(k + 1)


def test_known_intervals() -> None:
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]).low is None
    six = median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    assert (six.low, six.value, six.high) == (1.0, 3.5, 6.0)
    ten = median_interval([float(v) for v in range(10)])
    assert (ten.low, ten.high) == (1.0, 8.0)


def test_short_work_is_repeated_until_the_clock_can_see_it() -> None:
    now = itertools.count(step=1 / 64)  # seconds that pass between two looks at the clock
    calls: list[None] = []

    timed = timing.timer(lambda: calls.append(None), CPU, clock=lambda: next(now))

    assert len(calls) == timing.WARM_UPS
    assert timed() == 1 / 64 / 4  # three calls would take 47 ms
    assert len(calls) == timing.WARM_UPS + 4


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))


def test_a_timed_training_step_computes_gradients_and_keeps_the_weights() -> None:
    model, images, labels = small_model(), torch.randn(4, 3, 8, 8), torch.arange(4)
    before = [parameter.clone() for parameter in model.parameters()]

    contenders.training(model, images, labels)()

    assert all(parameter.grad is not None for parameter in model.parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in model.parameters())
    pairs = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)
    assert model.training


def test_timed_inference_uses_running_statistics_and_makes_no_gradients() -> None:
    model, images = small_model().train(), torch.randn(4, 3, 8, 8)
    statistics = model[1].running_mean.clone()

    contenders.inference(model, images)()

    assert torch.equal(model[1].running_mean, statistics)
    assert all(parameter.grad is None for parameter in model.parameters())
