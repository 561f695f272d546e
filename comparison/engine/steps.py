"""Optimizer steps: both sides from the same state each time, and both sides free.

Teacher-forced: after every step the candidate takes over the reference's parameters, buffers and
optimizer tensors, and the random state; what a step adds is compared. Rounding cannot grow from
step to step, so the last step is judged as strictly as the first. Free: both train on their own,
and beside them the reference under a neutral rewrite, which measures how long a free run can show
anything at all.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from comparison.engine.measures import largest, norm, ratio, same_bits
from comparison.engine.passes import Active, scalar_loss
from comparison.engine.rows import Key, Row, measure, missing
from comparison.engine.sides import Batch, Side
from comparison.engine.trace import SEED, call
from comparison.engine.verdict import FORCED, Finding
from reproduction.errors import UserError

EPSILON = 2.0**-52
State = dict[tuple[str, str], torch.Tensor]  # (name in the reference, kind) to tensor


class Lead(NamedTuple):
    """The reference's side of one step.

    Attributes:
        before: Its state before the step.
        after: Its state after the step.
        gradients: Gradients of its parameters.
        loss: The loss of the batch.
        rng: The random state after the step.
    """

    before: State
    after: State
    gradients: dict[str, torch.Tensor]
    loss: torch.Tensor
    rng: torch.Tensor


class Stepper:
    """A side with its optimizer, one step at a time.

    Args:
        side: The side; its model is trained in place.
        names: Its names of state tensors to the reference's; its own without.
        active: A context around forward and backward, such as a neutral rewrite's.
    """

    def __init__(
        self, side: Side, names: Mapping[str, str] | None = None, active: Active = nullcontext
    ) -> None:
        assert side.make_optimizer is not None
        self.side = side
        self.optimizer = side.make_optimizer(side.model)
        self._names = names
        self._active = active
        side.model.zero_grad(set_to_none=True)
        side.model.train()

    def step(self, batch: Batch, number: int) -> torch.Tensor:
        """Do one step and return its loss; the gradients stay.

        Raises:
            UserError: The optimizer cannot step.
        """
        torch.manual_seed(SEED + number)
        self.optimizer.zero_grad()
        with self._active():
            output = call(self.side.model, batch.inputs)
            loss = scalar_loss(self.side, output, batch.targets)
            loss.backward()
        try:
            self.optimizer.step()
        except Exception as error:
            raise UserError(
                f"{type(self.optimizer).__name__} cannot make step {number} ({error}): give an "
                "optimizer that fits the gradients, or leave it out"
            ) from error
        return loss.detach()

    def state(self) -> State:
        """Return all state under the reference's names, not copied."""
        state: State = {}
        for name, parameter in self.side.model.named_parameters():
            state[self._named(name), "parameter"] = parameter.detach()
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    state[self._named(name), kind.replace("_", " ")] = value.detach()
        for name, buffer in self.side.model.named_buffers():
            state[self._named(name), "buffer"] = buffer.detach()
        return state

    def gradients(self) -> dict[str, torch.Tensor]:
        """Return the gradients of all parameters under the reference's names, not copied."""
        named = self.side.model.named_parameters()
        return {self._named(name): p.grad.to_dense() for name, p in named if p.grad is not None}

    def take_over(self, state: State) -> None:
        """Copy the reference's state, as far as this side has such tensors; keep no others."""
        with torch.no_grad():
            for key, tensor in self.state().items():
                if key in state and state[key].shape == tensor.shape:
                    tensor.copy_(state[key])
        kept = sorted({kind for _, kind in state} - {"parameter", "buffer"})  # by the optimizer
        for name, parameter in self.side.model.named_parameters():
            own, named = self.optimizer.state.get(parameter, {}), self._named(name)
            for kind in kept:
                field = kind.replace(" ", "_")
                if (named, kind) in state and field not in own:
                    self.optimizer.state[parameter][field] = state[named, kind].clone()

    def _named(self, name: str) -> str:
        return name if self._names is None else self._names.get(name, f"{name} (candidate only)")


def lead(reference: Stepper, batches: Iterable[Batch]) -> Iterator[Lead]:
    """Take one step per batch with the reference; yield copies of what it did."""
    before = _copied(reference.state())
    for number, batch in enumerate(batches, start=1):
        loss = reference.step(batch, number)
        rng = torch.get_rng_state()
        after = _copied(reference.state())
        gradients = {name: value.clone() for name, value in reference.gradients().items()}
        yield Lead(before, after, gradients, loss, rng)
        before = after


class Followed(NamedTuple):
    """One teacher-forced step: rows (not yet judged), findings, both sides' states, gradients."""

    number: int
    rows: list[Row]
    findings: list[Finding]
    lead: Lead
    state: State
    gradients: dict[str, torch.Tensor]


