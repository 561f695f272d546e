"""The ladder: all modes on one pair of sides, each with a verdict of its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from comparison.modes import backward, forward, static, step
from comparison.probe import Checking, Recording, Sink
from comparison.sides import Batch, Side, load_state
from comparison.sites import Matching, call_order, match
from comparison.verdict import (
    NOT_REPRODUCED,
    THRESHOLDS,
    Finding,
    Key,
    ModeVerdict,
    Row,
    conclude,
    excuse_analytic_zeros,
)

Observe = Callable[[Side, Batch, dict[str, str], Sink], None]

# What is observed in one go, in the order of the ladder: each rung assumes those below it.
PASSES: dict[tuple[str, ...], Observe] = {
    (forward.MODE,): forward.observe,
    (backward.FORWARD, backward.LOSS, backward.BACKWARD, backward.BUFFERS): backward.observe,
}
NUMERIC_MODES = (*(mode for modes in PASSES for mode in modes), step.MODE)
MODES = (static.MODE, *NUMERIC_MODES)


@dataclass(frozen=True)
class Ladder:
    """What a comparison found: the matched sites, every row and one verdict per mode.

    Findings are differences that are no matter of size.
    """

    matching: Matching
    findings: tuple[Finding, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[ModeVerdict, ...]

    def failures(self) -> list[ModeVerdict]:
        """Return the verdicts of the modes that did not pass, lowest rung first."""
        return [verdict for verdict in self.verdicts if verdict.outcome == NOT_REPRODUCED]


class Leader:
    """The reference's run of all modes, recorded once, for any number of candidates.

    Args:
        reference: The reference; it is copied and stays as it is.
        batches: One batch for each optimizer step; the first one serves the other modes.
        dtype: Precision of the run; the thresholds are made for float64 on one thread.
        keep_steps: Keep the state after every step. Without, the steps are taken while a
            candidate follows, which takes no memory but serves a single candidate.
    """

    def __init__(
        self,
        reference: Side,
        batches: Sequence[Batch],
        dtype: torch.dtype = torch.float64,
        *,
        keep_steps: bool = False,
    ) -> None:
        self.batches = batches
        self.dtype = dtype
        self.side = reference.copied(dtype)
        self.passes: dict[tuple[str, ...], Recording] = {}
        images = self.side.sees(batches[0]).images
        names = {call.path: call.path for call in call_order(self.side.model, images) if call.path}
        for modes, observe in PASSES.items():
            self.passes[modes] = Recording()
            observe(self.side, batches[0], names, self.passes[modes])
        self.side.model.zero_grad(set_to_none=True)
        load_state(self.side, reference.state())
        self._kept: list[Recording] | None = None
        if keep_steps:
            self._kept = [state.copied() for state in step.lead(self.side, batches)]
            load_state(self.side, reference.state())

    def states(self) -> Iterable[Recording]:
        """Return the reference's state after every step."""
        return self._kept if self._kept is not None else step.lead(self.side, self.batches)


def climb(
    reference: Side, candidate: Side, batches: Sequence[Batch], dtype: torch.dtype = torch.float64
) -> Ladder:
    """Compare two sides that hold the same state, in all modes; both stay as they are."""
    return climb_after(Leader(reference, batches, dtype), candidate.copied(dtype))


def climb_after(leader: Leader, candidate: Side, *, to_first_failure: bool = False) -> Ladder:
    """Compare a candidate with a recorded reference, in all modes.

    Args:
        leader: The reference's run.
        candidate: The side to run, in the leader's precision; its model is used up.
        to_first_failure: Leave out what comes after the first numerical mode that fails.
    """
    images = leader.side.sees(leader.batches[0]).images
    matching = match(leader.side.model, candidate.model, candidate.name_of, images)
    inventory = static.inspect(leader.side, candidate, matching)
    verdicts = [conclude(static.MODE, (), inventory.findings, facts=inventory.facts)]
    rows: list[Row] = []
    for modes, compared in _rungs(leader, candidate, matching):
        by_mode = {mode: [row for row in compared if row.key.mode == mode] for mode in modes}
        verdicts += [conclude(mode, of_mode) for mode, of_mode in by_mode.items()]
        rows += compared
        if to_first_failure and not all(row.agrees for row in compared):
            break
    return Ladder(matching, inventory.findings, tuple(rows), tuple(verdicts))


def forward_rows(leader: Leader, candidate: Side, matching: Matching) -> list[Row]:
    """Compare the forward pass in eval mode alone; the candidate's state stays as it is."""
    return _compare_pass((forward.MODE,), leader, candidate, matching)


def _rungs(
    leader: Leader, candidate: Side, matching: Matching
) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    buffers = {key: value.clone() for key, value in candidate.model.named_buffers()}
    for modes in PASSES:
        yield modes, _excused(_compare_pass(modes, leader, candidate, matching))
    for key, value in candidate.model.named_buffers():
        value.copy_(buffers[key])
    yield (step.MODE,), _excused(step.follow(candidate, leader.batches, leader.states()))


def _compare_pass(
    modes: tuple[str, ...], leader: Leader, candidate: Side, matching: Matching
) -> list[Row]:
    check = Checking(leader.passes[modes], lambda key: THRESHOLDS[key.mode].bound)
    PASSES[modes](candidate, leader.batches[0], matching.candidate_names(), check)
    matched = matching.reference_names()
    return check.rows(lambda key: not _is_tap(key) or key.name in matched)


def _is_tap(key: Key) -> bool:
    return key.part.startswith(("input", "output", "gradient")) and key.name != "network"


def _excused(rows: list[Row]) -> list[Row]:
    """Recognize analytic zeros among the gradients of parameters and what gathers them."""
    zero = {row.key: row for row in excuse_analytic_zeros([row for row in rows if _gathers(row)])}
    return [zero.get(row.key, row) for row in rows]


def _gathers(row: Row) -> bool:
    return row.key.part == "parameter gradient" or row.key.part.startswith("momentum buffer")
