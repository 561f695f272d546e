"""One forward pass, or one forward and backward pass: recorded, checked, or forced.

Recording keeps copies of what the reference does. Checking compares a candidate with them as it
runs and keeps the result only. Forcing compares, then overwrites: every operation and every
gradient starts from the reference's values, so a difference shows where it arises and nowhere else.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from comparison.engine.alignment import NodeMatch
from comparison.engine.recordings import Sink
from comparison.engine.rows import Key
from comparison.engine.sides import Batch, Side
from comparison.engine.trace import INPUT, SEED, Node, Place, Watch, call, restored, tensors_in
from comparison.engine.verdict import BACKWARD, EVAL, LOSS, STATE, TRAIN
from reproduction.errors import UserError

Active = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Sites:
    """What is compared in one run, by the candidate's places.

    Attributes:
        outputs: Place in the watched model to the reference's place.
        inputs: Place and position in the watched model to the place in the reference and the
            place whose output is read there. Only where the two sides read differently.
    """

    outputs: Mapping[Place, Place]
    inputs: Mapping[tuple[Place, int], tuple[Place, Place | None]] = field(default_factory=dict)

    @classmethod
    def own(cls, nodes: Sequence[Node]) -> "Sites":
        """Return all places of a model, as the reference's own."""
        return cls({node.place: node.place for node in nodes if not node.derived})

    @classmethod
    def matched(cls, theirs: Sequence[Node], ours: Sequence[Node], match: NodeMatch) -> "Sites":
        """Return the places of a candidate that have a counterpart."""
        outputs = {ours[b].place: theirs[a].place for b, a in match.pairs.items()}
        inputs: dict[tuple[Place, int], tuple[Place, Place | None]] = {}
        for b, a in match.pairs.items():
            if theirs[a].place.op != ours[b].place.op or theirs[a].resembles(ours[b]):
                continue  # the same tensor, made in another way from other things
            left, right = list(theirs[a].inputs), list(enumerate(ours[b].inputs))
            for position, source in list(right):
                other = match.pairs.get(source, source if source < 0 else None)
                if other in left:
                    left.remove(other)
                    right.remove((position, source))
            if len(left) == len(right) == 1 and left[0] >= INPUT:
                producer = theirs[left[0]].place if left[0] >= 0 else None
                inputs[ours[b].place, right[0][0]] = (theirs[a].place, producer)
        return cls(outputs, inputs)


class Tap:
    """Shows a sink what flows through the sites of a run.

    Args:
        sites: What to watch.
        sink: Receives every tensor; what it returns replaces the tensor.
        mode: The mode in the keys of activations.
        gradient_mode: The mode in the keys of their gradients; none are taken without.
        roots: Places (the reference's) from which the backward pass starts as well.
    """

    def __init__(
        self,
        sites: Sites,
        sink: Sink,
        mode: str,
        gradient_mode: str | None = None,
        roots: frozenset[str] = frozenset(),
    ) -> None:
        self._sites = sites
        self._sink = sink
        self._mode = mode
        self._gradient_mode = gradient_mode
        self._roots = roots
        self.root_tensors: dict[str, torch.Tensor] = {}

    def arrives(self, place: Place, position: int, tensor: torch.Tensor) -> torch.Tensor:
        """Show an input that the two sides read from different places."""
        site = self._sites.inputs.get((place, position))
        if site is None or site[1] is None:
            return tensor
        replacement = self._sink(Key(self._mode, str(site[0]), f"reads {site[1]}"), tensor)
        if replacement is None or not tensor.is_floating_point():
            return tensor
        changed = tensor + (replacement - tensor).detach()  # the gradient flows on
        changed.data.copy_(replacement)
        return changed

    def returned(self, place: Place, tensor: torch.Tensor) -> None:
        """Show an output, and its gradient once there is one."""
        name = self._sites.outputs.get(place)
        if name is None:
            return
        replacement = self._sink(Key(self._mode, str(name), "output"), tensor)
        if replacement is not None and tensor.is_floating_point():
            _overwrite(tensor, replacement)
        if self._gradient_mode and tensor.requires_grad:
            key = Key(self._gradient_mode, str(name), "gradient")
            tensor.register_hook(lambda gradient: self._sink(key, gradient))
            if str(name) in self._roots:
                self.root_tensors[str(name)] = tensor


