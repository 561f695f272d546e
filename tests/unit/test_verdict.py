"""What is decided from a deviation, its noise and its size, and how that is said."""

import doctest
import math
from dataclasses import fields, replace

import pytest

from comparison.engine import verdict
from comparison.engine.rows import AGREES, DIFFERS, OPEN, Key, Row
from comparison.engine.verdict import (
    LIMITS,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    ZERO_NOTE,
    Finding,
    Limits,
    conclude,
    judge,
)


def row(difference: float, *, name: str = "conv1", size: float = 1.0, noise: float = 0.0) -> Row:
    key = Key("backward", name, "parameter gradient")
    return Row(key, (1,), difference, size, size, difference, noise)


def state(*rows: Row, limits: Limits = LIMITS) -> str:
    return judge(rows, limits)[0].state


def test_examples_in_the_documentation_hold() -> None:
    done = doctest.testmod(verdict)
    assert done.attempted and not done.failed


def test_every_constant_has_a_reason() -> None:
    assert all(len(item.metadata["reason"]) > 40 for item in fields(Limits))


@pytest.mark.parametrize(
    ("difference", "noise", "expected"),
    [
        (0.9e-12, 0.0, AGREES),
        (1.1e-12, 0.0, OPEN),
        (1.1e-9, 0.0, DIFFERS),
        (2.9e-11, 1e-12, AGREES),  # thirty times the noise
        (3.1e-11, 1e-12, OPEN),
        (3.1e-8, 1e-12, DIFFERS),
        (math.inf, 0.0, DIFFERS),
    ],
)
def test_noise_widens_the_threshold_and_a_gap_lies_beyond(
    difference: float, noise: float, expected: str
) -> None:
    assert state(row(difference, noise=noise)) == expected


def test_a_looser_factor_lets_the_same_deviation_pass() -> None:
    assert state(row(1e-7, noise=1e-12)) == DIFFERS
    assert state(row(1e-7, noise=1e-12), limits=replace(LIMITS, noise_factor=3e6)) == AGREES


def test_a_tiny_tensor_is_held_to_the_size_of_the_others() -> None:
    others = [row(0.0, name=f"conv{i}") for i in range(2, 9)]
    assert state(row(0.9e-13, size=1e-6), *others) == AGREES
    assert state(row(0.9e-13, size=1e-6)) != AGREES


@pytest.mark.parametrize(("candidate", "expected"), [(1e-18, AGREES), (1e-3, DIFFERS)])
def test_a_gradient_that_is_rounding_in_the_reference_must_be_so_in_both(
    candidate: float, expected: str
) -> None:
    zero = replace(row(candidate, name="bias", size=1e-18), candidate_size=candidate)
    others = [row(0.0, name=f"conv{i}") for i in range(5)]
    sizes = {zero.key: 1e-9}

    judged = judge([zero, *others], single_sizes=sizes.get)[0]

    assert judged.state == expected
    assert (judged.note == ZERO_NOTE) is (expected == AGREES)


def test_the_first_difference_in_the_order_of_the_run_is_named() -> None:
    rows = judge([row(0.0), row(1e-3, name="bn1"), row(1.0, name="fc")])
    told = conclude("backward", rows)

    assert (told.outcome, told.first_divergent) == (NOT_REPRODUCED, "bn1 (parameter gradient)")
    assert told.reason.startswith("2 of 3 tensors differ, the first is bn1 (parameter gradient)")


@pytest.mark.parametrize(
    ("rows", "findings", "outcome"),
    [
        ([], [], UNDECIDED),
        ([row(0.0)], [], REPRODUCED),
        ([row(1e-10)], [], UNDECIDED),
        ([row(0.0)], [Finding("bn1", "eps is 1.1e-05, in the reference 1e-05")], NOT_REPRODUCED),
    ],
)
def test_nothing_compared_shows_nothing_and_a_finding_decides(
    rows: list[Row], findings: list[Finding], outcome: str
) -> None:
    assert conclude("backward", judge(rows), findings).outcome == outcome
