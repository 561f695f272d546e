"""Whether the place that the checker names is the true one, and the scores of many trials.

Places are compared in the names of the reproduction's own tree, whatever tree the candidate has:
in a tree without modules every functional operation belongs to the network, and would be right
wherever the fault lies. What the checker names are operations of the reference; the pairing of the
clean reproduction with the reference says what each of them is in the own tree.

A place is an operation, or an edge between two: both of its ends are the place.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from comparison.engine.subject import Subject
from comparison.engine.trace import Node
from comparison.engine.verdict import DATA, ModeVerdict, Origin
from comparison.mutation.fault import Fault
from comparison.mutation.operators_operations import operation_faults
from comparison.mutation.reshaped import Reshaped, true_sites
from comparison.statistics import clopper_pearson

FAULT, HARMLESS = "fault", "harmless"
ALL, INSIDE = "all faults", "faults in the network"
OUTSIDE = ("loss", "optimizer", "scheduler", "data")  # places that are no part of the network
DETECTION, EXACT = 0.98, 0.90  # least shares of faults caught, and localized exactly
Row = dict[str, Any]


class Named(NamedTuple):
    """What the checker named first.

    Attributes:
        places: Operations of the reference, the named one first, then the other end of an edge.
        modules: Modules of the reference, or one of `OUTSIDE`, where no operation is named.
        site: As printed.
    """

    places: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    site: str = ""


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """Measures in the names of the own tree.

    Attributes:
        own: The clean reproduction in its own tree, matched with the reference.
        other: The other tree, if the candidate has it.
        originals: The faults of operations of the own tree.
    """

    own: Subject
    other: Reshaped | None = None
    originals: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, own: Subject, other: Reshaped | None) -> "Ruler":
        """List the faults of the own tree if there is another one to be measured."""
        inputs = own.side.sees(own.leader.batches[0]).inputs
        originals = tuple(operation_faults(own.side.model, inputs)) if other else ()
        return cls(own=own, other=other, originals=originals)

    def truth(self, fault: Fault) -> frozenset[str]:
        """Return the true places of a fault, by their names in the own tree."""
        sites = fault.sites
        if self.other:
            sites = true_sites(fault, self.other, self.originals)
        return frozenset(sites)

    def modules_of(self, place: str) -> set[str]:
        """Return the own tree's modules of an operation of the reference."""
        found = set()
        for train, match in self.own.matches.items():
            nodes = self.own.leader.nodes[train]
            found |= {
                self.own.nodes[train][ours].place.module
                for ours, theirs in match.pairs.items()
                if str(nodes[theirs].place) == place
            }
        return found

    def own_name(self, module: str) -> set[str]:
        """Return the own tree's name of a module, or of the owner of a tensor, of the reference."""
        if module in OUTSIDE:
            return {module}
        return {
            own.rpartition(".")[0]
            for own, theirs in self.own.state.pairs.items()
            if module in (theirs, theirs.rpartition(".")[0])
        }

    def hops(self, named: Named, truth: frozenset[str]) -> int | None:
        """Return how many operations lie between what is named and the truth; None if unknown."""
        if self.is_right(named, truth):
            return 0
        nodes, match = self.own.leader.nodes[True], self.own.matches[True]
        index = {str(node.place): number for number, node in enumerate(nodes)}
        start = {index[place] for place in named.places if place in index}
        start |= {i for i, node in enumerate(nodes) if node.place.module in named.modules}
        ours = self.own.nodes[True]
        goal = {a for b, a in match.pairs.items() if ours[b].place.module in truth}
        return _distance(nodes, start, goal)

    def is_right(self, named: Named, truth: frozenset[str]) -> bool:
        """Tell whether an end of what is named is the truth."""
        return any(self.modules_of(place) & truth for place in named.places) or any(
            self.own_name(module) & truth for module in named.modules
        )


def named_first(
    failed: Sequence[ModeVerdict], origins: Sequence[Origin], findings: Sequence[str]
) -> Named:
    """Return the place that a report names first.

    Args:
        failed: The modes that are not reproduced.
        origins: What was found out about where differences begin.
        findings: Names of the static findings, which count if there is no origin.
    """
    if origins:
        origin = origins[0]
        if origin.places:
            return Named(places=origin.places, site=origin.site)
        module = "loss" if origin.kind == "loss" else origin.module
        return Named(modules=(module,), site=origin.site)
    if any(verdict.mode == DATA for verdict in failed):
        return Named(modules=("data",), site=failed[0].first_divergent)
    if not findings:
        return Named()
    name = findings[0]
    if name.endswith(")"):
        return Named(places=(name,), site=name)
    return Named(modules=(name,), site=name)


