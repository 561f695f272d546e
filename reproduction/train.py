"""One visible training loop (TPAMI'20 appendix B), for any classifier.

It knows neither whose network it trains nor which data set. A run can be killed at any moment and
started again with the same arguments: it goes on from its last checkpoint, which lies at most
`CHECKPOINT_EVERY` steps back, and ends with the same bits.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from reproduction.config import TrainConfig
from reproduction.errors import UserError
from reproduction.evaluate import Evaluation, evaluate
from reproduction.tasks.classification.data import Batch, Dataset
from reproduction.tasks.classification.metrics import top_k_correct

CHECKPOINT_EVERY = 100
LOSS_WINDOW = 10
CHECKPOINT = "last.pt"
LOG = "log.jsonl"


class StepResult(NamedTuple):
    """What a step measured: mean loss, and right decisions among the batch's images."""

    loss: float
    correct: int
    images: int


@dataclass
class Progress:
    """Where a run stands; everything but weights and momenta that a resumed run needs.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished in the epoch under way.
        loss_sum: Sum over images of the loss in that epoch.
        correct: Right decisions in that epoch.
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
    correct: int
    count: int
    digest: str
    wall_s: float
    history: list[dict[str, Any]]
    losses: list[float]
    window: list[float]


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        history: One row per epoch: learning rate, losses, accuracies in percent, seconds.
        losses: Mean training loss over every `LOSS_WINDOW` steps.
        final: Evaluation after the last epoch (never the best).
        batches_sha256: Digest of all batches seen, in order.
        resumed: Whether part of the run was done before.
    """

    history: list[dict[str, Any]]
    losses: list[float]
    final: Evaluation
    batches_sha256: str
    resumed: bool


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Build SGD with Nesterov momentum and weight decay on all parameters (appendix B)."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Return the learning rate of a step counted from 0: the published step schedule.

    Milestones are shares of the whole run. Where they fall on epoch boundaries, as 30, 60 and 90
    of 100 epochs do, this is the published schedule; in a run of two epochs they fall within.

    >>> [learning_rate(TrainConfig(), 10 * epoch, 1000) for epoch in (29, 30, 60)]
    [0.05, 0.005, 0.0005]
    """
    passed = sum(step >= round(share * total_steps) for share in config.milestones)
    return round(config.learning_rate * config.gamma**passed, 12)


def train_step(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> StepResult:
    """Do one step: forward, cross-entropy, backward, update.

    Raises:
        UserError: The loss is not finite.
    """
    images, labels, _ = batch
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    if not torch.isfinite(loss):
        raise UserError(f"the loss became {loss.item()}: lower the learning rate; no weights kept")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    correct = int(top_k_correct(logits.detach(), labels, 1).sum())
    return StepResult(loss.item(), correct, len(labels))


def train(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    seed: int,
    out_dir: Path,
    device: torch.device,
    show_progress: bool = True,
) -> TrainResult:
    """Train a classifier, or go on with a run that was interrupted.

    Args:
        model: The network with its start weights, on the CPU; left trained, on `device`.
        dataset: Training and test images.
        config: The recipe.
        seed: Decides order and augmentation of the batches.
        out_dir: Holds `last.pt` and `log.jsonl`.
        device: Where to run.
        show_progress: Whether to draw a progress bar.

    Raises:
        UserError: `out_dir` holds another run or a damaged checkpoint, or the loss diverged.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    identity = _identity(model, dataset, config, seed)
    model.to(device).train()
    optimizer = make_optimizer(model, config)
    progress = Progress(0, 0, 0.0, 0, 0, "", 0.0, [], [], [])
    resumed = (out_dir / CHECKPOINT).exists()
    if resumed:
        progress = _load(out_dir / CHECKPOINT, identity, model, optimizer)

    final: Evaluation | None = None
    steps = dataset.steps("train", config.batch_size)
    total = config.epochs * steps
    bar = tqdm(total=total, disable=not show_progress, unit="step", mininterval=2)
    bar.update(progress.epoch * steps + progress.step)
    while progress.epoch < config.epochs:
        started = time.perf_counter()
        for batch in dataset.batches(
            "train",
            seed=seed,
            epoch=progress.epoch,
            batch_size=config.batch_size,
            start=progress.step,
        ):
            rate = learning_rate(config, progress.epoch * steps + progress.step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            _count(progress, train_step(model, _to(batch, device), optimizer), batch.digest)
            bar.update()
            if progress.step % CHECKPOINT_EVERY == 0 and progress.step < steps:
                progress.wall_s += time.perf_counter() - started
                started = time.perf_counter()
                _save(out_dir / CHECKPOINT, identity, model, optimizer, progress)
        final = evaluate(model, dataset, device=device)
        progress.wall_s += time.perf_counter() - started
        _finish_epoch(progress, rate, final)
        _save(out_dir / CHECKPOINT, identity, model, optimizer, progress)
        _write_log(out_dir / LOG, progress.history)
    bar.close()
    final = final or evaluate(model, dataset, device=device)
    return TrainResult(progress.history, progress.losses, final, progress.digest, resumed)


def _to(batch: Batch, device: torch.device) -> Batch:
    return Batch(batch.images.to(device), batch.labels.to(device), batch.digest)


def _count(progress: Progress, result: StepResult, digest: str) -> None:
    progress.step += 1
    progress.loss_sum += result.loss * result.images
    progress.correct += result.correct
    progress.count += result.images
    progress.digest = hashlib.sha256((progress.digest + digest).encode()).hexdigest()
    progress.window.append(result.loss)
    if len(progress.window) == LOSS_WINDOW:
        progress.losses.append(sum(progress.window) / LOSS_WINDOW)
        progress.window = []


def _finish_epoch(progress: Progress, rate: float, evaluation: Evaluation) -> None:
    progress.history.append(
        {
            "epoch": progress.epoch + 1,
            "learning_rate": rate,
            "steps": progress.step,
            "train_loss": progress.loss_sum / progress.count,
            "train_top1": 100 * progress.correct / progress.count,
            "test_loss": evaluation.loss,
            "test_top1": evaluation.top1,
            "test_top5": evaluation.top5,
            "wall_s": progress.wall_s,
            "batches_sha256": progress.digest,
        }
    )
    progress.epoch += 1
    progress.step, progress.loss_sum, progress.correct, progress.count = 0, 0.0, 0, 0


def _identity(model: nn.Module, dataset: Dataset, config: TrainConfig, seed: int) -> str:
    """Name a run by all that decides its outcome: a checkpoint of another one is refused."""
    content = {
        "config": asdict(config),
        "seed": seed,
        "data": [dataset.name, dataset.sha256, dataset.image_size],
        "state": [[name, list(value.shape)] for name, value in model.state_dict().items()],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _save(
    path: Path, identity: str, model: nn.Module, optimizer: torch.optim.SGD, progress: Progress
) -> None:
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


def _load(path: Path, identity: str, model: nn.Module, optimizer: torch.optim.SGD) -> Progress:
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


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in history))
    partial.replace(path)
