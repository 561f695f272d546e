"""The trial of the checker: its scores, its gates, and that a checker that sleeps fails them."""

from typing import Any

import pytest

from comparison.mutation import suite
from comparison.mutation.benches import make_benches
from comparison.mutation.operators_modules import module_faults
from comparison.mutation.trial import passes, told


def fault(**more: Any) -> dict[str, Any]:
    row = {"bench": "b", "kind": "fault", "name": "n", "family": "loss", "caught": True}
    row |= {
        "exact": True,
        "hops": 0,
        "phase_correct": True,
        "mode": "loss",
        "said": "",
        "wall_s": 1.0,
    }
    return row | more


def change(**more: Any) -> dict[str, Any]:
    row = {"bench": "b", "kind": "harmless", "name": "h", "family": "harmless", "caught": False}
    return row | {"mode": "", "said": "", "wall_s": 1.0} | more


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        ([fault(), change()], True),
        ([fault(), change(caught=True)], False),
        ([fault(), fault(caught=False, exact=False, hops=None)], False),
        ([fault()] * 8 + [fault(exact=False, hops=1)] * 2, False),
        ([fault()] * 49 + [fault(exact=False, hops=1)], True),
        ([], False),
    ],
)
def test_gates_need_detection_place_and_silence(rows: list[dict[str, Any]], holds: bool) -> None:
    assert passes(rows) is holds


def test_scores_count_by_family_and_survivors_are_listed() -> None:
    rows = [fault(), fault(family="fusion", exact=False, hops=3, name="odd"), change()]
    by_family = {row["family"]: row for row in suite.scores(rows)}
    assert by_family["all faults"]["exact"] == 0.5
    assert by_family["all faults"]["mean_hops"] == 1.5
    assert by_family["harmless"]["high"] > 0.9
    assert "missed or misplaced: odd" in told(rows)


def test_one_fault_is_caught_named_and_placed_and_the_clean_network_is_not() -> None:
    own, other = make_benches("cls_hrnet_w18_small_v1")
    for bench in (own, other):
        eps = next(f for f in module_faults(bench.candidate.model) if "eps" in f.name)
        row = suite.try_fault(bench, eps)
        assert row["caught"] and row["exact"] and row["phase_correct"], row
        assert "eps behaves as" in row["said"]
        assert row["wall_s"] < 120
    assert not suite.try_harmless(own, "nothing changed", own.candidate)["caught"]
