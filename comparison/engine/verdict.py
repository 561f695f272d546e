"""Thresholds, and the verdict on one tensor and on one mode of a comparison.

A tensor is judged by its largest deviation d = max|candidate - reference|, in float64. It agrees
if d is at most max(1e-12 s, 30 nu, 1e-13 m): s is the largest magnitude of the reference's tensor,
nu the largest deviation that neutral rewrites of the reference cause in that very tensor, and m
the median of s over the tensors of the mode. The largest magnitude is judged, not the root mean
square, because a mean over a large tensor hides a single wrong channel.

Rounding and faults must lie apart: what exceeds its threshold by less than `GAP` is undecided, and
the ratio of the deviations in float64 and in float32 is asked (`decide_by_precision`).
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from comparison.engine.rows import AGREES, DIFFERS, OPEN, Key, Row

REPRODUCED = "reproduced"
WITHIN_TOLERANCE = "within tolerance"
EXPLAINED = "explained difference"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "undecided"
NOT_RUN = "not run"

MODES = (
    "static",
    "forward eval",
    "forward train",
    "loss",
    "backward",
    "state after step",
    "free-running trajectory",
    "teacher-forced trajectory",
    "data path",
    "accuracy",
    "bitwise",
)
(STATIC, EVAL, TRAIN, LOSS, BACKWARD, STATE, FREE, FORCED, DATA, ACCURACY, BITWISE) = MODES


def _because(default: float, reason: str) -> float:
    """Make a field whose default says why it is where it is."""
    value: float = field(default=default, metadata={"reason": reason})
    return value


@dataclass(frozen=True)
class Limits:
    """The constants of every threshold, each with its reason."""

    relative: float = _because(
        1e-12,
        "least relative deviation that counts: independent implementations of HRNet were measured "
        "to agree to 1e-14 in float64, the weakest fault tried deviates by 1e-7",
    )
    noise_factor: float = _because(
        30.0, "how many times the measured noise floor of a tensor its deviation may be"
    )
    floor: float = _because(
        1e-13, "least deviation that counts, relative to the median magnitude of the mode"
    )
    gap: float = _because(
        1e3,
        "rounding and faults must lie apart: a deviation beyond its threshold by less than this "
        "factor is undecided, unless its growth from float64 to float32 tells",
    )
    zero: float = _because(
        1e-10,
        "below this share of the mode's median magnitude a gradient may be zero in exact "
        "arithmetic; its magnitude in float32 decides",
    )
    zero_growth: float = _because(
        1e6,
        "a magnitude that grows by this factor from float64 to float32 consists of rounding: the "
        "ratio of the two machine epsilons is 5e8",
    )


LIMITS = Limits()


@dataclass(frozen=True)
class Finding:
    """A difference that is not a matter of size: a missing layer, another hyperparameter."""

    name: str
    text: str


@dataclass(frozen=True)
class Origin:
    """Where a difference begins.

    Attributes:
        mode: The mode in which it shows first.
        site: The reference's node or tensor.
        module: Path of the reference's module.
        candidate: The candidate's node, or its tensor.
        kind: ``layer``, ``glue``, ``loss`` or ``state``.
        difference: Relative size of the error that arises there, from the reference's inputs.
        text: What is wrong, with the fitted value if one number explains it.
        confirmed: Whether everything downstream agrees once this alone is mended; None if that
            was not tried.
        near: Modules at the other end, where the difference arises on an edge of the graph.
        places: The reference's nodes at both ends, by name.
    """

    mode: str
    site: str
    module: str
    candidate: str
    kind: str
    difference: float
    text: str
    confirmed: bool | None = None
    near: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModeVerdict:
    """The outcome of one mode, in the study's vocabulary."""

    mode: str
    outcome: str
    reason: str
    compared: int = 0
    bit_equal: int = 0
    undecided: int = 0
    differing: int = 0
    worst_margin: float | None = None
    first_divergent: str = ""
    notices: tuple[str, ...] = field(default=())


def not_run(mode: str, reason: str) -> ModeVerdict:
    """Say that a mode was not run, and why."""
    return ModeVerdict(mode, NOT_RUN, reason)


def judge(
    rows: Sequence[Row],
    limits: Limits = LIMITS,
    *,
    single_sizes: Callable[[Key], float | None] = lambda _key: None,
) -> list[Row]:
    """Decide for all rows of one mode.

    Args:
        rows: The rows of one mode; the median magnitude is taken over them.
        limits: The constants.
        single_sizes: Largest magnitude of the reference's tensor in float32, where it is known:
            what rounding makes larger by `Limits.zero_growth` is zero in exact arithmetic.
    """
    sizes = [row.size for row in rows if math.isfinite(row.size) and row.size > 0]
    median = statistics.median(sizes) if sizes else 0.0
    judged = []
    for row in rows:
        single = single_sizes(row.key)
        limit = limits.zero * median
        if single is not None and row.size < limit and single > limits.zero_growth * row.size:
            judged.append(_zero(row, limit))
            continue
        threshold = max(
            limits.relative * row.size if math.isfinite(row.size) else 0.0,
            limits.noise_factor * row.noise,
            limits.floor * median,
        )
        judged.append(replace(row, threshold=threshold, state=_state(row, threshold, limits)))
    return judged


