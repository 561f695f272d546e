"""Faults on purpose: proof that the comparison can fail, in the right mode and at the right site.

Every fault is injected into a copy of the reproduction that otherwise passes; every harmless
rewrite changes how a result is computed and must raise no alarm. Faults come from the history of
HRNet ports and of reproductions in general: a stale list entry, another upsampling, a momentum
factor, weight decay left out for batch normalization, a convolution bias that "does not matter".
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from comparison import injections, rewrites
from comparison.injections import Inject
from comparison.ladder import NUMERIC_MODES, Ladder, Leader, climb_after
from comparison.modes import static
from comparison.sides import Batch, Side


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A deliberate change, and where the comparison has to see it.

    Attributes:
        name: A few words.
        inject: Changes a side, whose model is a copy, and returns it.
        mode: Lowest numerical mode that must fail; empty for a harmless rewrite.
        site: First divergent tensor in that mode, named as in the reference.
        static: Whether the inventory must show it as well.
    """

    name: str
    inject: Inject
    mode: str = ""
    site: str = ""
    static: bool = False


EVAL, TRAIN, LOSS, BACK, BUFFERS, STEP = NUMERIC_MODES

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="BN eps 1e-5 -> 1.1e-5 in one layer",
        inject=injections.setting("stage3.0.branches.1.0.bn1", eps=1.1e-5),
        mode=EVAL,
        site="stage3.0.branches.1.0.bn1 (output)",
        static=True,
    ),
    Fault(
        name="BN momentum 0.1 -> 0.11 in one layer",
        inject=injections.setting("stage4.0.branches.2.0.bn1", momentum=0.11),
        mode=BUFFERS,
        site="stage4.0.branches.2.0.bn1.running_mean (buffer)",
        static=True,
    ),
    Fault(
        name="BN of one layer frozen",
        inject=injections.becoming("stage2.0.branches.1.0.bn2", injections.AlwaysEval),
        mode=TRAIN,
        site="stage2.0.branches.1.0.bn2 (output)",
    ),
    Fault(
        name="BN batch counter of one layer stands still",
        inject=injections.becoming("layer1.0.bn1", injections.NeverCounts),
        mode=BUFFERS,
        site="layer1.0.bn1.num_batches_tracked (buffer)",
    ),
    Fault(
        name="ReLU missing inside a residual unit",
        inject=injections.without_relu,
        mode=EVAL,
        site="stage2.0.branches.0.0.conv2 (input)",
    ),
    Fault(
        name="ReLU added at the end of an exchange path",
        inject=injections.with_relu,
        mode=EVAL,
        site="stage3.0.fuse_layers.2.0.1 (output)",
    ),
    Fault(
        name="two residual units of the same shape swapped",
        inject=injections.swapped_blocks,
        mode=EVAL,
        site="stage4.0.branches.0.0.conv1 (output)",
    ),
    Fault(
        name="two filters of one convolution swapped",
        inject=injections.swapped_filters,
        mode=EVAL,
        site="transition2.2.0.0 (output)",
    ),
    Fault(
        name="one term dropped from an exchange sum",
        inject=injections.changing_path("stage3.0.exchange.paths.0.2", torch.zeros_like),
        mode=EVAL,
        site="stage3.0 (output 0)",
    ),
    Fault(
        name="one term of an exchange sum off by 1e-6",
        inject=injections.changing_path("stage2.0.exchange.paths.0.1", injections.slightly_scaled),
        mode=EVAL,
        site="stage2.0 (output 0)",
    ),
    Fault(
        name="bilinear for nearest upsampling in one exchange unit",
        inject=injections.bilinear_upsampling,
        mode=EVAL,
        site="stage4.0 (output 0)",
    ),
    Fault(
        name="transition fed with the stream before the exchange",
        inject=injections.stale_transition,
        mode=EVAL,
        site="transition3.3.0.0 (input)",
    ),
    Fault(
        name="reflecting for zero padding in one convolution",
        inject=injections.setting("stage2.0.branches.1.0.conv1", padding_mode="reflect"),
        mode=EVAL,
        site="stage2.0.branches.1.0.conv1 (output)",
        static=True,
    ),
    Fault(
        name="weights of one convolution off by 1e-6",
        inject=injections.scaled_weight,
        mode=EVAL,
        site="stage4.0.branches.3.0.conv2 (output)",
    ),
    Fault(
        name="bias of a head convolution removed",
        inject=injections.without_bias,
        mode=EVAL,
        site="downsamp_modules.0.0 (output)",
        static=True,
    ),
    Fault(
        name="gradient cut on one exchange path",
        inject=injections.changing_path("stage3.0.exchange.paths.1.0", torch.Tensor.detach),
        mode=BACK,
        site="stage3.0.fuse_layers.1.0.0.1 (gradient)",
    ),
    Fault(
        name="gradient of one exchange path off by 0.1 %",
        inject=injections.changing_path(
            "stage2.0.exchange.paths.0.1", injections.with_scaled_gradient
        ),
        mode=BACK,
        site="stage2.0.fuse_layers.0.1.0 (gradient)",
    ),
    Fault(
        name="loss summed instead of averaged",
        inject=injections.another_loss(reduction="sum"),
        mode=LOSS,
        site="network (loss)",
    ),
    Fault(
        name="labels smoothed by 0.1",
        inject=injections.another_loss(label_smoothing=0.1),
        mode=LOSS,
        site="network (loss)",
    ),
    Fault(
        name="optimizer momentum 0.9 -> 0.91",
        inject=injections.optimizer_options(momentum=0.91),
        mode=STEP,
        site="conv1.weight (step 1)",
        static=True,
    ),
    Fault(
        name="plain instead of Nesterov momentum",
        inject=injections.optimizer_options(nesterov=False),
        mode=STEP,
        site="conv1.weight (step 1)",
        static=True,
    ),
    Fault(
        name="weight decay skipped for BN and biases",
        inject=injections.without_decay_on_norms,
        mode=STEP,
        site="bn1.weight (step 1)",
        static=True,
    ),
    Fault(
        name="gradients not reset between steps",
        inject=injections.without_reset,
        mode=STEP,
        site="conv1.weight (step 2)",
    ),
)

