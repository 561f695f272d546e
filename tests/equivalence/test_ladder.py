"""The reproduction and the live reference: every mode, random and trained weights, free runs."""

from pathlib import Path

import pytest
import torch

from comparison import parameters
from comparison.ladder import Ladder, climb
from comparison.modes import trajectory
from comparison.pairing import Pair, pair_of, random_pair
from comparison.sides import Side
from comparison.verdict import NOT_REPRODUCED, REPRODUCED, ZERO_NOTE
from reference.record import one_thread
from reproduction import NETWORKS, build_network
from reproduction.checkpoints import save_checkpoint

pytestmark = pytest.mark.reference
SMALLEST = "cls_hrnet_w18_small_v1"


@pytest.fixture(scope="module")
def pair() -> Pair:
    return random_pair(SMALLEST, steps=2)


@pytest.fixture(scope="module")
def ladder(pair: Pair) -> Ladder:
    with one_thread():
        return climb(pair.reference, pair.reproduction, pair.batches)


def test_the_reproduction_agrees_in_every_mode(ladder: Ladder) -> None:
    outcomes = {verdict.mode: (verdict.outcome, verdict.reason) for verdict in ladder.verdicts}

    assert {outcome for outcome, _ in outcomes.values()} == {REPRODUCED}, outcomes
    assert ladder.findings == ()


def test_every_layer_parameter_and_buffer_is_among_what_agrees(ladder: Ladder) -> None:
    count = {verdict.mode: verdict.compared for verdict in ladder.verdicts}
    layers, parameters_, buffers = 183, 279, 273  # SPEC 4.4: 552 entries

    assert len(ladder.matching.layers()) == layers
    assert count["forward eval"] > 2 * layers and count["forward train"] > 2 * layers
    assert count["backward"] > layers + parameters_
    assert count["buffers"] == buffers
    assert count["step"] == 2 * (2 * parameters_ + buffers)


def test_the_four_analytic_zeros_are_found_by_their_size(ladder: Ladder) -> None:
    excused = {row.key.name for row in ladder.rows if row.note == ZERO_NOTE}

    assert excused == {
        *(f"downsamp_modules.{i}.0.bias" for i in range(3)),
        "final_layer.0.bias",
    }


def test_free_runs_agree_to_the_bit_or_part_by_rounding_alone(pair: Pair) -> None:
    rows = []
    with one_thread():
        for dtype in (torch.float32, torch.float64):
            sides = pair.reference.copied(dtype), pair.reproduction.copied(dtype)
            rows += trajectory.follow(*sides, pair.batches)

    verdict = trajectory.judge(rows)
    assert verdict.outcome != NOT_REPRODUCED, verdict.reason
    assert rows[0]["loss_reference"] != rows[1]["loss_reference"]


def test_trained_weights_of_another_class_count_are_compared_on_their_data(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_checkpoint(build_network(SMALLEST, num_classes=10), weights)
    given = {"network": SMALLEST, "steps": 1, "weights": "trained", "weights_file": str(weights)}

    with one_thread():
        pair = pair_of(parameters.check("02_equivalence", given))
        ladder = climb(pair.reference, pair.reproduction, pair.batches)

    assert pair.inputs["data"]["name"] == "digits"
    assert pair.inputs["weights"]["num_classes"] == 10 and pair.inputs["weights"]["shims"]
    assert pair.reference.state()["classifier.weight"].shape == (10, 2048)
    assert ladder.failures() == []


@pytest.mark.full
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != SMALLEST])
def test_every_other_network_agrees_in_every_mode(network: str) -> None:
    pair = random_pair(network, steps=1, seed=2)

    with one_thread():
        ladder = climb(pair.reference, pair.reproduction, pair.batches)

    assert ladder.failures() == []


@pytest.mark.full
def test_another_network_is_no_reproduction() -> None:
    small = random_pair(SMALLEST, steps=1)
    other = random_pair("cls_hrnet_w18_small_v2", steps=1)
    assert isinstance(other.reproduction, Side)

    with one_thread():
        ladder = climb(small.reference, other.reproduction, small.batches)

    assert ladder.failures()[0].mode == "static" and len(ladder.findings) > 100