def follow(
    candidate: Stepper,
    batches: Iterable[Batch],
    leads: Iterable[Lead],
    noise: Mapping[tuple[str, str], float] | None = None,
) -> Iterator[Followed]:
    """Take the same steps with the candidate, each from the reference's state.

    Args:
        candidate: Follows; it starts from the state that the reference started from.
        batches: One batch for each step.
        leads: What the reference did, from `lead`.
        noise: Deviation that neutral rewrites cause, relative to the size of the increment, or
            of a buffer.
    """
    relative = {} if noise is None else noise  # filled when the first step is made
    for number, (batch, leader) in enumerate(zip(batches, leads, strict=False), start=1):
        candidate.step(batch, number)
        rng = torch.get_rng_state()
        state = candidate.state()
        rows = [
            _increment_row(key, number, leader, state, relative.get(key, 0.0))
            for key in leader.after
        ]
        rows += [
            missing(_key(key, number), tuple(tensor.shape), "reference")
            for key, tensor in state.items()
            if key not in leader.after
        ]
        findings = []
        if not torch.equal(rng, leader.rng):
            text = f"leaves another random state than the reference does at step {number}"
            findings.append(Finding("random numbers", text))
        yield Followed(number, rows, findings, leader, state, candidate.gradients())
        candidate.take_over(leader.after)


def step_noise(
    reference: Side, batch: Batch, leader: Lead, rewritten: Iterable[tuple[str, Stepper, Batch]]
) -> tuple[dict[tuple[str, str], float], dict[str, int]]:
    """Measure what neutral rewrites do to one step.

    Args:
        reference: The reference; it stays as it is.
        batch: The batch of the step.
        leader: What the plain reference did.
        rewritten: Name, stepper in the reference's start state, and batch of every rewrite.

    Returns:
        The largest deviation of every state tensor, relative to the size of its increment (of a
        buffer, to its own), and for every rewrite the number of tensors in which it changed a bit.
    """
    noise: dict[tuple[str, str], float] = {}
    changed: dict[str, int] = {}
    for name, stepper, shown in rewritten:
        stepper.step(shown, 1)
        state = stepper.state()
        changed[name] = 0
        for key, after in leader.after.items():
            if not after.is_floating_point() or same_bits(after, state[key]):
                continue
            changed[name] += 1
            size = _noise_size(key, leader)
            if size:
                error = largest(state[key] - after) / size
                noise[key] = max(noise.get(key, 0.0), error)
    return noise, changed


def follow_free(
    reference: Stepper, candidate: Stepper, shadow: Stepper | None, batches: Sequence[Batch]
) -> list[dict[str, Any]]:
    """Train both sides, and the reference under a rewrite, on the same batches, all of them free.

    Returns:
        One row per step: losses; whether loss, gradients and state agree to the bit; the relative
        L2 difference of all parameters taken together, of the candidate (``divergence``) and of
        the rewritten reference (``noise``; None without one).
    """
    precision = str(reference.side.dtype).removeprefix("torch.")
    rows = []
    for number, batch in enumerate(batches, start=1):
        sides = [side for side in (reference, candidate, shadow) if side]
        losses = [side.step(batch, number) for side in sides]
        theirs, ours = reference.state(), candidate.state()
        rows.append(
            {
                "precision": precision,
                "step": number,
                "loss_reference": losses[0].item(),
                "loss_reproduction": losses[1].item(),
                "loss_bit_equal": same_bits(losses[0], losses[1]),
                "gradients_bit_equal": _equal(reference.gradients(), candidate.gradients()),
                "state_bit_equal": _equal(theirs, ours),
                "divergence": _divergence(theirs, ours),
                "noise": _divergence(theirs, shadow.state()) if shadow else None,
            }
        )
    return rows


def _increment_row(
    key: tuple[str, str], number: int, leader: Lead, state: State, noise: float
) -> Row:
    after = leader.after[key]
    if key not in state:
        return missing(_key(key, number), tuple(after.shape), "candidate")
    row = measure(_key(key, number), after, state[key])
    if not after.is_floating_point() or row.note:
        return row
    # What a step adds is compared; storing the sum rounds it, whatever the increment's size.
    size = _increment_size(key, leader)
    noise = noise * _noise_size(key, leader)
    return replace(row, size=size, noise=noise + EPSILON * largest(after) / 8)


def _increment_size(key: tuple[str, str], leader: Lead) -> float:
    after, before = leader.after[key], leader.before.get(key)
    return largest(after if before is None or key[1] not in _ADDED else after - before)


def _noise_size(key: tuple[str, str], leader: Lead) -> float:
    """Return what rounding scales with: a statistic is rounded whole, however little it moves."""
    return largest(leader.after[key]) if key[1] == "buffer" else _increment_size(key, leader)


_ADDED = ("parameter", "buffer")


def _key(key: tuple[str, str], number: int) -> Key:
    return Key(FORCED, key[0], f"{key[1]}, step {number}")


def _copied(state: State) -> State:
    return {key: tensor.clone() for key, tensor in state.items()}


def _equal(theirs: Mapping[Any, torch.Tensor], ours: Mapping[Any, torch.Tensor]) -> bool:
    same_keys = theirs.keys() == ours.keys()
    return same_keys and all(same_bits(theirs[key], ours[key]) for key in theirs)


def _divergence(theirs: State, ours: State) -> float:
    shared = [key for key in theirs if key in ours and key[1] == "parameter"]
    shared = [key for key in shared if theirs[key].shape == ours[key].shape]
    if not shared:
        return math.inf
    sizes = [norm(theirs[key]) for key in shared]
    return ratio(math.hypot(*(norm(ours[key] - theirs[key]) for key in shared)), math.hypot(*sizes))
