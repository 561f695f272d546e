"""The reproduction and the live reference on the engine: all modes, timm, trained weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from comparison import equivalence, parameters
from comparison.engine.examine import examine
from comparison.engine.leader import Leader
from comparison.engine.report import Report
from comparison.engine.rewrites import CALIBRATING
from comparison.engine.verdict import (
    ACCURACY,
    MODES,
    NOT_REPRODUCED,
    REPRODUCED,
    WITHIN_TOLERANCE,
    ZERO_NOTE,
)
from comparison.equivalence import compare_pair
from comparison.pairing import Pair, pair_of, random_pair
from reference.record import one_thread
from reproduction import CLASSIFICATION, build_network
from reproduction.checkpoints import save_checkpoint

pytestmark = pytest.mark.reference
SMALLEST = "cls_hrnet_w18_small_v1"


def settings(**given: object) -> parameters.Settings:
    return parameters.check("02_equivalence", {"network": SMALLEST, "steps": 2, **given})


def compared(pair: Pair, chosen: parameters.Settings) -> Report:
    with one_thread():
        return compare_pair(pair, chosen).report


def outcomes(report: Report) -> dict[str, str]:
    return {mode.mode: mode.outcome for mode in report.modes if mode.mode != ACCURACY}


@pytest.fixture(scope="module")
def report() -> Report:
    return compared(random_pair(SMALLEST, steps=2), settings())


def test_the_reproduction_agrees_in_every_mode(report: Report) -> None:
    assert list(outcomes(report)) == [mode for mode in MODES if mode != ACCURACY]
    assert set(outcomes(report).values()) <= {REPRODUCED, WITHIN_TOLERANCE}, str(report)
    assert report.exit_code == 0 and report.findings == () and report.origins == ()
    assert report.matched.unmatched_reference == report.matched.unmatched_candidate == ()


def test_every_operation_parameter_and_buffer_is_among_what_agrees(report: Report) -> None:
    operations, parameters_, buffers = 316, 279, 273  # SPEC 4.4: 552 entries

    assert report.matched.tensors == parameters_ + buffers
    assert report.mode("forward eval").compared == operations + 1
    assert report.mode("backward").compared == operations + parameters_
    step = 2 * parameters_ + buffers  # with momenta
    assert report.mode("state after step").compared == buffers + step
    assert report.mode("teacher-forced trajectory").compared == 2 * step


def test_the_four_analytic_zeros_are_found_by_their_size(report: Report) -> None:
    excused = {row.key.name for row in report.rows if row.note == ZERO_NOTE}

    assert excused == {*(f"downsamp_modules.{i}.0.bias" for i in range(3)), "final_layer.0.bias"}


def test_noise_was_measured_by_enough_rewrites(report: Report) -> None:
    for mode in ("forward eval", "forward train", "backward", "state after step"):
        changed = [r for r in report.calibration if r["mode"] == mode and r["changed"]]
        assert len(changed) >= 6, mode
    # biases in front of a normalization only decay: rounding is largest beside such increments
    assert all(row.noise < 1e-10 * row.size for row in report.rows if row.note != ZERO_NOTE)


@pytest.mark.full
def test_an_injected_fault_is_named_with_its_value() -> None:
    pair = random_pair(SMALLEST, steps=1)
    norm = pair.reproduction.model.get_submodule("backbone.stage2.0.streams.0.1.unit2.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.momentum = 0.11  # every output and every gradient stays as it is

    with one_thread():
        leader = Leader(pair.reference, pair.batches, rewrites=CALIBRATING[:2])
        names = pair.name_map
        found = examine(leader, pair.reproduction, name_map=names, steps=1, bitwise=False)

    verdicts = {mode.mode: mode for mode in found.modes}
    failed = {mode.mode for mode in found.modes if mode.outcome == NOT_REPRODUCED}
    assert failed == {"static", "state after step", "teacher-forced trajectory"}
    assert verdicts["state after step"].first_divergent.startswith("stage2.0.branches.0.1.bn2")
    assert {origin.module for origin in found.origins} == {"stage2.0.branches.0.1.bn2"}
    assert any("0.11" in origin.text for origin in found.origins), found.origins


@pytest.mark.full
def test_timms_network_agrees_too() -> None:
    report = equivalence.check(SMALLEST, steps=1, against="timm")

    assert set(outcomes(report).values()) <= {REPRODUCED, WITHIN_TOLERANCE}, str(report)
    assert "timm" in report.title
    assert report.notices[-1].startswith("the reference's recipe: taken from the reproduction")


@pytest.mark.full
def test_trained_weights_of_another_class_count_are_compared_on_their_data(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_checkpoint(build_network(SMALLEST, num_classes=10), weights)
    chosen = settings(steps=1, weights="trained", weights_file=str(weights))
    pair = pair_of(chosen)

    report = compared(replace(pair, batches=pair.batches[:1]), chosen)

    assert pair.inputs["data"]["name"] == "digits"
    assert pair.inputs["weights"]["num_classes"] == 10 and pair.inputs["weights"]["shims"]
    assert pair.reference.model.state_dict()["classifier.weight"].shape == (10, 2048)
    assert report.exit_code == 0, str(report)


@pytest.mark.full
@pytest.mark.heavy
@pytest.mark.parametrize("network", [name for name in CLASSIFICATION if name != SMALLEST])
def test_every_other_network_agrees_in_every_mode(network: str) -> None:
    report = compared(random_pair(network, steps=1, seed=2), settings(network=network, steps=1))

    assert set(outcomes(report).values()) <= {REPRODUCED, WITHIN_TOLERANCE}, str(report)


@pytest.mark.full
def test_another_network_is_no_reproduction() -> None:
    small = random_pair(SMALLEST, steps=1)
    other = random_pair("cls_hrnet_w18_small_v2", steps=1)
    mixed = replace(small, reproduction=other.reproduction, name_map=other.name_map)

    report = compared(mixed, settings(steps=1))

    assert report.exit_code == 1
    assert report.modes[0].outcome == "not reproduced" and len(report.findings) > 100
