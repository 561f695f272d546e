"""Mode "free-running trajectory": both sides train on their own, as far as that can show anything.

One changed bit grows until two runs have nothing in common. How fast is measured beside them: the
reference trains once more under a neutral rewrite. Where that run has left the plain one by more
than `LOST`, the horizon ends, and nothing is said about what comes after.
"""

from typing import Any

from comparison.engine.leader import Leader
from comparison.engine.rewrites import ALL_AT_ONCE
from comparison.engine.steps import Stepper, follow_free
from comparison.engine.subject import Subject
from comparison.engine.verdict import (
    FREE,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    WITHIN_TOLERANCE,
    ModeVerdict,
)

LOST = 1e-6  # relative divergence of the rewritten reference at which a free run says no more
FACTOR = 1e3  # how much farther than the rewritten reference a candidate may be
FLOOR = 1e-12  # below this relative divergence nothing is a difference


def run_free(subject: Subject, steps: int) -> tuple[list[dict[str, Any]], ModeVerdict]:
    """Train both sides, and the rewritten reference, on the same batches.

    Args:
        subject: The candidate, in the reference's state.
        steps: How many steps; the leader's batches are used in turn.

    Returns:
        One row per step, and the verdict on the steps within the horizon.
    """
    leader: Leader = subject.leader
    batches = [leader.batches[i % len(leader.batches)] for i in range(steps)]
    rows = follow_free(
        Stepper(leader.side.copied()),
        Stepper(subject.side.copied(), subject.state.pairs),
        Stepper(leader.side.copied(), active=ALL_AT_ONCE.active),
        batches,
    )
    return rows, judge_free(rows)


def horizon(rows: list[dict[str, Any]]) -> int:
    """Return how many steps the rewritten reference stays beside the plain one.

    >>> horizon([{"noise": 1e-15}, {"noise": 1e-9}, {"noise": 1e-3}, {"noise": 1e-9}])
    2
    """
    for number, row in enumerate(rows):
        if not row["noise"] < LOST:
            return number
    return len(rows)


def judge_free(rows: list[dict[str, Any]]) -> ModeVerdict:
    """Give the verdict on a free run, within its horizon."""
    end = horizon(rows)
    equal = sum(row["state_bit_equal"] and row["loss_bit_equal"] for row in rows)
    within = f"the horizon is {end} of {len(rows)} steps"
    if equal == len(rows):
        reason = f"equal to the bit over all {len(rows)} steps"
        return ModeVerdict(FREE, REPRODUCED, reason, len(rows), equal)
    if not end:
        reason = f"{within}: one changed bit decides the first step, use teacher-forced steps"
        return ModeVerdict(FREE, UNDECIDED, reason, len(rows), equal)
    apart = [
        row for row in rows[:end] if not row["divergence"] <= max(FLOOR, FACTOR * row["noise"])
    ]
    worst = max(row["divergence"] for row in rows[:end])
    if apart:
        reason = (
            f"parts at step {apart[0]['step']} by {apart[0]['divergence']:.1e}, where rounding "
            f"makes {apart[0]['noise']:.1e}; {within}"
        )
        first = f"step {apart[0]['step']}"
        return ModeVerdict(FREE, NOT_REPRODUCED, reason, end, equal, first_divergent=first)
    reason = f"within rounding ({worst:.1e} at most); {within}, nothing is said beyond"
    return ModeVerdict(FREE, WITHIN_TOLERANCE, reason, end, equal)
