"""One row a layer, in the order of the run, with the worst of what belongs to it."""

import pytest
import torch

from comparison.engine.examine import Examined, examine
from comparison.engine.leader import Leader
from comparison.layers import layer_rows
from tests.unit.toys import Ours, toy_pair


def examined(fault: bool = False) -> Examined:
    pair = toy_pair()
    if fault:
        assert isinstance(pair.reproduction.model, Ours)
        with torch.no_grad():
            pair.reproduction.model.second.norm.weight[1] += 1e-7
    leader = Leader(pair.reference, pair.batches)
    return examine(leader, pair.reproduction, name_map=pair.name_map, steps=0)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return layer_rows(examined())


def test_layers_come_in_the_order_in_which_the_reference_runs_them(rows: list[dict]) -> None:
    pairs = [(row["reference"], row["reproduction"]) for row in rows]

    assert pairs == [
        ("conv1", "first.conv"),
        ("bn1", "first.norm"),
        ("conv2", "second.conv"),
        ("bn2", "second.norm"),
        ("fuse.0", "paths.0"),
        ("fuse.1", "paths.1"),
        ("classifier", "head"),
    ]
    assert [row["depth"] for row in rows] == list(range(1, 8))
    assert rows[0]["shape"] == "4x6x6" and rows[0]["op"] == "conv2d"


def test_layers_that_agree_lie_within_thresholds_above_the_noise(rows: list[dict]) -> None:
    for row in rows:
        assert row["agrees"]
        assert row["forward_eval"] <= row["threshold_forward"]
        assert row["activation_gradient"] <= row["threshold_gradient"]
        assert 0 < row["noise_forward"] < 1e-13
        assert row["float32"] < 1e-5


def test_a_changed_layer_and_those_after_it_stand_out() -> None:
    changed = {row["reference"]: row for row in layer_rows(examined(fault=True))}

    assert not changed["bn2"]["agrees"] and changed["bn2"]["forward_eval"] > 1e-9
    assert changed["conv2"]["forward_eval"] < 1e-14
    assert changed["classifier"]["forward_eval"] > 1e-10
