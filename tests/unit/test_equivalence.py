"""The record's verdict follows from its tables; the command line gets a table and a status."""

from typing import Any

import pytest

from comparison import equivalence, pairing, record
from comparison.sides import Side
from reproduction import UserError

SMALLEST = "cls_hrnet_w18_small_v1"


def tables(**changed: Any) -> dict[str, list[dict[str, Any]]]:
    mode = {"mode": "forward eval", "outcome": "reproduced", "reason": "fine", "compared": 3}
    trace = {"phase": "forward", "failures": 0, "worst_key": "forward/conv1"}
    return {
        "modes": [{**mode, **changed.get("mode", {})}],
        "traces": [{**trace, **changed.get("trace", {})}],
        "faults": [{"fault": "eps", "as_expected": True, **changed.get("fault", {})}],
    }


@pytest.mark.parametrize(
    ("changed", "outcome", "reason"),
    [
        ({}, "reproduced", "all 1 modes agree in 3 comparisons"),
        (
            {"mode": {"outcome": "not reproduced", "reason": "conv1 differs"}},
            "not reproduced",
            "forward eval: conv1 differs",
        ),
        ({"trace": {"failures": 1}}, "not reproduced", "forward differs at forward/conv1"),
        ({"fault": {"as_expected": False}}, "undecided", "went wrong on: eps"),
        ({"mode": {"outcome": "within tolerance"}}, "reproduced", "all 1 modes agree"),
    ],
)
def test_a_difference_decides_and_a_missed_fault_leaves_it_undecided(
    changed: dict[str, Any], outcome: str, reason: str
) -> None:
    verdict = equivalence.judge(tables(**changed))

    assert verdict["outcome"] == outcome and outcome in record.OUTCOMES
    assert reason in verdict["reason"]


@pytest.mark.reference
def test_the_check_passes_with_status_0() -> None:
    text, status = equivalence.check(SMALLEST, steps=1)

    assert status == 0
    assert SMALLEST in text and text.count("reproduced") == 7 and "not reproduced" not in text


@pytest.mark.reference
def test_the_check_fails_with_status_1_and_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = pairing.random_pair

    def with_a_fault(network: str, steps: int, seed: int = 0) -> pairing.Pair:
        pair = healthy(network, steps, seed)
        assert isinstance(pair.reproduction, Side)
        norm = pair.reproduction.model.get_submodule("backbone.stage2.0.streams.0.1.unit2.norm")
        norm.eps = 1.1e-5
        return pair

    monkeypatch.setattr(pairing, "random_pair", with_a_fault)
    text, status = equivalence.check(SMALLEST, steps=1)

    assert status == 1
    assert "stage2.0.branches.0.1.bn2: eps is 1.1e-05, in the reference 1e-05" in text
    assert "the first is stage2.0.branches.0.1.bn2 (output)" in text


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"network": "cls_hrnet_w19"}, "cls_hrnet_w19"),
        ({"network": SMALLEST, "steps": 0}, "steps is 0"),
        ({"network": SMALLEST, "weights_file": "gone.safetensors"}, "does not exist"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        equivalence.check(**given)


def test_shown_tables_are_those_of_the_record() -> None:
    mode = {"outcome": "reproduced", "reason": "", "compared": 1, "bit_equal": 1}
    shown = {
        "tables": {
            "modes": [{"mode": "static", "max_error": 0.0, "bound": 0.0, **mode}],
            "layers": [{"depth": 1, "reference": "conv1"}],
            "faults": [],
        }
    }

    assert list(equivalence.modes_table(shown).index) == ["static"]
    assert equivalence.layers_table(shown).loc[1, "reference"] == "conv1"
    assert equivalence.faults_table(shown).empty
