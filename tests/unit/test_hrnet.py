"""Streams, transitions and exchange units."""

from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reproduction import CLASSIFICATION, HRNet, UserError
from reproduction.blocks import BasicBlock, Bottleneck
from reproduction.hrnet import ExchangeUnit, Fusion, Transition


def small_body() -> HRNet:
    """Build the smallest official body, in eval mode, in float64."""
    torch.manual_seed(0)
    return HRNet(CLASSIFICATION["cls_hrnet_w18_small_v1"]).eval().double()


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 33), (1, 1), (40, 200)])
def test_streams_halve_rounding_up_at_any_size(size: tuple[int, int]) -> None:
    expected = []
    height, width = (ceil(ceil(side / 2) / 2) for side in size)
    for stream in range(4):
        expected.append((2, 16 * 2**stream, height, width))
        height, width = ceil(height / 2), ceil(width / 2)
    with torch.no_grad():
        streams = small_body()(torch.randn(2, 3, *size, dtype=torch.float64))
    assert [tuple(x.shape) for x in streams] == expected


def test_an_image_does_not_depend_on_its_batch() -> None:
    body, images = small_body(), torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        together = body(images)
        alone = [body(image[None]) for image in images]
    for stream, tensor in enumerate(together):
        separate = torch.cat([streams[stream] for streams in alone])
        torch.testing.assert_close(tensor, separate, rtol=0, atol=1e-12)


def test_fusion_is_the_identity_on_its_own_stream() -> None:
    for target in range(3):
        assert isinstance(Fusion((4, 8, 16), target)[target], nn.Identity)


def test_fusion_sums_resampled_streams_from_the_first_one_on() -> None:
    torch.manual_seed(1)
    fusion = Fusion((4, 8, 16), 1).eval()
    streams = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2)]
    with torch.no_grad():
        upsampled = fusion[2](streams[2]).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        expected = F.relu((fusion[0](streams[0]) + streams[1]) + upsampled)
        assert torch.equal(fusion(streams), expected)


def test_downward_paths_have_a_relu_between_but_not_behind() -> None:
    path = Fusion((4, 8, 16), 2)[0]
    assert [hasattr(unit, "relu") for unit in path] == [True, False]
    assert [unit.conv.out_channels for unit in path] == [4, 16]


def test_exchange_keeps_all_shapes() -> None:
    streams = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    shapes = [x.shape for x in ExchangeUnit((4, 8)).eval()(streams)]
    assert shapes == [x.shape for x in streams]


def test_transition_passes_unchanged_streams_and_halves_the_last() -> None:
    streams = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    first, second, born = Transition((4, 8), (4, 8, 16)).eval()(streams)
    assert first is streams[0]
    assert second is streams[1]
    assert born.shape == (1, 16, 2, 2)
    assert torch.all(born >= 0)


def test_residual_units_without_weights_are_a_relu() -> None:
    x = torch.randn(2, 8, 4, 4)
    for block in (BasicBlock(8), Bottleneck(8, 2)):
        last = block.unit2 if isinstance(block, BasicBlock) else block.unit3
        nn.init.zeros_(last.norm.weight)
        assert torch.equal(block(x), F.relu(x))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (0, 3, 64, 64)])
def test_what_is_no_batch_of_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"expected \(batch, 3, height, width\)"):
        small_body()(torch.zeros(shape, dtype=torch.float64))


def test_one_value_a_channel_is_refused_in_train_mode_only() -> None:
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    body = small_body()
    body(image)
    with pytest.raises(UserError, match="leaves one value a channel"):
        body.train()(image)
    body(torch.randn(2, 3, 32, 32, dtype=torch.float64))
