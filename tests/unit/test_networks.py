"""Every network against the counts and names of the official ones."""

import hashlib
from functools import cache

import pytest
import torch
from torch import nn

from reproduction import NETWORKS, UserError, build_network
from reproduction.checkpoints import to_official

# Parameters of the official network, and SHA-256 (first 16 digits) of the lines "key [shape]" of
# its state dict: measured on the official code.
OFFICIAL = {
    "cls_hrnet_w18_small_v1": (13_187_464, "63f4328e163d98e8"),
    "cls_hrnet_w18_small_v2": (15_597_464, "932a2fc8d6f5c117"),
    "cls_hrnet_w18": (21_299_004, "f708d90b47658e85"),
    "cls_hrnet_w30": (37_712_220, "31bb6dccc58525c5"),
    "cls_hrnet_w32": (41_232_680, "2c579ee295b59f02"),
    "cls_hrnet_w40": (57_557_160, "4d1770ebbc4ce5d9"),
    "cls_hrnet_w44": (67_064_984, "c1835fcc02b30431"),
    "cls_hrnet_w48": (77_469_864, "9126d5229563261c"),
    "cls_hrnet_w64": (128_059_944, "22c3932cb113b3b9"),
    "pose_hrnet_w32": (28_536_113, "33d183da9806e2ce"),
    "pose_hrnet_w48": (63_595_745, "f0e89ca79e714d97"),
    "pose_hrnet_w32_384x288": (28_536_113, "33d183da9806e2ce"),
    "pose_hrnet_w48_384x288": (63_595_745, "f0e89ca79e714d97"),
    "pose_hrnet_w32_mpii": (28_536_080, "44af7f790398c08e"),
    "pose_hrnet_w48_mpii": (63_595_696, "3a40fdbd9f6ba4fd"),
    "seg_hrnet_w48_cityscapes": (65_859_379, "ac331c569ce84199"),
    "seg_hrnet_w48_lip": (65_860_100, None),
    "seg_hrnet_w48_pascal_ctx": (65_888_219, None),
    "seg_hrnet_w48_pascal_ctx60": (65_888_940, None),
    "seg_hrnet_w48_cocostuff": (65_968_971, None),
    "seg_hrnet_w48_ade20k": (65_953_830, None),
    "seg_hrnet_w18_small_v1_cityscapes": (1_540_819, None),
    "seg_hrnet_w18_small_v2_cityscapes": (3_939_579, None),
    "seg_hrnet_ocr_w48_cityscapes": (70_372_678, "cc5c505ff6b92bb2"),
    "seg_hrnet_ocr_w48_lip": (70_373_912, None),
    "seg_hrnet_ocr_w48_pascal_ctx": (70_422_038, None),
    "seg_hrnet_ocr_w48_pascal_ctx60": (70_423_272, None),
    "seg_hrnet_ocr_w48_cocostuff": (70_560_246, None),
    "seg_hrnet_ocr_w48_ade20k": (70_534_332, None),
    "face_hrnet_w18_wflw": (9_662_528, "ea8273d772ee47ae"),
    "face_hrnet_w18_300w": (9_654_398, None),
    "face_hrnet_w18_cofw": (9_643_829, None),
    "face_hrnet_w18_aflw": (9_641_119, None),
    "det_hrnetv2p_w18": (9_562_260 + 3_019_776, "ab760d4fd241b815"),
    "det_hrnetv2p_w32": (29_305_536 + 3_073_536, None),
    "det_hrnetv2p_w40": (45_521_216 + 3_104_256, None),
    "det_hrnetv2p_w48": (65_325_120 + 3_134_976, None),
}
# Entries of the state dict, convolutions, normalizations, convolutions with a bias.
COUNTS = {
    "pose_hrnet_w48": (1754, 293, 292, 1),
    "seg_hrnet_w48_ade20k": (1839, 307, 306, 2),
    "seg_hrnet_ocr_w48_lip": (1890, 316, 314, 4),
    "seg_hrnet_w18_small_v1_cityscapes": (435, 73, 72, 2),
    "seg_hrnet_w18_small_v2_cityscapes": (873, 146, 145, 2),
    "face_hrnet_w18_aflw": (1839, 307, 306, 2),
    "det_hrnetv2p_w40": (1830 + 12, 311, 305, 6),
}
# Parameters by part: transition1, stage2, transition2, stage3, transition3, stage4, widening.
PARTS = {
    "cls_hrnet_w18_small_v1": (55_392, 51_680, 18_560, 233_056, 73_984, 982_208, 1_358_720),
    "cls_hrnet_w18": (124_524, 124_092, 23_472, 2_162_880, 93_600, 6_708_636, 1_385_920),
    "cls_hrnet_w48": (332_064, 878_112, 166_272, 15_335_040, 664_320, 47_624_256, 1_793_920),
}


