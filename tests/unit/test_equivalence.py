"""All modes are in the record, its verdict follows from its tables, the check has exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from comparison import __main__ as command_line
from comparison import equivalence, pairing, parameters, record
from comparison.engine.verdict import MODES
from tests.unit.toys import Ours, toy_pair

SMALLEST = "cls_hrnet_w18_small_v1"


def tables(**changed: Any) -> dict[str, list[dict[str, Any]]]:
    mode = {"mode": "forward eval", "outcome": "reproduced", "reason": "fine", "compared": 3}
    accuracy = {"mode": "accuracy", "outcome": "not run", "reason": "C8", "compared": 0}
    trace = {"phase": "forward", "failures": 0, "worst_key": "forward/conv1"}
    return {
        "modes": [{**mode, **changed.get("mode", {})}, accuracy],
        "traces": [{**trace, **changed.get("trace", {})}],
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
        ({"mode": {"outcome": "undecided", "reason": "few"}}, "undecided", "forward eval: few"),
        (
            {"mode": {"outcome": "within tolerance", "reason": "bits part"}},
            "within tolerance",
            "all 1 modes agree in 3 comparisons; forward eval: bits part",
        ),
    ],
)
def test_the_worst_mode_decides_or_a_recorded_trace(
    changed: dict[str, Any], outcome: str, reason: str
) -> None:
    verdict = equivalence.judge(tables(**changed))

    assert verdict["outcome"] == outcome and outcome in record.OUTCOMES
    assert reason in verdict["reason"]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> pairing.Pair:
    """Let every comparison be one of the two toys."""
    pair = toy_pair(3)
    monkeypatch.setattr(pairing, "pair_of", lambda settings: pair)
    monkeypatch.setattr(equivalence.traces, "replay", lambda network, model: [])
    return pair


def broken(pair: pairing.Pair) -> None:
    """Change one constant of one normalization."""
    assert isinstance(pair.reproduction.model, Ours)
    pair.reproduction.model.second.norm.eps = 1.1e-5


def made(steps: int = 3) -> dict[str, Any]:
    return equivalence.run(parameters.check("02_equivalence", {"steps": steps}))


def test_the_record_has_a_row_for_every_mode_and_step(toys: pairing.Pair) -> None:
    found = made()
    rows = {row["mode"]: row for row in found["tables"]["modes"]}

    assert list(rows) == list(MODES)
    outcomes = {row["outcome"] for row in rows.values()}
    assert outcomes <= {"reproduced", "within tolerance", "not run"}, rows
    assert (rows["accuracy"]["outcome"], "C8" in rows["accuracy"]["reason"]) == ("not run", True)
    assert rows["data path"]["compared"] == 512
    assert rows["static"]["notices"] == "the reference's recipe: a toy"
    assert 0 < rows["forward train"]["noise"] < 1e-12
    assert rows["backward"]["max_error"] < 1e-12 < 0.1 < rows["backward"]["compared"]
    assert [row["step"] for row in found["tables"]["steps"]] == [1, 2, 3]
    counts = [row["precision"] for row in found["tables"]["trajectory"]]
    assert (counts.count("float32"), counts.count("float64")) == (3, 9)
    assert found["run_id"] == f"{SMALLEST}.random.reference.steps3"
    assert found["verdict"]["outcome"] in ("reproduced", "within tolerance")
    json.dumps(found, allow_nan=False)


def test_the_record_keeps_counts_not_a_row_a_tensor(toys: pairing.Pair) -> None:
    found = made()["tables"]
    compared = {row["mode"]: row["compared"] for row in found["modes"]}

    for mode in ("forward eval", "backward"):
        counted = [r["tensors"] for r in found["noise"] if r["mode"] == mode]
        # every tensor in noise, deviation and margin, or once as an exact zero
        zeros = [r["tensors"] for r in found["noise"] if r["quantity"].startswith("zero")]
        exact = sum(zeros) if mode == "backward" else 0
        assert sum(counted) == 3 * (compared[mode] - exact) + exact
    assert {row["rewrite"] for row in found["calibration"]}
    assert {row["name"] for row in found["thresholds"]} >= {"relative", "noise_factor", "horizon"}


def test_a_fault_is_in_the_record_with_its_place_and_value(toys: pairing.Pair) -> None:
    broken(toys)
    found = made()

    assert found["verdict"]["outcome"] == "not reproduced"
    assert found["tables"]["findings"][0] == {
        "site": "bn2",
        "text": "eps is 1.1e-05, in the reference 1e-05",
    }
    origins = [origin for origin in found["tables"]["origins"] if origin["module"] == "bn2"]
    assert origins and all(origin["confirmed"] for origin in origins)
    json.dumps(found, allow_nan=False)


def test_shown_tables_are_those_of_the_record(toys: pairing.Pair) -> None:
    found = made(steps=1)

    assert list(equivalence.modes_table(found).index) == list(MODES)
    assert equivalence.layers_table(found).loc[1, "reference"] == "conv1"
    assert len(equivalence.calibration_table(found)) == 8


@pytest.mark.parametrize(("fault", "status", "said"), [(False, 0, ""), (True, 1, "bn2")])
def test_the_check_ends_with_0_or_1_and_names_the_place(
    toys: pairing.Pair, capsys: pytest.CaptureFixture[str], fault: bool, status: int, said: str
) -> None:
    if fault:
        broken(toys)
    assert command_line.main(["check", "--network", SMALLEST, "--steps", "1"]) == status

    told = capsys.readouterr().out
    assert SMALLEST in told and "M10 bitwise" in told and said in told
    assert ("where it begins" in told) is fault


class Nudged(Ours):
    """A sum that is off by more than its threshold and by less than any fault known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        streams = [F.relu(torch.add(self.second(x), x, alpha=1 + 1e-11)), x]
        total = self.paths[0](streams[0]) + self.paths[1](streams[1])
        return self.head(total.mean((2, 3)))


def test_the_check_ends_with_3_if_it_cannot_decide(
    toys: pairing.Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.reproduction.model.__class__ = Nudged
    assert command_line.main(["check", "--network", SMALLEST, "--steps", "1"]) == 3

    assert "weights: undecided" in capsys.readouterr().out


def test_the_report_is_saved_by_its_ending(
    toys: pairing.Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    arguments = ["check", "--network", SMALLEST, "--steps", "1", "--save", str(page)]

    assert command_line.main(arguments) == 0
    assert "<table" in page.read_text() and str(page) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--network", "cls_hrnet_w19"], "'cls_hrnet_w19' is unknown; use one of"),
        (["--network", SMALLEST, "--steps", "0"], "steps is 0"),
        (["--network", SMALLEST, "--against", "ours"], "against 'ours' is unknown"),
        (["--network", SMALLEST, "--against", "traces"], "'traces', which notebook 02 takes"),
        (["--network", "pose_hrnet_w32", "--against", "timm"], "timm has no network pose_hrnet"),
        (["--network", SMALLEST, "--weights-file", "gone.safetensors"], "does not exist"),
        (["--network", SMALLEST, "--save", "report.pdf"], "no known ending; use one of .json"),
        (["--network", SMALLEST, "--save", "gone/report.html"], "no such folder"),
    ],
)
@pytest.mark.reference
def test_what_cannot_be_checked_is_a_sentence_and_status_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["check", *arguments]) == 2

    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
