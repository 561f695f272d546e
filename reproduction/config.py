"""Networks and recipes as data (TPAMI'20 section 3 and appendix B; the official yaml files).

Variation between networks is data here, never a branch in the model. Every recipe value carries
what the paper says, what the official code does and where that is written; the report's
hyper-parameter table is made from these citations.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from reproduction.errors import UserError

STREAMS = 4


@dataclass(frozen=True)
class Upsampling:
    """How a lower stream is brought to a higher resolution (D1).

    Attributes:
        mode: ``nearest`` or ``bilinear``.
        align_corners: Whether the centers of the corner pixels stay in place; bilinear only.
    """

    mode: str
    align_corners: bool | None = None


NEAREST = Upsampling("nearest")
BILINEAR = Upsampling("bilinear", align_corners=False)
ALIGNED = Upsampling("bilinear", align_corners=True)

# Where streams are fused (TPAMI'20 table XII): after every exchange block that is not the last of
# its stage, after the last of stages 2 and 3, and after the last of all. The standard network has
# 8 fusions, 3 across stages, 1 final.
FUSIONS = {
    "full": (True, True, True),
    "across stages": (False, True, True),
    "final": (False, False, True),
}
DOWNSAMPLINGS = ("strided", "bilinear")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One network of the paper.

    Attributes:
        name: Official name, e.g. ``cls_hrnet_w18``.
        task: Decides the head: a key of `reproduction.networks.HEADS`, or ``detection``.
        width: Channels C of the highest-resolution stream; stream ``r`` has ``C * 2**r``.
        stage1_blocks: Bottleneck blocks in stage 1.
        stage1_width: Inner width of those blocks; their output has four times as many channels.
        exchange_blocks: Exchange blocks in stages 2, 3 and 4.
        residual_units: Basic blocks a stream in each exchange block.
        outputs: Classes, keypoints or landmarks; for detection, channels of every level.
        image_size: Height and width of the images that the official configuration evaluates.
        upsampling: In exchange units, and where the head puts streams together.
        final_streams: Streams that the last exchange unit puts out; a pose head reads only one.
        norm_momentum: Of all batch normalization.
        ocr_widths: Of OCR alone: channels of pixels and classes, and of their keys.
        fusion: Where streams are fused, a key of `FUSIONS`; elsewhere they run side by side, and
            no exchange unit is made.
        downsampling: In exchange units, one of `DOWNSAMPLINGS`: strided 3x3 convolutions or
            `reproduction.hrnet.BilinearDownsampling`. Stem and transitions are strided always.

    Raises:
        UserError: Fusion or downsampling is unknown.
    """

    name: str
    task: str = "classification"
    width: int
    stage1_blocks: int = 4
    stage1_width: int = 64
    exchange_blocks: tuple[int, int, int] = (1, 4, 3)
    residual_units: int = 4
    outputs: int = 1000
    image_size: tuple[int, int] = (224, 224)
    upsampling: Upsampling = NEAREST
    final_streams: int = 4
    norm_momentum: float = 0.1
    ocr_widths: tuple[int, int] = (512, 256)
    fusion: str = "full"
    downsampling: str = "strided"

    def __post_init__(self) -> None:
        for name, known in (("fusion", FUSIONS), ("downsampling", DOWNSAMPLINGS)):
            if getattr(self, name) not in known:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; use {' or '.join(map(repr, known))}"
                )

    def fuses(self, streams: int) -> tuple[bool, ...]:
        """Tell for each exchange block of the stage with that many streams whether it fuses."""
        within, across, final = FUSIONS[self.fusion]
        last = final if streams == STREAMS else across
        return (*[within] * (self.exchange_blocks[streams - 2] - 1), last)

    def stream_widths(self, streams: int) -> tuple[int, ...]:
        """Return the channels of the first ``streams`` streams, highest resolution first."""
        return tuple(self.width * 2**r for r in range(streams))


STANDARD_WIDTHS = (18, 30, 32, 40, 44, 48, 64)

_SMALL_V1 = NetworkConfig(
    name="cls_hrnet_w18_small_v1",
    # The "W18" of its name notwithstanding, the official file sets width 16 (D7).
    width=16,
    stage1_blocks=1,
    stage1_width=32,
    exchange_blocks=(1, 1, 1),
    residual_units=2,
)
_SMALL_V2 = NetworkConfig(
    name="cls_hrnet_w18_small_v2",
    width=18,
    stage1_blocks=2,
    exchange_blocks=(1, 3, 2),
    residual_units=2,
)


