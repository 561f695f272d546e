"""The list of faults is complete and honest; tests/equivalence shows that each one is caught."""

import pytest
import torch

from comparison import faults, rewrites
from comparison.faults import FAULTS, HARMLESS, Fault
from comparison.ladder import NUMERIC_MODES, Leader
from comparison.sides import Side
from comparison.verdict import THRESHOLDS, Threshold
from reproduction import build_network
from reproduction.checkpoints import official_name
from reproduction.hrnet import Fusion
from tests.unit.toys import Ours, toy_batches, toy_sides

SMALLEST = "cls_hrnet_w18_small_v1"


def test_there_are_faults_of_every_mode_and_each_says_where() -> None:
    assert len(FAULTS) >= 10 and len(HARMLESS) >= 6
    assert {fault.mode for fault in FAULTS} == set(NUMERIC_MODES)
    assert all(fault.site for fault in FAULTS)
    assert not any(fault.mode or fault.site or fault.static for fault in HARMLESS)
    assert len({fault.name for fault in (*FAULTS, *HARMLESS)}) == len(FAULTS) + len(HARMLESS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_finds_its_place_in_every_depth_of_network(fault: Fault) -> None:
    for network in (SMALLEST, "cls_hrnet_w18_small_v2"):
        side = Side(model=build_network(network, num_classes=3), name_of=official_name)
        assert isinstance(fault.inject(side), Side)


def test_a_fault_is_injected_into_a_copy() -> None:
    side = Side(model=build_network(SMALLEST, num_classes=3), name_of=official_name)
    before = {key: value.clone() for key, value in side.model.state_dict().items()}

    for fault in FAULTS:
        fault.inject(side.copied(torch.float32))

    assert all(torch.equal(before[key], value) for key, value in side.model.state_dict().items())
    assert not any(module._forward_hooks for module in side.model.modules())


@pytest.mark.parametrize(
    ("rewrite", "kind"),
    [
        (rewrites.unfolded_convolutions, torch.nn.Conv2d),
        (rewrites.written_out_norms, torch.nn.BatchNorm2d),
        (rewrites.reversed_sums, Fusion),
        (rewrites.stacked_sums, Fusion),
    ],
)
def test_a_rewrite_replaces_every_module_of_its_kind(rewrite, kind: type) -> None:
    side = rewrite(Side(model=build_network(SMALLEST, num_classes=3)))

    changed = [module for module in side.model.modules() if isinstance(module, kind)]
    assert changed and all(type(module) is not kind for module in changed)


def smaller_eps(side: Side) -> Side:
    assert isinstance(side.model, Ours)
    side.model.second.norm.eps = 1.1e-5
    return side


EPS = Fault(name="eps", inject=smaller_eps, mode="forward eval", site="bn2 (output)", static=True)


def judged(fault: Fault) -> dict:
    theirs, ours = toy_sides()
    return faults.judge(Leader(theirs, toy_batches(), keep_steps=True), ours, fault)


def test_a_caught_fault_reports_mode_site_and_error() -> None:
    row = judged(EPS)

    assert row["as_expected"] and row["caught"] and row["kind"] == "fault"
    assert (row["mode"], row["site"]) == ("forward eval", "bn2 (output)")
    assert row["static_seen"] and row["tensors_changed"] > 0 and row["largest_error"] > 1e-8


@pytest.mark.parametrize(
    "expected", [{"mode": "backward"}, {"site": "bn1 (output)"}, {"static": False}]
)
def test_a_fault_seen_elsewhere_than_expected_is_not_as_expected(expected: dict) -> None:
    named = {"mode": EPS.mode, "site": EPS.site, "static": EPS.static, **expected}

    assert not judged(Fault(name="eps", inject=smaller_eps, **named))["as_expected"]


def test_an_alarm_on_a_harmless_rewrite_is_not_as_expected() -> None:
    row = judged(Fault(name="said to be harmless", inject=smaller_eps))

    assert row["kind"] == "harmless" and row["caught"] and not row["as_expected"]


def test_a_checker_with_loose_bounds_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in THRESHOLDS:
        monkeypatch.setitem(THRESHOLDS, mode, Threshold(1e-3, "too loose"))

    assert not judged(EPS)["as_expected"]


def test_a_checker_that_leaves_out_a_mode_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.ladder.PASSES", {})

    assert not judged(EPS)["as_expected"]
