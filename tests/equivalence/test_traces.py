"""The reproduction meets what the official code once computed; a network with a fault does not."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from comparison import traces
from reference import load_trace
from reference.record import trace
from reference.recorded import BOUNDS, compare, recorded_networks
from reproduction import NETWORKS, build_network
from reproduction.checkpoints import official_name

FAST = ("cls_hrnet_w18_small_v1", "cls_hrnet_w18_small_v2", "cls_hrnet_w18")
SMALLEST = FAST[0]


def tiered(networks: Iterable[str]) -> list[Any]:
    """Leave what takes long to fill to the full tier."""
    slow = pytest.mark.full
    return [pytest.param(name, marks=() if name in FAST else slow) for name in networks]


@pytest.mark.parametrize(
    "network", tiered(name for name in recorded_networks() if name in NETWORKS)
)
def test_every_row_of_the_official_trace_is_met(network: str) -> None:
    recorded = load_trace(network)

    measured = trace(build_network(network), recorded.input_shape, name_of=official_name)
    rows = compare(measured, recorded)

    assert len(rows) == len(recorded.rows)
    assert [row["key"] for row in rows if not row["passes"]] == []
    assert {row["phase"] for row in rows} == set(BOUNDS)
    assert sum(row["analytic_zero"] for row in rows) == 4


@pytest.mark.parametrize("network", tiered(NETWORKS))
def test_every_network_meets_its_anchors(network: str) -> None:
    rows = traces.replay_anchors(network, build_network(network))

    assert traces.passes(rows)
    assert len(rows) == (2 if network == "cls_hrnet_w18" else 1)


def change_eps(model: nn.Module) -> None:
    model.get_submodule("backbone.stage3.0.streams.1.0.unit1.norm").eps = 1.1e-5


def change_momentum(model: nn.Module) -> None:
    model.get_submodule("backbone.stage4.0.streams.2.0.unit1.norm").momentum = 0.11


def cut_gradient(model: nn.Module) -> None:
    path = model.get_submodule("backbone.stage3.0.exchange.paths.1.0")
    path.register_forward_hook(lambda _m, _i, output: output.detach())


def drop_relu(model: nn.Module) -> None:
    model.get_submodule("backbone.stage2.0.streams.0.0.unit1").relu = nn.Identity()


@pytest.mark.parametrize(
    ("change", "phase", "key"),
    [
        (change_eps, "forward", "forward/stage3.0.branches.1.0.bn1"),
        (drop_relu, "forward", "forward/stage2.0.branches.0.0.conv2"),
        (change_momentum, "buffer", "buffer/stage4.0.branches.2.0.bn1.running_mean"),
        (cut_gradient, "grad", None),
    ],
)
def test_a_fault_fails_the_trace_in_its_phase(
    change: Callable[[nn.Module], None], phase: str, key: str | None
) -> None:
    model = build_network(SMALLEST)
    change(model)
    recorded = load_trace(SMALLEST)

    failed = [
        row
        for row in compare(trace(model, recorded.input_shape, name_of=official_name), recorded)
        if not row["passes"]
    ]

    assert failed[0]["phase"] == phase
    assert key is None or failed[0]["key"] == key


@pytest.mark.parametrize("change", [change_eps, drop_relu])
def test_a_fault_fails_the_anchor(change: Callable[[nn.Module], None]) -> None:
    model = build_network(SMALLEST)
    change(model)

    (row,) = traces.replay_anchors(SMALLEST, model)

    assert row["failures"] > 0 and row["worst_relative_error"] > 1000 * row["bound"]
    assert not traces.passes([row])


def test_an_output_of_another_shape_fails_the_anchor() -> None:
    (row,) = traces.replay_anchors(SMALLEST, _Doubled(build_network(SMALLEST)), _inside)

    assert row["worst_key"] == "shape" and row["failures"] > 0


class _Doubled(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images)
        return torch.cat([logits, logits])


def _inside(name: str) -> str:
    return official_name(name.removeprefix("network."))


def test_nothing_on_record_is_no_pass() -> None:
    assert not traces.passes([])
    assert traces.replay_anchors("cls_hrnet_unheard_of", nn.Linear(1, 1)) == []


def test_a_replay_sums_up_trace_and_anchor() -> None:
    rows = traces.replay(SMALLEST, build_network(SMALLEST))

    assert {row["phase"] for row in rows} == {*BOUNDS, "anchor cls_w18_small_v1"}
    assert all(row["network"] == SMALLEST and not row["failures"] for row in rows)
    assert sum(row["rows"] for row in rows) == len(load_trace(SMALLEST).rows) + 7
