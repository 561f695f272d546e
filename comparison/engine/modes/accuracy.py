"""Mode "accuracy": two one-sided tests of equivalence over runs with different seeds."""

import math
from collections.abc import Sequence
from typing import Any

from comparison.engine.verdict import ACCURACY, UNDECIDED, ModeVerdict
from comparison.statistics import tost
from reproduction.errors import UserError


def compare_accuracy(
    reference: Sequence[float], candidate: Sequence[float], margin: float
) -> ModeVerdict:
    """Test whether two sets of runs reach the same accuracy, within a margin.

    Args:
        reference: Accuracy of each of the reference's runs, at the epoch fixed beforehand.
        candidate: Accuracy of each of the candidate's runs.
        margin: Largest difference of the means that counts as the same, fixed beforehand.

    Raises:
        UserError: These are no numbers, or the margin is not above 0.
    """
    if any(isinstance(value, list | tuple) for side in (reference, candidate) for value in side):
        raise UserError(
            "accuracies per epoch were given: give one a run, at an epoch fixed beforehand (the "
            "best of many epochs lies above what a run reaches)"
        )
    values: list[Any] = [*reference, *candidate, margin]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise UserError("accuracies and their margin must be finite numbers, one a run")
    if margin <= 0:
        raise UserError(f"the margin of accuracy is {margin}: fix one above 0 beforehand")
    runs = min(len(reference), len(candidate))
    compared = len(reference) + len(candidate)
    if runs < 2:
        reason = f"{runs} run on one side says nothing about the spread: give at least 2 per side"
        return ModeVerdict(ACCURACY, UNDECIDED, reason, compared)
    test = tost(reference, candidate, margin)
    reason = (
        f"difference {test.difference:+.3f}, 90 % interval [{test.low:+.3f}, {test.high:+.3f}], "
        f"margin {margin:g}, power {100 * (test.power or 0):.0f} %, smallest margin that would "
        f"have passed {test.smallest_margin:.3f}"
    )
    return ModeVerdict(ACCURACY, test.outcome, reason, compared)
