"""The networks on which the checker is tried: official against reproduction, and reshaped."""

import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from comparison import arms
from comparison.engine.leader import Leader
from comparison.engine.sides import Side
from comparison.engine.states import load_state, random_batch, random_state
from comparison.mutation.reshaped import reshaped
from comparison.mutation.suite import STEPS, Bench
from reproduction import ClassificationNetwork
from reproduction.config import TrainConfig
from reproduction.train import make_optimizer

BATCH_SIZE = 4


def make_benches(network: str, image_size: int = 64, seed: int = 0) -> list[Bench]:
    """Build a reference with two candidates that pass: ours, and ours with another module tree.

    Args:
        network: Official name.
        image_size: Height and width of the images.
        seed: Of weights and batches.
    """
    reference = _side(arms.build("reference", network))
    state = random_state(reference.model, seed)
    load_state(reference.model, state)
    shape = (BATCH_SIZE, 3, image_size, image_size)
    drawn = [random_batch(shape, arms.OFFICIAL_CLASSES, f"{seed}/{n}") for n in range(STEPS)]
    leader = Leader(reference, drawn)
    ours = _side(arms.build("reproduction", network))
    names = arms.name_of(ours.model)
    load_state(ours.model, state, {n: names(n) for n in ours.model.state_dict()})
    assert isinstance(ours.model, ClassificationNetwork)
    other = _side(reshaped(ours.model, seed))
    where = f"{network}, {image_size} px, seed {seed}"
    return [
        Bench.of(f"{where}, own tree", leader, ours, names),
        Bench.of(f"{where}, other tree", leader, other, None),
    ]


def _side(model: nn.Module) -> Side:
    return Side(
        model=model.double(),
        loss=F.cross_entropy,
        make_optimizer=_optimizer,
        make_scheduler=_schedule,
    )


def _optimizer(model: nn.Module) -> Optimizer:
    return make_optimizer(model, TrainConfig())


def _schedule(optimizer: Optimizer) -> LRScheduler:
    return MultiStepLR(optimizer, [30, 60, 90])
