"""DEVIATIONS.md, the statements and the recorded table have the same numbers; faults show."""

import re
from typing import Any

import pytest

from comparison import differences
from comparison.effects.subjects import Effect, Subjects
from comparison.parameters import check
from comparison.study import ROOT

HEADING = re.compile(r"^## (D\d+) (.+)$", re.MULTILINE)
HOLDS = Effect(what="w", value=1.0, unit="u", holds=True)
UNMEASURED = {
    *("D14", "D15", "D35", "D36", "D38", "D39"),
    *("D40", "D41", "D42", "D43", "D45", "D46", "D47", "D48"),
}
FAILS = Effect(what="w", value=1.0, unit="u", holds=False)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return differences.run(check("05_differences", {}))


def prose() -> dict[str, str]:
    """Return the text of each section of DEVIATIONS.md, by D-number."""
    text = (ROOT / "DEVIATIONS.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (D\d+) ", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_prose_and_table_have_the_same_numbers_and_titles(record: dict[str, Any]) -> None:
    text = (ROOT / "DEVIATIONS.md").read_text(encoding="utf-8")
    recorded = [(row["id"], row["title"]) for row in record["tables"]["differences"]]

    assert HEADING.findall(text) == recorded


def test_numbers_run_from_one_without_a_gap() -> None:
    numbers = list(differences.statements())

    assert numbers == [f"D{n}" for n in range(1, len(numbers) + 1)]


def test_what_the_prose_calls_measured_is_measured(record: dict[str, Any]) -> None:
    told = {number for number, text in prose().items() if "*Measured:*" in text}
    rows = record["tables"]["differences"]
    measured = {row["id"] for row in rows if not row["effect"].startswith("not measured")}

    assert told == measured == {entry["name"] for entry in record["measurements"]}
    assert all("*Measured:*" in text or "*Not measured.*" in text for text in prose().values())


@pytest.mark.parametrize("column", ["title", "paper", "reference", "reproduction", "source"])
def test_every_statement_is_complete(column: str) -> None:
    assert all(statement[column] for statement in differences.statements().values())


def test_every_difference_is_as_documented(record: dict[str, Any]) -> None:
    verdicts = {row["id"]: row["verdict"] for row in record["tables"]["differences"]}

    assert record["verdict"]["outcome"] == "explained difference", record["verdict"]["reason"]
    others = {n: outcome for n, outcome in verdicts.items() if outcome != "explained difference"}
    official = {"D20": "not run"} if others.get("D20") else {}  # where the official code is absent
    assert others == {
        **dict.fromkeys(UNMEASURED, "not comparable"),
        **official,
    }
    assert len(record["tables"]["sizes"]) == 9 and len(record["tables"]["schedule"]) == 3


@pytest.mark.parametrize(
    ("effect", "outcome"),
    [(HOLDS, "explained difference"), (FAILS, "not reproduced"), (None, "not comparable")],
)
def test_verdict_of_one_difference(effect: Effect | None, outcome: str) -> None:
    row = differences.row("D1", differences.statements()["D1"], effect)

    assert row["verdict"] == outcome
    assert row["effect"] == ("w" if effect else "not measured")


def test_what_is_not_measured_says_why() -> None:
    told = [differences.row(n, s, None)["effect"] for n, s in differences.statements().items()]

    assert {n for n, s in differences.statements().items() if "unmeasured" in s} == UNMEASURED
    assert "not measured: needs ImageNet" in told


def test_what_this_machine_cannot_measure_is_not_run() -> None:
    absent = Effect(what="not run: it is not there", value=None, unit="", holds=True)

    assert differences.row("D1", differences.statements()["D1"], absent)["verdict"] == "not run"


def test_one_statement_that_no_longer_holds_fails_the_record() -> None:
    statement = differences.statements()["D1"]
    rows = [differences.row(f"D{n}", statement, e) for n, e in enumerate((HOLDS, FAILS, None), 1)]

    assert differences.judge(rows) == {
        "outcome": "not reproduced",
        "reason": "no longer as documented: D2",
    }


def test_only_numbers_that_exist_are_measured() -> None:
    measurable = differences.measurable(Subjects("cls_hrnet_w18_small_v1", 0), [], [])

    assert set(measurable) <= set(differences.statements())
