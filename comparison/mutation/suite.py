"""The checker on trial: faults that it must catch and name, changes that must raise no alarm.

Every fault is injected into a copy of a candidate that passes; every harmless candidate computes
the same in another way. A trial is one row: what the engine said, whether it is right, and what
the policies of other tools say to the same change.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from comparison.engine.examine import Examined, examine, match
from comparison.engine.free import run_free
from comparison.engine.leader import Leader
from comparison.engine.matching import NameMap
from comparison.engine.modes.data import compare_data
from comparison.engine.rewrites import REWRITES, Rewrite
from comparison.engine.sides import Batch, Side
from comparison.engine.subject import Subject
from comparison.engine.verdict import (
    BACKWARD,
    BITWISE,
    DATA,
    EVAL,
    FORCED,
    FREE,
    LOSS,
    NOT_REPRODUCED,
    STATE,
    STATIC,
    TRAIN,
    UNDECIDED,
    ModeVerdict,
    Origin,
)
from comparison.mutation.baselines import Baselines, Shown
from comparison.mutation.fault import Fault
from comparison.mutation.scoring import FAULT, HARMLESS, OUTSIDE, Named, Row, Ruler, named_first

STEPS = 3
EPOCHS = 100
# What a harmless candidate goes through: all modes but accuracy, which takes trained networks.
ALL_MODES = (STATIC, EVAL, TRAIN, LOSS, BACKWARD, STATE, FORCED, BITWISE, FREE, DATA)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A reference with a candidate that passes.

    Attributes:
        name: Names network, tree, size and seed.
        leader: The reference's run.
        candidate: The candidate, in float64, with the reference's weights.
        name_map: For the engine; None where the module tree is another.
        clean: The candidate, matched.
        ruler: Measures where a fault was and where it was seen.
        baselines: The policies of other tools; None where they are not asked.
    """

    name: str
    leader: Leader
    candidate: Side
    name_map: NameMap | None
    clean: Subject
    ruler: Ruler
    baselines: Baselines | None = None


class Harmless(NamedTuple):
    """A candidate that computes the same, and what makes it: copies of networks are large."""

    name: str
    make: Callable[[], Side]


class Clock:
    """Seconds since it was made, of the wall and of the processor, on which a trial runs alone."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Return both."""
        wall, cpu = self._start
        return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def bench_of(
    name: str,
    leader: Leader,
    candidate: Side,
    name_map: NameMap | None,
    ruler: Ruler | None = None,
    baselines: Baselines | None = None,
) -> Bench:
    """Match a candidate that passes and return the bench; measured by itself without a ruler."""
    clean = match(leader, candidate, name_map)
    return Bench(
        name=name,
        leader=leader,
        candidate=candidate,
        name_map=name_map,
        clean=clean,
        ruler=ruler or Ruler.of(clean, None),
        baselines=baselines,
    )


def measured(bench: Bench) -> Bench:
    """Measure the reference and its noise floor now, so that no trial is charged with it."""
    unchanged = Harmless("nothing changed", lambda: bench.candidate)
    try_harmless(replace(bench, baselines=None), unchanged)
    return bench


def try_fault(bench: Bench, fault: Fault) -> Row:
    """Inject one fault, run the engine, and compare what it says with the truth.

    Args:
        bench: Where.
        fault: What to change.

    Returns:
        One row: the truth, what was said, whether it was caught, in the right phase, at the right
        place, how many operations away from it, and which other policies flag it.
    """
    clock = Clock()
    if fault.inject_data:
        batches = fault.inject_data(bench.leader.batches)
        verdict = compare_data(bench.leader.batches, batches)
        row = _row(bench, fault, [verdict], [], [], clock)
        return row | _others(bench, bench.clean, bench.candidate, batches)
    side = fault.applied(bench.candidate)
    examined = _examined(bench, side)
    findings = [finding.name for finding in examined.findings]
    row = _row(bench, fault, examined.modes, examined.origins, findings, clock)
    return row | _others(bench, examined.subject, side, bench.leader.batches)


