"""Tuning: interleaved, only what pays beyond doubt, whole or not at all."""

import doctest
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from comparison import tune
from comparison.__main__ import main
from comparison.statistics import Interval
from reproduction import UserError, forms
from reproduction.forms import EAGER, Form

FAST = Form(name="fast", gemm_limit=1)
ROW = {
    **{"network": "cls_hrnet_w18", "image_size": 32, "batch_size": 8, "precision": "float32"},
    **{"form": asdict(FAST), "measured": [{"form": "fast", "speedup": 1.2}], "rounds": 6},
}


def test_all_take_turns_and_what_drifts_cancels() -> None:
    order: list[str] = []
    drift = iter(range(1, 1000))

    def timed(step: Callable[[], Any]) -> Callable[[], float]:
        return lambda: step() * next(drift)

    def arm(name: str, seconds: float) -> Callable[[], float]:
        return lambda: order.append(name) or seconds

    steps = {"reference": arm("r", 3.0), "a": arm("a", 2.0), "b": arm("b", 3.0)}
    found = tune.speedups(steps, 7, timed)
    assert "".join(order) == "rabbar" * 7
    # Within a round the machine slows by equal amounts; there and back gives all the same share.
    assert found["a"] == Interval(value=1.5, low=1.5, high=1.5)
    assert found["b"] == Interval(value=1.0, low=1.0, high=1.0)


@pytest.mark.parametrize(
    ("low", "chosen"), [({"fast": 1.1}, FAST), ({"fast": 0.99}, EAGER)], ids=["pays", "doubtful"]
)
def test_only_a_form_that_pays_beyond_doubt_is_chosen(
    monkeypatch: pytest.MonkeyPatch, low: dict[str, float], chosen: Form
) -> None:
    monkeypatch.setattr(tune, "CANDIDATES", {"float32": (EAGER, FAST), "bfloat16": ()})
    monkeypatch.setattr(tune, "_step", lambda *_: None)
    found = {
        "eager": Interval(value=1.0, low=0.9, high=1.1),
        "fast": Interval(value=1.2, low=low["fast"], high=1.3),
    }
    monkeypatch.setattr(tune, "speedups", lambda *_: found)
    row = tune.tune("cls_hrnet_w18_small_v1", 32, 8)
    assert row["form"] == asdict(chosen)
    assert row["measured"][1] == {"form": "fast", "speedup": 1.2, "low": low["fast"], "high": 1.3}
    assert row["threads"] >= 1 and row["cpu"]


def test_products_are_tried_only_where_maps_are_small() -> None:
    limits = {size: [f.gemm_limit for f in tune.candidates("float32", size)] for size in (32, 224)}
    assert limits == {32: [0, 0, 0, 0, 1, 2, 4], 224: [0, 0, 0, 0]}


def test_rows_of_other_shapes_stay_and_the_order_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text(tune.HEAD)
    for size in (64, 32, 64):
        tune.write_row({**ROW, "image_size": size}, path)
    rows = forms.table_rows(path)
    assert [row["image_size"] for row in rows] == [32, 64]
    assert {**rows[0], "form": asdict(rows[0]["form"])} == ROW
    before = path.read_bytes()
    tune.write_row({**ROW, "image_size": 64}, path)
    assert path.read_bytes() == before


def test_a_table_that_cannot_be_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.toml"
    path.write_text(tune.HEAD)

    def full(self: Path, content: bytes) -> None:
        self.write_text(content.decode()[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"could not be written \(No space left"):
        tune.write_row(ROW, path)
    assert path.read_bytes() == tune.HEAD.encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--precision", "int8"], "precision 'int8' is unknown; use float32 or bfloat16"),
        (["--rounds", "5"], "rounds is 5; fewer than 6 have no 95 % interval"),
        (["--size", "40"], "40x40 runs in the reproduction only"),
    ],
)
def test_a_wrong_request_gets_a_sentence(
    wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["tune", "--network", "cls_hrnet_w18", "--size", "32", "--batch", "8", *wrong]
    assert main(given) == 2
    assert said in capsys.readouterr().err


def test_the_examples_in_the_docstrings_hold() -> None:
    done = doctest.testmod(tune)
    assert done.attempted > 0 and done.failed == 0
