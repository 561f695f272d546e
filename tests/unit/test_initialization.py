"""Start weights of every task, as the official code draws them."""

import pytest
import torch
from torch import nn

from reproduction import NETWORKS, build_network
from reproduction.initialization import RULES


def deviation(tensor: torch.Tensor) -> float:
    """Return the standard deviation around zero."""
    return tensor.square().mean().sqrt().item()


def fan_in_bound(convolution: nn.Conv2d) -> float:
    """Return what PyTorch bounds weights and biases of a convolution by."""
    return convolution.weight[0].numel() ** -0.5


def test_every_task_has_a_rule() -> None:
    assert set(RULES) == {config.task for config in NETWORKS.values()}


@pytest.mark.parametrize(
    "name",
    ["pose_hrnet_w32", "seg_hrnet_w18_small_v1_cityscapes", "face_hrnet_w18_wflw"],
)
def test_dense_networks_start_small(name: str) -> None:
    torch.manual_seed(0)
    for module in build_network(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            assert deviation(module.weight) == pytest.approx(1e-3, rel=0.1)


def test_biases_start_at_zero_in_pose_and_detection_and_uniform_elsewhere() -> None:
    for name, zero in (
        ("pose_hrnet_w32", True),
        ("det_hrnetv2p_w18", True),
        ("face_hrnet_w18_wflw", False),
        ("seg_hrnet_w18_small_v1_cityscapes", False),
    ):
        network = build_network(name)
        biased = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
        for convolution in biased:
            largest = convolution.bias.abs().max().item()
            assert largest == 0 if zero else 0 < largest <= fan_in_bound(convolution)


def test_the_head_of_ocr_starts_as_pytorch_starts_it() -> None:
    torch.manual_seed(0)
    network = build_network("seg_hrnet_ocr_w48_cityscapes")
    body, head = network.backbone, network.head
    assert deviation(body.stage2[0].streams[1][0].unit1.conv.weight) == pytest.approx(1e-3, rel=0.1)
    # Measured on the official code: 0.0215 and 0.0257.
    assert deviation(head.auxiliary.mix.conv.weight) == pytest.approx(0.0215, rel=0.01)
    assert deviation(head.predict.weight) == pytest.approx(0.0257, rel=0.02)


def test_the_body_of_detection_starts_as_in_classification_and_its_neck_linear() -> None:
    torch.manual_seed(0)
    network = build_network("det_hrnetv2p_w18")
    weight = network.body.stage1[0].unit2.conv.weight  # 64 x 64 x 3 x 3
    assert deviation(weight) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    level = network.neck.levels[0].weight
    assert deviation(level) == pytest.approx((256 * 9) ** -0.5, rel=0.01)
