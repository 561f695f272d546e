"""What the faster forms compute, beside the errors that the original makes itself.

Gradients of a training form, outputs of every deployed form, and how many test images get another
decision are measured elsewhere; here they are laid out as rows that carry a verdict.
"""

from typing import Any

import torch

from comparison import deployed, gradient_error
from comparison.speed import learning
from comparison.speed.contenders import BESIDE_DEPLOY, Setup, example, reproduction
from comparison.study import ROOT
from comparison.tune import candidates
from reproduction import UserError, build_network
from reproduction.checkpoints import load_checkpoint
from reproduction.forms import EAGER, KEYS, Form, choose_form, table_rows
from reproduction.runtimes import chosen
from reproduction.tasks.classification.sources import load_dataset

Row = dict[str, Any]
SEEDS = range(6)  # the fewest that a 95 % interval of the median needs
GRADIENT_BATCH = 128  # float64 takes long; a form may treat smaller maps in another way
# How many times the reference's own error a gradient's may be, fixed before the first measurement:
# sums in another order differ by rounding, a wrong sum by orders of magnitude.
GRADIENT_FACTOR = 10.0
CHECKED_IMAGES = 2
RUNTIME_OF = {"folded": "eager"}  # what `reproduction.runtimes` calls an arm, where it differs
TUNED = {"tuned": "speedup", "tuned_low": "low", "tuned_high": "high"}  # in the table of forms
ARM_OF = {runtime: arm for arm, runtime in RUNTIME_OF.items()}


def of_training(setup: Setup, accuracy_seeds: int = 0) -> tuple[list[Row], list[Row]]:
    """Measure gradients of eager execution and of every form that is timed for the table.

    Eager execution and the form that the table chose are judged; the others are shown.

    Args:
        setup: What was timed.
        accuracy_seeds: Over how many seeds a small network is trained in that form as well.

    Returns:
        A row a form with its verdict; and all errors, by seed.
    """
    height = setup.image_size[0]
    form = choose_form(setup.network, height, setup.batch_size, precision=setup.precision)
    forms = list(dict.fromkeys((EAGER, *candidates(setup.precision, height), form)))
    batch = min(setup.batch_size, GRADIENT_BATCH)
    taken = gradient_error.gradient_errors(setup.network, height, batch, forms, SEEDS)
    summed = {row["form"]: row for row in gradient_error.summarize(taken)}
    own = summed.pop(gradient_error.REFERENCE)["error"]
    tuned = _tuned(setup)
    rows = [
        _gradient(summed[each.name], each, own, each in (EAGER, form), tuned.get(each.name, {}))
        for each in forms
    ]
    return rows + learning.measure(form, accuracy_seeds), taken


def _tuned(setup: Setup) -> dict[str, Row]:
    """Return how fast each form was for a shape when the committed table was made, by form."""
    shape = (setup.network, setup.image_size[0], setup.batch_size, setup.precision)
    rows = (row for row in table_rows() if tuple(row[key] for key in KEYS) == shape)
    return {entry["form"]: entry for row in rows for entry in row["measured"]}


def _gradient(found: Row, form: Form, own: float, judged: bool, tuned: Row) -> Row:
    verdict = gradient_verdict(found["ratio_low"], found["ratio_high"], form.autocast)
    factor = f"{found['ratio']:.2g} {_bounds(found)} times the reference's own"
    return {
        "form": form.name,
        "precision": form.autocast or "float32",
        **{key: tuned.get(name) for key, name in TUNED.items()},
        "quantity": "gradient, relative L2",
        "n": found["seeds"],
        "reference": own,
        "value": found["error"],
        "verdict": verdict if judged else None,
        "reason": f"{factor}: {found['statement']}",
    }


def _bounds(found: Row) -> str:
    low, high = found["ratio_low"], found["ratio_high"]
    return "without an interval" if low is None or high is None else f"[{low:.2g}, {high:.2g}]"


def gradient_verdict(low: float | None, high: float | None, autocast: str) -> str:
    """Judge a form's gradient error by its ratio to the reference's own in float32.

    Larger than the reference's own is said so, within `GRADIENT_FACTOR`; bfloat16 is other
    arithmetic, whose error is shown and not judged.
    """
    if autocast:
        return "not comparable"
    if low is None or high is None:
        return "undecided"
    if low > GRADIENT_FACTOR:
        return "not reproduced"
    if high > GRADIENT_FACTOR:
        return "undecided"
    return "explained difference" if low > 1 else "within tolerance"


def of_inference(setup: Setup, arms: list[str]) -> list[Row]:
    """Measure the errors of all deployed forms that were asked for, at their outputs.

    The folded form is held by the comparison engine too, tensor by tensor in float64.
    """
    model = reproduction(setup).eval()
    images = example(setup)[0].cpu()
    rows = [_folded(model, images[:CHECKED_IMAGES])] if setup.precision == "float32" else []
    found = deployed.output_errors(model, images, forms_of(setup, arms))
    return rows + [_output(row, len(images)) for row in found]


def forms_of(setup: Setup, arms: list[str]) -> list[deployed.Form]:
    """List the deployed forms among some arms, each once."""
    names = [RUNTIME_OF.get(arm, arm) for arm in arms if arm in BESIDE_DEPLOY]
    if "deploy" in arms:
        names.insert(0, "cuda" if setup.device == "cuda" else chosen(setup.precision))
    return [deployed.Form(name, setup.precision) for name in dict.fromkeys(names)]


def _folded(model: torch.nn.Module, images: torch.Tensor) -> Row:
    mode, rows = deployed.check_fold(model, images)
    worst = max((row.difference / row.size for row in rows if row.size), default=None)
    return {
        "form": "folded",
        "precision": "float64",
        "quantity": "all layers, largest error",
        "n": mode.compared,
        "reference": None,
        "value": worst,
        "verdict": mode.outcome,
        "reason": mode.reason,
    }


def _output(found: Row, images: int) -> Row:
    return {
        "form": ARM_OF.get(found["runtime"], found["runtime"]),
        "precision": found["precision"],
        "quantity": "output, largest error",
        "n": images,
        "reference": found["own_max_error"],
        "value": found["max_error"],
        "verdict": None if found["outcome"] == "not run" else found["outcome"],
        "reason": found["reason"],
    }


def of_decisions(setup: Setup, arms: list[str], weights_file: str, data: str) -> list[Row]:
    """Measure the accuracy of a trained classifier before and after it is deployed.

    Raises:
        UserError: The weights are missing or do not fit, or were trained on other images.
    """
    if setup.image_size[0] != setup.image_size[1]:
        raise UserError(
            f"weights for images of {setup.image_size} were not trained here; use squares"
        )
    dataset = load_dataset(data, image_size=setup.image_size[0])
    model = build_network(setup.network, num_classes=dataset.num_classes)
    load_checkpoint(model, ROOT / weights_file)
    found = deployed.decisions(
        model.eval(), dataset, forms_of(setup, arms), batch_size=setup.batch_size
    )
    return [_decided(row) for row in found]


def _decided(found: Row) -> Row:
    runtime, precision = found["form"].split()
    exact = precision == "float32"
    same = "reproduced" if not found["changed"] else "explained difference"
    return {
        "form": ARM_OF.get(runtime, runtime),
        "precision": precision,
        "quantity": "accuracy, %",
        "n": found["images"],
        "reference": found["top1_before"],
        "value": found["top1_after"],
        "verdict": same if exact else "not comparable",
        "reason": f"{found['changed']} of {found['images']} decisions differ",
    }