ZERO_NOTE = "zero in exact arithmetic on both sides"


def decide_by_precision(row: Row, single_difference: float) -> Row:
    """Decide an undecided row by the ratio of its deviations in float64 and in float32.

    Rounding shrinks with the machine epsilon (a ratio of 2e-9); another algorithm does not.

    >>> row = Row(Key("backward", "conv1", "gradient"), (1,), 1e-10, 1.0, 1.0, 0.0)
    >>> decide_by_precision(row, 1e-2).state, decide_by_precision(row, 1e-9).state
    ('agrees', 'differs')
    """
    if row.state != OPEN or not single_difference:
        return row
    scaling = row.difference / single_difference
    if scaling <= 1e-6:
        return replace(row, state=AGREES, note=f"rounding: float64 / float32 is {scaling:.0e}")
    if scaling >= 1e-2:
        return replace(row, state=DIFFERS, note=f"algebra: float64 / float32 is {scaling:.0e}")
    return row


def first_divergent(rows: Iterable[Row]) -> Row | None:
    """Return the first row that differs, in the order of the reference's run; else undecided."""
    rows = list(rows)
    differing = (row for row in rows if row.state == DIFFERS)
    return next(differing, next((row for row in rows if row.state == OPEN), None))


def conclude(
    mode: str, rows: Sequence[Row], findings: Sequence[Finding] = (), *, facts: int = 0
) -> ModeVerdict:
    """Give the verdict on a mode from all its judged rows and findings.

    Nothing compared is nothing shown: a mode without rows, facts or findings is undecided.

    Args:
        mode: The mode.
        rows: Tensors compared, in the reference's order.
        findings: Differences that are no matter of size.
        facts: How many things were compared besides tensors.
    """
    if not (rows or findings or facts):
        return ModeVerdict(mode, UNDECIDED, "nothing was there to compare")
    divergent = first_divergent(rows)
    differing = sum(row.state == DIFFERS for row in rows)
    undecided = sum(row.state == OPEN for row in rows)
    outcome = REPRODUCED
    if findings or differing:
        outcome = NOT_REPRODUCED
    elif undecided:
        outcome = UNDECIDED
    margins = [row.margin for row in rows if row.difference]
    first = findings[0].name if findings else str(divergent.key) if divergent else ""
    return ModeVerdict(
        mode=mode,
        outcome=outcome,
        reason=_reason(rows, findings, divergent, facts),
        compared=len(rows) + facts,
        bit_equal=sum(row.bit_equal for row in rows),
        undecided=undecided,
        differing=differing + len(findings),
        worst_margin=max(margins) if margins else None,
        first_divergent=first,
        notices=tuple(sorted({row.note for row in rows if row.agrees and row.note})),
    )


def joined(first: ModeVerdict, second: ModeVerdict, said: str) -> ModeVerdict:
    """Join the verdicts on two parts of one mode: the worse outcome, both counts and reasons.

    Args:
        first: The verdict on what was given.
        second: The verdict on more of the same mode.
        said: What the second part is, such as ``on proposed inputs``.
    """
    order = (NOT_REPRODUCED, UNDECIDED, WITHIN_TOLERANCE, REPRODUCED, NOT_RUN)
    margins = [v.worst_margin for v in (first, second) if v.worst_margin is not None]
    return replace(
        first,
        outcome=min(first.outcome, second.outcome, key=order.index),
        reason=f"{first.reason}; {said}: {second.reason}",
        compared=first.compared + second.compared,
        bit_equal=first.bit_equal + second.bit_equal,
        undecided=first.undecided + second.undecided,
        differing=first.differing + second.differing,
        worst_margin=max(margins) if margins else None,
        first_divergent=first.first_divergent or second.first_divergent,
        notices=tuple(sorted({*first.notices, *second.notices})),
    )


def _reason(
    rows: Sequence[Row], findings: Sequence[Finding], divergent: Row | None, facts: int
) -> str:
    reasons = [f"{finding.name}: {finding.text}" for finding in findings[:3]]
    if divergent:
        count = sum(row.state != AGREES for row in rows)
        said = divergent.note or f"{divergent.difference:.1e}, threshold {divergent.threshold:.1e}"
        verb = "differ" if divergent.state == DIFFERS else "are undecided"
        reasons.append(
            f"{count} of {len(rows)} tensors {verb}, the first is {divergent.key}: {said}"
        )
    if reasons:
        return "; ".join(reasons)
    parts = [f"{facts} facts agree"] if facts else []
    if rows and all(row.bit_equal for row in rows):
        parts.append(f"{len(rows)} tensors equal to the bit")
    elif rows:
        worst = max(row.margin for row in rows)
        parts.append(f"{len(rows)} tensors agree, the closest {-worst:.1f} decades inside")
    return "; ".join(parts)


def _state(row: Row, threshold: float, limits: Limits) -> str:
    if row.difference <= threshold:
        return AGREES
    return OPEN if row.difference <= limits.gap * threshold else DIFFERS


def _zero(row: Row, limit: float) -> Row:
    if row.candidate_size < limit:
        return replace(row, threshold=limit, state=AGREES, note=ZERO_NOTE)
    note = f"zero in exact arithmetic in the reference, {row.candidate_size:.1e} here"
    return replace(row, threshold=limit, state=DIFFERS, note=note)
