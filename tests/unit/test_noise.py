"""Counts by decade hold every compared tensor once."""

import doctest
from collections import Counter
from dataclasses import replace

from comparison import noise
from comparison.engine.rows import Key, Row
from comparison.engine.verdict import ZERO_NOTE, judge


def row(name: str, difference: float, floor: float) -> Row:
    return Row(Key("backward", name, "gradient"), (1,), difference, 2.0, 2.0, 0.0, floor)


def test_examples_in_the_documentation_hold() -> None:
    done = doctest.testmod(noise)
    assert done.attempted and not done.failed


def test_noise_deviation_and_margin_are_counted_apart() -> None:
    rows = judge([row("a", 0.0, 4e-15), row("b", 3e-15, 5e-15), row("c", 4e-6, 0.0)])
    counted = {
        (r["quantity"], r["decade"]): r["tensors"]
        for r in noise.noise_rows([*rows, replace(rows[0], note=ZERO_NOTE)])
    }

    assert counted == {
        **{("noise", -15): 2, ("noise", None): 1},
        **{("deviation", None): 1, ("deviation", -15): 1, ("deviation", -6): 1},
        # thresholds: 1e-12 of a size of 2
        **{("margin", None): 1, ("margin", -3): 1, ("margin", 6): 1},
        ("zero in exact arithmetic", None): 1,
    }


def test_no_tensor_is_lost() -> None:
    rows = judge([row(str(i), 10.0**-i, 10.0**-i) for i in range(1, 20)])
    totals: Counter[str] = Counter()
    for found in noise.noise_rows(rows):
        totals[found["quantity"]] += found["tensors"]
    assert set(totals.values()) == {19}
