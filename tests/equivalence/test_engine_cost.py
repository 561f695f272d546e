"""What the engine takes beside the two networks: memory (case E15) and CPU time."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from comparison.engine.examine import match
from comparison.engine.leader import BUDGET_MIB, Leader
from comparison.engine.sides import Batch, Side
from reference import store
from reference.pins import load_pins
from reproduction import UserError
from tests.equivalence.streams import against, failed, inputs, pair, run

LOCKSTEP_MIB, FILE_MIB = 0.25, 0.05  # the small network holds 0.19 MiB at once and makes 0.93
LOCKSTEP_LIMIT = 1.4  # times the CPU time of the two plain forward passes
LABELS = torch.tensor([0, 1, 2, 3])


def measured(what: str, network: str) -> list[float]:
    """Run `engine_cost` in a process of its own and return its numbers."""
    command = [sys.executable, "-m", "tests.equivalence.engine_cost", what, network]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not result.returncode, result.stderr
    return [float(number) for number in result.stdout.split()]


@pytest.mark.parametrize("budget_mib", [0.5, 0.05])
def test_e15_a_small_budget_gives_the_same_verdict_and_rows(budget_mib: float) -> None:
    def tenth_more_eps(net: torch.nn.Module) -> None:
        net.fuse.low[0].bn1.eps = 1.1e-5

    whole, parts = run(tenth_more_eps, steps=0), run(tenth_more_eps, steps=0, budget_mib=budget_mib)
    assert failed(whole) == failed(parts)
    assert [row.key for row in whole.rows] == [row.key for row in parts.rows]
    assert [row.difference for row in whole.rows] == [row.difference for row in parts.rows]
    assert [o.text for o in whole.origins] == [o.text for o in parts.origins]


def test_e15_a_tensor_larger_than_the_budget_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="raise budget_mib"):
        run(budget_mib=0.001)


def needs_official(network: str) -> None:
    """Skip, with a sentence, where the network's official code has not been fetched."""
    pins = load_pins()
    key = pins.network(network).repository
    if store.presence(pins.repository(key), store.OFFICIAL).state != "verified":
        pytest.skip(f"{key} is not there: python -m reference fetch --from PATH")


def leader_of(budget_mib: float) -> Leader:
    reference, _ = pair()
    side = Side(model=reference.double(), loss=F.cross_entropy)
    return Leader(side, [Batch(inputs().double(), LABELS)], budget_mib=budget_mib)


def test_lock_step_serves_what_outgrows_the_memory_while_both_sides_fit() -> None:
    assert leader_of(LOCKSTEP_MIB).in_lockstep
    assert not leader_of(BUDGET_MIB).in_lockstep
    assert not leader_of(FILE_MIB).in_lockstep  # two sides' activations at once would not fit


def test_lock_step_and_a_file_measure_the_same_noise_and_rows_as_memory() -> None:
    found = []
    for budget_mib in (LOCKSTEP_MIB, FILE_MIB, BUDGET_MIB):
        leader = leader_of(budget_mib)
        candidate = Side(model=pair()[1].double(), loss=F.cross_entropy)
        rows = match(leader, candidate).compare(train=False)
        found.append((leader.noise, leader.calibration, rows))
    assert found[0] == found[1] == found[2]
    assert max(found[0][0].values()) > 0


def test_a_network_that_draws_random_numbers_is_not_run_in_lock_step() -> None:
    reference, candidate = (torch.nn.Sequential(net, Noisy()) for net in pair())
    report = against(reference, candidate, steps=0, budget_mib=LOCKSTEP_MIB)
    assert report.mode("forward eval").outcome == "reproduced"
    leader = Leader(
        Side(model=reference.double()), [Batch(inputs().double())], budget_mib=LOCKSTEP_MIB
    )
    assert not leader.in_lockstep


def test_every_output_is_compared_in_lock_step() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = pair()[0].double()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.net(x)
            return y, y.softmax(1)

    leader = Leader(Side(model=Two()), [Batch(inputs().double())], budget_mib=LOCKSTEP_MIB)
    found = match(leader, Side(model=Two())).run_beside(train=False)
    assert leader.in_lockstep
    assert found.rows.keys() == found.shapes.keys()
    assert "output 1" in {key.part for key in found.rows}


class Noisy(torch.nn.Module):
    """Adds noise, in eval mode too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add noise to (B, C)."""
        return x + torch.rand_like(x)


@pytest.mark.full
@pytest.mark.parametrize("network", ["cls_hrnet_w48"])
def test_e15_w48_at_224_pixels_forward_and_backward_stays_within_the_budget(network: str) -> None:
    (plain,), (checked,) = measured("plain", network), measured("checked", network)
    print(f"{network}: plain {plain:.0f} MiB, checked {checked:.0f} MiB")
    assert checked - plain <= BUDGET_MIB


@pytest.mark.full
def test_e15_ocr_on_half_a_street_forward_stays_within_the_budget() -> None:
    network = "seg_hrnet_ocr_w48_cityscapes"
    needs_official(network)
    (plain,), (checked,) = measured("plain-forward", network), measured("checked-forward", network)
    print(f"{network}: plain {plain:.0f} MiB, checked {checked:.0f} MiB")
    assert checked - plain <= BUDGET_MIB


@pytest.mark.full
def test_lock_step_costs_at_most_two_fifths_more_than_two_plain_forward_passes() -> None:
    median, low, high = measured("lockstep", "cls_hrnet_w18")
    print(f"lock-step / plain: {median} [{low}, {high}]")
    assert median <= LOCKSTEP_LIMIT
