"""Measures give hand-computed values, for tensors of any scale."""

import doctest
import math

import pytest
import torch

from comparison.engine import measures


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(measures)

    assert result.attempted >= 5 and result.failed == 0


def test_cosine_does_not_lose_tiny_gradients() -> None:
    tiny = torch.tensor([3e-150, 4e-150], dtype=torch.float64)

    assert measures.cosine(tiny, tiny) == pytest.approx(1.0)
    assert measures.cosine(tiny, -tiny) == pytest.approx(-1.0)
    assert measures.cosine(tiny, torch.zeros(2, dtype=torch.float64)) == 0.0


def test_an_error_beside_nothing_is_infinite() -> None:
    nothing, something = torch.zeros(3), torch.tensor([0.0, 0.0, 1e-30])

    assert measures.l2_error(nothing, something) == math.inf
    assert measures.l2_error(nothing, nothing) == 0


def test_a_number_that_json_has_not_becomes_none() -> None:
    assert [measures.finite(x) for x in (1.5, math.inf, math.nan)] == [1.5, None, None]


def test_the_largest_magnitude_sees_nan_infinity_and_emptiness() -> None:
    assert math.isnan(measures.largest(torch.tensor([1.0, math.nan, 2.0])))
    assert measures.largest(torch.tensor([1.0, -math.inf])) == math.inf
    assert measures.largest(torch.zeros(0, 4)) == 0.0
    assert measures.largest(torch.tensor(-7)) == 7.0


def test_bits_tell_apart_what_equality_does_not() -> None:
    nan = torch.tensor([math.nan], dtype=torch.float64)

    assert measures.same_bits(nan, nan.clone())
    assert not measures.same_bits(torch.zeros(1), -torch.zeros(1))
    assert not measures.same_bits(torch.zeros(1), torch.zeros(1, dtype=torch.float64))
    assert not measures.same_bits(torch.zeros(1), torch.zeros(1, 1))