@cache
def on_meta(name: str) -> nn.Module:
    """Build a network without memory for its weights."""
    with torch.device("meta"):
        return build_network(name)


def count(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_network_has_an_official_count() -> None:
    assert list(NETWORKS) == list(OFFICIAL)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_names_shapes_and_order_are_official(name: str) -> None:
    network = on_meta(name)
    lines = [
        f"{key} {list(value.shape)}" for key, value in to_official(network.state_dict()).items()
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    parameters, official = OFFICIAL[name]
    assert count(network) == parameters
    assert official in (None, digest)


@pytest.mark.parametrize("name", COUNTS)
def test_layers_are_as_many_as_in_the_official_network(name: str) -> None:
    network = on_meta(name)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    biased = [m for m in convolutions if m.bias is not None]
    found = (len(network.state_dict()), len(convolutions), len(norms), len(biased))
    assert found == COUNTS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_have_the_momentum_and_eps_of_the_official_code(name: str) -> None:
    earlier = name.startswith("face") or (name.endswith("60") and "ocr" not in name)
    earlier = earlier or name.startswith("seg_hrnet_w18")
    norms = [m for m in on_meta(name).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.01 if earlier else 0.1, 1e-5)}


@pytest.mark.parametrize("name", PARTS)
def test_parameters_by_part(name: str) -> None:
    network = on_meta(name)
    body = network.backbone
    parts = (
        *(body.transition1, body.stage2, body.transition2, body.stage3, body.transition3),
        *(body.stage4, network.head.widen),
    )
    assert tuple(count(part) for part in parts) == PARTS[name]


def test_class_count_and_image_channels_are_free() -> None:
    network = build_network("cls_hrnet_w18_small_v1", num_classes=7, in_channels=1).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7)


def test_features_are_the_four_streams() -> None:
    network = build_network("cls_hrnet_w18_small_v1").eval()
    with torch.no_grad():
        shapes = [tuple(x.shape) for x in network.streams(torch.randn(1, 3, 64, 96))]
    assert shapes == [(1, 16, 16, 24), (1, 32, 8, 12), (1, 64, 4, 6), (1, 128, 2, 3)]


def test_initialization_is_kaiming_normal_fan_out() -> None:
    torch.manual_seed(0)
    network = build_network("cls_hrnet_w18_small_v1")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
    weight = network.head.project.conv.weight  # 2048 x 1024 x 1 x 1
    assert weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.01)
    bias = network.head.project.conv.bias  # PyTorch's default: uniform within 1 / sqrt(fan in)
    assert 0.9 / 32 < bias.abs().max().item() <= 1 / 32


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("hrnet_w18", {}, "classification: cls_hrnet_w18_small_v1, cls_hrnet_w18_small_v2"),
        ("pose_hrnet_w18", {}, "pose: pose_hrnet_w32, .*landmarks: face_hrnet_w18_wflw"),
        ("det_hrnetv2p_w18", {"num_classes": -3}, "num_classes is -3"),
        ("cls_hrnet_w18", {"num_classes": 0}, "num_classes is 0"),
        ("cls_hrnet_w18", {"in_channels": True}, "in_channels is True"),
    ],
)
def test_a_wrong_request_gets_a_sentence(name: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_network(name, **options)
