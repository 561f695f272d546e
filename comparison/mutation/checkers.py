"""Mutants of the checker itself: each is a way to be wrong, and the trial has to notice.

A mutant is applied to the engine by replacing one of its parts for a while. Then a small fixed set
of trials is run, all of which the real engine passes: the first that fails is what noticed it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any
from unittest.mock import patch

import torch

from comparison.engine import examine, rows, subject
from comparison.engine.leader import Leader
from comparison.engine.recordings import Recording
from comparison.engine.rows import Key
from comparison.engine.sides import Batch, Side
from comparison.engine.verdict import BACKWARD, Finding, Limits, Origin, judge
from comparison.mutation.fault import Fault
from comparison.mutation.operators_modules import module_faults, weak_fault
from comparison.mutation.operators_training import training_faults
from comparison.mutation.scoring import Row
from comparison.mutation.suite import Bench, Harmless, try_fault, try_harmless

LOOSE = 1e5  # how many times too large a mutant's noise or tolerance is


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A way in which the checker may be wrong.

    Attributes:
        name: What is wrong, in a few words.
        spoil: A context in which the engine is wrong; gives the bench on which to try it.
    """

    name: str
    spoil: Callable[[Bench], Any]


@contextmanager
def _real(bench: Bench) -> Iterator[Bench]:
    yield bench


@contextmanager
def _gradients_not_compared(bench: Bench) -> Iterator[Bench]:
    has = examine._has
    with patch.object(examine, "_has", lambda mode, leader: mode != BACKWARD and has(mode, leader)):
        yield bench


@contextmanager
def _one_step(bench: Bench) -> Iterator[Bench]:
    follow = examine.follow
    with patch.object(examine, "follow", lambda *given: islice(follow(*given), 1)):
        yield bench


@contextmanager
def _tolerant(bench: Bench) -> Iterator[Bench]:
    limits = Limits(noise_factor=Limits().noise_factor * LOOSE)
    with patch.object(subject, "judge", partial(judge, limits=limits)):
        yield bench


@contextmanager
def _noise_inflated(bench: Bench) -> Iterator[Bench]:
    """Measure a noise floor that is too high."""
    leader = copy.copy(bench.leader)
    leader.noise = {key: noise * LOOSE for key, noise in leader.noise.items()}
    leader.step_noise = {key: noise * LOOSE for key, noise in leader.step_noise.items()}
    yield replace(bench, leader=leader)


@contextmanager
def _missing_skipped(bench: Bench) -> Iterator[Bench]:
    """Compare what both sides have, and say nothing about the rest."""
    judged = subject.judge_by_mode

    def present(leader: Leader, found: Sequence[rows.Row]) -> list[rows.Row]:
        return [row for row in judged(leader, found) if not row.note.startswith("missing in")]

    def silent(*_: Any, **__: Any) -> tuple[int, list[Finding]]:
        return 1, []

    with ExitStack() as stack:
        for module in (subject, examine):
            stack.enter_context(patch.object(module, "judge_by_mode", present))
        stack.enter_context(patch.object(examine.static, "state_findings", silent))
        yield bench


class _Late(Leader):
    """Records what tensors hold when the run has ended: what a reference to them would see."""

    def run(
        self, train: bool, side: Side, batch: Batch, sites: Any, sink: Any, **more: Any
    ) -> None:
        """Run a side; a recording sees its tensors late."""
        if not isinstance(sink, Recording):
            super().run(train, side, batch, sites, sink, **more)
            return
        late: list[tuple[Key, torch.Tensor]] = []
        super().run(train, side, batch, sites, lambda *shown: late.append(shown), **more)
        for key, tensor in late:
            sink(key, tensor)


@contextmanager
def _captured_by_reference(bench: Bench) -> Iterator[Bench]:
    leader = bench.leader
    late = _Late(leader.side, leader.batches, rewrites=())
    yield replace(bench, leader=late)


