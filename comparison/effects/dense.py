"""Differences of dense networks: corners, shared settings, weight decay, published sizes, names."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from comparison import dense, dense_cost
from comparison.effects.recipe import drops, rates_stepped_first
from comparison.effects.subjects import Effect, relative
from reference.errors import ReferenceAbsent
from reference.loader import build_together
from reproduction import NETWORKS, NetworkConfig
from reproduction.checkpoints import to_official
from reproduction.config import ALIGNED, BILINEAR
from reproduction.networks import CLASSES
from reproduction.published_recipes import published_recipe

SEGMENTATION = "seg_hrnet_w48_cityscapes"
POSE = NETWORKS["pose_hrnet_w32"]
LAST_ITERATIONS = 120_000  # of segmentation: about as many as 484 epochs of Cityscapes have
PREFIX = "model."
# The body of `tiny`, as far as it matters here, in the official file's words.
OFFICIAL_TINY = {
    f"MODEL.EXTRA.STAGE{stage}.{key}": [value * 2**r for r in range(stage)] if many else value
    for stage in (2, 3, 4)
    for key, value, many in (("NUM_CHANNELS", 4, True), ("NUM_MODULES", 1, False))
}


def tiny(config: NetworkConfig) -> NetworkConfig:
    """Shrink a network to what runs in an instant."""
    return replace(
        config,
        width=4,
        stage1_blocks=1,
        stage1_width=4,
        residual_units=1,
        exchange_blocks=(1, 1, 1),
    )


def built(config: NetworkConfig, seed: int = 0) -> nn.Module:
    """Build a network from a configuration, with PyTorch's own start weights, in float64."""
    torch.manual_seed(seed)
    return CLASSES[config.task](config, config.outputs).double().eval()


def _image(seed: int, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, size, size, generator=generator, dtype=torch.float64)


@torch.no_grad()
def corners(seed: int) -> Effect:
    """D18: corners aligned or not, with the same weights."""
    config = NETWORKS["seg_hrnet_w18_small_v1_cityscapes"]
    outputs = []
    for upsampling in (BILINEAR, ALIGNED):
        outputs.append(built(replace(config, upsampling=upsampling), seed)(_image(seed)))
    change = relative(outputs[1], outputs[0])
    return Effect(
        what="relative L2 change of the logits of W18-Small-v1, corners aligned, random weights",
        value=change,
        unit="1",
        holds=change > 1e-3,
    )


def weight_decay_of_adam(seed: int, steps: int = 10) -> Effect:
    """D19: Adam with and without the weight decay that the file names."""
    config = tiny(POSE)
    batch = dense.batch_of(config, (2, 3, 64, 64), str(seed))
    weights = []
    for decay in (0.0, 1e-4):
        model = built(config, seed).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=decay)
        for _ in range(steps):
            optimizer.zero_grad()
            dense.loss_of(config)(model(batch.inputs), batch.targets).backward()
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    change = relative(weights[1], weights[0])
    return Effect(
        what=f"relative L2 change of all weights after {steps} steps, if it were passed on",
        value=change,
        unit="1",
        holds=change > 1e-6 and published_recipe("pose_coco")["weight_decay"] == 0,
    )


@torch.no_grad()
def shared_setting(seed: int) -> Effect:
    """D20: what building a second network does to the first one."""
    what = "relative L2 change of a network's logits when another one is built with other corners"
    apart = {**OFFICIAL_TINY, "MODEL.ALIGN_CORNERS": False}
    try:
        (alone,) = build_together(SEGMENTATION, [apart])
        beside, _ = build_together(SEGMENTATION, [apart, {**apart, "MODEL.ALIGN_CORNERS": True}])
    except ReferenceAbsent:
        return Effect(what=f"not run: {ABSENT}", value=None, unit="", holds=True)
    alone.double().eval()
    beside.double().eval()
    beside.load_state_dict(alone.state_dict())
    change = relative(beside(_image(seed)), alone(_image(seed)))
    return Effect(what=what, value=change, unit="1", holds=change > 1e-3 and _ours_apart(seed))


ABSENT = "the official segmentation code is not there"


def _ours_apart(seed: int) -> bool:
    """Whether our network stays as it is when another one is built."""
    config = tiny(NETWORKS[SEGMENTATION])
    model = built(config, seed)
    before = model(_image(seed))
    built(replace(config, upsampling=ALIGNED), seed)
    return torch.equal(before, model(_image(seed)))


def drops_of_pose() -> Effect:
    """D21: when the learning rate of pose drops."""
    recipe = published_recipe("pose_coco")
    planned = recipe["milestone_epochs"]
    rates = rates_stepped_first(recipe["learning_rate"], planned, recipe["gamma"], recipe["epochs"])
    early = [said - real for said, real in zip(planned, drops(rates), strict=True)]
    return Effect(
        what="epochs by which each drop comes early when the script runs on this PyTorch",
        value=sum(early) / len(early),
        unit="epochs",
        holds=set(early) == {1},
    )


def late_decay() -> Effect:
    """D22: the polynomial decay, one iteration late."""

    def rate(iteration: int) -> float:
        return (1 - iteration / LAST_ITERATIONS) ** 0.9

    excess = rate(LAST_ITERATIONS - 2) / rate(LAST_ITERATIONS - 1) - 1
    halfway = rate(LAST_ITERATIONS // 2 - 1) / rate(LAST_ITERATIONS // 2) - 1
    return Effect(
        what=f"by how much the last step's rate is larger (halfway: {100 * halfway:.4f} %)",
        value=100 * excess,
        unit="%",
        holds=excess > 0.5 and halfway < 1e-3,
    )


def scaled_cost() -> Effect:
    """D23: the cost that is printed for LIP, and that of the network for LIP."""
    row = next(r for r in _printed("seg_hrnet_w48_lip") if r["quantity"] == "gflops")
    return Effect(
        what=f"how much more the network for LIP costs than the {row['paper']} printed",
        value=100 * (row["own"] / float(row["paper"]) - 1),
        unit="%",
        holds=row["manner"] == "rounded" and row["verdict"] == "explained difference",
    )


def missed_figures() -> Effect:
    """D24: the size that is printed for facial landmarks, and that of the network."""
    row = next(r for r in _printed("face_hrnet_w18_wflw") if r["quantity"] == "parameters_m")
    return Effect(
        what=f"how much larger the network for WFLW is than the {row['paper']} million printed",
        value=100 * (row["own"] / float(row["paper"]) - 1),
        unit="%",
        holds=row["verdict"] == "not reproduced",
    )


def _printed(network: str) -> list[dict]:
    return dense_cost.table([network], arms=["reproduction"])


def cut_names() -> Effect:
    """D33: names of a checkpoint without prefix, after six letters are cut off."""
    state = to_official(built(tiny(NETWORKS[SEGMENTATION])).state_dict())
    left = sum(name[len(PREFIX) :] in state for name in state)
    fit = sum(f"{PREFIX}{name}"[len(PREFIX) :] in state for name in state)
    return Effect(
        what=f"of {len(state)} names without prefix, those that still mean something",
        value=left,
        unit="names",
        holds=left == 0 and fit == len(state),
    )


def numpy_names() -> Effect:
    """D34: names of NumPy that the official files use and that are gone."""
    gone = [name for name in ("int", "float") if not hasattr(np, name)]
    return Effect(
        what="names of NumPy (int, float) that the files use and this NumPy lacks",
        value=len(gone),
        unit="of 2",
        holds=len(gone) == 2,
    )
