"""The table of runtimes: who is chosen, what new timings replace, and how turns are taken."""

import tomllib
from pathlib import Path

import pytest
import torch

from comparison.study import ROOT
from reproduction.runtime_choice import choose, interleaved, main, text_of, updated
from reproduction.runtimes import chosen

IMAGES = torch.zeros(2, 3, 32, 32)


def test_the_least_slow_over_all_cases_is_chosen() -> None:
    cases = [{"a": 1.0, "b": 1.1}, {"a": 1.5, "b": 1.0}]
    rows = [{"precision": "float32", "times_best": ratios} for ratios in cases]

    assert choose(rows) == {"float32": "b"}
    assert '\nfloat32 = "b"\n' in text_of(rows)
    rows[0]["times_best"] = {"a": 1.0}  # b was not timed there
    assert choose(rows) == {"float32": "a"}


def test_new_timings_take_the_place_of_those_of_their_case_and_precision() -> None:
    rows = tomllib.loads((ROOT / "reproduction" / "runtimes.toml").read_text("utf-8"))["measured"]
    slower = {**rows[0]["times_best"], "openvino": 99.0}
    new = {**rows[0], "times_best": slower, "processor": "another"}
    lacking = {**rows[-1], "ms": {"eager": 1.0}, "times_best": {"eager": 1.0}}
    found = tomllib.loads(text_of(updated(rows, [new, lacking])))

    assert found["measured"] == [new, *rows[1:]]  # a machine that lacks a runtime changes nothing
    assert found["chosen"]["float32"] == "onnxruntime"
    assert found["chosen"]["bfloat16"] == chosen("bfloat16")


def test_turns_are_taken_forwards_and_backwards() -> None:
    order: list[str] = []
    work = {name: lambda _, name=name: order.append(name) for name in "ab"}
    taken = interleaved(work, IMAGES, 2)

    assert "".join(order) == "ab" + "abba" * 2
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 4, "b": 4}


def test_a_damaged_table_is_a_sentence_before_anything_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "runtimes.toml"
    for text in ("damaged =", "[chosen]\n"):
        table.write_text(text)
        assert main(["--out", str(table)]) == 2
        assert f"{table} is damaged" in capsys.readouterr().err
        assert table.read_text() == text
