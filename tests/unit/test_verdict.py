"""Every kind of disagreement is seen, and what is decided from it is said."""

import math

import pytest
import torch

from comparison import verdict
from comparison.verdict import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    Key,
    Row,
    compare,
    conclude,
    excuse_analytic_zeros,
)

KEY = Key("forward eval", "conv1", "output")
ONES = torch.ones(2, 3, dtype=torch.float64)


def row(
    error: float,
    name: str = "conv1",
    magnitude: tuple[float, float] = (1.0, 1.0),
    bound: float = 1e-11,
) -> Row:
    key = Key("backward", name, "parameter gradient")
    return Row(key, (1,), error, error, 1.0, magnitude, bound, agrees=error <= bound)


def test_a_single_wrong_value_decides_not_the_mean() -> None:
    reference = torch.full((1000,), 2.0, dtype=torch.float64)
    candidate = reference.clone()
    candidate[7] += 1e-9

    found = compare(KEY, reference, candidate, bound=1e-11)

    assert not found.agrees
    assert found.max_error == pytest.approx(5e-10, rel=1e-6)
    assert found.l2_error < found.max_error


def test_the_error_is_relative_to_the_largest_magnitude_of_the_reference() -> None:
    found = compare(KEY, torch.tensor([1.0, -8.0]), torch.tensor([1.5, -8.0]), bound=0.1)

    assert found.max_error == 0.0625 and found.agrees and not found.bit_equal
    assert found.magnitude == (8.0, 8.0)


def test_equal_tensors_are_equal_to_the_bit() -> None:
    found = compare(KEY, ONES, ONES.clone(), bound=0.0)

    assert found.agrees and found.bit_equal and found.max_error == 0


def test_a_signed_zero_agrees_but_not_to_the_bit() -> None:
    found = compare(KEY, torch.zeros(2), -torch.zeros(2), bound=0.0)

    assert found.agrees and not found.bit_equal


@pytest.mark.parametrize(
    ("candidate", "note"),
    [
        (ONES.flatten(), "shape (6,), reference (2, 3)"),
        (ONES.float(), "type torch.float32, reference torch.float64"),
        (ONES * math.nan, "NaN in 6 entries, in the reference in 0"),
        (ONES * math.inf, "+Inf in 6 entries, in the reference in 0"),
    ],
)
def test_what_no_number_can_say_is_a_disagreement(candidate: torch.Tensor, note: str) -> None:
    found = compare(KEY, ONES, candidate, bound=1.0)

    assert not found.agrees and found.max_error == math.inf
    assert note in found.note


def test_whole_numbers_must_be_equal() -> None:
    counter = torch.tensor(7)

    assert compare(KEY, counter, torch.tensor(7), bound=0.0).bit_equal
    assert not compare(KEY, counter, torch.tensor(8), bound=1.0).agrees


def test_the_same_entries_not_finite_pass_with_a_notice_and_the_rest_is_compared() -> None:
    reference = torch.tensor([math.nan, 1.0, -math.inf, 2.0], dtype=torch.float64)
    off = reference.clone()
    off[3] += 1e-3

    same, different = (compare(KEY, reference, t, 1e-11) for t in (reference.clone(), off))

    assert same.agrees and "2 of 4 entries not finite" in same.note
    assert not different.agrees and different.max_error == pytest.approx(5e-4)
    verdict_ = conclude("forward eval", [same])
    assert verdict_.outcome == REPRODUCED and "not finite" in verdict_.notices[0]


def test_another_place_of_the_same_nonfinite_value_is_seen() -> None:
    reference = torch.tensor([math.nan, 1.0])

    assert not compare(KEY, reference, reference.flip(0), bound=1.0).agrees


def test_gradients_that_are_zero_on_both_sides_are_excused_by_size() -> None:
    rows = [row(0.0, "a"), row(0.0, "b"), row(130.0, "bias", magnitude=(1e-17, 2e-15))]

    excused = excuse_analytic_zeros(rows)

    assert [r.agrees for r in excused] == [True, True, True]
    assert excused[2].note == verdict.ZERO_NOTE and excused[:2] == rows[:2]


@pytest.mark.parametrize("magnitude", [(1e-17, 1e-3), (1e-3, 1e-17)])
def test_a_gradient_that_is_zero_on_one_side_only_is_not_excused(
    magnitude: tuple[float, float],
) -> None:
    rows = [row(0.0, "a"), row(0.0, "b"), row(1e14, "bias", magnitude=magnitude)]

    assert not excuse_analytic_zeros(rows)[2].agrees


def test_a_missing_gradient_is_not_excused() -> None:
    absent = verdict.missing(KEY, (1,), 1e-10, "reproduction")

    assert not excuse_analytic_zeros([row(0.0), absent])[1].agrees


def test_the_first_divergent_tensor_is_the_first_in_order_not_the_worst() -> None:
    rows = [row(0.0, "conv1"), row(1e-9, "conv2"), row(5.0, "conv3")]

    found = conclude("backward", rows)

    assert found.outcome == NOT_REPRODUCED
    assert found.first_divergent == "conv2 (parameter gradient)"
    assert found.max_error == 5.0
    assert "2 of 3 tensors differ" in found.reason


def test_a_finding_decides_without_any_tensor() -> None:
    found = conclude("static", [], [Finding("bn1", "eps is 2, in the reference 1")], facts=9)

    assert (found.outcome, found.first_divergent) == (NOT_REPRODUCED, "bn1")
    assert found.reason == "bn1: eps is 2, in the reference 1"


def test_nothing_compared_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="compared nothing"):
        conclude("backward", [])


def test_every_bound_has_a_reason_and_lies_between_rounding_and_the_weakest_fault() -> None:
    for threshold in verdict.THRESHOLDS.values():
        assert 5e-13 < threshold.bound < 1e-5
        assert "float64" in threshold.reason
