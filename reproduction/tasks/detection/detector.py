"""Faster R-CNN around any body with a pyramid (TPAMI'20 section 6).

The detector is torchvision's: region proposals, sampling, RoI heads and suppression. Settings that
the official configuration states are the same here (`PUBLISHED`); what lies below them differs in
detail from the official framework, so that scores compare two pyramids in one detector, not the
paper's detector with ours.
"""

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from reproduction.errors import UserError
from reproduction.heads.pyramid import LEVELS
from reproduction.tasks.detection.config import DetectorConfig

STRIDES = tuple(4 * 2**level for level in range(LEVELS))
ROI_LEVELS = 4  # the coarsest level proposes, and no box is read from it
ROI_SIZE = 7
ROI_SAMPLES = 2


class Levels(nn.Module):
    """What torchvision calls a backbone: images in, named maps out.

    Args:
        pyramid: Maps images (B, 3, H, W) to a tuple of five maps, finest first; whose it is does
            not matter.
        channels: Of every map.
    """

    def __init__(self, pyramid: nn.Module, channels: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.out_channels = channels

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Map normalized images (B, 3, H, W) to the maps by their place.

        Raises:
            UserError: There are not five maps of `channels` channels.
        """
        maps = self.pyramid(images)
        found = [x.shape[1] for x in maps]
        if found != [self.out_channels] * LEVELS:
            raise UserError(
                f"the pyramid puts out maps of {found} channels; the detector expects {LEVELS} of "
                f"{self.out_channels}: give a network for detection built with as many channels"
            )
        return OrderedDict((str(level), x) for level, x in enumerate(maps))


def make_detector(pyramid: nn.Module, config: DetectorConfig) -> FasterRCNN:
    """Put a pyramid into Faster R-CNN; the other parts are drawn from the global generator.

    The detector takes normalized images, and in train mode targets with ``boxes`` (N, 4), left,
    top, right and bottom, and ``labels`` (N,) from 1. It returns a dict of losses in train mode,
    else a dict an image with ``boxes``, ``labels`` and ``scores``.

    Args:
        pyramid: Maps images to five maps, finest first.
        config: The settings.
    """
    anchors = AnchorGenerator(
        tuple((int(config.anchor_scale * stride),) for stride in STRIDES),
        (config.anchor_ratios,) * LEVELS,
    )
    shorter, longer = config.image_size
    in_training, in_testing = config.proposals
    return FasterRCNN(
        Levels(pyramid, config.channels),
        min_size=shorter,
        max_size=longer,
        image_mean=(0.0, 0.0, 0.0),  # images come normalized
        image_std=(1.0, 1.0, 1.0),
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=in_training,
        rpn_post_nms_top_n_train=in_training,
        rpn_pre_nms_top_n_test=in_testing,
        rpn_post_nms_top_n_test=in_testing,
        rpn_batch_size_per_image=config.region_samples,
        box_roi_pool=MultiScaleRoIAlign(
            [str(level) for level in range(ROI_LEVELS)], ROI_SIZE, ROI_SAMPLES
        ),
        box_head=TwoMLPHead(config.channels * ROI_SIZE**2, config.hidden),
        box_predictor=FastRCNNPredictor(config.hidden, config.classes + 1),
        box_batch_size_per_image=config.box_samples,
    )
