"""The reference's run, measured once: what it does, how much noise it has, for any candidate.

What the reference computes is recorded, in memory up to a budget and beyond it in a temporary
file. A forward pass in eval mode that is larger than the budget is not recorded at all if the
activations of two sides fit into it: they run in lock-step and every tensor is compared while both
hold it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from comparison.engine.lockstep import run_lockstep
from comparison.engine.measures import largest
from comparison.engine.passes import Active, Sites, expected_keys, run_eval, run_train, sizes
from comparison.engine.recordings import Checking, Recording, Sink, flipped
from comparison.engine.rewrites import CALIBRATING, Rewrite
from comparison.engine.rows import Key, Row, measure
from comparison.engine.sides import Batch, Side
from comparison.engine.steps import Lead, Stepper, lead, step_noise
from comparison.engine.storage import BUDGET_MIB, MIB, Store, give_back_memory
from comparison.engine.trace import Node, trace
from comparison.engine.verdict import BACKWARD, EVAL, STATE
from reproduction.errors import UserError

# Beside the recorded tensors stand the one that is read back and what the allocator keeps.
RECORDED_SHARE = 0.25
COUNTING = 6  # rewrites that must change a bit in a mode before its noise floor counts
REORDERED = 1e-6  # relative change beyond which a tensor's first axis is not that of the batch
OUTPUTS = 100  # most tensors that a network is expected to return
VALUES = 8  # least number of values per channel that batch statistics are taken from

Hand = Callable[[Sink], Sink]


class Compared(NamedTuple):
    """One run of a side beside the reference: rows not yet judged, and the reference's shapes."""

    rows: Mapping[Key, Row]
    shapes: Mapping[Key, tuple[int, ...]]


