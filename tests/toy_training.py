"""A training run of a second, for tests that kill it."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from comparison.record import measurement, new_record, write_record
from reproduction import TrainConfig, resume
from reproduction import train as loop
from reproduction.tasks.classification.data import ArraySplit, Dataset
from reproduction.tasks.classification.task import Classification

CONFIG = TrainConfig(epochs=6, batch_size=8)
STEPS = 30
CHECKPOINT_EVERY = 2
# Where a process may die within the writing of a checkpoint, in order.
MOMENTS = ("before it", "half-written", "not on the disk", "before the rotation", "between names")


def toy_task() -> Classification:
    """Make 40 images of two brightnesses to tell apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    bright = labels[:, None, None, None] * 120
    images = (bright + rng.integers(0, 80, (40, 1, 8, 8))).astype(np.uint8)
    split = ArraySplit(images, labels)
    return Classification(Dataset("toy", split, split, 2, 8, "0", "", ""))


def toy_model() -> nn.Module:
    """Build a small network with batch normalization and dropout: buffers and noise matter."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.2), nn.Linear(144, 2)),
    )


def train_and_record(folder: Path, step_s: float = 0.0) -> None:
    """Train in `folder`, or go on there, and write weights and a record."""
    loop.CHECKPOINT_EVERY = CHECKPOINT_EVERY
    torch.set_num_threads(1)
    if step_s:
        _slow_down(step_s)
    model, started = toy_model(), time.perf_counter()
    result = loop.train(
        *(model, toy_task(), CONFIG),
        **{"seed": 0, "out_dir": folder, "device": torch.device("cpu"), "show_progress": False},
    )
    record = new_record(
        case="training",
        run_id="toy",
        claim_ids=[],
        subject={},
        inputs={"weights": {"final_sha256": resume.content_digest(model.state_dict())}},
        measurements=[
            measurement("top1", result.final.top1, "percent"),
            measurement("test_loss", result.final.loss, "nats"),
            measurement("batches_sha256", result.batches_sha256, "digest"),
        ],
        tables={
            "epochs": result.history,
            "losses": [{"loss": value} for value in result.losses],
            "predictions": [{"class": int(value)} for value in result.final.predictions],
        },
        expectations=[],
        verdict={"outcome": "reproduced", "reason": "an example"},
        wall_s=time.perf_counter() - started,
        parameters={"seed": 0},
    )
    write_record(folder, record)


def outcome(folder: Path) -> dict[str, Any]:
    """Return all of a finished run that must not depend on interruptions: no times."""
    record = json.loads((folder / "records" / "training" / "toy.json").read_text())
    for name in ("sha256", "created_utc", "provenance"):
        del record[name]
    for row in record["tables"]["epochs"]:
        del row["wall_s"]
    last = dict(resume.read(folder / resume.CHECKPOINT))
    last["progress"] = {k: v for k, v in last["progress"].items() if k not in ("wall_s", "history")}
    return {"record": record, "last": resume.content_digest(last)}


def die_within_checkpoint(folder: Path, count: int, moment: str) -> None:
    """Train until a checkpoint is written for the `count`-th time; kill this process within it."""
    save, rotate, left = torch.save, Path.replace, iter(range(count))

    def dying_save(content: Any, path: Path) -> None:
        if next(left, None) is not None:
            return save(content, path)
        if moment == "before it":
            _die()
        save(content, path)
        if moment == "half-written":
            os.truncate(path, path.stat().st_size // 2)
            _die()
        os.fsync = lambda handle: _die() if moment == "not on the disk" else None
        if moment == "before the rotation":
            Path.replace = lambda self, target: _die()
        if moment == "between names":
            Path.replace = lambda self, target: (rotate(self, target), _die())

    torch.save = dying_save
    train_and_record(folder)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _slow_down(step_s: float) -> None:
    step: Callable[..., loop.StepResult] = loop.train_step

    def slow(*arguments: Any) -> loop.StepResult:
        time.sleep(step_s)
        return step(*arguments)

    loop.train_step = slow


def digest(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
