"""One visible training loop (TPAMI'20 appendix B), for any task.

It knows neither whose network it trains nor for what: a task brings data, loss and evaluation. A
run can be killed at any moment and started again with the same arguments: it goes on from its last
checkpoint, which lies at most `CHECKPOINT_EVERY` steps back, and ends with the same bits.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from reproduction import distributed, resume
from reproduction.config import TrainConfig
from reproduction.distributed import ALONE, Group
from reproduction.divergence import Diverged, first_not_finite
from reproduction.errors import UserError
from reproduction.forms import EAGER, Form, prepare
from reproduction.fused_sgd import FusedSGD
from reproduction.recipe import Recipe
from reproduction.resume import Progress
from reproduction.tasks.task import Batch, Loss, Result, ResultT, Task

CHECKPOINT_EVERY = 100
LOSS_WINDOW = 10
# What heads are called: ours, and by the official code for its groups of rates.
HEAD_WORDS = ("head.", "last_layer", "cls", "aux", "ocr")


class StepResult(NamedTuple):
    """What a step measured: mean loss, the task's counts, and the number of images."""

    loss: float
    counts: Mapping[str, int]
    images: int


@dataclass(frozen=True)
class TrainResult(Generic[ResultT]):
    """A finished run.

    Attributes:
        history: One row per epoch: learning rate, losses, counts and scores, seconds.
        losses: Mean training loss over every `LOSS_WINDOW` steps.
        final: Evaluation after the last epoch (never the best).
        batches_sha256: Digest of all batches seen, in order.
        resumed: Whether part of the run was done before.
        data_share: Share of the time of this process's steps in which batches were prepared; None
            if it did no step.
    """

    history: list[dict[str, Any]]
    losses: list[float]
    final: ResultT
    batches_sha256: str
    resumed: bool
    data_share: float | None


class StepTimes:
    """Where the time of a training loop's steps goes: preparing batches, and all else."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.data_s = self.step_s = 0.0

    def watch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on, and note how long each was waited for and worked on."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            given = time.perf_counter()
            yield batch
            self.data_s += given - asked
            self.step_s += time.perf_counter() - given

    @property
    def data_share(self) -> float | None:
        """Share of the preparation of batches; None before the first step."""
        total = self.data_s + self.step_s
        return self.data_s / total if total else None


def make_optimizer(
    model: nn.Module, config: TrainConfig | Recipe, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Build the recipe's optimizer on all parameters; `fused` updates them all in one kernel.

    Raises:
        UserError: The head is to have another rate, and the model has no head by name.
    """
    groups = _parameters(model, getattr(config, "head_rate_factor", 1.0))
    if config.optimizer == "adam":
        return torch.optim.Adam(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=fused or None,
        )
    return (FusedSGD if fused else torch.optim.SGD)(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )


def _parameters(model: nn.Module, head_factor: float) -> list[Any]:
    """Return all parameters, the head's in a group of its own if it has another rate."""
    if head_factor == 1.0:
        return list(model.parameters())
    named = list(model.named_parameters())
    head = [(name, p) for name, p in named if any(word in name for word in HEAD_WORDS)]
    if not 0 < len(head) < len(named):
        raise UserError(
            f"the recipe trains the head {head_factor:g} times as fast, and {len(head)} of "
            f"{len(named)} parameters are called {', '.join(HEAD_WORDS)}: give a whole network"
        )
    names = {name for name, _ in head}
    body = [p for name, p in named if name not in names]
    return [
        {"params": body},
        {"params": [p for _, p in head], "rate_factor": head_factor},
    ]


