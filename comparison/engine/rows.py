"""What was captured, and the comparison of one tensor; `comparison.engine.verdict` decides."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from comparison.engine.measures import difference_sizes, largest, norm, ratio, same_bits

AGREES, OPEN, DIFFERS = "agrees", "undecided", "differs"


class Key(NamedTuple):
    """What was captured: in which mode, at which site of the reference, which part of it."""

    mode: str
    name: str
    part: str

    def __str__(self) -> str:
        return f"{self.name or 'network'} ({self.part})"


@dataclass(frozen=True)
class Row:
    """The comparison of one tensor.

    Attributes:
        key: What the tensor is.
        shape: Its shape in the reference.
        difference: Largest |candidate - reference|; infinite where no number can be given.
        size: Largest magnitude in the reference.
        candidate_size: Largest magnitude in the candidate.
        l2: Relative difference in the Euclidean norm; described, never decisive.
        noise: Largest difference that neutral rewrites of the reference cause.
        threshold: Largest difference that agrees; set by `judge`.
        state: ``agrees``, ``undecided`` or ``differs``; set by `judge`.
        bit_equal: Whether all bits are equal.
        note: Why there is no number, or why a tensor agrees by another rule.
    """

    key: Key
    shape: tuple[int, ...]
    difference: float
    size: float
    candidate_size: float
    l2: float
    noise: float = 0.0
    threshold: float = 0.0
    state: str = OPEN
    bit_equal: bool = False
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Tell whether the tensor is within its threshold."""
        return self.state == AGREES

    @property
    def relative(self) -> float:
        """Return the difference relative to the reference's largest magnitude."""
        return ratio(self.difference, self.size)

    @property
    def margin(self) -> float:
        """Return log10(difference / threshold): negative inside, -inf if there is none."""
        if not self.difference:
            return -math.inf
        return math.log10(self.difference / self.threshold) if self.threshold else math.inf


def measure(key: Key, reference: torch.Tensor, candidate: torch.Tensor, noise: float = 0.0) -> Row:
    """Measure one tensor of the two sides; `judge` decides.

    Whole numbers must be equal. Entries that are not finite must be the same on both sides (a
    note says so); the rest is measured as usual.
    """
    shape = tuple(reference.shape)
    if reference.shape != candidate.shape:
        return _unequal(key, shape, f"shape {tuple(candidate.shape)}, reference {shape}")
    if reference.dtype != candidate.dtype:
        return _unequal(key, shape, f"type {candidate.dtype}, reference {reference.dtype}")
    if reference.is_complex():
        reference, candidate = (
            torch.view_as_real(t.resolve_conj()) for t in (reference, candidate)
        )
    if same_bits(reference, candidate):
        size = largest(reference)
        note = "" if math.isfinite(size) else _alike(reference)
        size = size if not note else largest(reference[reference.isfinite()])
        return Row(key, shape, 0.0, size, size, 0.0, noise, bit_equal=True, note=note)
    if not reference.is_floating_point():
        return _unequal(key, shape, "whole numbers differ")
    sizes = largest(reference), largest(candidate)
    if all(math.isfinite(size) for size in sizes):
        return _measured(key, reference, candidate, sizes, noise)
    if note := _different_nonfinite(reference, candidate):
        return _unequal(key, shape, note)
    finite = reference.isfinite()
    theirs, ours = reference[finite], candidate[finite]
    row = _measured(key, theirs, ours, (largest(theirs), largest(ours)), noise)
    return replace(row, shape=shape, note=_alike(reference))


def missing(key: Key, shape: tuple[int, ...], side: str) -> Row:
    """Make the row of a tensor that one side does not have."""
    return _unequal(key, shape, f"missing in the {side}")


def _measured(
    key: Key,
    reference: torch.Tensor,
    candidate: torch.Tensor,
    sizes: tuple[float, float],
    noise: float,
) -> Row:
    difference, length = difference_sizes(reference, candidate)
    l2 = ratio(length, norm(reference))
    return Row(key, tuple(reference.shape), difference, *sizes, l2, noise)


def _unequal(key: Key, shape: tuple[int, ...], note: str) -> Row:
    return Row(key, shape, math.inf, math.inf, math.inf, math.inf, note=note)


def _alike(reference: torch.Tensor) -> str:
    count = int((~reference.isfinite()).sum())
    return f"{count} of {reference.numel()} entries not finite, alike on both sides"


def _different_nonfinite(reference: torch.Tensor, candidate: torch.Tensor) -> str:
    for name, test in (("NaN", torch.isnan), ("+Inf", torch.isposinf), ("-Inf", torch.isneginf)):
        theirs, ours = int(test(reference).sum()), int(test(candidate).sum())
        if not torch.equal(test(reference), test(candidate)):
            return f"{name} in {ours} entries, in the reference in {theirs}, not the same ones"
    return ""