def _distance(nodes: Sequence[Node], start: set[int], goal: set[int]) -> int | None:
    """Return the length of the shortest path between two sets of operations, either way."""
    beside = _neighbors(nodes)
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


def _neighbors(nodes: Sequence[Node]) -> Mapping[int, set[int]]:
    beside: dict[int, set[int]] = defaultdict(set)
    for index, node in enumerate(nodes):
        for source in node.inputs:
            if source >= 0:
                beside[index].add(source)
                beside[source].add(index)
    return beside


def scores(rows: Sequence[Row], by: str = "family") -> list[Row]:
    """Sum up trials: over all faults, over those inside the network, and by a column.

    Args:
        rows: From the trials.
        by: ``family`` or ``bench``.

    Returns:
        For faults their number, those caught with the 95 % bounds of Clopper and Pearson, those
        in the right mode, those localized exactly, mean distance in operations of those localized,
        mean and longest processor time; for harmless candidates the alarms with the same bounds.
    """
    faults = [row for row in rows if row["kind"] == FAULT]
    changes = [row for row in rows if row["kind"] == HARMLESS]
    inside = [row for row in faults if row["inside"]]
    groups = {ALL: faults, INSIDE: inside, HARMLESS: changes}
    names = sorted({row[by] for row in rows} - {HARMLESS})
    for name in names:
        of_name = [row for row in rows if row[by] == name]
        groups[name] = [row for row in of_name if row["kind"] == FAULT]
        if by != "family":
            groups[f"{name}: {HARMLESS}"] = [row for row in of_name if row["kind"] == HARMLESS]
    return [_score(name, group) for name, group in groups.items() if group]


def survivors(rows: Iterable[Row]) -> list[Row]:
    """List what went wrong, each with its reason: faults missed or misplaced, and alarms."""
    return [
        {"bench": row["bench"], "kind": row["kind"], "name": row["name"], "reason": reason}
        for row in rows
        if (reason := _reason(row))
    ]


def failed_gates(rows: Sequence[Row], checkers: Sequence[Row] = ()) -> list[str]:
    """Say which gates the checker does not hold; nothing tried is nothing shown.

    Args:
        rows: From the trials.
        checkers: From the mutants of the checker.
    """
    summed = {row["group"]: row for row in scores(rows)}
    failed = []
    faults, changes = summed.get(ALL), summed.get(HARMLESS)
    if not faults or not changes:
        failed.append("no fault or no harmless candidate was tried")
    if faults and faults["share"] < DETECTION:
        failed.append(f"{faults['share']:.1%} of the faults caught, {DETECTION:.0%} must be")
    if faults and faults["exact"] < EXACT:
        failed.append(f"{faults['exact']:.1%} localized exactly, {EXACT:.0%} must be")
    if changes and changes["caught"]:
        failed.append(f"{changes['caught']} alarms on {changes['trials']} harmless candidates")
    unnoticed = [row["mutant"] for row in checkers if not row["noticed"]]
    return failed + [f"this mutant of the checker went unnoticed: {name}" for name in unnoticed]


def _reason(row: Row) -> str:
    if row["kind"] == HARMLESS:
        return f"false alarm in {row['mode']}: {row['said']}" if row["caught"] else ""
    if not row["caught"]:
        return f"missed: no mode differs, {row['expected_modes']} should"
    if row["exact"]:
        return ""
    far = "at an unknown distance" if row["hops"] is None else f"{row['hops']} operations away"
    return f"misplaced: {row['site'] or 'nothing'} is named, {far} from {row['truth']}"


def _score(name: str, rows: Sequence[Row]) -> Row:
    caught = sum(row["caught"] for row in rows)
    bounds = clopper_pearson(caught, len(rows))
    times = [row["cpu_s"] for row in rows]
    score: Row = {
        "group": name,
        "trials": len(rows),
        "caught": caught,
        "share": caught / len(rows),
        "low": bounds.low,
        "high": bounds.high,
        **dict.fromkeys(("phase_correct", "exact", "first_end", "mean_hops")),
        "mean_s": sum(times) / len(times),
        "max_s": max(times),
    }
    if rows[0]["kind"] == HARMLESS:
        return score
    found = [row["hops"] for row in rows if row["hops"] is not None]
    shares = {
        column: sum(row[column] for row in rows) / len(rows)
        for column in ("phase_correct", "exact", "first_end")
    }
    return score | shares | {"mean_hops": sum(found) / len(found) if found else None}
