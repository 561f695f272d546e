"""Settings of the detector, published and for scenes, and the network that scenes are learned with.

Apart from `reproduction.tasks.detection.detector`, because torchvision's detectors take seconds to
import.
"""

from dataclasses import dataclass, replace

from reproduction.config import network_config
from reproduction.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of the detector.

    Attributes:
        classes: Of objects; the background is not one of them.
        image_size: Shorter and longer side that images are scaled to, at most.
        channels: Of every level of the pyramid.
        anchor_scale: Side of the square anchors of a level, in units of its stride.
        anchor_ratios: Height to width.
        proposals: An image, after suppression: in training and in testing.
        region_samples: Anchors an image that the proposals' loss is taken over.
        box_samples: Proposals an image that the boxes' loss is taken over.
        hidden: Units of the two layers of the box head.
    """

    classes: int
    image_size: tuple[int, int]
    channels: int
    anchor_scale: float
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: tuple[int, int]
    region_samples: int
    box_samples: int
    hidden: int


# What the official configurations of Faster R-CNN on COCO say.
PUBLISHED = DetectorConfig(
    classes=80,
    image_size=(800, 1333),
    channels=256,
    anchor_scale=8,
    proposals=(2000, 1000),
    region_samples=256,
    box_samples=512,
    hidden=1024,
)
# Digits of about 10 to 35 pixels: finer anchors, and everything else as small as minutes allow.
SCENES = DetectorConfig(
    classes=10,
    image_size=(64, 64),
    channels=64,
    anchor_scale=4,
    proposals=(100, 50),
    region_samples=64,
    box_samples=64,
    hidden=128,
)
# The body of W18-Small-v1 under a pyramid of as many channels: our choice, no official network.
SMALL_PYRAMID = replace(
    network_config("det_hrnetv2p_w18"),
    name="det_hrnetv2p_small",
    width=16,
    stage1_blocks=1,
    stage1_width=32,
    exchange_blocks=(1, 1, 1),
    residual_units=2,
    outputs=SCENES.channels,
    image_size=SCENES.image_size,
)
# The published schedule falls after 8 and 11 of 12 epochs. SGD at 0.01 over 180,000 steps is Adam
# here: in the first hundreds of steps, from random weights, it is well ahead of SGD.
RECIPE = Recipe(
    optimizer="adam",
    learning_rate=1e-3,
    milestones=(8 / 12, 11 / 12),
    batch_size=8,
    epochs=5,
    source="official configuration of Faster R-CNN; SGD, rate 0.01, batch 8 and 12 epochs there",
)
