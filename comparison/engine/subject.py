"""A candidate beside its reference: run plainly, or from the reference's values."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from comparison.engine.alignment import NodeMatch
from comparison.engine.leader import Compared, Leader
from comparison.engine.matching import StateMatch
from comparison.engine.passes import Sites
from comparison.engine.recordings import Checking, Sink, completed, renamed
from comparison.engine.rows import Key, Row
from comparison.engine.sides import Side
from comparison.engine.trace import Node
from comparison.engine.verdict import BACKWARD, judge


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A candidate beside its reference, matched.

    Attributes:
        leader: The reference's run.
        side: The candidate, in float64.
        state: The pairs of state tensors.
        nodes: The candidate's nodes, in eval and in train mode.
        matches: The pairs of nodes, in eval and in train mode.
    """

    leader: Leader
    side: Side
    state: StateMatch
    nodes: Mapping[bool, Sequence[Node]]
    matches: Mapping[bool, NodeMatch]

    def sites(self, train: bool) -> Sites:
        """Return what is compared in a mode."""
        return Sites.matched(self.leader.nodes[train], self.nodes[train], self.matches[train])

    def compare(self, train: bool) -> list[Row]:
        """Run the candidate beside the reference in one mode; return judged rows."""
        self.leader.calibrate(train)
        return self._judged(train, self.run_beside(train))

    def run_beside(self, train: bool) -> Compared:
        """Run the candidate beside the reference in one mode; nothing is judged."""
        batch, sites = self.leader.batches[0], self.sites(train)
        return self.leader.compare(train, self.side, batch, sites, self._renamed)

    def force(
        self,
        train: bool,
        force: bool | frozenset[Key] = True,
        roots: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[list[Row], dict[Key, torch.Tensor]]:
        """Run the candidate with the reference's tensors in place of its own.

        Args:
            train: Whether in train mode.
            force: What is replaced: everything, or some keys.
            roots: Gradients to start the backward pass from besides the loss, by place.

        Returns:
            Judged rows, and the candidate's own tensors of the keys that were named.
        """
        self.leader.calibrate(train)
        recording = self.leader.recording(train)
        check = Checking(recording, self.leader.noise, force=force)
        more = {"roots": roots} if roots else {}
        batch, sites = self.leader.batches[0], self.sites(train)
        self.leader.run(train, self.side, batch, sites, self._renamed(check), **more)
        return self._judged(train, Compared(check.rows, recording.shapes())), check.kept

    def _renamed(self, sink: Sink) -> Sink:
        return renamed(sink, self.state.pairs)

    def _judged(self, train: bool, found: Compared) -> list[Row]:
        """Judge rows in the order of the reference's run."""
        names = list(self.state.pairs.values())
        expected = self.leader.expected(train, self.sites(train), names)
        rows = completed(found.rows, expected, found.shapes)
        order = {key: index for index, key in enumerate(expected)}
        rows.sort(key=lambda row: order.get(row.key, len(order)))
        return judge_by_mode(self.leader, rows)


def judge_by_mode(leader: Leader, rows: Sequence[Row]) -> list[Row]:
    """Judge rows, each against the median magnitude of its own mode."""
    by_mode: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_mode[row.key.mode].append(row)
    judged: list[Row] = []
    for mode, of_mode in by_mode.items():
        sizes = leader.single_sizes() if mode == BACKWARD else {}
        judged += judge(of_mode, single_sizes=sizes.get)
    return judged
