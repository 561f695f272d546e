"""The checker on trial: faults that it must catch and name, changes that must raise no alarm.

Every fault is injected into a copy of a candidate that passes; every harmless candidate computes
the same in another way. A trial records what the engine said; `scores` sums up.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comparison.engine.examine import Examined, examine, match
from comparison.engine.leader import Leader
from comparison.engine.matching import NameMap
from comparison.engine.modes.data import compare_data
from comparison.engine.rewrites import REWRITES
from comparison.engine.sides import Side
from comparison.engine.subject import Subject
from comparison.engine.verdict import DATA, NOT_REPRODUCED, STATIC, UNDECIDED, ModeVerdict, Origin
from comparison.mutation.fault import Fault
from comparison.statistics import clopper_pearson

STEPS = 3
EPOCHS = 100
FAULT, HARMLESS = "fault", "harmless"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A reference with a candidate that passes.

    Attributes:
        name: Names network, tree, size and seed.
        leader: The reference's run.
        candidate: The candidate, in float64, with the reference's weights.
        name_map: For the engine; None where the module tree is another.
        clean: The candidate, matched.
    """

    name: str
    leader: Leader
    candidate: Side
    name_map: NameMap | None
    clean: Subject

    @classmethod
    def of(cls, name: str, leader: Leader, candidate: Side, name_map: NameMap | None) -> "Bench":
        """Match a candidate that passes and return the bench."""
        clean = match(leader, candidate, name_map)
        return cls(name=name, leader=leader, candidate=candidate, name_map=name_map, clean=clean)


def try_fault(bench: Bench, fault: Fault) -> Row:
    """Inject one fault, run the engine, and compare what it says with the truth.

    Args:
        bench: Where.
        fault: What to change.

    Returns:
        One row: the truth, what was said, and whether it was caught, in the right phase, at the
        right place, and how many operations away from it.
    """
    start = time.perf_counter()
    if fault.inject_data:
        return _row(bench, fault, [_data_verdict(bench, fault)], [], [], start)
    examined = _examined(bench, fault.applied(bench.candidate))
    findings = [finding.name for finding in examined.findings]
    return _row(bench, fault, examined.modes, examined.origins, findings, start)


def try_harmless(bench: Bench, name: str, candidate: Side) -> Row:
    """Run the engine on a candidate that computes the same; anything it says is an alarm."""
    start = time.perf_counter()
    modes = _examined(bench, candidate).modes
    raised = [verdict for verdict in modes if verdict.outcome in (NOT_REPRODUCED, UNDECIDED)]
    return {
        "bench": bench.name,
        "kind": HARMLESS,
        "name": name,
        "family": HARMLESS,
        "site": raised[0].first_divergent if raised else "",
        "caught": bool(raised),
        "mode": raised[0].mode if raised else "",
        "said": raised[0].reason[:200] if raised else "",
        "margin": max((v.worst_margin for v in modes if v.worst_margin is not None), default=None),
        "wall_s": time.perf_counter() - start,
    }


def harmless(bench: Bench, neutral: Iterable[Fault] = ()) -> Iterable[tuple[str, Side]]:
    """Yield the candidate under every neutral rewrite, and under neutral changes of one call."""
    yield "nothing changed", bench.candidate
    for rewrite in REWRITES:
        if not rewrite.reordered:
            model = rewrite.wrapped(bench.candidate.model)
            yield rewrite.name, replace(bench.candidate, model=model)
    for change in neutral:
        yield change.name, change.applied(bench.candidate)


