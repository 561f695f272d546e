"""Mode "data path": what both sides show their models, sample by sample."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from comparison.engine.fits import fit_share
from comparison.engine.sides import Batch
from comparison.engine.trace import tensors_in
from comparison.engine.verdict import DATA, Finding, ModeVerdict, conclude
from reproduction.errors import UserError


def compare_data(reference: Iterable[Batch], candidate: Iterable[Batch]) -> ModeVerdict:
    """Compare two sequences of batches by the hashes of their samples.

    Args:
        reference: The reference's batches, after all augmentation.
        candidate: The candidate's.

    Raises:
        UserError: A side has no batches, or something else than batches of tensors.
    """
    theirs, ours = _batches("reference", reference), _batches("candidate", candidate)
    findings: list[Finding] = []
    sizes = [[len(batch.inputs) for batch in side] for side in (theirs, ours)]
    if sizes[0] != sizes[1]:
        said = [f"{len(side)} batches of {sum(side)} samples" for side in sizes]
        findings.append(Finding("batches", f"{said[1]}, in the reference {said[0]}"))
    left, right = [[sample for b in side for sample in b.inputs] for side in (theirs, ours)]
    hashes = [[_hash(sample) for sample in side] for side in (left, right)]
    labels = [[label for b in side for label in _labels(b.targets)] for side in (theirs, ours)]
    findings += _input_findings(left, right, *hashes)
    if hashes[0] == hashes[1] and labels[0] != labels[1]:
        findings.append(_target_finding(*labels))
    return conclude(DATA, (), findings, facts=2 * len(hashes[0]))


def _batches(name: str, batches: Iterable[Any]) -> list[Batch]:
    """Return batches of inputs and targets, however they were paired."""
    if not isinstance(batches, Iterable):
        raise UserError(f"the {name}'s data is a {type(batches).__name__}: give its batches")
    made = []
    for number, batch in enumerate(batches):
        batch = Batch(*batch) if isinstance(batch, list | tuple) and len(batch) <= 2 else batch
        if not isinstance(batch, Batch) or not isinstance(batch.inputs, torch.Tensor):
            raise UserError(
                f"batch {number} of the {name} is a {type(batch).__name__}: give pairs of inputs, "
                "a tensor (B, ...), and targets"
            )
        made.append(batch)
    if not made:
        raise UserError(f"the {name}'s data has no batch: give an iterable that can be read")
    return made


def _input_findings(
    left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], theirs: list[str], ours: list[str]
) -> list[Finding]:
    if theirs == ours or theirs[: len(ours)] == ours or ours[: len(theirs)] == theirs:
        return []
    first = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b)
    if sorted(theirs) == sorted(ours):
        where = theirs.index(ours[first])
        text = f"the order differs: position {first} holds sample {where} of the reference"
        return [Finding("order", text)]
    text = f"sample {first} differs{_explained(left[first], right[first])}"
    count = sum(a != b for a, b in zip(theirs, ours, strict=False))
    return [Finding("inputs", f"{text}; {count} of {len(theirs)} samples differ")]


def _explained(theirs: torch.Tensor, ours: torch.Tensor) -> str:
    if theirs.dtype != ours.dtype:
        return f": type {ours.dtype}, in the reference {theirs.dtype}"
    if theirs.shape != ours.shape:
        return f": shape {tuple(ours.shape)}, in the reference {tuple(theirs.shape)}"
    if torch.equal(ours, theirs.flip(-1)):
        return ": it is mirrored"
    if theirs.dim() == 3 and torch.equal(ours, theirs.flip(0)):
        return ": its channels are in the opposite order"
    for channel, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        if not torch.equal(a, b):
            return f": channel {channel} behaves as {_line(a, b)}"
    return ""


def _line(theirs: torch.Tensor, ours: torch.Tensor) -> str:
    """Fit a line to what became of a channel."""
    a, b = theirs.double().flatten(), ours.double().flatten()
    centered = a - a.mean()
    slope = (torch.dot(centered, b) / torch.dot(centered, centered)).item()
    shift = (b.mean() - slope * a.mean()).item()
    exact = fit_share(torch.ones_like(b), slope * a, b + 1.0, at=0.0) is not None
    return f"{slope:.6g} x {shift:+.6g}" if exact else "another image"


def _target_finding(theirs: list[Any], ours: list[Any]) -> Finding:
    if len(theirs) != len(ours):
        return Finding("targets", f"{len(ours)} targets, in the reference {len(theirs)}")
    first = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    if isinstance(ours[first], str):
        return Finding("targets", f"tensor {first} of the targets differs")
    return Finding("targets", f"sample {first} has {ours[first]}, in the reference {theirs[first]}")


def _hash(sample: torch.Tensor) -> str:
    kind = f"{sample.dtype} {tuple(sample.shape)}".encode()
    content = sample.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(kind + content).hexdigest()


def _labels(targets: Any) -> list[Any]:
    """Return what each sample is to give: of one tensor its entries, of several their hashes."""
    found = tensors_in(targets)
    if len(found) == 1 and found[0].dim():
        return [label.tolist() for label in found[0]]
    return [_hash(tensor) for tensor in found]