def run_eval(
    side: Side, batch: Batch, sites: Sites, sink: Sink, active: Active = nullcontext
) -> None:
    """Run a batch in eval mode; the side stays as it is.

    Args:
        side: The side to run.
        batch: The batch, in this side's precision.
        sites: What to watch.
        sink: Receives every tensor.
        active: A context around the run, such as a neutral rewrite's.
    """
    with restored(side.model), torch.no_grad(), active():
        side.model.eval()
        output = _watched(side.model, batch.inputs, Tap(sites, sink, EVAL))
        _report_output(EVAL, output, sink)


def run_train(
    side: Side,
    batch: Batch,
    sites: Sites,
    sink: Sink,
    active: Active = nullcontext,
    roots: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Run a batch in train mode, forward and, if there is a loss, backward.

    Args:
        side: The side to run; it stays as it is.
        batch: The batch, in this side's precision.
        sites: What to watch.
        sink: Receives activations, loss, and gradients of activations and parameters under the
            names that `parameter_names` gives.
        active: A context around the run.
        roots: Gradients to start the backward pass from besides the loss, by place: what the
            candidate cut off.

    Raises:
        UserError: The loss is no finite-dimensional scalar.
    """
    backward = side.loss is not None
    grad = torch.enable_grad() if backward else torch.no_grad()
    with restored(side.model), grad, active():
        side.model.train()
        side.model.zero_grad(set_to_none=True)
        names = frozenset(roots or ())
        tap = Tap(sites, sink, TRAIN, BACKWARD if backward else None, names)
        output = _watched(side.model, batch.inputs, tap)
        _report_output(TRAIN, output, sink)
        for name, buffer in side.model.named_buffers():
            sink(Key(STATE, name, "buffer"), buffer)
        if not backward:
            return
        loss = scalar_loss(side, output, batch.targets)
        sink(Key(LOSS, "network", "loss"), loss.detach())
        started = {n: g for n, g in (roots or {}).items() if n in tap.root_tensors}
        tensors = [loss, *(tap.root_tensors[name] for name in started)]
        gradients = [None, *started.values()]
        torch.autograd.backward(tensors, gradients)
        del output, loss, tensors
        for name, parameter in reversed(list(side.model.named_parameters())):
            if parameter.grad is not None:
                sink(Key(BACKWARD, name, "parameter gradient"), parameter.grad.to_dense())
                parameter.grad = None


def scalar_loss(side: Side, output: Any, targets: Any) -> torch.Tensor:
    """Return the loss of an output.

    Raises:
        UserError: It is no scalar tensor.
    """
    assert side.loss is not None
    loss = side.loss(output, targets)
    if not isinstance(loss, torch.Tensor) or loss.dim():
        shape = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else loss
        raise UserError(f"the loss returned {shape}; give a loss that returns a scalar tensor")
    return loss


def expected_keys(
    nodes: Sequence[Node],
    state: Iterable[str],
    *,
    train: bool,
    matched: Iterable[Place] | None = None,
) -> list[Key]:
    """List what a run reports, in the reference's order: forward, loss, backward.

    Args:
        nodes: The reference's nodes.
        state: Names of the reference's state tensors that have a counterpart.
        train: Whether in train mode.
        matched: The reference's places that have a counterpart; all of them without.
    """
    mode = TRAIN if train else EVAL
    known = None if matched is None else set(matched)
    shown = [n for n in nodes if not n.derived and (known is None or n.place in known)]
    keys = [Key(mode, str(node.place), "output") for node in shown]
    keys += [Key(mode, "network", "output 0")]
    if train:
        names = list(state)
        keys += [Key(STATE, name, "buffer") for name in names]
        keys += [Key(LOSS, "network", "loss")]
        keys += [Key(BACKWARD, str(node.place), "gradient") for node in reversed(shown)]
        keys += [Key(BACKWARD, name, "parameter gradient") for name in reversed(names)]
    return keys


def sizes(nodes: Sequence[Node]) -> list[int]:
    """Return how many bytes the output of every operation takes in float64."""
    return [8 * math.prod(node.shape) for node in nodes if not node.derived]


def _watched(model: nn.Module, inputs: Any, tap: Tap) -> Any:
    torch.manual_seed(SEED)
    watch = Watch(model, tap)
    watch.given(inputs)
    with watch:
        return call(model, inputs)


def _report_output(mode: str, output: Any, sink: Sink) -> None:
    for index, tensor in enumerate(tensors_in(output)):
        sink(Key(mode, "network", f"output {index}"), tensor.detach())


def _overwrite(tensor: torch.Tensor, replacement: torch.Tensor) -> None:
    """Write into a tensor without autograd's knowledge; what it saved sees the new values."""
    if any(s == 0 and n > 1 for s, n in zip(tensor.stride(), tensor.shape, strict=True)):
        return  # one entry stands for many
    tensor.data.copy_(replacement)
