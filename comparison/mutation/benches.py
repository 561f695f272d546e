"""The networks on which the checker is tried: official against reproduction, and reshaped."""

import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from comparison import arms
from comparison.engine.leader import Leader
from comparison.engine.sides import Side
from comparison.engine.states import load_state, random_batch, random_state
from comparison.mutation.baselines import Baselines
from comparison.mutation.plan import Setting
from comparison.mutation.reshaped import reshaped
from comparison.mutation.scoring import Ruler
from comparison.mutation.suite import STEPS, Bench, bench_of, measured
from reproduction import ClassificationNetwork
from reproduction.config import TrainConfig
from reproduction.train import make_optimizer

# The reference's run is kept whole, for all trials: what is beyond the budget would be run again.
BUDGET_MIB = 2048


def make_benches(setting: Setting, seed: int = 0) -> tuple[Bench, Bench]:
    """Build a reference with two candidates that pass: ours, and ours with another module tree.

    Args:
        setting: Network, inputs and seed.
        seed: The trial's, added to that of the setting.
    """
    network, seed = setting.network, setting.seed + seed
    reference = _side(arms.build("reference", network))
    state = random_state(reference.model, seed)
    load_state(reference.model, state)
    shape = (setting.batch_size, 3, setting.image_size, setting.image_size)
    drawn = [random_batch(shape, arms.OFFICIAL_CLASSES, f"{seed}/{n}") for n in range(STEPS)]
    leader = Leader(reference, drawn, budget_mib=BUDGET_MIB)
    ours = _side(arms.build("reproduction", network))
    names = arms.name_of(ours.model)
    load_state(ours.model, state, {n: names(n) for n in ours.model.state_dict()})
    assert isinstance(ours.model, ClassificationNetwork)
    tree = reshaped(ours.model, seed)
    where = f"{network}, {setting.image_size} px, batch {setting.batch_size}, seed {seed}"
    baselines = Baselines(leader)
    own = bench_of(f"{where}, own tree", leader, ours, names, baselines=baselines)
    measured(own)
    ruler = Ruler.of(own.clean, tree)
    other = bench_of(f"{where}, other tree", leader, _side(tree), None, ruler, baselines)
    return own, other


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