@contextmanager
def _last_named(bench: Bench) -> Iterator[Bench]:
    """Name the end of the difference, not where it begins."""
    found = examine.find_origins

    def last(of: subject.Subject, train: bool) -> list[Origin]:
        node = of.leader.nodes[train][-1].place
        places = (str(node),)
        return [
            replace(origin, site=f"{node} (output)", module=node.module, places=places)
            for origin in found(of, train)
        ]

    with patch.object(examine, "find_origins", last):
        yield bench


@contextmanager
def _means_compared(bench: Bench) -> Iterator[Bench]:
    measured_row = rows._measured

    def by_mean(key: Key, theirs: torch.Tensor, ours: torch.Tensor, *more: Any) -> rows.Row:
        row = measured_row(key, theirs, ours, *more)
        return replace(row, difference=abs(theirs.mean() - ours.mean()).item())

    with patch.object(rows, "_measured", by_mean):
        yield bench


REAL = Mutant(name="the checker as it is", spoil=_real)
MUTANTS = (
    Mutant(name="backward phase dropped", spoil=_gradients_not_compared),
    Mutant(name="threshold loosened, factor 30 to 3e6", spoil=_tolerant),
    Mutant(name="what one side lacks is skipped", spoil=_missing_skipped),
    Mutant(name="captured by reference, not copied", spoil=_captured_by_reference),
    Mutant(name="noise floor inflated 1e5 times", spoil=_noise_inflated),
    Mutant(name="steps after the first dropped", spoil=_one_step),
    Mutant(name="last difference named as origin", spoil=_last_named),
    Mutant(name="means compared in place of values", spoil=_means_compared),
)


def fixed_faults(bench: Bench) -> list[Fault]:
    """Choose one fault for every way to look: values, gradients, buffers, later steps, order."""
    model, batch = bench.candidate.model, bench.leader.batches[0]
    groups = {
        "weight not trained": module_faults(model),
        "gradients not reset": training_faults(bench.candidate, batch),
        "BN momentum 0.11": module_faults(model),
        "two filters swapped": module_faults(model),
    }
    chosen = [_middle(faults, name) for name, faults in groups.items()]
    return [weak_fault(chosen[0].sites[0]), *chosen]


def try_mutants(bench: Bench, count: int | None = None) -> list[Row]:
    """Try mutants of the checker.

    Args:
        bench: On which; without policies of other tools.
        count: How many; None for all.

    Returns:
        One row each: whether it was noticed, by which trial, and what that said.
    """
    bench = replace(bench, baselines=None)
    faults = fixed_faults(bench)
    return [try_mutant(bench, mutant, faults) for mutant in MUTANTS[:count]]


def try_mutant(bench: Bench, mutant: Mutant, faults: Sequence[Fault]) -> Row:
    """Run the fixed set under one mutant, until a trial fails.

    Args:
        bench: On which.
        mutant: What is wrong with the checker.
        faults: The fixed set; the candidate itself comes first.
    """
    with mutant.spoil(bench) as spoiled:
        by, said = _first_failure(spoiled, faults)
    return {"mutant": mutant.name, "noticed": bool(by), "by": by, "said": said}


def _first_failure(bench: Bench, faults: Sequence[Fault]) -> tuple[str, str]:
    row = try_harmless(bench, Harmless("nothing changed", lambda: bench.candidate))
    if row["caught"]:
        return row["name"], f"alarm in {row['mode']}: {row['said']}"
    for fault in faults:
        row = try_fault(bench, fault)
        if not row["caught"]:
            return fault.name, f"missed, {row['expected_modes']} should differ"
        if not row["phase_correct"]:
            return fault.name, f"seen in {row['mode']}, not in {row['expected_modes']}"
        if not row["exact"]:
            return fault.name, f"{row['site'] or 'nothing'} is named, not {row['truth']}"
    return "", ""


def _middle(faults: Any, operator: str) -> Fault:
    found = [fault for fault in faults if fault.operator == operator]
    return found[len(found) // 2]