class Leader:
    """The reference's run, for any number of candidates.

    Args:
        side: The reference, in float64; it is left as it is.
        batches: One for each optimizer step, in float64; the first serves the other modes.
        rewrites: Neutral rewrites for the noise floor.
        budget_mib: Memory for recorded tensors.
        edge_case: Why fewer than `VALUES` values per channel are meant, if they are.

    Raises:
        UserError: Batch statistics would rest on too few values, or a single tensor is larger
            than the budget.
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
        memory = _memory(self.nodes[False], budget_mib)
        self._store = Store(memory)
        self.in_lockstep = _runs_in_lockstep(self.nodes[False], memory, budget_mib)
        self._recorded: dict[bool, Recording] = {}
        self._calibrated: set[bool] = set()
        self._single: dict[bool, Recording] = {}
        self._single_sizes: dict[Key, float] = {}
        self._leads: list[Lead] = []

    def run(
        self, train: bool, side: Side, batch: Batch, sites: Sites, sink: Sink, **more: Any
    ) -> None:
        """Run a side in eval mode, or in train mode forward and backward."""
        (run_train if train else run_eval)(side, batch, sites, sink, **more)
        give_back_memory()

    def recording(self, train: bool) -> Recording:
        """Return what the reference does in one mode; it is run at the first call."""
        if train not in self._recorded:
            recording = Recording(self._store)
            self.run(train, self.side, self.batches[0], Sites.own(self.nodes[train]), recording)
            self._recorded[train] = recording
        return self._recorded[train]

    def compare(
        self,
        train: bool,
        side: Side,
        batch: Batch,
        sites: Sites,
        hand: Hand = lambda sink: sink,
        active: Active = nullcontext,
    ) -> Compared:
        """Run a side beside what the reference does in one mode.

        Args:
            train: Whether in train mode.
            side: The side to run.
            batch: What it sees.
            sites: What is compared.
            hand: Translates what the side shows into the reference's names and order.
            active: A context around the run, such as a neutral rewrite's.
        """
        if not train and self.in_lockstep:
            return self._lockstep(side, batch, sites, hand, active)
        recording = self.recording(train)
        check = Checking(recording, self.noise)
        self.run(train, side, batch, sites, hand(check), active=active)
        return Compared(check.rows, recording.shapes())

    def calibrate(self, train: bool) -> None:
        """Measure the noise floor of a mode, once."""
        if train in self._calibrated:
            return
        self._calibrated.add(train)
        sites = Sites.own(self.nodes[train])
        for rewrite in self._rewrites:
            side, shown = _rewritten(self.side, self.batches[0], rewrite)
            hand = _turned(self.batches[0]) if rewrite.reordered else _unchanged
            found = self.compare(train, side, shown, sites, hand, rewrite.active)
            for key, row in found.rows.items():
                if rewrite.reordered and row.relative > REORDERED:
                    continue
                self.noise[key] = max(self.noise.get(key, 0.0), row.difference)
                counted = rewrite.name, key.mode
                self.calibration[counted] = self.calibration.get(counted, 0) + (not row.bit_equal)

    def single_side(self) -> Side:
        """Return a copy of the reference in float32."""
        return self.side.copied(torch.float32)

    def single(self) -> dict[bool, Recording]:
        """Return what the reference does in float32, by train mode; it is run at the first call."""
        if not self._single:
            side, recorded = self.single_side(), {}
            for train in (False, True):
                recorded[train] = Recording(self._store)
                sites, batch = Sites.own(self.nodes[train]), side.sees(self.batches[0])
                self.run(train, side, batch, sites, self._measuring(recorded[train]))
            self._single = recorded
        return self._single

    def single_sizes(self) -> dict[Key, float]:
        """Return the largest magnitude of every gradient in float32."""
        self.single()
        return self._single_sizes

    def _measuring(self, recording: Recording) -> Sink:
        """Return a sink that records, and notes the sizes of gradients."""

        def sink(key: Key, tensor: torch.Tensor) -> None:
            recording(key, tensor)
            if key.mode == BACKWARD:
                self._single_sizes[key] = largest(tensor)

        return sink

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

    def _lockstep(
        self, side: Side, batch: Batch, sites: Sites, hand: Hand, active: Active
    ) -> Compared:
        rows: dict[Key, Row] = {}
        shapes: dict[Key, tuple[int, ...]] = {}
        if side.model is self.side.model:
            side = side.twin()  # two runs of one model would see each other's hooks

        def lead_on(sink: Sink) -> None:
            def show(key: Key, tensor: torch.Tensor) -> None:
                shapes[key] = tuple(tensor.shape)
                sink(key, tensor)

            run_eval(self.side, self.batches[0], Sites.own(self.nodes[False]), show)

        def follow(sink: Sink) -> None:
            run_eval(side, batch, sites, hand(sink), active)

        def compare(key: Key, theirs: torch.Tensor, ours: torch.Tensor) -> None:
            rows[key] = measure(key, theirs, ours.detach(), self.noise.get(key, 0.0))

        expected = expected_keys(self.nodes[False], (), train=False)
        expected += [Key(EVAL, "network", f"output {index}") for index in range(1, OUTPUTS)]
        run_lockstep(lead_on, follow, expected, compare, self._store)
        give_back_memory()
        return Compared(rows, shapes)

    def _calibrate_step(self, first: Lead) -> None:
        def rewritten() -> Iterator[tuple[str, Stepper, Batch]]:
            for rewrite in self._rewrites:
                side, shown = _rewritten(self.side.copied(), self.batches[0], rewrite)
                yield rewrite.name, Stepper(side, active=rewrite.active), shown

        noise, changed = step_noise(self.side, self.batches[0], first, rewritten())
        self.step_noise.update(noise)  # who follows holds it already
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


def _unchanged(sink: Sink) -> Sink:
    return sink


def _turned(batch: Batch) -> Hand:
    """Return what puts a batch shown in the opposite order back into its own."""
    inputs: Any = batch.inputs
    count = len(inputs[0] if isinstance(inputs, tuple) else inputs)
    return lambda sink: flipped(sink, count)


def _memory(nodes: Sequence[Node], budget_mib: float) -> int:
    """Return how many bytes of recorded tensors may stay in memory.

    Raises:
        UserError: A single tensor is larger than the budget.
    """
    budget = int(budget_mib * MIB)
    size, place = max(
        ((one, node.place) for node in nodes for one in sizes([node])), default=(0, None)
    )
    if size > budget:
        raise UserError(
            f"{place} takes {size / MIB:.2g} MiB and the budget is {budget / MIB:.2g} MiB: raise "
            "budget_mib, or give smaller inputs"
        )
    return max(0, int(budget * RECORDED_SHARE) - size)


def _runs_in_lockstep(nodes: Sequence[Node], memory: int, budget_mib: float) -> bool:
    """Tell whether a forward pass is followed tensor by tensor, rather than recorded.

    In lock-step both sides hold their activations at once; beside a file they do not. So it serves
    what outgrows the memory for records while its activations fit the budget beside them.
    """
    held = max((node.alive for node in nodes), default=0)
    fits = memory + held <= budget_mib * MIB
    return sum(sizes(nodes)) > memory and fits and not any(node.draws for node in nodes)


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
