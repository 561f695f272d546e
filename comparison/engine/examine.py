"""All modes of a comparison on one candidate, lowest first, each with its verdict.

What the reference does is measured once (`Leader`); a candidate is matched with it, run beside it,
and where a mode fails the origins are searched for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from comparison.engine import static
from comparison.engine.alignment import match_nodes
from comparison.engine.leader import COUNTING, Leader
from comparison.engine.localize import find_origins, without_repeats
from comparison.engine.matching import NameMap, match_state
from comparison.engine.modes.static import optimizer_findings, scheduler_findings
from comparison.engine.passes import Sites
from comparison.engine.recordings import Checking, renamed
from comparison.engine.rows import OPEN, Key, Row
from comparison.engine.sides import Side
from comparison.engine.stepfits import find_step_origins
from comparison.engine.steps import Stepper, follow
from comparison.engine.subject import Subject, judge_by_mode
from comparison.engine.trace import trace
from comparison.engine.verdict import (
    BACKWARD,
    BITWISE,
    EVAL,
    FORCED,
    LIMITS,
    LOSS,
    NOT_REPRODUCED,
    REPRODUCED,
    STATE,
    STATIC,
    TRAIN,
    UNDECIDED,
    WITHIN_TOLERANCE,
    Finding,
    ModeVerdict,
    Origin,
    conclude,
    decide_by_precision,
)


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found out about one candidate; ``single`` is what float32 showed, not judged."""

    subject: Subject
    modes: tuple[ModeVerdict, ...]
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    origins: tuple[Origin, ...]
    single: tuple[Row, ...] = field(default=())
    steps: tuple[dict[str, Any], ...] = field(default=())
    notices: tuple[str, ...] = field(default=())


def examine(
    leader: Leader,
    candidate: Side,
    *,
    name_map: NameMap | None = None,
    steps: int = 2,
    values: bool = True,
    keep: bool = False,
    bitwise: bool = True,
    epochs: int = 0,
) -> Examined:
    """Run the modes static to bitwise, but for free runs, on one candidate.

    Args:
        leader: The reference's run.
        candidate: The candidate, in float64; it is left as it is.
        name_map: Name of a state tensor in the candidate to its name in the reference.
        steps: Teacher-forced optimizer steps.
        values: Whether the weights that the two sides have must be equal.
        keep: Whether the leader keeps its steps for the next candidate.
        bitwise: Whether to compare bits in float32.
        epochs: For how many epochs the schedules of learning rates are followed.
    """
    subject = match(leader, candidate, name_map)
    findings, verdict = _static(subject, values=values, epochs=epochs)
    verdicts, rows, origins = [verdict], list[Row](), list[Origin]()
    for train in (False, True):
        of_mode = _decided(subject, train, subject.compare(train))
        rows += of_mode
        modes = (TRAIN, LOSS, BACKWARD) if train else (EVAL,)
        verdicts += [_conclude(leader, mode, of_mode) for mode in modes if _has(mode, leader)]
        if any(not row.agrees for row in of_mode):
            origins += find_origins(subject, train)
    table: list[dict[str, Any]] = []
    buffers = [row for row in rows if row.key.mode == STATE]
    if leader.side.make_optimizer and candidate.make_optimizer and steps:
        stepped, findings_of_steps, table, found = _steps(subject, steps, keep, bool(origins))
        rows, origins = rows + stepped, origins + found
        first = [
            replace(row, key=row.key._replace(mode=STATE)) for row in stepped if _is_first(row)
        ]
        of_first = [f for f in findings_of_steps if "step 1" in f.text]
        verdicts.append(conclude(STATE, [*buffers, *first], of_first))
        forced = conclude(FORCED, stepped, findings_of_steps)
        verdicts.append(_over_steps(forced, table))
    elif buffers:
        verdicts.append(conclude(STATE, buffers))
    of_bits, single = _bitwise(subject, rows) if bitwise else (None, [])
    verdicts += [of_bits] if of_bits else []
    return Examined(
        subject=subject,
        modes=tuple(verdicts),
        rows=tuple(rows),
        findings=tuple(findings),
        origins=without_repeats(origins),
        single=tuple(single),
        steps=tuple(table),
        notices=tuple(_notices(leader, rows)),
    )


