"""Timing takes turns, states no direction that its interval does not show, and leaves weights."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from comparison import benchmark
from comparison.benchmark import median_interval
from comparison.parameters import check
from comparison.statistics import Interval
from reproduction import UserError

CPU = torch.device("cpu")


def interval(low: float | None, high: float | None) -> Interval:
    return Interval(value=1.0, low=low, high=high)


def constant(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def test_each_arm_goes_first_once_and_last_once_within_a_round() -> None:
    order: list[str] = []

    def timing(arm: str) -> Callable[[], float]:
        return lambda: order.append(arm) or 1.0

    rounds = list(
        benchmark.interleave({arm: timing(arm) for arm in ("reference", "reproduction")}, 2)
    )

    a, b = "reference", "reproduction"
    assert order == [a, b, b, a] * 2
    assert [entry["round"] for entry in rounds] == [1, 2]


def test_a_drifting_machine_leaves_the_ratio_of_equal_work_at_one() -> None:
    clock = itertools.count(start=10)  # every turn takes one second more than the one before
    timing = lambda: float(next(clock))  # noqa: E731

    (taken,) = benchmark.interleave({"reference": timing, "reproduction": timing}, 1)

    assert taken["ratio"] == 1.0
    assert taken["reference_ratio"] == 13 / 10


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


@pytest.mark.parametrize(
    ("low", "high", "statement", "outcome"),
    [
        (0.80, 0.90, "reproduction faster", "within tolerance"),
        (0.95, 1.00, "no statement: the interval includes 1", "within tolerance"),
        (1.00, 1.05, "no statement: the interval includes 1", "within tolerance"),
        (0.97, 1.20, "no statement: the interval includes 1", "undecided"),
        (1.02, 1.05, "reproduction slower", "within tolerance"),
        (1.05, 1.10, "reproduction slower", "within tolerance"),
        (1.05, 1.11, "reproduction slower", "undecided"),
        (1.11, 1.30, "reproduction slower", "not reproduced"),
        (None, None, "no statement: too few rounds for an interval of 95%", "undecided"),
    ],
)
def test_what_may_be_said(
    low: float | None, high: float | None, statement: str, outcome: str
) -> None:
    assert benchmark.direction(interval(low, high)) == statement
    assert benchmark.judge(interval(low, high)) == outcome


@pytest.mark.parametrize(
    ("factor", "outcome"), [(1.0, "within tolerance"), (1.5, "not reproduced")]
)
def test_a_slow_arm_is_found(factor: float, outcome: str) -> None:
    timings = {"reference": constant(0.1), "reproduction": constant(0.1 * factor)}

    ratios = [taken["ratio"] for taken in benchmark.interleave(timings, 6)]

    assert benchmark.judge(median_interval(ratios)) == outcome


def test_short_work_is_repeated_until_the_clock_can_see_it() -> None:
    now = itertools.count(step=1 / 64)  # seconds that pass between two looks at the clock
    calls: list[None] = []

    timed = benchmark.timer(lambda: calls.append(None), CPU, clock=lambda: next(now))

    assert len(calls) == benchmark.WARM_UPS
    assert timed() == 1 / 64 / 4  # three calls would take 47 ms
    assert len(calls) == benchmark.WARM_UPS + 4


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))


def test_a_timed_training_step_computes_gradients_and_keeps_the_weights() -> None:
    model, images, labels = small_model(), torch.randn(4, 3, 8, 8), torch.arange(4)
    before = [parameter.clone() for parameter in model.parameters()]

    benchmark.training(model, images, labels)()

    assert all(parameter.grad is not None for parameter in model.parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in model.parameters())
    pairs = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)
    assert model.training


def test_timed_inference_uses_running_statistics_and_makes_no_gradients() -> None:
    model, images = small_model().train(), torch.randn(4, 3, 8, 8)
    statistics = model[1].running_mean.clone()

    benchmark.inference(model, images)()

    assert torch.equal(model[1].running_mean, statistics)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("image_size", [224, 223, 222, 221, 64, 32, 29])
def test_sizes_that_both_arms_run_are_let_through(image_size: int) -> None:
    assert benchmark.check_input(image_size, 2) is None


@pytest.mark.parametrize(
    ("image_size", "batch_size", "message"),
    [
        (220, 8, "image_size 220 runs in the reproduction only"),
        (33, 8, "use a multiple of 32"),
        (0, 8, "image_size 0"),
        (32, 1, "batch_size 1 at image_size 32 leaves one value a channel"),
    ],
)
def test_inputs_that_one_arm_cannot_run_are_refused(
    image_size: int, batch_size: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        benchmark.check_input(image_size, batch_size)


def row(task: str, statement: str, verdict: str) -> dict[str, Any]:
    return {
        "task": task,
        "statement": statement,
        "verdict": verdict,
        "load_before": 0.5,
        "load_after": 3.0,
    }


def test_the_worst_task_decides_and_the_load_is_told() -> None:
    rows = [row("a", "faster", "within tolerance"), row("b", "no statement", "undecided")]

    verdict = benchmark.summarize(rows)

    assert verdict["outcome"] == "undecided"
    assert verdict["reason"].startswith("a: faster; b: no statement (load 3.0 on ")
    failed = benchmark.summarize([*rows, row("c", "slower", "not reproduced")])
    assert failed["outcome"] == "not reproduced"


def test_a_run_records_all_tasks_and_every_round() -> None:
    given = {"image_size": 32, "batch_size": 2, "rounds": 1, "device": "cpu"}
    settings = check("04_speed", given)

    record = benchmark.run(settings)

    speed, rounds = record["tables"]["speed"], record["tables"]["rounds"]
    assert [entry["task"] for entry in speed] == ["latency", "throughput", "training step"]
    assert [entry["batch_size"] for entry in speed] == [1, 2, 2]
    assert len(rounds) == 3 and all(entry["ratio"] > 0 for entry in rounds)
    assert record["verdict"]["outcome"] == "undecided"  # one round shows nothing
    assert record["subject"]["config"]["threads"] == torch.get_num_threads()
