"""Both arms of the small networks that dense tasks are trained with.

The reference is the official code of the task, built from its own yaml file in which the values
that make it small are replaced: a listed shim. Detection has no yaml file; its official classes
take these values. It has the shapes and names of ours, or the
transfer of the start weights fails.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

import reference
from comparison import arms
from comparison.study import SMALL
from reference import ReferenceUnavailable
from reference.detection import Shape
from reproduction import NetworkConfig, network_config
from reproduction.config import ablation_config
from reproduction.initialization import initialize
from reproduction.networks import make_network
from reproduction.tasks.scenes.plans import ScenePlan

# Fusion and downsampling of the paper's variants (TPAMI'20 table XII); only we can build them.
VARIANTS: dict[str, dict[str, str]] = {
    "full": {"fusion": "full"},
    "across": {"fusion": "across stages"},
    "final": {"fusion": "final"},
    "bilinear": {"fusion": "full", "downsampling": "bilinear"},
}


def network_of(plan: ScenePlan, variant: str) -> NetworkConfig:
    """Return the network of a task: the small one that both arms train, or one of the variants."""
    if variant == SMALL:
        return plan.network
    return ablation_config(plan.name, plan.network.outputs, **VARIANTS[variant])


def build_from_seed(plan: ScenePlan, arm: str, variant: str, seed: int) -> nn.Module:
    """Build an arm with start weights that depend on the seed alone, the same for both arms.

    Raises:
        ReferenceUnavailable: The official code of the task is absent, or cannot be this variant.
    """
    torch.manual_seed(seed)
    network = make_network(network_of(plan, variant))
    initialize(network, plan.start)
    start = plan.complete(network)
    if arm == "reproduction":
        return start
    model = plan.complete(build_reference(plan, variant))
    arms.transfer(start, model)
    return model


def build_reference(plan: ScenePlan, variant: str = SMALL) -> nn.Module:
    """Build the official network of a task in its small form.

    Raises:
        ReferenceUnavailable: The official code of the task is absent, or cannot be this variant.
    """
    if variant != SMALL:
        raise ReferenceUnavailable(f"the official code has no variant {variant!r}; train ours only")
    if plan.network.task == "detection":
        return reference.build_pyramid(shape_of(plan.network))
    settings = overridden(plan)
    return reference.build(plan.official, outputs=plan.network.outputs, settings=settings)


def shape_of(network: NetworkConfig) -> Shape:
    """Say in the reference's words how wide and deep a network of detection is."""
    return Shape(
        width=network.width,
        stage1_blocks=network.stage1_blocks,
        stage1_width=network.stage1_width,
        modules=network.exchange_blocks,
        blocks=network.residual_units,
        channels=network.outputs,
    )


def overridden(plan: ScenePlan) -> dict[str, Any]:
    """Return the values of the official yaml that make a network small, by their dotted paths."""
    small, official = (_yaml_values(c) for c in (plan.network, network_config(plan.official)))
    return {path: value for path, value in small.items() if value != official[path]}


def shims(plan: ScenePlan) -> list[str]:
    """List what was changed about the official network, one sentence each."""
    if plan.network.task == "detection":
        small, official = (
            asdict(shape_of(c)) for c in (plan.network, network_config(plan.official))
        )
        return [
            *(
                f"constructor's {name} {official[name]} replaced by {value}"
                for name, value in small.items()
                if value != official[name]
            ),
            "inside torchvision's Faster R-CNN, which both arms share, not the official detector",
        ]
    values: Mapping[str, Any] = overridden(plan)
    changed = [f"yaml value {path} replaced by {value}" for path, value in values.items()]
    return [*changed, f"yaml's number of outputs replaced by {plan.network.outputs}"]


def _yaml_values(config: NetworkConfig) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for stage, blocks in enumerate(config.exchange_blocks, start=2):
        values[f"MODEL.EXTRA.STAGE{stage}.NUM_MODULES"] = blocks
        values[f"MODEL.EXTRA.STAGE{stage}.NUM_BLOCKS"] = [config.residual_units] * stage
        values[f"MODEL.EXTRA.STAGE{stage}.NUM_CHANNELS"] = list(config.stream_widths(stage))
    # The official pose and face code fixes the first stage.
    values["MODEL.EXTRA.STAGE1.NUM_BLOCKS"] = [config.stage1_blocks]
    values["MODEL.EXTRA.STAGE1.NUM_CHANNELS"] = [config.stage1_width]
    values["MODEL.OCR.MID_CHANNELS"], values["MODEL.OCR.KEY_CHANNELS"] = config.ocr_widths
    return values
