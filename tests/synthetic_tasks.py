"""Synthetic records of dense tasks; see `tests.synthetic`."""

from typing import Any

import numpy as np

from comparison.record import measurement
from comparison.snapshots import pack, pack_image
from comparison.study import ARMS
from tests.synthetic_base import Record, record

DENSE = {"pose": ("ap", (20.0, 24.0, 22.0)), "segmentation": ("miou", (40.0, 44.0, 42.0))}


def dense(
    task: str, arm: str, seed: int, *, variant: str = "small", shift: float = 0.0, **changed: Any
) -> Record:
    """Make a run of a dense task; seed 0 keeps pictures."""
    metric, scores = DENSE[task]
    blank = np.zeros((8, 8), dtype=np.uint8)
    snapshot = {
        "image": pack_image(np.full((8, 8, 3), 90, dtype=np.uint8)),
        "labels": pack(blank),
        "predicted_labels": pack(blank + seed),
    }
    numbers = {
        "metric": metric,
        metric: scores[seed] + shift,
        f"trivial_{metric}": 8.4,
        "steps": 4,
        "batches_sha256": changed.pop("batches", f"{seed:064d}"),
    }
    parts: dict[str, Any] = {
        "inputs": {
            "data": {"name": "composed scenes", "sha256": ["c" * 64, "d" * 64]},
            "weights": {"final_sha256": f"{seed} {shift}"},
        },
        "measurements": [measurement(name, value, "") for name, value in numbers.items()],
        "tables": {"snapshots": [snapshot] * 3 if seed == 0 else []},
        "verdict": {"outcome": "reproduced", "reason": "exchanged"},
        **changed,
    }
    return record(
        "tasks",
        f"{task}.{variant}.{arm}.seed{seed}",
        claim_ids=["C15"],
        subject={"task": task, "variant": variant, "arm": arm, "seed": seed},
        parameters={"task": task, "epochs": 2, "scenes": 32},
        **parts,
    )


VARIANT_SHIFTS = {"full": 0.0, "across": -2.0, "final": -4.0, "bilinear": 1.0}


def dense_runs(shift: float = 0.0, **changed: Any) -> list[Record]:
    """Make the runs of both arms, of which `shift` moves the reproduction, and the variants."""
    both = [
        dense(task, arm, seed, shift=shift if arm == "reproduction" else 0.0, **changed)
        for task in DENSE
        for arm in ARMS
        for seed in range(3)
    ]
    return both + [
        dense("pose", "reproduction", seed, variant=name, shift=moved + 0.1 * seed)
        for name, moved in VARIANT_SHIFTS.items()
        for seed in range(3)
    ]
