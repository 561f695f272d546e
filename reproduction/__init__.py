"""A clean-room HRNet (Wang et al., TPAMI'20), written from the paper and a specification of facts.

Nothing here imports the reference implementation or the comparison.
"""

from reproduction.config import CLASSIFICATION, NETWORKS, NetworkConfig, TrainConfig, network_config
from reproduction.errors import UserError
from reproduction.hrnet import HRNet
from reproduction.networks import (
    ClassificationNetwork,
    Network,
    PyramidNetwork,
    build_network,
)

__all__ = [
    "CLASSIFICATION",
    "NETWORKS",
    "ClassificationNetwork",
    "HRNet",
    "Network",
    "NetworkConfig",
    "PyramidNetwork",
    "TrainConfig",
    "UserError",
    "build_network",
    "network_config",
]
