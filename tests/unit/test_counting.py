"""The counters agree with counts by hand, under each convention, and with fvcore's own total."""

import logging
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison import arms
from comparison.counting import Cost, FlopCountAnalysis, count_parameters, measure, part_of
from reproduction import build_network

SIZE = 16
CONV = SIZE * SIZE * 8 * 3 * 9  # output positions, output channels, input channels, taps
NORM = 2 * SIZE * SIZE * 8
RELU = SIZE * SIZE * 8
UPSAMPLED = 4 * SIZE * SIZE * 8
POOLED = UPSAMPLED
LINEAR = 8 * 10


class Tiny(nn.Module):
    """One of each operator; its names are official ones, of the stem and of the head."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 10)
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.classifier(self.pool(x))


def adaptive(x: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def by_kernel(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, x.shape[-2:]).flatten(1)


def by_mean(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).mean(2)


POOLS = (adaptive, by_kernel, by_mean)


def cost_of(pool: Callable[[torch.Tensor], torch.Tensor]) -> Cost:
    return measure(Tiny(pool), image_size=SIZE)


@pytest.mark.parametrize("pool", POOLS)
def test_operators_are_counted_as_by_hand(pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
    cost = cost_of(pool)

    assert cost.count("convolution") == CONV
    assert cost.count("linear") == LINEAR
    assert cost.count("batch normalization") == NORM
    assert cost.count("upsampling") == UPSAMPLED
    assert cost.count("ReLU") == RELU
    assert cost.count("pooling") == POOLED


@pytest.mark.parametrize("pool", POOLS)
def test_two_conventions_count_convolution_and_linear_only(
    pool: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    cost = cost_of(pool)

    assert cost.gmacs == (CONV + LINEAR) / 1e9
    assert cost.published_gflops == (CONV + LINEAR) / 2**30


@pytest.mark.parametrize("pool", POOLS)
def test_mmpretrain_counts_all_layers_but_the_classifier(
    pool: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    assert cost_of(pool).mmpretrain_flops == CONV + NORM + UPSAMPLED + RELU + POOLED


def test_fvcore_counts_pooling_in_one_of_its_forms_only() -> None:
    without = CONV + LINEAR + NORM + UPSAMPLED

    assert [cost_of(pool).fvcore_total for pool in POOLS] == [without + POOLED, without, without]
    assert [cost_of(pool).counted_pooling for pool in POOLS] == [POOLED, 0, 0]


def test_the_added_counters_do_not_enter_fvcores_own_total() -> None:
    model = build_network("cls_hrnet_w18_small_v1").eval()
    plain = FlopCountAnalysis(model, torch.zeros(1, 3, 64, 64))
    plain.unsupported_ops_warnings(False).uncalled_modules_warnings(False)

    cost = measure(model, arms.name_of(model), image_size=64)

    assert cost.fvcore_total == plain.total()
    assert cost.total_macs == plain.by_operator()["conv"] + plain.by_operator()["linear"]
    assert sum(cost.macs.values()) == cost.total_macs


def test_parts_add_up_and_biases_are_told_apart() -> None:
    cost = cost_of(adaptive)

    assert cost.parameters["stem"] == 3 * 8 * 9 + 8 + 2 * 8
    assert cost.parameters["head"] == 8 * 10 + 10
    assert (cost.macs["stem"], cost.macs["head"]) == (CONV, LINEAR)
    assert cost.total_parameters == sum(p.numel() for p in Tiny(adaptive).parameters())
    assert cost.parameters_m == cost.total_parameters / 1e6
    assert cost.conv_biases == 8


def test_a_layer_that_belongs_to_no_part_is_an_error() -> None:
    with pytest.raises(KeyError, match="neck"):
        count_parameters(nn.ModuleDict({"neck": nn.Linear(1, 1)}), str)
    with pytest.raises(KeyError, match="layer5"):
        part_of("layer5.0.conv1")


def test_counting_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(Tiny(by_kernel), image_size=SIZE)

    assert caplog.records == []
