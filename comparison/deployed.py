"""Is what predicts still the network that was trained? Every deploy form against its original.

Folding is algebra, so the comparison engine holds it, tensor by tensor and in float64, to measured
rounding: the output of every folded convolution against that of the batch normalization which it
absorbed. What a runtime computes is seen at its outputs only, and in a precision where it rounds:
its error against the float64 original stands beside the original's own error in that precision.
Last, what matters to a user: how many test images get another decision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from comparison.engine.leader import Leader
from comparison.engine.measures import finite, l2_error, largest, ratio
from comparison.engine.passes import Sites, expected_keys
from comparison.engine.recordings import completed
from comparison.engine.rows import Row
from comparison.engine.sides import Batch, Side
from comparison.engine.trace import Node, Place, tensors_in, trace
from comparison.engine.verdict import (
    EVAL,
    NOT_REPRODUCED,
    NOT_RUN,
    WITHIN_TOLERANCE,
    Finding,
    ModeVerdict,
    conclude,
    judge,
)
from reproduction.deploy import PRECISIONS, DeployForm, fold
from reproduction.evaluate import evaluate
from reproduction.runtimes import load, unavailable
from reproduction.tasks.classification.data import Dataset

Rows = list[dict[str, Any]]
# How many times the original's own error in a precision a form's may be. Correct forms reach up to
# 2.8. An eps of 1e-3 in any one of the 91 normalizations of W18-Small-v1 gives 35 or more in
# float32. In bfloat16, and in a freshly initialized dense network, whose output hardly depends on
# its body, such a fault hides behind rounding: there only `check_fold` speaks, and trained weights.
ERROR_FACTOR = 4.0
WITHIN = "network."


@dataclass(frozen=True)
class Form:
    """A form of a network that predicts: which runtime, in which precision."""

    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


FORMS = (
    Form("eager", "float32"),
    Form("onnxruntime", "float32"),
    Form("openvino", "float32"),
    Form("eager", "bfloat16"),
    Form("openvino", "bfloat16"),
)


def check_fold(
    model: nn.Module, images: torch.Tensor, make: Callable[[nn.Module, str], DeployForm] = fold
) -> tuple[ModeVerdict, list[Row]]:
    """Compare a folded network with its original, tensor by tensor, in float64.

    Args:
        model: The original.
        images: (B, C, H, W).
        make: Folds; replaced to show that a wrong one is caught.

    Returns:
        The verdict, which names the first wrong layer of the original, and all rows in order.
    """
    form = make(model, "float64")
    batch = Batch(images.double())
    leader = Leader(
        Side(model=model).copied(torch.float64),
        [batch],
        edge_case="prediction takes no statistics from the batch",
    )
    theirs, ours = leader.nodes[False], trace(form, batch.inputs, train=False)
    sites = _sites(theirs, ours)
    leader.calibrate(False)
    found = leader.compare(False, Side(model=form), batch, sites)
    absorbed = set(_absorbed(theirs))
    expected = [node for node in theirs if node.place not in absorbed]
    keys = expected_keys(expected, (), train=False)
    rows = judge(completed(found.rows, keys, found.shapes))
    return conclude(EVAL, rows, _strangers(ours, sites)), rows


def _sites(theirs: Sequence[Node], ours: Sequence[Node]) -> Sites:
    """Pair every operation of a folded network with the original's that gives the same."""
    places, absorbed = {node.place for node in theirs}, _absorbed(theirs)
    pairs = {}
    for node in ours:
        own = node.place._replace(module=node.place.module.removeprefix(WITHIN))
        place = absorbed.get(own, own)
        if node.place.module.startswith(WITHIN.rstrip(".")) and place in places:
            pairs[node.place] = place
    return Sites(pairs)


def _absorbed(theirs: Sequence[Node]) -> dict[Place, Place]:
    """Map every convolution in front of a batch normalization to that normalization."""
    return {
        theirs[node.inputs[0]].place: node.place
        for node in theirs
        if node.place.op == "batch_norm" and node.inputs and node.inputs[0] >= 0
    }


def _strangers(ours: Sequence[Node], sites: Sites) -> list[Finding]:
    """Name the operations of a form that the original has not; conversions around it are meant."""
    return [
        Finding(str(node.place), "is not in the original")
        for node in ours
        if node.place.module and not node.derived and node.place not in sites.outputs
    ]


