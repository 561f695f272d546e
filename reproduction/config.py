"""Networks and recipes as data (TPAMI'20 section 3 and appendix B; the official yaml files).

Variation between networks is data here, never a branch in the model. Every recipe value carries
what the paper says, what the official code does and where that is written; the report's
hyper-parameter table is made from these citations. Pose, segmentation, detection and landmark
networks are not described yet.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from reproduction.errors import UserError


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One network of the paper.

    Attributes:
        name: Official name, e.g. ``cls_hrnet_w18``.
        width: Channels C of the highest-resolution stream; stream ``r`` has ``C * 2**r``.
        stage1_blocks: Bottleneck blocks in stage 1.
        stage1_width: Inner width of those blocks; their output has four times as many channels.
        exchange_blocks: Exchange blocks in stages 2, 3 and 4.
        residual_units: Basic blocks a stream in each exchange block.
    """

    name: str
    width: int
    stage1_blocks: int = 4
    stage1_width: int = 64
    exchange_blocks: tuple[int, int, int] = (1, 4, 3)
    residual_units: int = 4

    def stream_widths(self, streams: int) -> tuple[int, ...]:
        """Return the channels of the first ``streams`` streams, highest resolution first."""
        return tuple(self.width * 2**r for r in range(streams))


def _small_v1() -> NetworkConfig:
    # The "W18" of its name notwithstanding, the official file sets width 16 (D7).
    return NetworkConfig(
        name="cls_hrnet_w18_small_v1",
        width=16,
        stage1_blocks=1,
        stage1_width=32,
        exchange_blocks=(1, 1, 1),
        residual_units=2,
    )


def _small_v2() -> NetworkConfig:
    return NetworkConfig(
        name="cls_hrnet_w18_small_v2",
        width=18,
        stage1_blocks=2,
        exchange_blocks=(1, 3, 2),
        residual_units=2,
    )


def _standard(width: int) -> NetworkConfig:
    return NetworkConfig(name=f"cls_hrnet_w{width}", width=width)


STANDARD_WIDTHS = (18, 30, 32, 40, 44, 48, 64)

NETWORKS: dict[str, NetworkConfig] = {
    config.name: config
    for config in (_small_v1(), _small_v2(), *(_standard(width) for width in STANDARD_WIDTHS))
}


def network_config(name: str) -> NetworkConfig:
    """Look a network up by its official name.

    Raises:
        UserError: No network has that name; the message lists those that exist.
    """
    if name not in NETWORKS:
        raise UserError(f"network {name!r} is unknown; use one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


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
