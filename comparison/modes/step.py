"""Mode "step": optimizer steps, teacher-forced, from the same state each time.

After every step the candidate takes over the reference's parameters, buffers and momenta. Rounding
can therefore not grow from step to step, and the last step is judged as strictly as the first;
what only shows once momentum has gathered (its factor, a gradient not reset) shows at step 2.
"""

from collections.abc import Iterable, Iterator

import torch

from comparison.probe import Checking, Recording
from comparison.sides import Batch, Side
from comparison.verdict import THRESHOLDS, Key, Row

MODE = "step"


def lead(reference: Side, batches: Iterable[Batch]) -> Iterator[Recording]:
    """Take one step per batch with the reference; yield its whole state after each.

    The tensors are those of the running model, not copies: compare before the next step, or
    clone (`Recording.copied`).
    """
    leader = Stepper(reference)
    for number, batch in enumerate(batches, start=1):
        leader.step(batch)
        yield leader.state_after(number)


def follow(candidate: Side, batches: Iterable[Batch], states: Iterable[Recording]) -> list[Row]:
    """Take the same steps with the candidate, each from the reference's state.

    Args:
        candidate: Follows; it must start from the state the reference started from.
        batches: One batch for each step.
        states: The reference's state after each step, from `lead`.

    Returns:
        Rows for parameters, buffers and momenta after every step.
    """
    follower = Stepper(candidate)
    rows: list[Row] = []
    for number, (batch, state) in enumerate(zip(batches, states, strict=True), start=1):
        follower.step(batch)
        check = Checking(state, lambda _key: THRESHOLDS[MODE].bound)
        for key, tensor in follower.state_after(number).tensors.items():
            check(key, tensor)
        rows += check.rows()
        follower.take_over(state, number)
    return rows


class Stepper:
    """A side with its optimizer, one step at a time."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.optimizer = side.make_optimizer(side.model)
        side.model.zero_grad(set_to_none=True)
        side.model.train()

    def step(self, batch: Batch) -> torch.Tensor:
        """Do one step and return its loss; the gradients stay."""
        images, labels = self.side.sees(batch)
        self.optimizer.zero_grad()
        loss = self.side.loss(self.side.model(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """Yield name, kind and tensor of all state, not copied."""
        for name, tensor in self.side.state().items():
            yield name, "state", tensor
        for name, parameter in self.side.parameters().items():
            for kind, value in self.optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    yield name, kind, value

    def state_after(self, number: int) -> Recording:
        """Return all state, not copied, under the keys of a step."""
        state = Recording()
        for name, kind, tensor in self.tensors():
            state.tensors[_key(name, kind, number)] = tensor.detach()
        return state

    def take_over(self, state: Recording, number: int) -> None:
        """Copy the reference's state after a step, as far as this side has such tensors."""
        with torch.no_grad():
            for name, kind, tensor in self.tensors():
                theirs = state.tensors.get(_key(name, kind, number))
                if theirs is not None and theirs.shape == tensor.shape:
                    tensor.copy_(theirs)


def _key(name: str, kind: str, number: int) -> Key:
    what = f"step {number}" if kind == "state" else f"{kind.replace('_', ' ')}, step {number}"
    return Key(MODE, name, what)
