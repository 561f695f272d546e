"""What a training run resumes from: one checkpoint, written whole or not at all.

A checkpoint names the run that it belongs to; one of another run is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduction.config import TrainConfig
from reproduction.errors import UserError
from reproduction.recipe import Recipe
from reproduction.tasks.task import Result, Task

CHECKPOINT = "last.pt"
LOG = "log.jsonl"


@dataclass
class Progress:
    """Where a run stands; everything but weights and momenta that a resumed run needs.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished in the epoch under way.
        loss_sum: Sum over images of the loss in that epoch.
        counts: What the task counts, summed over that epoch.
        count: Images seen in that epoch.
        digest: SHA-256 chain over all batches seen.
        wall_s: Seconds spent, interruptions left out.
        history: One row per finished epoch.
        losses: Mean loss over every `LOSS_WINDOW` steps of the whole run.
        window: Losses of the steps since.
    """

    epoch: int
    step: int
    loss_sum: float
    counts: dict[str, int]
    count: int
    digest: str
    wall_s: float
    history: list[dict[str, Any]]
    losses: list[float]
    window: list[float]


def run_identity(
    model: nn.Module, task: Task[Result], config: TrainConfig | Recipe, seed: int
) -> str:
    """Name a run by all that decides its outcome: a checkpoint of another one is refused."""
    content = {
        "config": asdict(config),
        "seed": seed,
        "data": task.identity,
        "state": [[name, list(value.shape)] for name, value in model.state_dict().items()],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write where a run stands; until it is whole, the last checkpoint stays.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    content = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"the checkpoint {path} could not be written ({error}): free some space and start the "
            "same command again; the last good checkpoint is kept"
        ) from error


def load(path: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Take weights, momenta and progress from a checkpoint.

    Raises:
        UserError: The file is damaged, or belongs to another run.
    """
    try:
        content: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = content["identity"]
    except Exception as error:  # damaged bytes raise many types
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): remove it to start this run again"
        ) from error
    if found != identity:
        raise UserError(
            f"{path.parent} holds another run (network, data, recipe or seed differ): remove it "
            "or choose another results_dir"
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return Progress(**content["progress"])


def write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one line an epoch, for people."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in history))
    partial.replace(path)
