"""Does a fault change anything at all? Asked of the candidate alone, without the engine.

The comparison that is on trial must not choose its own faults. So the mode that is to show a fault
is run here in the plainest way, with and without it, and what comes out of the whole network is
compared. An engine that looks at every operation sees more than this.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch

from comparison.engine.sides import Batch, Side
from comparison.mutation.fault import BACKWARD, DATA, EVAL, LOSS, STATIC, Fault
from comparison.mutation.operators_training import rates

LEAST = 1e-11  # of the largest magnitude; rounding stays below in float64
STEPS = 3
SEED = 5

Facts = dict[str, torch.Tensor]


class Witness:
    """Remembers what a candidate does without faults.

    Args:
        candidate: A candidate that passes; it is copied.
        batches: What it sees, at least `STEPS`.
    """

    def __init__(self, candidate: Side, batches: Sequence[Batch]) -> None:
        self._candidate = candidate
        self._batches = [candidate.sees(batch) for batch in batches[:STEPS]]

    def objection(self, fault: Fault) -> str:
        """Say why a fault is none on these inputs; empty if it is one.

        Args:
            fault: What to inject.
        """
        kind, look = self._way(fault)
        clean = getattr(self, kind)
        try:
            faulty = look(fault)
        except (RuntimeError, ValueError, IndexError) as error:
            return f"cannot run: {str(error).splitlines()[0]}"
        change = largest_change(clean, faulty)
        return "" if change > LEAST else f"equivalent on this input (changes by {change:.0e})"

    def _way(self, fault: Fault) -> tuple[str, Callable[[Fault], Facts]]:
        if fault.modes[0] == DATA:
            return "_batch_facts", lambda one: _batch_facts(self._injected(one))
        if fault.modes[0] == STATIC:
            return "_rates", lambda one: _rates(one.inject(self._candidate))
        if fault.modes[0] == LOSS:
            return "_loss", lambda one: self._loss_of(one.inject(self._candidate))
        if fault.family == "optimizer":
            return "_steps", lambda one: self._steps_of(one.applied(self._candidate))
        if fault.modes[0] == EVAL:
            return "_eval", lambda one: self._run(one, train=False)
        if fault.modes[0] == BACKWARD:
            return "_gradients", lambda one: self._gradients_of(one.applied(self._candidate))
        return "_train", lambda one: self._run(one, train=True)

    def _injected(self, fault: Fault) -> list[Batch]:
        assert fault.inject_data
        return fault.inject_data(self._batches)

    def _run(self, fault: Fault | None, *, train: bool) -> Facts:
        side = fault.applied(self._candidate) if fault else self._candidate.copied()
        return forward_facts(side, self._batches[0], train=train)

    @cached_property
    def _eval(self) -> Facts:
        return self._run(None, train=False)

    @cached_property
    def _train(self) -> Facts:
        return self._run(None, train=True)

    @cached_property
    def _batch_facts(self) -> Facts:
        return _batch_facts(self._batches)

    @cached_property
    def _rates(self) -> Facts:
        return _rates(self._candidate)

    @cached_property
    def _loss(self) -> Facts:
        return self._loss_of(self._candidate)

    def _loss_of(self, side: Side) -> Facts:
        assert side.loss
        return {"loss": side.loss(self._train["output"], self._batches[0].targets)}

    @cached_property
    def _gradients(self) -> Facts:
        return self._gradients_of(self._candidate.copied())

    def _gradients_of(self, side: Side) -> Facts:
        return gradient_facts(side, self._batches[0])

    @cached_property
    def _steps(self) -> Facts:
        return self._steps_of(self._candidate.copied())

    def _steps_of(self, side: Side) -> Facts:
        """Step with the gradients of the first batch each time: no forward pass is needed."""
        assert side.make_optimizer
        optimizer = side.make_optimizer(side.model)
        for _ in range(STEPS):
            optimizer.zero_grad()
            for name, parameter in side.model.named_parameters():
                if name in self._gradients:
                    old = 0 if parameter.grad is None else parameter.grad
                    parameter.grad = self._gradients[name] + old
            optimizer.step()
        return {name: value.detach() for name, value in side.model.named_parameters()}


def forward_facts(side: Side, batch: Batch, *, train: bool) -> Facts:
    """Run a model, which is changed, forward; return output, buffers and random state.

    Args:
        side: The side.
        batch: What it sees.
        train: Whether in train mode.
    """
    before = torch.get_rng_state()
    torch.manual_seed(SEED)
    with torch.no_grad():
        output = side.model.train(train)(batch.inputs)
    facts = {name: value.clone() for name, value in side.model.named_buffers()}
    facts |= {"output": output, "random state": torch.get_rng_state()}
    torch.set_rng_state(before)
    return facts


def gradient_facts(side: Side, batch: Batch) -> Facts:
    """Run a model forward in train mode and backward; return the gradients that there are.

    Args:
        side: The side, whose model is changed.
        batch: What it sees.
    """
    assert side.loss
    side.model.zero_grad(set_to_none=True)
    side.loss(side.model.train()(batch.inputs), batch.targets).backward()
    named = side.model.named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def largest_change(clean: Facts, faulty: Facts) -> float:
    """Return the largest deviation relative to the size of its tensor; infinite if one is missing.

    Args:
        clean: What there is without the fault.
        faulty: What there is with it.
    """
    if clean.keys() != faulty.keys():
        return float("inf")
    sizes = {name: _size(tensor) for name, tensor in clean.items()}
    # What is zero in exact arithmetic has a rounding error, and no size, of its own.
    floor = 1e-9 * statistics.median(sizes.values()) if sizes else 0.0
    return max((_change(clean[k], faulty[k], max(sizes[k], floor)) for k in clean), default=0.0)


def _size(tensor: torch.Tensor) -> float:
    return tensor.detach().double().abs().max().item() if tensor.numel() else 0.0


def _change(clean: torch.Tensor, faulty: torch.Tensor, size: float) -> float:
    if clean.shape != faulty.shape:
        return float("inf")
    difference = _size(clean.detach().double() - faulty.detach().double())
    return difference / size if size else float(difference > 0)


def _batch_facts(batches: Sequence[Batch]) -> Facts:
    facts: dict[str, Any] = {}
    for number, batch in enumerate(batches):
        facts[f"inputs {number}"], facts[f"targets {number}"] = batch
    return {name: value for name, value in facts.items() if isinstance(value, torch.Tensor)}


def _rates(side: Side) -> Facts:
    assert side.make_scheduler and side.make_optimizer
    return {"rates": torch.tensor(rates(side.make_scheduler, side.make_optimizer(side.model)))}
