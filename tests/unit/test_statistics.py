"""Statistics against hand-computed values, published ones, and their own promises by simulation."""

import doctest
import math

import numpy
import pytest
from scipy import stats

from comparison import statistics

# Two small samples whose Welch quantities follow by hand: means 10 and 10.5, variances 1 and 4.
FIRST, SECOND = [9.0, 10.0, 11.0], [8.5, 10.5, 12.5]


def test_welch_is_what_the_formulas_give_by_hand() -> None:
    difference, error, freedom = statistics.welch(FIRST, SECOND)
    assert difference == 0.5
    assert error == pytest.approx(math.sqrt(1 / 3 + 4 / 3))
    assert freedom == pytest.approx((5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2))


def test_tost_interval_is_the_90_percent_interval_of_scipy() -> None:
    ours = statistics.tost(FIRST, SECOND, margin=1.0)
    theirs = stats.ttest_ind(SECOND, FIRST, equal_var=False).confidence_interval(0.9)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_tost_p_value_is_the_larger_of_two_one_sided_tests() -> None:
    margin = 4.0
    shifted = [
        stats.ttest_ind(
            [value + shift for value in SECOND], FIRST, equal_var=False, alternative=side
        ).pvalue
        for shift, side in ((margin, "greater"), (-margin, "less"))
    ]
    assert statistics.tost(FIRST, SECOND, margin).p_value == pytest.approx(max(shifted))


def test_equality_needs_the_whole_interval_within_the_margin() -> None:
    test = statistics.tost(FIRST, SECOND, margin=1.0)
    assert test.outcome == "undecided"
    assert test.smallest_margin is not None
    just = statistics.tost(FIRST, SECOND, margin=test.smallest_margin * 1.001)
    below = statistics.tost(FIRST, SECOND, margin=test.smallest_margin * 0.999)
    assert (just.outcome, below.outcome) == ("within tolerance", "undecided")


def test_a_difference_beyond_the_margin_is_not_reproduced() -> None:
    low, high = [70.0, 70.1, 69.9, 70.0], [75.0, 75.1, 74.9, 75.0]
    assert statistics.tost(low, high, margin=1.0).outcome == "not reproduced"
    assert statistics.tost(high, low, margin=1.0).outcome == "not reproduced"


def test_one_run_an_arm_decides_nothing() -> None:
    test = statistics.tost([71.0], [71.0], margin=5.0)
    assert (test.outcome, test.low, test.power) == ("undecided", None, None)


def test_runs_without_spread_compare_their_means() -> None:
    assert statistics.tost([80.0, 80.0], [80.0, 80.0], margin=0.1).outcome == "within tolerance"
    assert statistics.tost([80.0, 80.0], [81.0, 81.0], margin=0.1).outcome == "not reproduced"


@pytest.mark.parametrize(("first", "margin"), [([], 1.0), ([1.0, 2.0], 0.0), ([1.0], -1.0)])
def test_tost_refuses_nothing_to_test(first: list[float], margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        statistics.tost(first, [1.0, 2.0], margin)


def _share_concluding_equality(true_difference: float, margin: float, runs: int) -> float:
    rng = numpy.random.default_rng(20)
    draws = 2000
    equal = 0
    for _ in range(draws):
        first = rng.normal(0.0, 0.4, runs)
        second = rng.normal(true_difference, 0.4, runs)
        difference, error, freedom = statistics.welch(first, second)
        reach = stats.t.ppf(0.95, freedom) * error
        equal += abs(difference) + reach < margin
    return equal / draws


def test_size_at_the_margin_is_at_most_five_percent() -> None:
    margin, runs = 1.0, 6
    standard_error = math.sqrt(0.05 * 0.95 / 2000)
    assert _share_concluding_equality(margin, margin, runs) <= 0.05 + 3 * standard_error
    assert _share_concluding_equality(0.0, margin, runs) > 0.9


def test_power_agrees_with_a_direct_simulation() -> None:
    rng = numpy.random.default_rng(3)
    spread = rng.normal(0.0, 1.0, 6)
    spread = 0.4 * (spread - spread.mean()) / spread.std(ddof=1)
    power = statistics.tost_power(list(spread), list(spread), margin=0.5)
    assert power == pytest.approx(_share_concluding_equality(0.0, 0.5, 6), abs=0.04)


@pytest.mark.parametrize(
    ("deviation", "margin", "runs"), [(0.20, 0.25, 12), (0.25, 0.5, 6), (0.40, 1.0, 4)]
)
def test_power_meets_the_planning_table(deviation: float, margin: float, runs: int) -> None:
    """About 80 % power was planned for these spreads, margins and runs an arm."""
    values = numpy.arange(runs, dtype=float)
    values = deviation * (values - values.mean()) / values.std(ddof=1)
    assert 0.75 < statistics.tost_power(list(values), list(values), margin) < 0.95


def test_power_falls_as_the_true_difference_nears_the_margin() -> None:
    powers = [
        statistics.tost_power(FIRST, FIRST, 4.0, true_difference=shift) for shift in (0, 2, 4)
    ]
    assert powers[0] > powers[1] > powers[2]
    assert powers[2] <= 0.06


def test_mean_interval_is_students() -> None:
    ours = statistics.mean_interval([1.0, 2.0, 3.0])
    assert ours.value == 2.0
    reach = 4.302652729911275 / math.sqrt(3)  # t at 97.5 % with 2 degrees of freedom, from tables
    assert (ours.low, ours.high) == (pytest.approx(2 - reach), pytest.approx(2 + reach))


def test_probability_higher_is_one_for_samples_apart() -> None:
    apart = statistics.probability_higher([1.0, 2.0], [3.0, 4.0])
    assert (apart.value, apart.low, apart.high) == (1.0, 1.0, 1.0)
    same = statistics.probability_higher([1.0, 2.0], [1.0, 2.0])
    assert same.value == 0.5


def test_paired_difference_needs_pairs() -> None:
    assert statistics.paired_difference([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]).value == 1.0
    with pytest.raises(ValueError, match="shorter"):
        statistics.paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 100, 0.0, 0.0362), (5, 10, 0.1871, 0.8129), (100, 100, 0.9638, 1.0)],
)
def test_clopper_pearson_gives_the_published_bounds(
    successes: int, trials: int, low: float, high: float
) -> None:
    share = statistics.clopper_pearson(successes, trials)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_clopper_pearson_refuses_what_is_no_count() -> None:
    with pytest.raises(ValueError, match="11 of 10"):
        statistics.clopper_pearson(11, 10)


def test_examples_in_the_documentation_hold() -> None:
    done = doctest.testmod(statistics)
    assert done.attempted and not done.failed
