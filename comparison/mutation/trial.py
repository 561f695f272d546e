"""The trial of the checker: draw, inject, score, and hold the scores to their gates."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch

from comparison.mutation.baselines import comparison_rows
from comparison.mutation.benches import make_benches
from comparison.mutation.checkers import try_mutants
from comparison.mutation.operators import draw_neutral, sample
from comparison.mutation.plan import PLANS, Plan
from comparison.mutation.scoring import Row, failed_gates, scores, survivors
from comparison.mutation.suite import (
    Bench,
    Harmless,
    harmless_candidates,
    try_fault,
    try_harmless,
)
from reproduction import UserError

NEUTRAL = 6  # neutral changes of single operations, beside the rewrites


@dataclass
class Trial:
    """What a trial gave.

    Attributes:
        rows: One for every fault and every harmless candidate.
        excluded: Faults that were drawn, and change nothing on these inputs.
        checkers: One for every mutant of the checker.
    """

    rows: list[Row] = field(default_factory=list)
    excluded: list[Row] = field(default_factory=list)
    checkers: list[Row] = field(default_factory=list)

    def failed_gates(self) -> list[str]:
        """Say which gates do not hold; empty if all do."""
        return failed_gates(self.rows, self.checkers)


def plan_named(name: str) -> Plan:
    """Look a plan up.

    Raises:
        UserError: There is none of that name.
    """
    if name not in PLANS:
        raise UserError(f"plan {name!r} is unknown; use one of {', '.join(PLANS)}")
    return PLANS[name]


def run(plan: Plan, seed: int = 0, tell: Callable[[str], None] = lambda _text: None) -> Trial:
    """Try the checker as a plan says.

    Args:
        plan: Benches, and how much is tried on each.
        seed: Decides weights, images, operators, sites and strengths.
        tell: Hears of every trial as it ends.
    """
    torch.set_num_threads(1)
    trial, tried, changed = Trial(), Counter[str](), Counter[str]()
    for number, setting in enumerate(plan.settings):
        benches = make_benches(setting, seed)
        for tree, bench in enumerate(benches):
            drawing = 1000 * seed + 2 * number + tree
            for row in _faulty(bench, _half(setting.faults, tree), drawing, tried, trial):
                trial.rows.append(row)
                tell(f"{len(trial.rows)}: {row['name']}: {row['mode'] or 'nothing'}")
            for candidate in _drawn(bench, _half(setting.changes, tree), drawing, changed):
                trial.rows.append(row := try_harmless(bench, candidate))
                tell(f"{len(trial.rows)}: {row['name']}: {row['mode'] or 'silent'}")
        if not number:
            trial.checkers += try_mutants(benches[0], plan.checkers)
    return trial


def told(trial: Trial) -> str:
    """Return the scoreboard, the other policies, every survivor and the verdict as text."""
    by_family, policies = scores(trial.rows), comparison_rows(trial.rows)
    parts = [_table(by_family), _table(policies), _table(trial.checkers)]
    for row in survivors(trial.rows):
        parts.append(f"{row['name']} ({row['bench']}): {row['reason']}")
    parts += [f"gate: {sentence}" for sentence in trial.failed_gates()] or ["all gates hold"]
    return "\n".join(part for part in parts if part)


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    table = pd.DataFrame(rows)
    return table.to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}") + "\n"


def _half(count: int, number: int) -> int:
    return (count + 1 - number) // 2


def _faulty(
    bench: Bench, count: int, seed: int, tried: Counter[str], trial: Trial
) -> Iterator[Row]:
    drawn = sample(bench.candidate, bench.leader.batches, count, seed, tried)
    trial.excluded += [
        {"bench": bench.name, "family": fault.family, "name": fault.name, "reason": reason}
        for fault, reason in drawn.excluded
    ]
    for fault in drawn.faults:
        yield try_fault(bench, fault)


def _drawn(bench: Bench, count: int, seed: int, changed: Counter[str]) -> list[Harmless]:
    """Draw harmless candidates; kinds that were tried least come first."""
    neutral = draw_neutral(bench.candidate, bench.leader.batches, NEUTRAL, seed)
    candidates = harmless_candidates(bench, neutral)
    mixed = random.Random(seed).sample(candidates, len(candidates))
    chosen = sorted(mixed, key=lambda one: changed[_kind(one)])[:count]
    changed.update(_kind(one) for one in chosen)
    return chosen


def _kind(candidate: Harmless) -> str:
    return candidate.name.partition(" at ")[0]
