"""Both sides run once or twice before they are compared: what cannot be compared ends here.

A model may reject the inputs, fix a precision inside, return nothing, or differ from itself; a
loss may not fit the output, or have no gradient. Each is one sentence that names the side.
"""

from dataclasses import dataclass
from typing import Any

import torch

from comparison.engine.measures import largest, ratio, same_bits
from comparison.engine.passes import scalar_loss
from comparison.engine.requests import NAMES, first_line
from comparison.engine.sides import Batch, Side, mapped
from comparison.engine.trace import SEED, call, restored, tensors_in, trace
from comparison.engine.verdict import Finding
from reproduction.errors import UserError

NEUTRAL = 1e-6  # relative change of an output beyond which a rewrite is none of this model
STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "weight", "bias")
MODES = {False: "eval", True: "train"}


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What both sides showed.

    Attributes:
        findings: What differs already: how many tensors are returned, which side is unstable.
        unstable: Says that the reference differs from itself, and by how much; else empty.
        reorderable: Whether the reference treats every sample alike, wherever it lies in a batch.
        constants: Buffers of the reference that are no statistics: training leaves them alone.
    """

    findings: tuple[Finding, ...]
    unstable: str
    reorderable: bool
    constants: frozenset[str]


def rehearse(given: tuple[Side, Side], doubled: tuple[Side, Side], batch: Batch) -> Rehearsal:
    """Run both sides in both modes, twice, the reference once more in another order.

    Args:
        given: The sides as they were given.
        doubled: The sides in float64.
        batch: The batch as it was given.

    Raises:
        UserError: A side cannot be run, or its loss is no scalar with a gradient.
    """
    findings, unstable, reorderable = list[Finding](), ["", ""], True
    for train, mode in MODES.items():
        outputs = [
            _rehearsed(name, own, side, batch, train)
            for name, own, side in zip(NAMES, given, doubled, strict=True)
        ]
        counts = [len(output) for output in outputs]
        if counts[0] != counts[1]:
            text = f"returns {counts[1]} tensors in {mode} mode, in the reference {counts[0]}"
            findings.append(Finding("network", text))
        for i, side in enumerate(doubled):
            unstable[i] = unstable[i] or _unstable(side, batch, train, outputs[i])
        reorderable = reorderable and _is_reorderable(doubled[0], batch, train, outputs[0])
    if unstable[1] and not unstable[0]:
        findings.append(Finding("network", f"{unstable[1]}; the reference does not"))
    said = f"the reference {unstable[0]}" if unstable[0] else ""
    return Rehearsal(
        findings=tuple(findings),
        unstable=said,
        reorderable=reorderable,
        constants=_constants(doubled[0], batch),
    )


def run_once(side: Side, inputs: Any, train: bool) -> Any:
    """Return the output of one run with the seed of all runs; the model stays as it is."""
    with restored(side.model), torch.no_grad():
        side.model.train(train)
        torch.manual_seed(SEED)
        return call(side.model, inputs)


def shapes(inputs: Any) -> str:
    """Name the shapes of inputs.

    >>> shapes((torch.zeros(2, 3), torch.zeros(2)))
    '(2, 3), (2,)'
    """
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs))


def _rehearsed(name: str, given: Side, side: Side, batch: Batch, train: bool) -> list[torch.Tensor]:
    """Run a side in float64, backward as well if it has a loss; return its output's tensors."""
    seen = side.sees(batch)
    backward = train and side.loss is not None
    with restored(side.model), torch.set_grad_enabled(backward):
        side.model.train(train)
        torch.manual_seed(SEED)
        try:
            output = call(side.model, seen.inputs)
        except Exception as error:
            raise UserError(_rejection(name, given, batch, train, error)) from error
        if not tensors_in(output):
            raise UserError(
                f"the {name} returns no tensor but {type(output).__name__}: give a model that "
                "returns a tensor, or a list, tuple or dictionary of tensors"
            )
        if backward:
            _check_loss(name, side, output, seen.targets)
    return [tensor.detach() for tensor in tensors_in(output)]


