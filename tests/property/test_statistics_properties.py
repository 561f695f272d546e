"""What holds of the equivalence test for all samples: symmetry, and sense in the margin."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparison.statistics import tost

values = st.integers(0, 10_000).map(lambda value: value / 100)
samples = st.lists(values, min_size=2, max_size=8)
margins = st.integers(1, 2_000).map(lambda value: value / 100)


@settings(max_examples=15, deadline=None)
@given(first=samples, second=samples, margin=margins)
def test_the_verdict_does_not_depend_on_which_arm_comes_first(
    first: list[float], second: list[float], margin: float
) -> None:
    there, back = tost(first, second, margin), tost(second, first, margin)

    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.outcome == back.outcome


@settings(max_examples=15, deadline=None)
@given(first=samples, second=samples, margin=margins)
def test_exactly_the_margins_above_the_smallest_one_are_met(
    first: list[float], second: list[float], margin: float
) -> None:
    test = tost(first, second, margin)
    smallest = test.smallest_margin

    assert smallest is not None
    assert (test.outcome == "within tolerance") == (smallest < margin)
    assert tost(first, second, smallest + 0.01).outcome == "within tolerance"


@settings(max_examples=15, deadline=None)
@given(first=samples, second=samples, shift=values)
def test_adding_the_same_to_both_arms_changes_nothing(
    first: list[float], second: list[float], shift: float
) -> None:
    moved = tost([x + shift for x in first], [x + shift for x in second], 1.0)
    test = tost(first, second, 1.0)

    assert (moved.low, moved.high) == pytest.approx((test.low, test.high), abs=1e-6)
    assert moved.difference == pytest.approx(test.difference, abs=1e-9)
