"""Mode "trajectory": both sides from the same state, free, followed step by step.

In eager float32 two implementations that do the same operations in the same order agree to the
bit, and the first step at which they do not is the end of what a run can show: rounding then grows
by itself. The float64 run shows how fast, and that nothing but rounding is at work.
"""

from collections.abc import Sequence
from typing import Any

import torch

from comparison.measures import l2_error, same_bits
from comparison.modes.step import Stepper
from comparison.sides import Batch, Side
from comparison.verdict import (
    GRADIENT,
    NOT_REPRODUCED,
    REPRODUCED,
    WITHIN_TOLERANCE,
    ModeVerdict,
)

MODE = "trajectory"


def follow(reference: Side, candidate: Side, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Train both sides on the same batches and compare them after each step.

    Args:
        reference: One side; trained in place, in the precision of its model.
        candidate: The other side, in the same state and precision.
        batches: One batch for each step.

    Returns:
        One row per step: the losses; whether loss, all gradients and all state tensors
        (parameters, buffers, momenta) agree to the bit; the relative L2 difference of all
        parameters taken together.
    """
    theirs, ours = Stepper(reference), Stepper(candidate)
    precision = str(next(reference.model.parameters()).dtype).removeprefix("torch.")
    rows = []
    for number, batch in enumerate(batches, start=1):
        losses = theirs.step(batch), ours.step(batch)
        rows.append(
            {
                "precision": precision,
                "step": number,
                "loss_reference": losses[0].item(),
                "loss_reproduction": losses[1].item(),
                "loss_bit_equal": same_bits(*losses),
                "gradients_bit_equal": _equal(_gradients(reference), _gradients(candidate)),
                "state_bit_equal": _equal(_state(theirs), _state(ours)),
                "divergence": _divergence(reference, candidate),
            }
        )
    return rows


def bit_equal_steps(rows: Sequence[dict[str, Any]]) -> int:
    """Count the steps from the first on in which everything agrees to the bit.

    >>> same = {"loss_bit_equal": True, "gradients_bit_equal": True, "state_bit_equal": True}
    >>> bit_equal_steps([same, {**same, "state_bit_equal": False}, same])
    1
    """
    for number, row in enumerate(rows):
        if not all(row[f"{what}_bit_equal"] for what in ("loss", "gradients", "state")):
            return number
    return len(rows)


def judge(rows: Sequence[dict[str, Any]]) -> ModeVerdict:
    """Give the verdict on the free runs, from the rows of a float32 and a float64 run.

    Agreement to the bit over all float32 steps is reproduction. Where the bits part, the float64
    run tells rounding from another algorithm: after its first step it must stay within the bound
    for steps; later ones have grown by themselves and are described only.
    """
    single, double = (
        [row for row in rows if row["precision"] == kind] for kind in ("float32", "float64")
    )
    equal, start = bit_equal_steps(single), double[0]["divergence"]
    outcome = NOT_REPRODUCED
    if equal == len(single):
        outcome = REPRODUCED
    elif start <= GRADIENT.bound:
        outcome = WITHIN_TOLERANCE
    reason = f"float32 agrees to the bit for {equal} of {len(single)} steps"
    if outcome != REPRODUCED:
        reason += f"; float64 differs by {start:.1e} after one step, bound {GRADIENT.bound:.0e}"
    return ModeVerdict(
        mode=MODE,
        outcome=outcome,
        reason=reason,
        compared=len(single),
        bit_equal=equal,
        max_error=start,
        bound=GRADIENT.bound,
        first_divergent=f"step {equal + 1}" if equal < len(single) else "",
    )


_Tensors = dict[tuple[str, str], torch.Tensor]


def _gradients(side: Side) -> _Tensors:
    return {
        (name, "gradient"): parameter.grad
        for name, parameter in side.parameters().items()
        if parameter.grad is not None
    }


def _state(stepper: Stepper) -> _Tensors:
    return {(name, kind): tensor for name, kind, tensor in stepper.tensors()}


def _equal(theirs: _Tensors, ours: _Tensors) -> bool:
    same_keys = theirs.keys() == ours.keys()
    return same_keys and all(same_bits(theirs[key], ours[key]) for key in theirs)


def _divergence(reference: Side, candidate: Side) -> float:
    theirs, ours = reference.parameters(), candidate.parameters()
    names = sorted(theirs.keys() & ours.keys())
    flat = [torch.cat([side[name].detach().flatten() for name in names]) for side in (theirs, ours)]
    return l2_error(*flat)
