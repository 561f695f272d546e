"""The trial of the checker: its scores, its gates, and where a place is right."""

from typing import Any

import pytest

from comparison.engine.verdict import Origin
from comparison.mutation import scoring
from comparison.mutation.plan import PLANS
from comparison.mutation.scoring import Named, Row, failed_gates, named_first, scores, survivors
from comparison.mutation.trial import Trial, plan_named, told
from reproduction import UserError


def fault(**more: Any) -> Row:
    row = {
        **{"bench": "b", "kind": "fault", "name": "n", "family": "loss", "caught": True},
        **{"exact": True, "first_end": True, "hops": 0, "phase_correct": True, "inside": False},
        **{"mode": "loss", "site": "here", "truth": "there", "expected_modes": "loss"},
        **{"said": "", "cpu_s": 1.0},
    }
    return row | more


def change(**more: Any) -> Row:
    row = {"bench": "b", "kind": "harmless", "name": "h", "family": "harmless", "caught": False}
    return row | {"mode": "", "said": "", "cpu_s": 1.0} | more


@pytest.mark.parametrize(
    ("rows", "failing"),
    [
        ([fault(), change()], ""),
        ([fault(), change(caught=True)], "1 alarms on 1"),
        ([fault(), fault(caught=False, exact=False), change()], "50.0% of the faults caught"),
        ([fault()] * 8 + [fault(exact=False)] * 2 + [change()], "80.0% localized exactly"),
        ([fault()] * 49 + [fault(exact=False), change()], ""),
        ([fault()], "no fault or no harmless candidate"),
        ([], "no fault or no harmless candidate"),
    ],
)
def test_gates_need_detection_place_and_silence(rows: list[Row], failing: str) -> None:
    assert failing in "; ".join(failed_gates(rows))
    assert bool(failed_gates(rows)) is bool(failing)


def test_an_unnoticed_mutant_of_the_checker_fails_the_gate() -> None:
    seen = {"mutant": "sleeps", "noticed": False}
    assert failed_gates([fault(), change()], [seen]) == [
        "this mutant of the checker went unnoticed: sleeps"
    ]


def test_scores_count_by_family_and_inside_the_network() -> None:
    odd = fault(family="fusion", exact=False, hops=3, inside=True, cpu_s=3.0)
    found = {row["group"]: row for row in scores([fault(), odd, change()])}
    assert found[scoring.ALL]["exact"] == 0.5
    assert found[scoring.ALL]["mean_hops"] == 1.5
    assert (found[scoring.ALL]["mean_s"], found[scoring.ALL]["max_s"]) == (2.0, 3.0)
    assert found[scoring.INSIDE]["exact"] == 0.0
    assert found["harmless"]["high"] > 0.9
    by_bench = {row["group"] for row in scores([fault(), odd, change()], by="bench")}
    assert by_bench == {scoring.ALL, scoring.INSIDE, "harmless", "b", "b: harmless"}


def test_every_survivor_has_its_reason() -> None:
    rows = [
        fault(),
        fault(caught=False, exact=False),
        fault(exact=False, hops=3),
        change(caught=True, mode="loss", said="odd"),
    ]
    assert [row["reason"] for row in survivors(rows)] == [
        "missed: no mode differs, loss should",
        "misplaced: here is named, 3 operations away from there",
        "false alarm in loss: odd",
    ]
    text = told(Trial(rows=rows))
    assert "missed: no mode differs" in text and "gate: " in text


def origin(**more: Any) -> Origin:
    given = {"mode": "loss", "site": "s", "module": "m", "candidate": "", "kind": "layer"}
    return Origin(**{**given, "difference": 1.0, "text": "", **more})


def test_what_is_named_first_is_an_edge_a_module_or_a_finding() -> None:
    edge = named_first([], [origin(places=("a (add)", "b (relu)")), origin()], ["x"])
    assert edge.places == ("a (add)", "b (relu)")
    assert named_first([], [origin(kind="loss")], []).modules == ("loss",)
    assert named_first([], [origin(module="optimizer")], []).modules == ("optimizer",)
    assert named_first([], [], ["conv1 (conv2d)", "other"]) == Named(
        places=("conv1 (conv2d)",), site="conv1 (conv2d)"
    )
    assert named_first([], [], ["bn1.weight"]).modules == ("bn1.weight",)
    assert named_first([], [], []) == Named()


def test_the_full_plan_is_what_was_asked_for() -> None:
    settings = PLANS["full"].settings
    assert sum(setting.faults for setting in settings) >= 150
    assert sum(setting.changes for setting in settings) >= 100
    assert len({setting.network for setting in settings}) >= 2
    assert len({(setting.image_size, setting.batch_size) for setting in settings}) >= 2
    assert len({setting.seed for setting in settings}) == len(settings)
    assert PLANS["full"].checkers is None
    with pytest.raises(UserError, match="plan 'half' is unknown"):
        plan_named("half")
