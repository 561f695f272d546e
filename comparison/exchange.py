"""Weights trained by one arm, run by the other: does any test image get another decision?

This is the strong form of "the same network": it needs no statistics. In float64 no decision may
differ; in float32 every image on which one does is listed.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from comparison import arms
from comparison.study import ARMS
from reproduction.evaluate import Evaluation, evaluate
from reproduction.tasks.classification.data import Dataset

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Exchange:
    """Decisions of both arms on the same weights.

    Attributes:
        summary: One row per precision: images, flips, top-1 of each arm in percent.
        flips: One row per image and precision whose decision differs.
    """

    summary: list[dict[str, Any]]
    flips: list[dict[str, Any]]


def exchange(
    trained: nn.Module, trained_by: str, network: str, dataset: Dataset, device: torch.device
) -> Exchange:
    """Load one arm's weights into the other and compare all decisions on the test split.

    Args:
        trained: The trained network; it is not changed.
        trained_by: Its arm.
        network: Official name.
        dataset: Whose test images are decided.
        device: Where to run; where it has no float64 that leg runs on the CPU.
    """
    (other_arm,) = (arm for arm in ARMS if arm != trained_by)
    other = arms.build(other_arm, network, dataset.num_classes)
    arms.transfer(trained, other)
    models = {trained_by: trained, other_arm: other}
    summary, flips = [], []
    for precision, dtype in PRECISIONS.items():
        where = torch.device("cpu") if device.type == "mps" else device
        results = {arm: _decide(models[arm], dataset, where, dtype) for arm in ARMS}
        rows = _flips(results, dataset, precision)
        flips += rows
        summary.append(
            {
                "trained_by": trained_by,
                "precision": precision,
                "images": results["reference"].count,
                "flips": len(rows),
                **{f"top1_{arm}": results[arm].top1 for arm in ARMS},
            }
        )
    return Exchange(summary, flips)


def _decide(
    model: nn.Module, dataset: Dataset, device: torch.device, dtype: torch.dtype
) -> Evaluation:
    copied = copy.deepcopy(model).to(device, dtype)
    return evaluate(copied, dataset, device=device, dtype=dtype)


def _flips(
    results: dict[str, Evaluation], dataset: Dataset, precision: str
) -> list[dict[str, Any]]:
    reference, reproduction = (results[arm] for arm in ARMS)
    different = (reference.predictions != reproduction.predictions).nonzero().flatten().tolist()
    return [
        {
            "precision": precision,
            "image": index,
            "label": int(dataset.test.labels[index]),
            "reference": int(reference.predictions[index]),
            "reproduction": int(reproduction.predictions[index]),
            "margin": float(reference.margins[index]),
        }
        for index in different
    ]
