"""The engine on the training form: it agrees with the reference, and planted faults are found."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import comparison
from comparison import arms
from comparison.engine.report import Report
from reference.record import one_thread
from reproduction import TrainConfig, small_maps, wide_norm
from reproduction.checkpoints import official_name
from reproduction.forms import Form, prepare
from reproduction.train import make_optimizer
from tests.unit.toys import dropping, without_spread

pytestmark = [pytest.mark.reference, pytest.mark.full]
FAST = Form(name="fast", channels_last=True, gemm_limit=4, fused_optimizer=True)
SMALLEST = "cls_hrnet_w18_small_v1"


@pytest.fixture(autouse=True)
def wide_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take maps of every size for sums over wide rows."""
    monkeypatch.setattr(wide_norm, "_least_pixels", lambda _: 0)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer of the form for ours, the plain one for theirs."""
    ours = any(type(module) is small_maps.SmallMapConv2d for module in model.modules())
    return make_optimizer(model, TrainConfig(), fused=ours and FAST.fused_optimizer)


def compared() -> Report:
    """Compare one step of the reference with ours in the fast form, in float64."""
    theirs = arms.build_from_seed("reference", SMALLEST, 1000, 0)
    ours = prepare(arms.build_from_seed("reproduction", SMALLEST, 1000, 0), FAST)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    labels = torch.randint(1000, (8,), generator=generator)
    with one_thread():
        return comparison.compare(
            *(theirs, ours, images, labels),
            **{"loss": F.cross_entropy, "optimizer": sgd, "name_map": official_name},
            **{"steps": 1, "free_steps": 0},
        )


def test_the_fast_form_agrees_with_the_reference() -> None:
    report = compared()
    assert report.exit_code == 0, str(report)


def test_a_dropped_tap_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_maps, "reach", dropping(small_maps.reach))
    assert compared().exit_code == 1


def test_a_lost_spread_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "var_mean", without_spread(torch.var_mean))
    assert compared().exit_code == 1
