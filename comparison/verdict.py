"""Error measures, thresholds, and the verdict on one mode of a comparison (STYLE's ladder).

A tensor is judged by its largest deviation, relative to the largest magnitude of the reference's
tensor: a mean can hide a single wrong channel. The relative L2 error and the cosine are reported
and never decide. Every bound stands below with the measurement that it rests on.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from comparison.measures import cosine_of_norms, largest, norm, ratio, same_bits

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
WITHIN_TOLERANCE = "within tolerance"
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Threshold:
    """A bound on the relative error, and why it is where it is."""

    bound: float
    reason: str


_MEASURED = (
    "float64, one thread: independent implementations agree with the recorded official traces to "
    "{seen}; the weakest fault tried (weight decay left out) deviates by 1e-5"
)
FORWARD = Threshold(1e-11, _MEASURED.format(seen="1e-14 in forward, loss and buffers"))
GRADIENT = Threshold(1e-10, _MEASURED.format(seen="5e-13 in gradients and steps"))

THRESHOLDS = {
    "forward eval": FORWARD,
    "forward train": FORWARD,
    "loss": FORWARD,
    "backward": GRADIENT,
    "buffers": FORWARD,
    "step": GRADIENT,
}

# A convolution bias in front of train-mode batch normalization has no effect, so its gradient is
# zero in exact arithmetic: 1e-16 of the median gradient was measured, all of it rounding.
ANALYTIC_ZERO = 1e-12


class Key(NamedTuple):
    """What was captured: in which mode, at which site of the reference, which part of it."""

    mode: str
    name: str
    part: str

    def __str__(self) -> str:
        return f"{self.name or 'network'} ({self.part})"


@dataclass(frozen=True)
class Row:
    """The comparison of one tensor. Errors are infinite where no number can be given."""

    key: Key
    shape: tuple[int, ...]
    max_error: float
    l2_error: float
    cosine: float
    magnitude: tuple[float, float]
    bound: float
    agrees: bool
    bit_equal: bool = False
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """A difference that is not a matter of size: a missing layer, another hyperparameter."""

    name: str
    text: str


@dataclass(frozen=True)
class ModeVerdict:
    """The outcome of one mode, in the study's vocabulary."""

    mode: str
    outcome: str
    reason: str
    compared: int
    bit_equal: int
    max_error: float
    bound: float
    first_divergent: str
    notices: tuple[str, ...] = ()


def compare(key: Key, reference: torch.Tensor, candidate: torch.Tensor, bound: float) -> Row:
    """Compare one tensor of the two sides.

    Integers must be equal. Entries that are not finite must be the same on both sides (a notice
    says so); the rest is compared as usual.

    Args:
        key: What the tensor is.
        reference: The reference's tensor.
        candidate: The candidate's tensor.
        bound: Largest `max_error` that counts as agreement.

    Returns:
        The row; it disagrees where shape, type or the set of non-finite entries differ.
    """
    shape = tuple(reference.shape)
    if mismatch := _mismatch(reference, candidate):
        return _without_number(key, shape, bound, mismatch)
    if not reference.is_floating_point():
        if torch.equal(reference, candidate):
            return _same(key, shape, bound, largest(reference))
        return _without_number(key, shape, bound, "whole numbers differ")
    sizes = largest(reference), largest(candidate)
    if all(math.isfinite(size) for size in sizes):
        return _numeric(key, reference, candidate, bound, sizes)
    if note := _different_nonfinite(reference, candidate):
        return _without_number(key, shape, bound, note)
    return _without_nonfinite(key, reference, candidate, bound)


def missing(key: Key, shape: tuple[int, ...], bound: float, side: str) -> Row:
    """Make the row of a tensor that one side does not have."""
    return _without_number(key, shape, bound, f"missing in the {side}")


def excuse_analytic_zeros(rows: Sequence[Row]) -> list[Row]:
    """Let tensors agree that are zero in exact arithmetic, on both sides.

    They are recognized by size, not by name: on both sides below `ANALYTIC_ZERO` of the median
    magnitude of the reference. No relative error says anything about them.
    """
    sizes = [row.magnitude[0] for row in rows if math.isfinite(row.magnitude[0])]
    if not sizes:
        return list(rows)
    limit = ANALYTIC_ZERO * statistics.median(sizes)
    return [
        replace(row, max_error=0.0, l2_error=0.0, agrees=True, note=ZERO_NOTE)
        if max(row.magnitude) < limit
        else row
        for row in rows
    ]


ZERO_NOTE = "zero in exact arithmetic on both sides"


