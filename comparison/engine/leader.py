"""The reference's run, measured once: what it does, how much noise it has, for any candidate.

What does not fit the memory budget is recorded window by window, each in a run of its own, so that
the checker never holds more than the budget beside a plain run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from comparison.engine.measures import largest
from comparison.engine.passes import Sites, expected_keys, run_eval, run_train, windows
from comparison.engine.recordings import Checking, Recording, Sink, flipped
from comparison.engine.rewrites import CALIBRATING, Rewrite
from comparison.engine.rows import Key
from comparison.engine.sides import Batch, Side
from comparison.engine.steps import Lead, Stepper, lead, step_noise
from comparison.engine.trace import Node, trace
from comparison.engine.verdict import BACKWARD, STATE
from reproduction.errors import UserError

MIB = 2**20
BUDGET_MIB = 512
# Beside the recorded tensors stand the difference under way and what the allocator keeps.
RECORDED_SHARE = 0.6
COUNTING = 6  # rewrites that must change a bit in a mode before its noise floor counts
VALUES = 8  # least number of values per channel that batch statistics are taken from


class Leader:
    """The reference's run, for any number of candidates.

    Args:
        side: The reference, in float64; it is left as it is.
        batches: One for each optimizer step, in float64; the first serves the other modes.
        rewrites: Neutral rewrites for the noise floor.
        budget_mib: Memory for recorded tensors.
        edge_case: Why fewer than `VALUES` values per channel are meant, if they are.

    Raises:
        UserError: Batch statistics would rest on too few values.
    """

    def __init__(
        self,
        side: Side,
        batches: Sequence[Batch],
        *,
        rewrites: Sequence[Rewrite] = CALIBRATING,
        budget_mib: float = BUDGET_MIB,
        edge_case: str = "",
    ) -> None:
        self.side = side
        self.batches = batches
        self.nodes = {
            train: trace(side.model, batches[0].inputs, train=train) for train in (False, True)
        }
        if not edge_case:
            _check_values(self.nodes[True])
        self.noise: dict[Key, float] = {}
        self.step_noise: dict[tuple[str, str], float] = {}
        self.calibration: dict[tuple[str, str], int] = {}
        self._rewrites = rewrites
        self._budget = int(budget_mib * MIB * RECORDED_SHARE)
        self._kept: dict[bool, Recording] = {}
        self._calibrated: set[tuple[bool, frozenset[Key] | None]] = set()
        self._single: tuple[Side, dict[bool, Recording]] | None = None
        self._leads: list[Lead] = []

    def run(
        self, train: bool, side: Side, batch: Batch, sites: Sites, sink: Sink, **more: Any
    ) -> None:
        """Run a side in eval mode, or in train mode forward and backward."""
        (run_train if train else run_eval)(side, batch, sites, sink, **more)

    def recordings(self, train: bool) -> Iterator[Recording]:
        """Yield what the reference does in one mode, a window at a time, noise measured."""
        if train in self._kept:
            yield self._kept[train]
            return
        for window in windows(self.nodes[train], self.side.model, self._budget, train=train):
            recording = Recording(window)
            self.run(train, self.side, self.batches[0], Sites.own(self.nodes[train]), recording)
            if (train, window) not in self._calibrated:
                self._calibrate(train, recording)
                self._calibrated.add((train, window))
            if window is None:
                self._kept[train] = recording
            yield recording

    def single(self) -> tuple[Side, dict[bool, Recording]]:
        """Return the reference in float32 and what it does there."""
        if self._single is None:
            side = self.side.copied(torch.float32)
            recorded = {}
            for train in (False, True):
                recorded[train] = Recording()
                sites = Sites.own(self.nodes[train])
                self.run(train, side, side.sees(self.batches[0]), sites, recorded[train])
            self._single = side, recorded
        return self._single

    def single_sizes(self) -> dict[Key, float]:
        """Return the largest magnitude of every gradient in float32."""
        _, recorded = self.single()
        return {
            key: largest(tensor)
            for key, tensor in recorded[True].tensors.items()
            if key.mode == BACKWARD
        }

    def leads(self, count: int, *, keep: bool) -> Iterator[Lead]:
        """Yield the reference's optimizer steps; the noise of the first one is measured.

        Args:
            count: How many steps.
            keep: Whether to keep them for the next candidate.
        """
        if len(self._leads) >= count:
            yield from self._leads[:count]
            return
        leads = lead(Stepper(self.side.copied()), self.batches[:count])
        for number, one in enumerate(leads):
            if number == 0 and not self.step_noise:
                self._calibrate_step(one)
            if keep:
                self._leads.append(one)
            yield one

    def expected(self, train: bool, sites: Sites, names: Sequence[str]) -> list[Key]:
        """List the keys of the reference that a candidate must report."""
        matched = sites.outputs.values()
        return expected_keys(self.nodes[train], names, train=train, matched=matched)

    def counting(self, mode: str) -> int:
        """Return how many rewrites changed at least one bit in a mode."""
        return sum(1 for (_, of), changed in self.calibration.items() if of == mode and changed)

    def _calibrate(self, train: bool, recording: Recording) -> None:
        batch, nodes = self.batches[0], self.nodes[train]
        for rewrite in self._rewrites:
            side, shown = _rewritten(self.side, batch, rewrite)
            check = Checking(recording)
            sink = flipped(check, len(_first(batch.inputs))) if rewrite.reordered else check
            self.run(train, side, shown, Sites.own(nodes), sink, active=rewrite.active)
            for key, row in check.rows.items():
                self.noise[key] = max(self.noise.get(key, 0.0), row.difference)
                counted = rewrite.name, key.mode
                self.calibration[counted] = self.calibration.get(counted, 0) + (not row.bit_equal)

    def _calibrate_step(self, first: Lead) -> None:
        def rewritten() -> Iterator[tuple[str, Stepper, Batch]]:
            for rewrite in self._rewrites:
                side, shown = _rewritten(self.side.copied(), self.batches[0], rewrite)
                yield rewrite.name, Stepper(side, active=rewrite.active), shown

        self.step_noise, changed = step_noise(self.side, self.batches[0], first, rewritten())
        self.calibration |= {(name, STATE): count for name, count in changed.items()}


def _rewritten(side: Side, batch: Batch, rewrite: Rewrite) -> tuple[Side, Batch]:
    if rewrite.reordered:
        batch = Batch(*(_flip(part) for part in batch))
    if rewrite.prepare:
        side = replace(side, model=rewrite.prepare(side.copied().model))
    return side, batch


def _flip(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.flip(0) if value.dim() else value
    return type(value)(_flip(item) for item in value) if isinstance(value, list | tuple) else value


def _first(inputs: Any) -> torch.Tensor:
    return inputs[0] if isinstance(inputs, tuple) else inputs


def _check_values(nodes: Sequence[Node]) -> None:
    for node in nodes:
        if node.place.op == "batch_norm" and len(node.shape) > 1:
            values = node.shape[0] * int(torch.Size(node.shape[2:]).numel())
            if values < VALUES:
                raise UserError(
                    f"{node.place} takes batch statistics from {values} values per channel, where "
                    f"rounding explodes; give inputs with at least {VALUES}, or name the edge "
                    "case that is meant (edge_case='batch of one')"
                )
