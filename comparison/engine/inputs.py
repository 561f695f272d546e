"""Inputs that the checker proposes, because the ones that were given may hide a difference.

A ReLU6 is a ReLU until a value exceeds 6, a scale factor is a size until a side is odd, and a
`squeeze()` is harmless until a batch holds one sample. From an example other sizes, batches and
scales are made; both sides run on each, forward only, beside the reference under a neutral rewrite
that measures the noise. A size that one side takes and the other rejects is a finding.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from comparison.engine.rehearsal import run_once
from comparison.engine.requests import first_line
from comparison.engine.rewrites import ALL_AT_ONCE
from comparison.engine.rows import AGREES, Key, Row, measure, missing
from comparison.engine.sides import Batch, Side, mapped
from comparison.engine.trace import tensors_in
from comparison.engine.verdict import EVAL, TRAIN, Finding, ModeVerdict, conclude, judge

SIZES = tuple(range(32, 98))  # pixels, height and width
OBLONG = ((33, 64), (64, 33))
BATCHES = (1, 2, 3, 4, 5)
SCALE = 10.0


class Proposal(NamedTuple):
    """Inputs to try.

    Attributes:
        name: What they vary, such as ``size 33x33``.
        inputs: They themselves.
        train: Whether to run in train mode.
    """

    name: str
    inputs: Any
    train: bool = False


@dataclass(frozen=True)
class Swept:
    """What further inputs showed.

    Attributes:
        verdicts: One verdict each for forward eval and forward train.
        rows: The outputs that do not agree.
        findings: What one side takes and the other rejects.
        notice: How many inputs were tried, and which both sides reject.
    """

    verdicts: tuple[ModeVerdict, ...]
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    notice: str


def propose(inputs: Any, seed: int = 0) -> dict[str, Proposal]:
    """Make inputs like an example, in other sizes, batches and scales, cheapest first.

    Values are normal with the mean and deviation of the example's, whole numbers are drawn from
    the example's. Sizes vary where a tensor is (B, C, H, W).

    Args:
        inputs: What the models take: a tensor, or nested tuples, lists and mappings of some.
        seed: Decides the values.

    Returns:
        The proposals by name; those in train mode end in ``(train)``.
    """
    return {proposal.name: proposal for proposal in _proposals(inputs, seed)}


def _proposals(inputs: Any, seed: int) -> Iterator[Proposal]:
    def scaled(tensor: torch.Tensor) -> torch.Tensor:
        return tensor * SCALE if tensor.is_floating_point() else tensor

    for train, suffix in ((False, ""), (True, " (train)")):
        yield Proposal(f"scale {SCALE:g}{suffix}", mapped(inputs, scaled), train)
        for count in BATCHES:
            yield Proposal(f"batch {count}{suffix}", _like(inputs, seed, count=count), train)
    if any(tensor.dim() == 4 for tensor in tensors_in(inputs)):
        for size in (*((side, side) for side in SIZES), *OBLONG):
            name = f"size {size[0]}x{size[1]}"
            yield Proposal(name, _like(inputs, seed, count=1, size=size))


def sweep(reference: Side, candidate: Side, batch: Batch, seed: int = 0) -> Swept:
    """Run both sides on all proposed inputs and judge what they return.

    Args:
        reference: The reference, in float64.
        candidate: The candidate in the same state, in float64.
        batch: An example.
        seed: Decides the values of the proposed inputs.
    """
    rows: dict[str, list[Row]] = {EVAL: [], TRAIN: []}
    rejected: dict[tuple[str, str], list[tuple[str, str]]] = {}
    tried, neither = 0, list[str]()
    for proposal in propose(batch.inputs, seed).values():
        mode = TRAIN if proposal.train else EVAL
        theirs, ours = (_shown(side, proposal) for side in (reference, candidate))
        tried += 1
        if isinstance(theirs, str) and isinstance(ours, str):
            neither.append(proposal.name)
        elif isinstance(theirs, str):
            rejected.setdefault((mode, "reference"), []).append((proposal.name, theirs))
        elif isinstance(ours, str):
            rejected.setdefault((mode, "candidate"), []).append((proposal.name, ours))
        else:
            rewritten = _shown(reference, proposal, rewritten=True)
            rows[mode] += _rows(proposal, theirs, ours, rewritten)
    findings = {
        mode: [_rejection(side, cases) for (of, side), cases in rejected.items() if of == mode]
        for mode in rows
    }
    judged = {mode: judge(of_mode) for mode, of_mode in rows.items()}
    verdicts = tuple(conclude(mode, judged[mode], findings[mode]) for mode in rows)
    notice = f"{tried - len(neither)} proposed inputs were compared"
    if neither:
        notice += f"; both sides reject {_listed(neither)}"
    wrong = tuple(row for of_mode in judged.values() for row in of_mode if row.state != AGREES)
    found = tuple(finding for of_mode in findings.values() for finding in of_mode)
    return Swept(verdicts=verdicts, rows=wrong, findings=found, notice=notice)


def _like(inputs: Any, seed: int, *, count: int, size: tuple[int, int] | None = None) -> Any:
    """Make inputs with as many samples, and images of a size."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.dim():
            return tensor
        shape = [count, *tensor.shape[1:]]
        if size is not None and tensor.dim() == 4:
            shape[2:] = size
        if tensor.is_floating_point():
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            spread = tensor.double().std(correction=0)
            return (tensor.double().mean() + spread * values).to(tensor.dtype)
        index = torch.randint(tensor.numel(), shape, generator=generator)
        return tensor.flatten()[index.to(tensor.device)]

    return mapped(inputs, drawn)


def _shown(side: Side, proposal: Proposal, *, rewritten: bool = False) -> dict[str, Any] | str:
    """Return what a side computes, by the part of a key; or why it rejects the inputs."""
    inputs = side.sees(Batch(proposal.inputs)).inputs
    try:
        with ALL_AT_ONCE.active() if rewritten else nullcontext():
            output = run_once(side, inputs, proposal.train)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return {f"output {i}, {proposal.name}": t for i, t in enumerate(tensors_in(output))}


def _rows(proposal: Proposal, theirs: Any, ours: Any, rewritten: Any) -> list[Row]:
    mode = TRAIN if proposal.train else EVAL
    rows = []
    for part, tensor in theirs.items():
        key = Key(mode, "network", part)
        if part not in ours:
            rows.append(missing(key, tuple(tensor.shape), "candidate"))
            continue
        noise = 0.0
        if not isinstance(rewritten, str) and part in rewritten:
            noise = measure(key, tensor, rewritten[part]).difference
        rows.append(measure(key, tensor, ours[part], noise))
    return rows


def _rejection(side: str, cases: Sequence[tuple[str, str]]) -> Finding:
    names = _listed([name for name, _ in cases])
    other = "candidate" if side == "reference" else "reference"
    return Finding("network", f"the {side} rejects {names}, the {other} does not ({cases[0][1]})")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