def try_harmless(bench: Bench, harmless: Harmless) -> Row:
    """Run every mode on a candidate that computes the same; anything it says is an alarm.

    A mode that gives no verdict, or leaves one undecided, is an alarm as well.
    """
    clock = Clock()
    side = harmless.make()
    examined = _examined(bench, side, bitwise=True)
    modes = [
        *examined.modes,
        run_free(examined.subject, STEPS)[1],
        compare_data(bench.leader.batches, bench.leader.batches),
    ]
    raised = [verdict for verdict in modes if verdict.outcome in (NOT_REPRODUCED, UNDECIDED)]
    silent = [mode for mode in ALL_MODES if mode not in {verdict.mode for verdict in modes}]
    raised += [ModeVerdict(mode, UNDECIDED, "gave no verdict") for mode in silent]
    row = {
        "bench": bench.name,
        "kind": HARMLESS,
        "name": harmless.name,
        "family": HARMLESS,
        "caught": bool(raised),
        "mode": raised[0].mode if raised else "",
        "site": raised[0].first_divergent if raised else "",
        "said": raised[0].reason[:200] if raised else "",
        "margin": _margin(modes),
        **clock.read(),
    }
    return row | _others(bench, examined.subject, side, bench.leader.batches)


def harmless_candidates(bench: Bench, neutral: Sequence[Fault]) -> list[Harmless]:
    """List the candidate itself, under every neutral rewrite, and with neutral changes of one call.

    Args:
        bench: Where.
        neutral: Changes of operations that change no value.
    """
    side = bench.candidate

    def rewritten(rewrite: Rewrite) -> Side:
        return replace(side, model=rewrite.wrapped(side.model))

    return [
        Harmless("nothing changed", lambda: side),
        *(Harmless(one.name, partial(rewritten, one)) for one in REWRITES if not one.reordered),
        *(Harmless(change.name, partial(change.applied, side)) for change in neutral),
    ]


def _examined(bench: Bench, candidate: Side, *, bitwise: bool = False) -> Examined:
    epochs = EPOCHS if candidate.make_scheduler else 0
    return examine(
        bench.leader,
        candidate,
        name_map=bench.name_map,
        steps=STEPS,
        keep=True,
        bitwise=bitwise,
        epochs=epochs,
    )


def _row(
    bench: Bench,
    fault: Fault,
    modes: Sequence[ModeVerdict],
    origins: Sequence[Origin],
    findings: Sequence[str],
    clock: "Clock",
) -> Row:
    failed = [verdict for verdict in modes if verdict.outcome == NOT_REPRODUCED]
    numeric = [verdict.mode for verdict in failed if verdict.mode != STATIC]
    first = numeric[0] if numeric else failed[0].mode if failed else ""
    named = named_first(failed, origins, findings)
    truth, ruler = bench.ruler.truth(fault), bench.ruler
    exact = ruler.is_right(named, truth)
    return {
        "bench": bench.name,
        "kind": FAULT,
        "name": fault.name,
        "family": fault.family,
        "inside": not set(OUTSIDE) & truth,
        "truth": ", ".join(sorted(truth)[:3]),
        "expected_modes": ", ".join(fault.modes),
        "caught": bool(failed),
        "static": any(verdict.mode == STATIC for verdict in failed),
        "mode": first,
        "phase_correct": first in fault.modes,
        "origins": len(origins),
        "site": named.site,
        "said": origins[0].text if origins else (failed[0].reason[:200] if failed else ""),
        "confirmed": origins[0].confirmed if origins else None,
        "exact": exact,
        "first_end": ruler.is_right(Named(named.places[:1], named.modules), truth),
        "hops": ruler.hops(named, truth),
        "margin": _margin(modes),
        **clock.read(),
    }


def _margin(modes: Sequence[ModeVerdict]) -> float | None:
    """Return by how many decades the worst tensor exceeds its threshold; None if no number says."""
    margins = [verdict.worst_margin for verdict in modes if verdict.worst_margin is not None]
    return max((margin for margin in margins if math.isfinite(margin)), default=None)


def _others(bench: Bench, subject: Subject, side: Side, batches: Sequence[Batch]) -> dict[str, Any]:
    """Return which policies of other tools flag a candidate, and what asking them took."""
    if bench.baselines is None:
        return {}
    clock = Clock()
    flagged = bench.baselines.flagged(Shown(subject, side, batches))
    return {"flagged_by": "; ".join(flagged), "baselines_s": clock.read()["cpu_s"]}
