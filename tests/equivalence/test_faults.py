"""Every fault is caught in its mode and at its site; no harmless rewrite raises an alarm."""

import pytest

from comparison.faults import FAULTS, HARMLESS, Fault, judge
from comparison.ladder import Leader
from comparison.pairing import Pair, random_batches, random_pair
from comparison.verdict import GRADIENT
from reference.record import one_thread

pytestmark = pytest.mark.reference
NAMED = {"ids": lambda fault: fault.name}


@pytest.fixture(scope="module")
def pair() -> Pair:
    return random_pair("cls_hrnet_w18_small_v1", steps=0)


@pytest.fixture(scope="module")
def leader(pair: Pair) -> Leader:
    with one_thread():
        return Leader(pair.reference, random_batches(2), keep_steps=True)


@pytest.mark.parametrize("fault", FAULTS, **NAMED)
def test_every_fault_is_caught_in_its_mode_at_its_site(
    fault: Fault, leader: Leader, pair: Pair
) -> None:
    with one_thread():
        row = judge(leader, pair.reproduction, fault)

    found, expected = (row["mode"], row["site"]), (fault.mode, fault.site)
    assert found == expected and row["static_seen"] is fault.static
    assert row["largest_error"] > 1000 * GRADIENT.bound


@pytest.mark.parametrize("rewrite", HARMLESS, **NAMED)
def test_no_harmless_rewrite_raises_an_alarm(rewrite: Fault, leader: Leader, pair: Pair) -> None:
    with one_thread():
        row = judge(leader, pair.reproduction, rewrite)

    assert not row["caught"], f"{row['mode']}: {row['site']}"
    assert row["largest_error"] < GRADIENT.bound / 10


@pytest.mark.full
@pytest.mark.parametrize("fault", (*FAULTS, *HARMLESS), **NAMED)
def test_the_same_holds_for_a_network_with_several_blocks_a_stage(fault: Fault) -> None:
    pair = random_pair("cls_hrnet_w18_small_v2", steps=2, seed=1)
    with one_thread():
        leader = Leader(pair.reference, pair.batches, keep_steps=True)
        row = judge(leader, pair.reproduction, fault)

    assert bool(row["mode"]) is bool(fault.mode) and row["mode"] == fault.mode