def output_errors(
    model: nn.Module,
    images: torch.Tensor,
    forms: Sequence[Form] = FORMS,
) -> Rows:
    """Measure the error of every form at its outputs, beside the original's own.

    Args:
        model: The original; it stays as it is.
        images: (B, C, H, W) float32.
        forms: What is measured; the one that this machine cannot run reads "not run".

    Returns:
        One row a form: ``max_error`` (of the largest magnitude of that output) and ``l2_error``
        against the float64 original, the worst over the outputs; ``own_max_error`` and
        ``own_l2_error`` of the original run in that precision by PyTorch; outcome and reason.
    """
    truth = _outputs(model, images, torch.float64)
    own = {name: _errors(truth, _outputs(model, images, PRECISIONS[name])) for name in _OWN}
    return [_error_row(model, images, form, truth, own[form.precision]) for form in forms]


_OWN = ("float32", "bfloat16")


def _error_row(
    model: nn.Module,
    images: torch.Tensor,
    form: Form,
    truth: list[torch.Tensor],
    own: tuple[float, float],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "form": str(form),
        "runtime": form.runtime,
        "precision": form.precision,
        "outcome": NOT_RUN,
        "reason": unavailable(form.runtime, form.precision),
        "max_error": None,
        "l2_error": None,
        "own_max_error": finite(own[0]),
        "own_l2_error": finite(own[1]),
    }
    if row["reason"]:
        return row
    predict = load(model, images, form.runtime, precision=form.precision)
    errors = _errors(truth, tensors_in(predict(images)))
    within = all(e <= ERROR_FACTOR * o for e, o in zip(errors, own, strict=True))
    factors = [f"{e / o:.2g}" if o else "unbounded" for e, o in zip(errors, own, strict=True)]
    return {
        **row,
        "outcome": WITHIN_TOLERANCE if within else NOT_REPRODUCED,
        "reason": f"{factors[0]} times the original's own in {form.precision}, and {factors[1]} "
        f"times in the L2 norm; at most {ERROR_FACTOR:g}",
        "max_error": finite(errors[0]),
        "l2_error": finite(errors[1]),
    }


def _outputs(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    copied = Side(model=model).copied(dtype).model.eval()
    with torch.inference_mode():
        return [output.double() for output in tensors_in(copied(images.to(dtype)))]


def _errors(truth: list[torch.Tensor], found: list[torch.Tensor]) -> tuple[float, float]:
    """Return the worst largest error and the worst Euclidean error, each relative."""
    pairs = [(a, b.double()) for a, b in zip(truth, found, strict=True)]
    return (
        max(ratio(largest(b - a), largest(a)) for a, b in pairs),
        max(l2_error(a, b) for a, b in pairs),
    )


class Predictor(nn.Module):
    """A form as a module: batches shorter than the prepared one are filled up and cut again."""

    def __init__(self, predict: Callable[[torch.Tensor], Any], batch: int) -> None:
        super().__init__()
        self.predict = predict
        self.batch = batch

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W), B at most the prepared batch, to the form's one output."""
        count = len(images)
        filled = torch.cat([images, images[:1].expand(self.batch - count, -1, -1, -1)])
        return self.predict(filled)[:count]


def decisions(
    model: nn.Module, dataset: Dataset, forms: Sequence[Form] = FORMS, *, batch_size: int = 128
) -> Rows:
    """Count the test images that a form decides otherwise than the trained classifier.

    Args:
        model: The trained classifier; it stays as it is.
        dataset: Whose test images are decided.
        forms: What is measured; those that cannot run here are left out.
        batch_size: Images a batch.

    Returns:
        One row a form: ``top1_before`` and ``top1_after`` in percent, ``changed`` decisions of
        ``images``, and the largest ``margin`` (of two logits, before) among the changed.
    """
    before = evaluate(model, dataset, batch_size=batch_size)
    (images, *_) = next(dataset.batches("test", batch_size=1))
    example = images.new_zeros(batch_size, *images.shape[1:])
    rows = []
    for form in forms:
        if unavailable(form.runtime, form.precision):
            continue
        predict = load(model, example, form.runtime, precision=form.precision)
        after = evaluate(Predictor(predict, batch_size), dataset, batch_size=batch_size)
        changed = after.predictions != before.predictions
        rows.append(
            {
                "form": str(form),
                "images": before.count,
                "top1_before": before.top1,
                "top1_after": after.top1,
                "changed": int(changed.sum()),
                "margin": float(before.margins[changed].max()) if changed.any() else None,
            }
        )
    return rows
