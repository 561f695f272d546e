"""The dense tasks on composed scenes as data: network, recipe and metric of each.

The networks are the official ones, made small enough to be trained in a minute or two on one core:
the width, and what the yaml of the task's official code decides, are those of W18-Small-v1; where
the official code of the task fixes the first stage, it stays. The recipes keep the optimizer and
the shape of the schedule; learning rates and batches fit runs of a hundred steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from reproduction.config import NetworkConfig, network_config
from reproduction.errors import UserError
from reproduction.recipe import Recipe
from reproduction.tasks.detection import config as detection
from reproduction.tasks.detection.task import SceneDetection
from reproduction.tasks.scenes.compose import KEYPOINTS
from reproduction.tasks.scenes.dataset import NUM_CLASSES, Scenes
from reproduction.tasks.scenes.keypoints import SceneLandmarks, ScenePose
from reproduction.tasks.scenes.labeling import SceneLabeling
from reproduction.tasks.segmentation.losses import OCR_BALANCE, LossSettings

BATCH_SIZE = 16
SCENE_PX = 64
# Start weights of segmentation: in the place of pretrained ones, without which the official ones,
# with standard deviation 0.001, do not learn under SGD in so few steps.
SCRATCH = "classification"
# Nine of ten pixels are background; as for Cityscapes, frequent classes weigh less.
WEIGHTED = LossSettings(class_weights=(0.1, *(1.0,) * (NUM_CLASSES - 1)))
SceneTask = SceneLabeling | ScenePose | SceneDetection
_SMALL = {"width": 16, "exchange_blocks": (1, 1, 1), "residual_units": 2}


def alone(network: nn.Module) -> nn.Module:
    """Return the network: nothing is to be added."""
    return network


def in_detector(pyramid: nn.Module) -> nn.Module:
    """Put a pyramid into the detector of scenes."""
    from reproduction.tasks.detection.detector import make_detector  # takes seconds to import

    return make_detector(pyramid, detection.SCENES)


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """One task on composed scenes.

    Attributes:
        name: Also the network's task.
        network: Small, with the task's number of outputs.
        official: Name of the official network of whose code it is a small one.
        recipe: For the number of epochs that a study sets.
        start: Whose start weights convolutions get, a key of `reproduction.initialization.RULES`.
        metric: The score that decides, in percent.
        make: Builds the task from training and test scenes.
        complete: Puts a network of either arm into what is trained: itself, or a detector.
    """

    name: str
    network: NetworkConfig
    official: str
    recipe: Recipe
    start: str
    metric: str
    make: Callable[[Scenes, Scenes], SceneTask]
    complete: Callable[[nn.Module], nn.Module] = alone


def _small(official: str, outputs: int, **values: object) -> NetworkConfig:
    config = network_config(official)
    name = f"{config.task}_hrnet_w16_small"
    return replace(config, name=name, outputs=outputs, **_SMALL, **values)  # type: ignore[arg-type]


def _adam(rate: float, milestones: tuple[float, ...], source: str) -> Recipe:
    return Recipe(
        optimizer="adam",
        learning_rate=rate,
        milestones=milestones,
        batch_size=BATCH_SIZE,
        epochs=1,
        source=source,
    )


def _sgd(source: str) -> Recipe:
    return Recipe(
        optimizer="sgd",
        learning_rate=0.02,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="poly",
        batch_size=BATCH_SIZE,
        epochs=1,
        source=source,
    )


_ALL = (
    ScenePlan(
        name="pose",
        network=_small("pose_hrnet_w32", len(KEYPOINTS)),
        official="pose_hrnet_w32",
        recipe=_adam(1e-3, (170 / 210, 200 / 210), "yaml of pose_hrnet_w32; batch 128 there"),
        start="pose",
        metric="ap",
        make=ScenePose,
    ),
    ScenePlan(
        name="segmentation",
        # Of W48's code, not W18-Small-v1's: that one keeps its running statistics for too long.
        network=_small("seg_hrnet_w48_cityscapes", NUM_CLASSES, stage1_blocks=1, stage1_width=32),
        official="seg_hrnet_w48_cityscapes",
        recipe=_sgd("yaml of seg_hrnet_w48; rate 0.01 and batch 12 there"),
        start=SCRATCH,
        metric="miou",
        make=lambda train, test: SceneLabeling(train, test, WEIGHTED),
    ),
    ScenePlan(
        name="ocr",
        network=_small(
            "seg_hrnet_ocr_w48_cityscapes",
            NUM_CLASSES,
            stage1_blocks=1,
            stage1_width=32,
            ocr_widths=(64, 32),
        ),
        official="seg_hrnet_ocr_w48_cityscapes",
        recipe=_sgd("yaml of seg_hrnet_ocr_w48; rate 0.01 and batch 12 there"),
        start=SCRATCH,
        metric="miou",
        make=lambda train, test: SceneLabeling(
            train, test, replace(WEIGHTED, balance=OCR_BALANCE, align_corners=True)
        ),
    ),
    ScenePlan(
        name="landmarks",
        network=_small("face_hrnet_w18_wflw", len(KEYPOINTS)),
        official="face_hrnet_w18_wflw",
        # Of 400 steps rather than 200: the official code keeps its running statistics for long.
        recipe=replace(
            _adam(3e-3, (30 / 60, 50 / 60), "yaml of face_hrnet_w18; rate 1e-4 and batch 16 there"),
            batch_size=8,
        ),
        start="landmarks",
        metric="nme",
        make=SceneLandmarks,
    ),
    ScenePlan(
        name="detection",
        network=detection.SMALL_PYRAMID,
        official="det_hrnetv2p_w18",
        recipe=detection.RECIPE,
        start="detection",
        metric="box_ap",
        make=SceneDetection,
        complete=in_detector,
    ),
)
PLANS: dict[str, ScenePlan] = {plan.name: plan for plan in _ALL}


def scene_plan(name: str) -> ScenePlan:
    """Look a task up.

    Raises:
        UserError: There is no such task on composed scenes.
    """
    if name not in PLANS:
        raise UserError(f"task {name!r} is unknown; use one of {', '.join(PLANS)}")
    return PLANS[name]