def scores(rows: Sequence[Row]) -> list[Row]:
    """Sum up trials, over all and by family.

    Args:
        rows: From `try_fault` and `try_harmless`.

    Returns:
        One row for all and one per family: number of faults, caught, phase correct, exactly
        localized, mean distance in operations of those localized, mean time; for harmless
        changes the alarms, with the 95 % bounds of Clopper and Pearson.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["family"]].append(row)
        if row["kind"] == FAULT:
            groups["all faults"].append(row)
    order = sorted(groups, key=lambda name: (name == HARMLESS, name != "all faults", name))
    return [_score(name, groups[name]) for name in order]


def survivors(rows: Sequence[Row]) -> list[Row]:
    """List what went wrong: faults missed or misplaced, harmless changes that raised an alarm."""
    return [
        row
        for row in rows
        if (row["kind"] == HARMLESS and row["caught"])
        or (row["kind"] == FAULT and not (row["caught"] and row["exact"]))
    ]


def _examined(bench: Bench, candidate: Side) -> Examined:
    epochs = EPOCHS if candidate.make_scheduler else 0
    return examine(
        bench.leader,
        candidate,
        name_map=bench.name_map,
        steps=STEPS,
        keep=True,
        bitwise=False,
        epochs=epochs,
    )


def _data_verdict(bench: Bench, fault: Fault) -> ModeVerdict:
    assert fault.inject_data
    return compare_data(bench.leader.batches, fault.inject_data(bench.leader.batches))


def _row(
    bench: Bench,
    fault: Fault,
    modes: Sequence[ModeVerdict],
    origins: Sequence[Origin],
    findings: Sequence[str],
    start: float,
) -> Row:
    failed = [verdict for verdict in modes if verdict.outcome == NOT_REPRODUCED]
    numeric = [verdict.mode for verdict in failed if verdict.mode != STATIC]
    first = numeric[0] if numeric else failed[0].mode if failed else ""
    distance = _distance(bench, fault, origins, failed, findings)
    return {
        "bench": bench.name,
        "kind": FAULT,
        "name": fault.name,
        "family": fault.family,
        "truth": ", ".join(fault.sites[:3]),
        "expected_modes": ", ".join(fault.modes),
        "caught": bool(failed),
        "static": any(verdict.mode == STATIC for verdict in failed),
        "mode": first,
        "phase_correct": first in fault.modes,
        "origins": len(origins),
        "site": origins[0].site if origins else (failed[0].first_divergent if failed else ""),
        "said": origins[0].text if origins else (failed[0].reason[:200] if failed else ""),
        "confirmed": origins[0].confirmed if origins else None,
        "exact": distance == 0,
        "hops": distance,
        "margin": max((v.worst_margin for v in modes if v.worst_margin is not None), default=None),
        "wall_s": time.perf_counter() - start,
    }


def _distance(
    bench: Bench,
    fault: Fault,
    origins: Sequence[Origin],
    failed: Sequence[ModeVerdict],
    findings: Sequence[str],
) -> int | None:
    """Return how many operations lie between the truth and the first origin; None if unknown."""
    sites = set(fault.sites)
    if any(verdict.mode == DATA for verdict in failed) and "data" in sites:
        return 0
    if origins:
        return _from_origin(bench, sites, origins[0])
    named = {module for name in findings for module in _modules_of(bench, name)}
    places = {name.rpartition(" (")[0] for name in findings}
    return 0 if (named | places | set(findings)) & sites else None


def _from_origin(bench: Bench, sites: set[str], origin: Origin) -> int | None:
    if origin.kind == "loss" and "loss" in sites:
        return 0
    if origin.module in sites or (origin.module == "optimizer" and "optimizer" in sites):
        return 0
    if origin.site.startswith("optimizer") and "optimizer" in sites:
        return 0
    if _modules_of(bench, origin.module) & sites:
        return 0
    nodes, ours = bench.leader.nodes[True], bench.clean.nodes[True]
    names = {str(node.place): index for index, node in enumerate(nodes)}
    paired = {a: b for b, a in bench.clean.matches[True].pairs.items()}
    truth = {a for a, b in paired.items() if ours[b].place.module in sites}
    return _hops(nodes, {names[place] for place in origin.places if place in names}, truth)


def _modules_of(bench: Bench, name: str) -> set[str]:
    """Return the candidate's modules of what the reference names: a module or a state tensor."""
    pairs = bench.clean.state.pairs
    return {
        own.rpartition(".")[0]
        for own, theirs in pairs.items()
        if name in (theirs, theirs.rpartition(".")[0])
    }


def _hops(nodes: Sequence[Any], start: set[int], goal: set[int]) -> int | None:
    """Return the length of the shortest path between two sets of operations, either way."""
    beside: Mapping[int, set[int]] = _neighbors(nodes)
    queue = deque((index, 0) for index in start)
    seen = set(start)
    while queue:
        index, distance = queue.popleft()
        if index in goal:
            return distance
        for other in beside[index] - seen:
            seen.add(other)
            queue.append((other, distance + 1))
    return None


def _neighbors(nodes: Sequence[Any]) -> Mapping[int, set[int]]:
    beside: dict[int, set[int]] = defaultdict(set)
    for index, node in enumerate(nodes):
        for source in node.inputs:
            if source >= 0:
                beside[index].add(source)
                beside[source].add(index)
    return beside


def _score(name: str, rows: Sequence[Row]) -> Row:
    caught = sum(row["caught"] for row in rows)
    bounds = clopper_pearson(caught, len(rows))
    score = {
        "family": name,
        "trials": len(rows),
        "caught": caught,
        "share": caught / len(rows),
        "low": bounds.low,
        "high": bounds.high,
        "mean_s": sum(row["wall_s"] for row in rows) / len(rows),
    }
    if name == HARMLESS:
        return score
    found = [row["hops"] for row in rows if row["hops"] is not None]
    return score | {
        "phase_correct": sum(row["phase_correct"] for row in rows) / len(rows),
        "exact": sum(row["exact"] for row in rows) / len(rows),
        "mean_hops": sum(found) / len(found) if found else None,
    }