def match(leader: Leader, candidate: Side, name_map: NameMap | None = None) -> Subject:
    """Match a candidate's state tensors and operations with the reference's.

    Raises:
        UserError: Nothing corresponds.
    """
    inputs = leader.batches[0].inputs
    nodes = {train: trace(candidate.model, inputs, train=train) for train in (False, True)}
    reference = leader.side.model
    state = match_state(reference, candidate.model, leader.nodes[False], nodes[False], name_map)
    matches = {
        train: match_nodes(leader.nodes[train], nodes[train], state) for train in (False, True)
    }
    return Subject(leader=leader, side=candidate, state=state, nodes=nodes, matches=matches)


def _static(subject: Subject, *, values: bool, epochs: int) -> tuple[list[Finding], ModeVerdict]:
    leader, side = subject.leader, subject.side
    reference, state = leader.side, subject.state
    checks = [static.state_findings(reference.model, side.model, state, values=values)]
    for train in (False, True):
        nodes = leader.nodes[train], subject.nodes[train], subject.matches[train]
        checks.append(static.draw_findings(*nodes))
        checks.append(static.hyperparameter_findings(reference.model, side.model, state, *nodes))
    if reference.make_optimizer and side.make_optimizer:
        checks.append(_optimizers(reference, side, state.pairs))
    if epochs and reference.make_scheduler and side.make_scheduler:
        checks.append(scheduler_findings(reference, side, epochs))
    findings = list(dict.fromkeys(finding for _, found in checks for finding in found))
    return findings, conclude(STATIC, (), findings, facts=sum(facts for facts, _ in checks))


def _optimizers(
    reference: Side, candidate: Side, pairs: Mapping[str, str]
) -> tuple[int, list[Finding]]:
    assert reference.make_optimizer and candidate.make_optimizer
    theirs = {id(p): name for name, p in reference.model.named_parameters()}
    ours = {id(p): pairs.get(name, name) for name, p in candidate.model.named_parameters()}
    made = reference.make_optimizer(reference.model), candidate.make_optimizer(candidate.model)
    return optimizer_findings(*made, theirs, ours)


def _has(mode: str, leader: Leader) -> bool:
    return leader.side.loss is not None or mode in (EVAL, TRAIN)


def _conclude(leader: Leader, mode: str, rows: Sequence[Row]) -> ModeVerdict:
    """Conclude on a mode; agreement that rests on too few counting rewrites is undecided."""
    of_mode = [row for row in rows if row.key.mode == mode]
    verdict = conclude(mode, of_mode)
    on_noise = [
        row for row in of_mode if row.agrees and row.difference > LIMITS.relative * row.size
    ]
    resting = [row for row in on_noise if row.noise * LIMITS.noise_factor >= row.threshold]
    count = leader.counting(mode)
    if verdict.outcome == REPRODUCED and resting and count < COUNTING:
        reason = (
            f"only {count} neutral rewrites change a bit here, {COUNTING} must: {verdict.reason}"
        )
        return replace(verdict, outcome=UNDECIDED, reason=reason)
    return verdict


def _decided(subject: Subject, train: bool, rows: list[Row]) -> list[Row]:
    """Decide undecided rows by how their deviation scales with the precision."""
    opened = {row.key for row in rows if row.state == OPEN}
    if not opened:
        return rows
    single = _single_rows(subject, train)
    return [
        decide_by_precision(row, single[row.key].difference)
        if row.key in opened and row.key in single
        else row
        for row in rows
    ]


def _single_rows(subject: Subject, train: bool) -> dict[Key, Row]:
    check = Checking(subject.leader.single()[train])
    sink = renamed(check, subject.state.pairs)
    side = subject.side.copied(torch.float32)
    batch = side.sees(subject.leader.batches[0])
    subject.leader.run(train, side, batch, subject.sites(train), sink)
    return check.rows


def _is_first(row: Row) -> bool:
    return row.key.part.endswith(", step 1")