def _pose(name: str, width: int, image_size: tuple[int, int], keypoints: int) -> NetworkConfig:
    return NetworkConfig(
        name=f"pose_hrnet_{name}",
        task="pose",
        width=width,
        outputs=keypoints,
        image_size=image_size,
        final_streams=1,
    )


def _segmentation(
    data: str,
    classes: int,
    image_size: tuple[int, int],
    upsampling: Upsampling,
    task: str = "segmentation",
) -> NetworkConfig:
    body = "seg_hrnet_ocr_w48" if task == "ocr" else "seg_hrnet_w48"
    return NetworkConfig(
        name=f"{body}_{data}",
        task=task,
        width=48,
        outputs=classes,
        image_size=image_size,
        upsampling=upsampling,
    )


def _earlier(config: NetworkConfig, name: str) -> NetworkConfig:
    """Return a network of the earlier segmentation code: smaller momentum, corners not aligned."""
    return replace(config, name=name, task="segmentation", upsampling=BILINEAR, norm_momentum=0.01)


def _landmarks(data: str, landmarks: int) -> NetworkConfig:
    return NetworkConfig(
        name=f"face_hrnet_w18_{data}",
        task="landmarks",
        width=18,
        outputs=landmarks,
        image_size=(256, 256),
        upsampling=BILINEAR,
        norm_momentum=0.01,
    )


def _detection(width: int) -> NetworkConfig:
    return NetworkConfig(
        name=f"det_hrnetv2p_w{width}",
        task="detection",
        width=width,
        outputs=256,
        image_size=(800, 1344),
    )


_STREET, _SCENE = (1024, 2048), (520, 520)  # Cityscapes; PASCAL-Context, COCO-Stuff, ADE20K

_ALL = (
    _SMALL_V1,
    _SMALL_V2,
    *(NetworkConfig(name=f"cls_hrnet_w{width}", width=width) for width in STANDARD_WIDTHS),
    *(
        _pose(f"w{width}{suffix}", width, image_size, keypoints)
        for suffix, image_size, keypoints in (
            ("", (256, 192), 17),  # COCO
            ("_384x288", (384, 288), 17),
            ("_mpii", (256, 256), 16),
        )
        for width in (32, 48)
    ),
    _segmentation("cityscapes", 19, _STREET, BILINEAR),
    _segmentation("lip", 20, (473, 473), BILINEAR),
    _segmentation("pascal_ctx", 59, _SCENE, BILINEAR),
    _earlier(_segmentation("", 60, (480, 480), BILINEAR), "seg_hrnet_w48_pascal_ctx60"),
    _segmentation("cocostuff", 171, _SCENE, ALIGNED),
    _segmentation("ade20k", 150, _SCENE, ALIGNED),
    *(
        _earlier(replace(small, outputs=19, image_size=_STREET), f"seg_hrnet_{size}_cityscapes")
        for small, size in ((_SMALL_V1, "w18_small_v1"), (_SMALL_V2, "w18_small_v2"))
    ),
    _segmentation("cityscapes", 19, _STREET, ALIGNED, "ocr"),
    _segmentation("lip", 20, (473, 473), ALIGNED, "ocr"),
    _segmentation("pascal_ctx", 59, _SCENE, ALIGNED, "ocr"),
    _segmentation("pascal_ctx60", 60, _SCENE, ALIGNED, "ocr"),
    _segmentation("cocostuff", 171, _SCENE, ALIGNED, "ocr"),
    _segmentation("ade20k", 150, _SCENE, ALIGNED, "ocr"),
    *(
        _landmarks(data, landmarks)
        for data, landmarks in (("wflw", 98), ("300w", 68), ("cofw", 29), ("aflw", 19))
    ),
    *(_detection(width) for width in (18, 32, 40, 48)),
)

NETWORKS: dict[str, NetworkConfig] = {config.name: config for config in _ALL}
CLASSIFICATION: dict[str, NetworkConfig] = {
    config.name: config for config in _ALL if config.task == "classification"
}


