"""The record of a timing: its tables, its verdict, its place in a study."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from comparison.parameters import check
from comparison.speed import case, errors, machine, work
from comparison.speed.contenders import Setup, make
from comparison.study import ROOT
from comparison.timing_plan import SpeedRun, speed_run_id
from reproduction import UserError, network_config
from tests.synthetic_speed import LATENCY, TRAINING, timed

SMALL = Setup(network="cls_hrnet_w18_small_v1", task="inference", image_size=(32, 32), batch_size=2)


def test_operators_are_grouped_and_their_shares_sum_to_one() -> None:
    rows = work.operators("reproduction", make("reproduction", SMALL).work, calls=1)
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    by_group = {row["operator"]: row for row in rows}
    assert rows[0]["operator"] == "convolution"
    assert by_group["batch norm"]["calls"] > 0 and by_group["upsampling"]["ms"] > 0


def test_a_disturbed_call_does_not_decide_where_the_time_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def event(key: str, microseconds: float) -> SimpleNamespace:
        return SimpleNamespace(key=key, self_cpu_time_total=microseconds, count=1)

    calls = iter([(10.0, 1.0), (10.0, 500.0), (12.0, 1.0)])  # the optimizer was held up once

    def profiled(*_: object, **__: object) -> list[SimpleNamespace]:
        convolution, update = next(calls)
        return [event("aten::conv2d", convolution), event("aten::_fused_sgd_", update)]

    monkeypatch.setattr(work, "_profiled", profiled)
    rows = {row["operator"]: row for row in work.operators("fast", lambda: None)}
    assert rows["convolution"]["ms"] == 0.012 and rows["optimizer"]["ms"] == 0.001
    assert work.group_of("aten::addcmul") == "batch norm"


def test_errors_are_measured_on_the_cpu_whatever_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = SimpleNamespace(cpu=lambda: torch.zeros(2, 3, 32, 32))
    monkeypatch.setattr(errors, "example", lambda setup: (on_gpu, None))
    asked = []

    def found(model: nn.Module, images: torch.Tensor, forms: list[Any]) -> list[Any]:
        asked.extend([images.shape, *map(str, forms)])
        return []

    monkeypatch.setattr(errors.deployed, "output_errors", found)
    assert errors.of_inference(replace(SMALL, device="cuda"), ["deploy", "reference"])
    assert asked == [(2, 3, 32, 32), "cuda float32"]


def test_counted_work_is_that_of_the_published_convention() -> None:
    counted = work.convolutions("cls_hrnet_w18", (224, 224), batch_size=2)
    linear = 2048 * 1000
    assert counted["flops"] / 4 == pytest.approx(3.9894 * 2**30 - linear, rel=1e-4)
    assert counted["bytes"] > 4 * 21e6  # the weights alone


def test_layers_lie_below_an_infinite_roof_and_have_names() -> None:
    points = work.layer_points("reproduction", make("reproduction", SMALL).work, calls=1)
    assert {point["kind"] for point in points} == {"layer"}
    first = next(point for point in points if point["name"] == "2x3x32x32 to 64, 3x3")
    operations = 2 * 2 * 16 * 16 * 64 * 27
    moved = 4 * (2 * 3 * 32 * 32 + 64 * 27 + 2 * 64 * 16 * 16)
    assert first["intensity"] == pytest.approx(operations / moved)
    assert first["gflops"] == pytest.approx(operations / first["ms"] / 1e6)


def test_limits_are_rates_of_dense_convolutions_and_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "DENSE", ((1, 8, 6, 8, 3),))
    monkeypatch.setattr(machine, "STREAM_ELEMENTS", 1024)
    rows = machine.limits("float32", torch.device("cpu"))
    assert [row["limit"] for row in rows] == ["convolution", "convolution", "memory"]
    assert all(row["gflops"] > 0 for row in rows[:2]) and rows[2]["gbytes_per_s"] > 0


@pytest.mark.parametrize(
    ("setup", "ratios", "claims", "outcome"),
    [
        (TRAINING, {"reproduction": 1.0, "fast": 1.8}, ["C10", "C16"], "reproduced"),
        (TRAINING, {"fast": 1.2}, ["C16"], "not reproduced"),
        (LATENCY, {"reproduction": 1.0, "deploy": 2.6}, ["C10", "C17"], "reproduced"),
        (LATENCY, {"timm": 1.0}, [], "not run"),
    ],
)
def test_a_record_has_the_verdict_of_its_worst_arm(
    setup: Setup, ratios: dict[str, float], claims: list[str], outcome: str
) -> None:
    rows = case.speed_rows(timed(setup, ratios))
    assert case.claims_of(rows) == claims
    found = case.judge(rows, (0.1, 3.0))
    expected = "within tolerance" if "reproduction" in ratios else outcome
    assert found["outcome"] == expected
    assert found["reason"].endswith(f"(load 3.0 on {machine.described()['cores']} cores)")


def test_a_notebooks_settings_and_a_studys_run_have_one_name() -> None:
    given = {"task": "training", "image_size": 32, "batch_size": 4, "rounds": 1}
    settings = check("04_speed", given)
    run = SpeedRun(
        network=settings.network, task="training", image_size=32, batch_size=4, precision="float32"
    )
    name = "cls_hrnet_w18_small_v1.training.32.b4.float32"
    assert speed_run_id(settings) == speed_run_id(run) == name


def test_a_wrong_task_or_arm_in_the_notebook_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="task 'pose' is unknown; use one of inference, training"):
        check("04_speed", {"task": "pose"})
    with pytest.raises(UserError, match="arm 'theirs' is unknown"):
        case.run(check("04_speed", {"arms": "theirs"}))


def test_a_run_records_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DENSE", ((1, 8, 6, 8, 3),))
    monkeypatch.setattr(machine, "STREAM_ELEMENTS", 1024)
    monkeypatch.setattr(
        case.memory, "measure", lambda arm, setup: case.memory.not_measured(arm, "in this test")
    )
    given = {"image_size": 32, "batch_size": 2, "rounds": 1, "device": "cpu"}
    record = case.run(check("04_speed", {**given, "arms": "timm,reproduction,fast,deploy"}))

    tables = record["tables"]
    assert [row["arm"] for row in tables["speed"]] == ["timm", "reproduction", "fast", "deploy"]
    assert tables["speed"][2]["status"].startswith("not run: the fast form is one of training")
    assert len(tables["rounds"]) == 1 and tables["operators"] and tables["limits"]
    assert {row["kind"] for row in tables["roofline"]} == {"network", "layer"}
    assert record["verdict"]["outcome"] == "not run"  # nothing to compare with
    checked = {row["form"]: row for row in tables["errors"]}  # aims or not
    assert set(checked) == {"folded", "openvino"}
    assert checked["openvino"]["reason"] and checked["folded"]["verdict"] == "reproduced"
    about = record["subject"]
    table = hashlib.sha256((ROOT / "reproduction" / "runtimes.toml").read_bytes()).hexdigest()
    assert about["decided"] == {"deploy": {"table_sha256": table}}
    assert about["published_top1_error"] == "27.7" and about["image_size"] == [32, 32]
    assert record["run_id"] == "cls_hrnet_w18_small_v1.inference.32.b2.float32"
    assert network_config(about["network"]).image_size == (224, 224)