HARMLESS: tuple[Fault, ...] = (
    Fault(name="nothing changed", inject=lambda side: side),
    Fault(name="channels-last memory", inject=rewrites.channels_last),
    Fault(name="exchange sums from the last stream up", inject=rewrites.reversed_sums),
    Fault(name="batch in another order, undone after", inject=rewrites.permuted_batch),
    Fault(name="convolution as unfold and matrix product", inject=rewrites.unfolded_convolutions),
    Fault(name="batch normalization written out", inject=rewrites.written_out_norms),
    Fault(name="upsampling by repetition, sums as one reduction", inject=rewrites.stacked_sums),
    Fault(name="ReLU out of place", inject=rewrites.relu_out_of_place),
)


def judge(leader: Leader, candidate: Side, fault: Fault) -> dict[str, Any]:
    """Inject one fault into a copy of a candidate that passes, and see what is noticed.

    Args:
        leader: The reference's run, with its steps kept.
        candidate: The reproduction, in the state that the reference started from.
        fault: What to change.

    Returns:
        One row: what was expected, what was found, and whether the two agree.
    """
    start = time.perf_counter()
    changed = fault.inject(candidate.copied(leader.dtype))
    ladder = climb_after(leader, changed, to_first_failure=True)
    numeric = [verdict for verdict in ladder.failures() if verdict.mode != static.MODE]
    mode, site = (numeric[0].mode, numeric[0].first_divergent) if numeric else ("", "")
    seen = len(numeric) < len(ladder.failures())
    return {
        "fault": fault.name,
        "kind": "fault" if fault.mode else "harmless",
        "expected_mode": fault.mode,
        "expected_site": fault.site,
        "caught": bool(ladder.failures()),
        "mode": mode,
        "site": site,
        "static_expected": fault.static,
        "static_seen": seen,
        "as_expected": (mode, site, seen) == (fault.mode, fault.site, fault.static),
        "tensors_changed": _changed(ladder),
        "largest_error": _largest(ladder),
        "wall_s": time.perf_counter() - start,
    }


def run(reference: Side, candidate: Side, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Try all faults and all harmless rewrites.

    Args:
        reference: The reference.
        candidate: The reproduction, in the same state.
        batches: At least two, since some faults show at the second optimizer step only.
    """
    leader = Leader(reference, batches, keep_steps=True)
    return [judge(leader, candidate, fault) for fault in (*FAULTS, *HARMLESS)]


def _changed(ladder: Ladder) -> int:
    return sum(not row.bit_equal for row in ladder.rows)


def _largest(ladder: Ladder) -> float:
    """Return the largest error that is a number; infinity if a fault has none, like a counter."""
    differing = [row.max_error for row in ladder.rows if not row.agrees]
    errors = differing or [row.max_error for row in ladder.rows]
    return max((error for error in errors if math.isfinite(error)), default=math.inf)
