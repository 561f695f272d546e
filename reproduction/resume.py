"""What a training run resumes from: its last checkpoint, and the one before that.

A checkpoint is written whole or not at all, carries the SHA-256 of its content, and names the run
that it belongs to; one of another run is refused.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduction.checkpoints import load_torch
from reproduction.config import TrainConfig
from reproduction.durable import drop_partials, force_to_disk, whole, write_whole
from reproduction.errors import UserError
from reproduction.recipe import Recipe
from reproduction.tasks.task import Result, Task

CHECKPOINT = "last.pt"
PREVIOUS = "previous.pt"
DAMAGED = "damaged.pt"
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
    model: nn.Module,
    task: Task[Result],
    config: TrainConfig | Recipe,
    seed: int,
    form: Mapping[str, Any],
) -> str:
    """Name a run by what decides its outcome: a checkpoint of another one is refused.

    Start weights are held by their names and shapes: they follow from the seed, or the folder is
    named after them.
    `form` is empty for the eager form, so that its runs keep the names they had before.
    """
    content = {
        **form,
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
    """Write where a run stands; the checkpoint of before is kept beside it.

    Raises:
        UserError: The disk is full, the folder cannot be written, or a weight is not finite.
    """
    content: dict[str, Any] = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    _refuse_not_finite(content["model"], path.parent, progress)
    try:
        with whole(path) as partial:
            torch.save({**content, "sha256": content_digest(content)}, partial)
            force_to_disk(partial)
            with suppress(FileNotFoundError):
                path.replace(path.with_name(PREVIOUS))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint {path} could not be written ({error}): free some space or make the "
            f"folder writable, and start the same command again; {_left(path.parent)}"
        ) from error


def _refuse_not_finite(state: Mapping[str, torch.Tensor], folder: Path, progress: Progress) -> None:
    """Keep a state that cannot be gone on from out of the checkpoints."""
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"{name} is not finite after {_place(progress)}: lower the learning rate; "
                f"{_left(folder)}"
            )


def _place(progress: Progress, ahead: int = 0) -> str:
    return f"step {progress.step + ahead} of epoch {progress.epoch + 1}"


def stopped(problem: UserError, folder: Path, progress: Progress) -> UserError:
    """Say of a run that diverged where it did, and what is left of it."""
    told = f"{problem}, in {_place(progress, 1)}: lower the learning rate; {_left(folder)}"
    return type(problem)(told)


def _left(folder: Path) -> str:
    """Say what there is to go on from."""
    there = any((folder / name).exists() for name in (CHECKPOINT, PREVIOUS))
    return (
        f"the last good checkpoint is kept in {folder}" if there else "there is no checkpoint yet"
    )


def content_digest(content: Any) -> str:
    """Hash nested mappings and lists of tensors and plain values."""
    total = hashlib.sha256()
    for part in _parts(content):
        total.update(part)
    return total.hexdigest()


def _parts(content: Any) -> Iterator[bytes | memoryview]:
    if isinstance(content, torch.Tensor):
        yield f"{content.dtype} {tuple(content.shape)}".encode()
        yield content.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield f"{key!r}:".encode()
            yield from _parts(value)
    elif isinstance(content, list | tuple):
        yield f"{len(content)} entries".encode()
        for value in content:
            yield from _parts(value)
    else:
        yield f"{content!r},".encode()


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"


def load(
    folder: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, str] | None:
    """Take weights, momenta and progress from the newest whole checkpoint of a folder.

    A damaged one is put aside as `damaged.pt`, and the one before it is gone on from.

    Returns:
        The progress, and a sentence if the newest was damaged (else empty); None if there is no
        checkpoint.

    Raises:
        UserError: All checkpoints are damaged, or they belong to another run.
    """
    drop_partials(folder)
    damaged: dict[Path, str] = {}
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        try:
            content = read(path)
        except FileNotFoundError:
            continue
        except Exception as error:  # damaged bytes raise many types
            damaged[path] = _brief(error)
            continue
        if content.get("identity") != identity:
            raise UserError(
                f"{folder} holds another run (network, data, recipe or seed differ): remove it "
                "or choose another results_dir"
            )
        try:
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            progress = Progress(**content["progress"])
        except Exception as error:  # what is sealed may still hold other things
            damaged[path] = _brief(error)
            continue
        return progress, _put_aside(damaged, progress)
    if damaged:
        told = "; ".join(f"{path.name}: {why}" for path, why in damaged.items())
        raise UserError(
            f"every checkpoint in {folder} is damaged ({told}): remove the folder to start this "
            "run again"
        )
    return None


def read(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint and check every value in it.

    Raises:
        FileNotFoundError: There is none.
        Exception: It is damaged; PyTorch raises many types.
    """
    content: dict[str, Any] = load_torch(path)
    if "sha256" not in content:
        raise ValueError("it has no SHA-256: an earlier version wrote it")
    if content.pop("sha256") != content_digest(content):
        raise ValueError("its SHA-256 does not fit")
    return content


def _put_aside(damaged: Mapping[Path, str], progress: Progress) -> str:
    """Keep a damaged checkpoint where it cannot take the place of a good one."""
    told = ""
    for path, why in damaged.items():
        with suppress(FileNotFoundError):  # another process of the same run was first
            path.replace(path.with_name(DAMAGED))
        told = (
            f"{path} is damaged ({why}) and was put aside as {DAMAGED}: going on from the "
            f"checkpoint before it, {_place(progress)}"
        )
    return told


def write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one line an epoch, for people."""
    write_whole(path, "".join(json.dumps(row) + "\n" for row in history))
