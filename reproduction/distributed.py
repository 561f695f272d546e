"""The training loop on many devices: one process each, as `torchrun` starts them.

Every process runs the same loop. The batches are those of one process, and each takes its share of
every batch; gradients are averaged by PyTorch's DistributedDataParallel. With synchronized batch
normalization this is, but for rounding, the training of one process. Without it every process
normalizes by its own share, as the official code does on several GPUs, and the running statistics
are those of process 0.

A group that lost a process starts again as a whole, from the last checkpoint (`torchrun
--max-restarts`). Alone, nothing here takes part in training.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from reproduction.errors import UserError
from reproduction.tasks.task import Batch, Loss, ResultT, Task


@dataclass(frozen=True)
class Group:
    """The processes that train one network.

    Attributes:
        rank: This process, from 0; process 0 alone writes files.
        ranks: How many there are.
    """

    rank: int = 0
    ranks: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0

    def shared(self, task: Task[ResultT]) -> Task[ResultT]:
        """Return the task as one of the processes sees it; alone, the task itself."""
        return task if self.ranks == 1 else Share(task, self)

    def wrapped(self, model: nn.Module, sync_norm: bool, device: torch.device) -> nn.Module:
        """Return what the loss is to be computed with; alone, the model itself.

        The model's parameters stay its own, and its batch normalization is exchanged in place for
        a synchronized one if the recipe says so.
        """
        if self.ranks == 1:
            return model
        if sync_norm:
            _synchronize(model, device)
        return DistributedDataParallel(model, forward_sync_buffers=False)

    def write(self, call: Callable[..., object], *what: Any) -> None:
        """Call what writes a file, in process 0 alone."""
        if self.leads:
            call(*what)

    def sum(self, *values: float, device: torch.device) -> list[float]:
        """Add each value up over all processes, in float64."""
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, holds: bool, device: torch.device) -> bool:
        """Say whether something holds in one of the processes; all hear the same."""
        return holds if self.ranks == 1 else self.sum(float(holds), device=device)[0] > 0

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the running statistics of process 0, so that all evaluate alike."""
        if self.ranks > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def agree(self, *place: int, device: torch.device) -> None:
        """Check that all processes go on from the same place.

        Raises:
            UserError: One of them found another checkpoint than process 0.
        """
        if self.ranks == 1:
            return
        leading = torch.tensor(place, device=device)
        dist.broadcast(leading, 0)
        differing = self.sum(float(leading.tolist() != list(place)), device=device)[0]
        if differing:
            raise UserError(
                f"{int(differing)} of {self.ranks} processes found another checkpoint than process "
                "0: give a results_dir that lies on a file system which all machines share"
            )


ALONE = Group()


def current() -> Group:
    """Return the group that this process belongs to, `ALONE` if it joined none."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Group(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Join the processes that `torchrun` started, for as long as the context lasts.

    A process that was started by hand, or alone, stays alone.

    Args:
        device: Where all of them train: of several GPUs each takes one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, **_meeting_place())
    try:
        yield current()
    finally:
        dist.destroy_process_group()


def _meeting_place() -> dict[str, Any]:
    """Say where the processes find one another; on one machine, a new place after a restart.

    torchrun keeps its store over restarts of the group, addresses of killed processes included,
    and those are what a restarted process would try to reach.
    """
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return {}
    store, rank, ranks = next(dist.rendezvous("env://"))
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    place = dist.PrefixStore(f"restart {restarts}", store)
    return {"store": place, "rank": rank, "world_size": ranks}


@dataclass(frozen=True)
class Share(Generic[ResultT]):
    """A task as one process of a group sees it: its share of each training batch.

    The batch is made whole and then cut, so that batches, augmentation and digests are those of
    one process, whatever the number of processes. Test batches and evaluation stay whole: every
    process evaluates, with equal weights and equal statistics.
    """

    task: Task[ResultT]
    group: Group

    @property
    def identity(self) -> list[Any]:
        """The task's, and the number of processes: a run goes on with as many as it began."""
        return [*self.task.identity, {"processes": self.group.ranks}]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch."""
        return self.task.steps(batch_size)

    def batches(
        self, split: str, *, seed: int = 0, epoch: int = 0, batch_size: int = 1, start: int = 0
    ) -> Iterator[Batch]:
        """Yield this process's share of each training batch; `batch_size` is that of the whole.

        Raises:
            UserError: The batch cannot be shared evenly, or the task raises it.
        """
        ranks, rank = self.group.ranks, self.group.rank
        if split == "train" and batch_size % ranks:
            raise UserError(
                f"batch_size {batch_size} cannot be shared evenly by {ranks} processes: give a "
                f"multiple of {ranks}"
            )
        for batch in self.task.batches(
            split, seed=seed, epoch=epoch, batch_size=batch_size, start=start
        ):
            yield share_of(batch, rank, ranks) if split == "train" else batch

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the loss of a share; DistributedDataParallel averages its gradients."""
        return self.task.loss(model, batch)

    def evaluate(self, model: nn.Module, device: torch.device) -> ResultT:
        """Score the model on the whole test split."""
        return self.task.evaluate(model, device)


def share_of(batch: Batch, rank: int, ranks: int) -> Batch:
    """Cut out the share of one process: of every `ranks` images the one at place `rank`.

    >>> share_of(Batch(torch.arange(6), torch.arange(6), ""), 1, 3).targets.tolist()
    [1, 4]
    """
    count = len(batch.images)
    targets = _cut(batch.targets, slice(rank, None, ranks), count)
    return Batch(batch.images[rank::ranks], targets, batch.digest)


def _cut(value: Any, places: slice, count: int) -> Any:
    """Cut targets, which are per image in their first dimension, or in a list."""
    if isinstance(value, Mapping):
        return {key: _cut(entry, places, count) for key, entry in value.items()}
    if isinstance(value, tuple):
        entries = [_cut(entry, places, count) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    if isinstance(value, torch.Tensor | list) and len(value) == count:
        return value[places]
    raise UserError(
        f"targets of a batch hold {type(value).__name__}, expected tensors or lists of {count}, "
        "one entry an image: this task cannot be shared by several processes"
    )


def _synchronize(model: nn.Module, device: torch.device) -> None:
    """Exchange batch normalization for one over the images of all processes, weights kept."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SynchronizedNorm.like(child))


class SynchronizedNorm(nn.BatchNorm2d):
    """Batch normalization over the images of all processes, in plain operations.

    PyTorch's SyncBatchNorm refuses the CPU; this form takes its place there. It is slower, and
    differs in rounding alone.
    """

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> "SynchronizedNorm":
        """Return one with the settings, parameters and statistics of a plain normalization."""
        made = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        made.weight, made.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(made, name, buffer)
        return made.train(norm.training)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize (B, C, H, W) by the statistics of all processes in train mode."""
        if not self.training:
            return super().forward(images)
        places = (0, 2, 3)
        count = images.numel() / images.shape[1] * dist.get_world_size()
        mean = all_reduce(images.sum(places)) / count
        centered = images - mean[:, None, None]
        variance = all_reduce(centered.square().sum(places)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centered * (variance + self.eps).rsqrt()[:, None, None]
        if not self.affine:
            return scaled
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
