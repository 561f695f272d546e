"""Each head against the shapes of the specification and values computed by hand."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reproduction import NETWORKS, Network, NetworkConfig, build_network
from reproduction.blocks import concatenate, upsample
from reproduction.config import ALIGNED, BILINEAR, NEAREST
from reproduction.heads.heatmap import HeatmapHead
from reproduction.heads.ocr import ClassAttention, OCRHead, describe_classes
from reproduction.heads.pyramid import Pyramid
from reproduction.heads.segmentation import SegmentationHead

SMALL = NETWORKS["seg_hrnet_w18_small_v1_cityscapes"]
TINY = replace(SMALL, width=2)
torch.manual_seed(0)


def streams(height: int = 8, width: int = 8, channels: int = 2) -> list[torch.Tensor]:
    """Draw four streams of one image."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-height // 2**r), -(-width // 2**r)) for r in range(4)]
    return [
        torch.randn(1, channels * 2**r, *size, generator=generator) for r, size in enumerate(sizes)
    ]


def tiny(name: str, **changes: object) -> nn.Module:
    """Build a network of the smallest body with the head and settings of another network."""
    config: NetworkConfig = replace(NETWORKS[name], **changes)
    small = replace(
        config,
        width=4,
        stage1_blocks=1,
        stage1_width=8,
        exchange_blocks=(1, 1, 1),
        residual_units=1,
    )
    return Network(small, config.outputs).eval()


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("pose_hrnet_w32", (256, 192), [(2, 17, 64, 48)]),
        ("pose_hrnet_w32_mpii", (64, 96), [(2, 16, 16, 24)]),
        ("seg_hrnet_w48_lip", (65, 97), [(2, 20, 17, 25)]),
        ("seg_hrnet_w48_pascal_ctx60", (473, 37), [(2, 60, 119, 10)]),
        ("seg_hrnet_ocr_w48_ade20k", (65, 97), [(2, 150, 17, 25)] * 2),
        ("face_hrnet_w18_300w", (256, 256), [(2, 68, 64, 64)]),
    ],
)
def test_outputs_have_a_quarter_of_the_resolution(
    name: str, size: tuple[int, int], shapes: list[tuple[int, ...]]
) -> None:
    with torch.no_grad():
        outputs = tiny(name)(torch.randn(2, 3, *size))
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    assert [tuple(output.shape) for output in outputs] == shapes


def test_the_pyramid_has_five_levels_of_halving_resolution() -> None:
    network = build_network("det_hrnetv2p_w18").eval()
    with torch.no_grad():
        levels = network(torch.zeros(1, 3, 256, 320))
    sizes = [(64, 80), (32, 40), (16, 20), (8, 10), (4, 5)]
    assert isinstance(levels, tuple)
    assert [tuple(level.shape) for level in levels] == [(1, 256, *size) for size in sizes]


def test_upsampling_by_hand() -> None:
    x = torch.tensor([[[[0.0, 4.0]]]])
    size = torch.Size((1, 4))
    assert upsample(x, size, NEAREST).flatten().tolist() == [0, 0, 4, 4]
    assert upsample(x, size, BILINEAR).flatten().tolist() == [0, 1, 3, 4]
    aligned = upsample(x, size, ALIGNED).flatten()
    torch.testing.assert_close(aligned, torch.tensor([0, 4 / 3, 8 / 3, 4]))
    assert upsample(x, torch.Size((1, 2)), ALIGNED) is x


def test_streams_are_stacked_in_their_order_at_the_size_of_the_first() -> None:
    parts = streams()
    stacked = concatenate(parts, BILINEAR)
    assert stacked.shape == (1, 2 + 4 + 8 + 16, 8, 8)
    assert torch.equal(stacked[:, :2], parts[0])
    third = F.interpolate(parts[2], scale_factor=4, mode="bilinear")
    torch.testing.assert_close(stacked[:, 6:14], third)


def test_align_corners_belongs_to_one_network() -> None:
    images = torch.randn(1, 3, 64, 64)
    first = tiny("seg_hrnet_w48_cityscapes")
    with torch.no_grad():
        before = first(images)
        second = tiny("seg_hrnet_w48_cityscapes", upsampling=ALIGNED)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(images), before)
        assert not torch.allclose(second(images), before)


def test_a_pose_head_reads_the_first_stream_only() -> None:
    head, parts = HeatmapHead(TINY, 3), streams()
    expected = torch.einsum("bchw,kc->bkhw", parts[0], head.heatmaps.weight[:, :, 0, 0])
    torch.testing.assert_close(head(parts[:1]), expected + head.heatmaps.bias[:, None, None])
    rows = [len(b.exchange.paths) for b in tiny("pose_hrnet_w32").backbone.stage4]
    assert rows == [1]
    with torch.device("meta"):
        body = build_network("pose_hrnet_w32").backbone
    assert [len(block.exchange.paths) for block in body.stage3] == [3, 3, 3, 3]
    assert [len(block.exchange.paths) for block in body.stage4] == [4, 4, 1]


def test_a_segmentation_head_is_a_small_network_for_every_pixel() -> None:
    head, parts = SegmentationHead(TINY, 5).eval(), streams()
    pixel = concatenate(parts, BILINEAR)[:, :, 3:4, 6:7]
    torch.testing.assert_close(head(parts)[:, :, 3:4, 6:7], head.classify(pixel))


def test_a_class_is_the_mean_of_its_pixels() -> None:
    scores = torch.full((1, 2, 2, 2), -1e4)
    scores[0, 0, 0, 1] = 0  # all of class 0 lies in one pixel
    scores[0, 1] = 7.0  # class 1 is everywhere alike
    pixels = torch.arange(12.0).reshape(1, 3, 2, 2)
    classes = describe_classes(scores, pixels)
    assert classes.shape == (1, 3, 2, 1)
    torch.testing.assert_close(classes[0, :, 0, 0], pixels[0, :, 0, 1])
    torch.testing.assert_close(classes[0, :, 1, 0], pixels[0].mean(dim=(1, 2)))


def test_attention_over_one_class_gives_every_pixel_the_same_context() -> None:
    attention = ClassAttention(8, 4).eval()
    context = attention(torch.randn(1, 8, 3, 5), torch.randn(1, 8, 1, 1))
    assert context.shape == (1, 8, 3, 5)
    torch.testing.assert_close(context, context[:, :, :1, :1].expand_as(context))
    assert attention.scale == 0.5


def test_the_final_scores_teach_the_auxiliary_ones() -> None:
    head = OCRHead(TINY, 3).eval()
    auxiliary, final = head(streams())
    final.square().sum().backward()
    assert auxiliary.shape == final.shape == (1, 3, 8, 8)
    assert head.auxiliary.predict.weight.grad.abs().max() > 0
    assert head.dropout.p == 0.05 and isinstance(head.dropout, nn.Dropout2d)


def test_levels_are_means_of_the_reduced_map() -> None:
    pyramid, parts = Pyramid(TINY, 4).eval(), streams(32, 32)
    same = copy.deepcopy(pyramid)
    for level in same.levels:
        nn.init.dirac_(level.weight)
        nn.init.zeros_(level.bias)
    finest, *lower = same(parts)
    for step, level in enumerate(lower, start=1):
        cells = finest.unfold(2, 2**step, 2**step).unfold(3, 2**step, 2**step)
        torch.testing.assert_close(level, cells.mean(dim=(-1, -2)))