def _constants(side: Side, batch: Batch) -> frozenset[str]:
    with restored(side.model), torch.no_grad():
        before = {name: buffer.clone() for name, buffer in side.model.named_buffers()}
        side.model.train()
        call(side.model, side.sees(batch).inputs)
        return frozenset(
            name
            for name, buffer in side.model.named_buffers()
            if same_bits(before[name], buffer) and not name.endswith(STATISTICS)
        )


def _rejection(name: str, given: Side, batch: Batch, train: bool, error: Exception) -> str:
    """Say whether a side rejects the inputs, or float64 only."""
    try:
        run_once(given, given.sees(batch).inputs, train)
    except Exception as own:
        error = own
    else:
        return (
            f"the {name} runs in {str(given.dtype).removeprefix('torch.')} but not in float64 "
            f"({type(error).__name__}: {first_line(error)}): let it follow the precision of its "
            "parameters and inputs"
        )
    return (
        f"the {name} rejects inputs of shape {shapes(batch.inputs)} in {MODES[train]} mode "
        f"({type(error).__name__}: {first_line(error)}): give inputs that both models take"
    )


def _check_loss(name: str, side: Side, output: Any, targets: Any) -> None:
    try:
        loss = scalar_loss(side, output, targets)
    except UserError:
        raise
    except Exception as error:
        advice = "targets, none were given" if targets is None else "a loss and targets that fit it"
        raise UserError(
            f"the loss fails in float64 on what the {name} returns ({type(error).__name__}: "
            f"{first_line(error)}): give {advice}"
        ) from error
    if not loss.requires_grad:
        raise UserError(
            f"the loss of the {name} has no gradient: let a parameter be trained (requires_grad) "
            "and nothing be detached on the way, or leave the loss out"
        )
    try:
        loss.backward()
    except Exception as error:
        raise UserError(
            f"the backward pass of the {name} fails ({type(error).__name__}: "
            f"{first_line(error)}): mend it, or leave the loss out"
        ) from error


def _unstable(side: Side, batch: Batch, train: bool, before: list[torch.Tensor]) -> str:
    """Run a side again; say by how much it differs from itself, and from where on."""
    inputs = side.sees(batch).inputs
    again = tensors_in(run_once(side, inputs, train))
    apart = [
        ratio(largest(b - a), largest(a))
        for a, b in zip(before, again, strict=True)
        if not same_bits(a, b) and a.shape == b.shape
    ]
    if not apart:
        return ""
    first, second = (trace(side.model, inputs, train=train) for _ in range(2))
    marks = zip(first, second, strict=False)
    place = next((a.place for a, b in marks if a.mark != b.mark), "its output")
    return (
        f"differs from itself on the same inputs with the same seed in {MODES[train]} mode, by up "
        f"to {max(apart):.1e} of the output, from {place} on: seed what it draws itself"
    )


def _is_reorderable(side: Side, batch: Batch, train: bool, before: list[torch.Tensor]) -> bool:
    """Tell whether a batch in the opposite order gives the same outputs in the opposite order."""
    inputs = side.sees(batch).inputs
    if not isinstance(inputs, torch.Tensor | tuple):
        return False
    first = tensors_in(inputs)[0]
    if not first.dim():
        return False

    def flipped(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.flip(0) if tensor.dim() else tensor

    try:
        shown = tensors_in(run_once(side, mapped(inputs, flipped), train))
    except Exception:  # what a model rejects in this order is no reason to reject it
        return False
    apart = [
        ratio(largest(flipped(b) - a), largest(a))
        for a, b in zip(before, shown, strict=False)
        if a.shape == b.shape and a.is_floating_point()
    ]
    return len(shown) == len(before) and all(not error > NEUTRAL for error in apart)
