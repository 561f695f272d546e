"""What a small network learns in a training form, beside what it learns in eager execution.

A form that sums in another order follows another trajectory; whether it ends where the eager one
does is a question of accuracy, over seeds, on images that every machine has.
"""

import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from comparison import arms
from comparison.statistics import tost
from reproduction import TrainConfig
from reproduction.forms import EAGER, Form
from reproduction.tasks.classification.sources import load_dataset
from reproduction.tasks.classification.task import Classification
from reproduction.train import train

NETWORK = "cls_hrnet_w18_small_v1"
DATA = "digits"
RECIPE = TrainConfig(epochs=10, batch_size=128)
# Points of accuracy that count as no difference: two images in a hundred of the few that are held
# out; fixed before the first measurement.
MARGIN_PP = 2.0


def accuracies(form: Form, seeds: int, recipe: TrainConfig = RECIPE) -> list[float]:
    """Train with each seed and return top-1 accuracy on held-out images, in percent."""
    dataset = load_dataset(DATA)
    found = []
    for seed in range(seeds):
        model = arms.build_from_seed("reproduction", NETWORK, dataset.num_classes, seed)
        with tempfile.TemporaryDirectory() as folder:
            result = train(
                model,
                Classification(dataset),
                recipe,
                seed=seed,
                out_dir=Path(folder),
                device=torch.device("cpu"),
                form=form,
                show_progress=False,
            )
        found.append(result.final.top1)
    return found


def row_of(form: Form, eager: list[float], found: list[float]) -> dict[str, Any]:
    """Lay a form's accuracies beside those of eager execution, with a verdict.

    Means within `MARGIN_PP` by two one-sided tests are within tolerance; bfloat16 is other
    arithmetic, whose accuracy is shown and not judged.
    """
    test = tost(eager, found, MARGIN_PP)
    low, high = ((f"{end:+.2f}" if end is not None else "none") for end in (test.low, test.high))
    return {
        "form": form.name,
        "precision": form.autocast or "float32",
        "quantity": "accuracy after training, %",
        "n": len(found),
        "reference": mean(eager),
        "value": mean(found),
        "verdict": "not comparable" if form.autocast else test.outcome,
        "reason": f"difference to eager {test.difference:+.2f} [{low}, {high}] points, "
        f"margin {test.margin:g}; {NETWORK}, {DATA}, {RECIPE.epochs} epochs",
    }


def measure(form: Form, seeds: int) -> list[dict[str, Any]]:
    """Train in eager execution and in a form; nothing for eager execution itself."""
    if form == EAGER or not seeds:
        return []
    return [row_of(form, accuracies(EAGER, seeds), accuracies(form, seeds))]