def first_divergent(rows: Iterable[Row]) -> Row | None:
    """Return the first row, in the order of the reference's run, that does not agree."""
    return next((row for row in rows if not row.agrees), None)


def conclude(
    mode: str, rows: Sequence[Row], findings: Sequence[Finding] = (), *, facts: int = 0
) -> ModeVerdict:
    """Give the verdict on a mode from all its rows and findings.

    Nothing compared is nothing shown: a mode without rows, facts or findings is refused.

    Args:
        mode: The mode.
        rows: Tensors compared, in the reference's order.
        findings: Differences that are no matter of size.
        facts: How many things were compared besides tensors.

    Raises:
        ValueError: There is nothing to judge.
    """
    if not (rows or findings or facts):
        raise ValueError(f"mode {mode!r} compared nothing; a verdict needs at least one tensor")
    worst = max(rows, key=lambda row: row.max_error, default=None)
    divergent = first_divergent(rows)
    failed = sum(not row.agrees for row in rows)
    first = findings[0].name if findings else str(divergent.key) if divergent else ""
    reasons = [f"{finding.name}: {finding.text}" for finding in findings[:3]]
    if divergent:
        reasons.append(
            f"{failed} of {len(rows)} tensors differ, the first is {divergent.key}: "
            + (divergent.note or f"{divergent.max_error:.1e}, bound {divergent.bound:.0e}")
        )
    if not reasons:
        reasons = [f"all {facts} facts agree" if facts else _agreement(rows)]
    notices = sorted({row.note for row in rows if row.agrees and row.note})
    return ModeVerdict(
        mode=mode,
        outcome=NOT_REPRODUCED if findings or divergent else REPRODUCED,
        reason="; ".join(reasons),
        compared=len(rows) + facts,
        bit_equal=sum(row.bit_equal for row in rows),
        max_error=worst.max_error if worst else 0.0,
        bound=max((row.bound for row in rows), default=0.0),
        first_divergent=first,
        notices=tuple(notices),
    )


def _agreement(rows: Sequence[Row]) -> str:
    tensors = f"{len(rows)} tensor{'s' if len(rows) > 1 else ''}"
    if all(row.bit_equal for row in rows):
        return f"{tensors} equal to the bit"
    return f"{tensors} within bounds, the largest error is {max(r.max_error for r in rows):.1e}"


def _mismatch(reference: torch.Tensor, candidate: torch.Tensor) -> str:
    if reference.shape != candidate.shape:
        return f"shape {tuple(candidate.shape)}, reference {tuple(reference.shape)}"
    if reference.dtype != candidate.dtype:
        return f"type {candidate.dtype}, reference {reference.dtype}"
    return ""


def _different_nonfinite(reference: torch.Tensor, candidate: torch.Tensor) -> str:
    for name, test in (("NaN", torch.isnan), ("+Inf", torch.isposinf), ("-Inf", torch.isneginf)):
        theirs, ours = int(test(reference).sum()), int(test(candidate).sum())
        if not torch.equal(test(reference), test(candidate)):
            return f"{name} in {ours} entries, in the reference in {theirs}, not the same ones"
    return ""


def _same(key: Key, shape: tuple[int, ...], bound: float, size: float) -> Row:
    return Row(key, shape, 0.0, 0.0, 1.0, (size, size), bound, agrees=True, bit_equal=True)


def _numeric(
    key: Key,
    reference: torch.Tensor,
    candidate: torch.Tensor,
    bound: float,
    sizes: tuple[float, float],
) -> Row:
    shape = tuple(reference.shape)
    if sizes[0] == sizes[1] and same_bits(reference, candidate):
        return _same(key, shape, bound, sizes[0])
    difference = candidate - reference
    norms = norm(reference), norm(candidate), norm(difference)
    error = ratio(largest(difference), sizes[0])
    l2, angle = ratio(norms[2], norms[0]), cosine_of_norms(*norms)
    return Row(key, shape, error, l2, angle, sizes, bound, agrees=error <= bound)


def _without_nonfinite(
    key: Key, reference: torch.Tensor, candidate: torch.Tensor, bound: float
) -> Row:
    finite = reference.isfinite()
    theirs, ours = reference[finite], candidate[finite]
    row = _numeric(key, theirs, ours, bound, (largest(theirs), largest(ours)))
    count = int((~finite).sum())
    note = f"{count} of {finite.numel()} entries not finite, alike on both sides"
    return replace(row, shape=tuple(reference.shape), note=note)


def _without_number(key: Key, shape: tuple[int, ...], bound: float, note: str) -> Row:
    return Row(
        key, shape, math.inf, math.inf, 0.0, (math.inf, math.inf), bound, agrees=False, note=note
    )