def network_config(name: str) -> NetworkConfig:
    """Look a network up by its official name.

    Raises:
        UserError: No network has that name; the message lists those that exist, by task.
    """
    if name not in NETWORKS:
        tasks = dict.fromkeys(config.task for config in _ALL)
        known = "; ".join(
            f"{task}: {', '.join(config.name for config in _ALL if config.task == task)}"
            for task in tasks
        )
        raise UserError(f"network {name!r} is unknown; use one of {known}")
    return NETWORKS[name]


def ablation_config(
    task: str, outputs: int, *, fusion: str = "full", downsampling: str = "strided"
) -> NetworkConfig:
    """Return a small network on which the paper's variants of fusion differ (TPAMI'20 table XII).

    W18-Small-v1 has one exchange block a stage, so that its full fusion is the fusion across
    stages. This one has its width and two exchange blocks in stages 3 and 4: 5 fusions in full,
    3 across stages, 1 final. A training step on 16 images takes about 0.2 s at 64 pixels and 0.35 s
    at 96 on one core. The shape is ours; the paper's ablations use W32 (pose) and W48
    (segmentation).

    Args:
        task: Decides head, upsampling and final streams, as in the official networks of the task.
        outputs: Classes or keypoints.
        fusion: A key of `FUSIONS`.
        downsampling: One of `DOWNSAMPLINGS`.

    Raises:
        UserError: The task, the fusion or the downsampling is unknown.
    """
    of_task = {config.task: config for config in reversed(_ALL)}
    if task not in of_task:
        raise UserError(f"task {task!r} is unknown; use one of {', '.join(of_task)}")
    return replace(
        of_task[task],
        name=f"{task} ({fusion} fusion, {downsampling} downsampling)",
        width=16,
        stage1_blocks=1,
        stage1_width=32,
        exchange_blocks=(1, 2, 2),
        residual_units=1,
        outputs=outputs,
        fusion=fusion,
        downsampling=downsampling,
    )


def _cited(default: Any, *, paper: str, reference: str, source: str) -> Any:
    """Make a dataclass field whose default says where it comes from."""
    citation = {"paper": paper, "reference": reference, "source": source}
    return field(default=default, metadata=citation)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The ImageNet classification recipe (TPAMI'20 appendix B; official yaml files, section TRAIN).

    ``milestones`` are shares of the run's steps, so that a shortened run keeps the shape of the
    published schedule (epochs 30, 60 and 90 of 100), which the official script no longer follows
    on a current PyTorch (D4).
    """

    optimizer: ClassVar[str] = "sgd"
    schedule: ClassVar[str] = "step"
    power: ClassVar[float] = 1.0
    sync_norm: ClassVar[bool] = False

    learning_rate: float = _cited(
        0.05, paper="0.1", reference="0.05", source="yaml TRAIN.LR; paper appendix B (batch 256)"
    )
    momentum: float = _cited(
        0.9, paper="0.9", reference="0.9", source="yaml TRAIN.MOMENTUM; paper appendix B"
    )
    nesterov: bool = _cited(
        True, paper="True", reference="True", source="yaml TRAIN.NESTEROV; paper appendix B"
    )
    weight_decay: float = _cited(
        1e-4, paper="0.0001", reference="0.0001", source="yaml TRAIN.WD; paper appendix B"
    )
    batch_size: int = _cited(
        128, paper="256", reference="128 (4 x 32)", source="yaml TRAIN.BATCH_SIZE_PER_GPU, GPUS"
    )
    epochs: int = _cited(
        100, paper="100", reference="100", source="yaml TRAIN.END_EPOCH; paper appendix B"
    )
    milestones: tuple[float, ...] = _cited(
        (0.3, 0.6, 0.9),
        paper="epochs 30, 60, 90",
        reference="epochs 30, 60, 90 (29, 59, 89 on torch >= 1.1)",
        source="yaml TRAIN.LR_STEP; paper appendix B",
    )
    gamma: float = _cited(
        0.1, paper="0.1", reference="0.1", source="yaml TRAIN.LR_FACTOR; paper appendix B"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("batch_size", "epochs") and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise UserError(f"{item.name} is {value!r}; give a whole number of at least 1")
            if item.name in ("learning_rate", "momentum", "weight_decay") and not value >= 0:
                raise UserError(f"{item.name} is {value!r}; give a number of at least 0")