def _steps(
    subject: Subject, steps: int, keep: bool, explained: bool
) -> tuple[list[Row], list[Finding], list[dict[str, Any]], list[Origin]]:
    leader = subject.leader
    stepper = Stepper(subject.side.copied(), subject.state.pairs)
    rows, findings, table = list[Row](), list[Finding](), list[dict[str, Any]]()
    leads = leader.leads(steps, keep=keep)
    batches = leader.batches[:steps]
    first_wrong: list[Row] = []
    for followed in follow(stepper, batches, leads, leader.step_noise):
        judged = judge_by_mode(leader, followed.rows)
        rows += judged if followed.number <= 2 else [r for r in judged if not r.agrees][:50]
        findings += followed.findings
        table.append(_step_row(followed.number, judged))
        if not first_wrong:
            first_wrong = [row for row in judged if not row.agrees]
    origins: list[Origin] = []
    if first_wrong and not explained:
        origins = find_step_origins(subject, first_wrong, steps)
    return rows, findings, table, origins


def _over_steps(verdict: ModeVerdict, table: Sequence[dict[str, Any]]) -> ModeVerdict:
    """Count all steps: rows are kept of the first two, and of what differs."""
    compared = sum(row["tensors"] for row in table)
    equal = sum(row["bit_equal"] for row in table)
    reason = verdict.reason
    if verdict.outcome == REPRODUCED:
        margins = [row["worst_margin"] for row in table if row["worst_margin"] is not None]
        agreed = (
            f"the closest {-max(margins):.1f} decades inside" if margins else "equal to the bit"
        )
        reason = f"{compared} increments of {len(table)} steps agree, {agreed}"
    return replace(verdict, compared=compared, bit_equal=equal, reason=reason)


def _step_row(number: int, rows: Sequence[Row]) -> dict[str, Any]:
    margins = [row.margin for row in rows if row.difference]
    divergent = [row for row in rows if not row.agrees]
    return {
        "step": number,
        "tensors": len(rows),
        "bit_equal": sum(row.bit_equal for row in rows),
        "differing": len(divergent),
        "worst_margin": max(margins) if margins else None,
        "largest_relative": max(row.relative for row in rows),
        "first": str(divergent[0].key) if divergent else "",
    }


def _bitwise(subject: Subject, rows: Sequence[Row]) -> tuple[ModeVerdict, list[Row]]:
    """Compare bits in float32: the reference with itself, then with the candidate."""
    leader = subject.leader
    recorded, side = leader.single(), leader.single_side()
    unstable: list[Row] = []
    for train in (False, True):
        again = Checking(recorded[train])
        batch = side.sees(leader.batches[0])
        leader.run(train, side, batch, Sites.own(leader.nodes[train]), again)
        unstable += [row for row in again.rows.values() if not row.bit_equal]
    del side
    compared = [row for train in (False, True) for row in _single_rows(subject, train).values()]
    equal = sum(row.bit_equal for row in compared)
    if unstable:
        worst = max(row.relative for row in unstable)
        reason = (
            f"the reference differs from itself from {unstable[0].key} on, by up to {worst:.1e}: "
            "fix what it draws or the order of its sums, else bits say nothing"
        )
        return ModeVerdict(BITWISE, UNDECIDED, reason, len(compared), equal), compared
    first = next((row for row in compared if not row.bit_equal), None)
    if first is None:
        reason = f"{len(compared)} tensors equal to the bit in float32"
        return ModeVerdict(BITWISE, REPRODUCED, reason, len(compared), equal), compared
    clean = all(row.agrees for row in rows)
    outcome = WITHIN_TOLERANCE if clean else NOT_REPRODUCED
    reason = (
        f"bits part in float32 at {first.key}, {len(compared) - equal} of {len(compared)} tensors"
    )
    verdict = ModeVerdict(
        BITWISE, outcome, reason, len(compared), equal, first_divergent=str(first.key)
    )
    return verdict, compared


def _notices(leader: Leader, rows: Sequence[Row]) -> list[str]:
    few = [
        f"{mode}: {count} of at least {COUNTING} neutral rewrites change a bit"
        for mode in (EVAL, TRAIN, LOSS, BACKWARD)
        if _has(mode, leader) and (count := leader.counting(mode)) < COUNTING
    ]
    return few + sorted({row.note for row in rows if row.agrees and row.note})