def learning_rate(config: TrainConfig | Recipe, step: int, total_steps: int) -> float:
    r"""Return the learning rate of a step counted from 0.

    ``step``: milestones are shares of the whole run. Where they fall on epoch boundaries, as 30,
    60 and 90 of 100 epochs do, this is the published schedule; in a run of two epochs they fall
    within. ``poly``: :math:`\eta_0 (1 - t/T)^p`.

    >>> [learning_rate(TrainConfig(), 10 * epoch, 1000) for epoch in (29, 30, 60)]
    [0.05, 0.005, 0.0005]
    >>> poly = Recipe(
    ...     optimizer="sgd", learning_rate=0.1, batch_size=1, epochs=1, schedule="poly", power=2.0)
    >>> [learning_rate(poly, step, 10) for step in (0, 5)]
    [0.1, 0.025]
    """
    if config.schedule == "poly":
        return config.learning_rate * (1 - step / total_steps) ** config.power
    passed = sum(step >= round(share * total_steps) for share in config.milestones)
    return round(config.learning_rate * config.gamma**passed, 12)


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module, Batch], Loss],
    form: Form = EAGER,
    peers: Group = ALONE,
) -> StepResult:
    """Do one step in a form of `prepare`: forward, the task's loss, backward, update.

    Raises:
        Diverged: The loss is not finite, in this or another process of the group: all stop, since
            those that went on would wait for it.
    """
    with form.precision(batch.images.device):
        found = loss_of(model, batch._replace(images=form.place(batch.images)))
    loss = found.value
    if peers.any(not torch.isfinite(loss), loss.device):
        where = first_not_finite(model, batch, loss_of)
        raise Diverged(f"the loss became {loss.item()}, first of all {where}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return StepResult(loss.item(), found.counts, len(batch.images))


def train(
    model: nn.Module,
    task: Task[ResultT],
    config: TrainConfig | Recipe,
    *,
    seed: int,
    out_dir: Path,
    device: torch.device,
    form: Form = EAGER,
    show_progress: bool = True,
) -> TrainResult[ResultT]:
    """Train a network, or go on with a run that was interrupted.

    Args:
        model: The network with its start weights, on the CPU; left trained, on `device`.
        task: Brings batches, loss and evaluation.
        config: The recipe.
        seed: Decides order and augmentation of the batches.
        out_dir: Holds `last.pt`, `previous.pt` and `log.jsonl`, which is written before them.
        device: Where to run.
        form: How steps are run (`reproduction.forms`); the model is brought back from it.
        show_progress: Whether to draw a progress bar.

    Raises:
        UserError: `out_dir` holds another run or a damaged checkpoint, or the loss diverged.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    last, peers = out_dir / resume.CHECKPOINT, distributed.current()
    task = peers.shared(task)
    identity = resume.run_identity(model, task, config, seed, form.identity())
    prepare(model.to(device).train(), form)
    optimizer = make_optimizer(model, config, fused=form.fused_optimizer)
    shared = peers.wrapped(model, config.sync_norm, device)
    progress = Progress(0, 0, 0.0, {}, 0, "", 0.0, [], [], [])
    found = resume.load(out_dir, identity, model, optimizer)
    if found:
        progress, told = found
        if told:
            tqdm.write(told)
    peers.agree(progress.epoch, progress.step, device=device)

    final: ResultT | None = None
    times = StepTimes()
    order = {"seed": seed, "batch_size": config.batch_size}
    steps = task.steps(config.batch_size)
    total = config.epochs * steps
    hidden = not (show_progress and peers.leads)
    bar = tqdm(total=total, disable=hidden, unit="step", mininterval=2)
    bar.update(progress.epoch * steps + progress.step)
    while progress.epoch < config.epochs:
        started = time.perf_counter()
        batches = task.batches("train", **order, epoch=progress.epoch, start=progress.step)
        for batch in times.watch(batches):
            rate = learning_rate(config, progress.epoch * steps + progress.step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("rate_factor", 1.0)
            # What is drawn within a step, as dropout is, follows from its place in the run.
            torch.manual_seed(_noise_seed(seed, progress, peers))
            try:
                result = train_step(shared, batch.to(device), optimizer, task.loss, form, peers)
            except Diverged as problem:
                raise resume.stopped(problem, out_dir, progress) from None
            _count(progress, _of_all(peers, result, device), batch.digest)
            bar.update()
            if progress.step % CHECKPOINT_EVERY == 0 and progress.step < steps:
                progress.wall_s += time.perf_counter() - started
                started = time.perf_counter()
                peers.write(resume.save, last, identity, model, optimizer, progress)
        peers.share_buffers(model)
        final = task.evaluate(model, device)
        progress.wall_s += time.perf_counter() - started
        _finish_epoch(progress, rate, final)
        peers.write(resume.write_log, out_dir / resume.LOG, progress.history)
        peers.write(resume.save, last, identity, model, optimizer, progress)
    bar.close()
    final = final or task.evaluate(model, device)
    prepare(model, EAGER)
    return TrainResult(
        progress.history, progress.losses, final, progress.digest, bool(found), times.data_share
    )


def _noise_seed(seed: int, progress: Progress, peers: Group) -> int:
    place = f"{seed} {progress.epoch} {progress.step}" + f" {peers.rank}" * (peers.rank > 0)
    return int(hashlib.sha256(place.encode()).hexdigest()[:15], 16)


def _of_all(peers: Group, step: StepResult, device: torch.device) -> StepResult:
    """Put together what the processes of a group measured in one step."""
    if peers.ranks == 1:
        return step
    own = (step.loss * step.images, step.images, *step.counts.values())
    loss, images, *counts = peers.sum(*own, device=device)
    named = zip(step.counts, map(int, counts), strict=True)
    return StepResult(loss / images, dict(named), int(images))


def _count(progress: Progress, result: StepResult, digest: str) -> None:
    progress.step += 1
    progress.loss_sum += result.loss * result.images
    for name, count in result.counts.items():
        progress.counts[name] = progress.counts.get(name, 0) + count
    progress.count += result.images
    progress.digest = hashlib.sha256((progress.digest + digest).encode()).hexdigest()
    progress.window.append(result.loss)
    if len(progress.window) == LOSS_WINDOW:
        progress.losses.append(sum(progress.window) / LOSS_WINDOW)
        progress.window = []


def _finish_epoch(progress: Progress, rate: float, reached: Result) -> None:
    progress.history.append(
        {
            "epoch": progress.epoch + 1,
            "learning_rate": rate,
            "steps": progress.step,
            "train_loss": progress.loss_sum / progress.count,
            **{f"train_{name}": 100 * n / progress.count for name, n in progress.counts.items()},
            "test_loss": reached.loss,
            **{f"test_{name}": value for name, value in reached.scores.items()},
            "wall_s": progress.wall_s,
            "batches_sha256": progress.digest,
        }
    )
    progress.epoch += 1
    progress.step, progress.loss_sum, progress.counts, progress.count = 0, 0.0, {}, 0


if __name__ == "__main__":
    from reproduction.command import main

    sys.exit(main())
