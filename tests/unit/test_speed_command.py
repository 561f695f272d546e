"""The command `benchmark`: a user's mistake is one sentence, a tiny run prints what it measured."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from comparison.__main__ import main
from comparison.speed import case, command, contenders, measure, memory
from comparison.speed.contenders import CannotRun, Setup
from comparison.study import ROOT
from reproduction import UserError
from tests.synthetic_speed import LATENCY, TRAINING, timed

SMALL = "--network cls_hrnet_w18_small_v1 --size 32 --batch 2"


def told(capsys: pytest.CaptureFixture[str], given: str) -> str:
    """Run the command on a mistake and return its sentence."""
    assert main(["benchmark", *given.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--network resnet50", "network 'resnet50' is unknown; use one of cls_hrnet_w18_small_v1"),
        (f"{SMALL} --arms reference,mxnet", "arm 'mxnet' is unknown; use some of reference, timm"),
        (f"{SMALL} --arms fast,fast", "name each arm once"),
        (f"{SMALL} --arms ,", "arms are none; name each arm once, one at least"),
        ("--network cls_hrnet_w18 --size big", "--size 'big' is no size; give 224, or 256x192"),
        ("--network cls_hrnet_w18 --size 1x2x3", "--size '1x2x3' is no size"),
        ("--network cls_hrnet_w18 --size 100", "100x100 runs in the reproduction only"),
        (f"{SMALL} --task guessing", "task 'guessing' is unknown; use one of inference, training"),
        (f"{SMALL} --precision half", "precision 'half' is unknown; use one of float32, bfloat16"),
        (f"{SMALL} --rounds 0", "--rounds is 0; give at least 1"),
        (f"{SMALL} --batch 0", "--batch is 0; give at least 1"),
        (f"{SMALL} --threads -1", "--threads is -1"),
        (f"{SMALL} --device tpu", "device 'tpu' is unknown"),
        (f"{SMALL} --save times.csv", "times.csv has no known ending; use one of .json, .txt"),
        (f"{SMALL} --save nowhere/times.txt", "no such folder"),
        (f"{SMALL} --batch 1 --task training", "leaves one value a channel to normalize over"),
        (
            "--network pose_hrnet_w32 --task training",
            "training of pose_hrnet_w32 cannot be timed: use a network for classification",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    given: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in told(capsys, given)


@pytest.mark.parametrize(
    ("arm", "setup", "why"),
    [
        ("deploy", TRAINING, "is for inference"),
        ("onnxruntime", TRAINING, "onnxruntime is for inference; for training time fast"),
        ("fast", LATENCY, "the fast form is one of training"),
        ("cuda", LATENCY, "cuda does not run on the device 'cpu'"),
        ("deploy", replace(LATENCY, device="mps"), "openvino does not run on the device 'mps'"),
        ("folded", replace(LATENCY, device="cuda"), "eager does not run on the device 'cuda'"),
        ("fast", replace(TRAINING, image_size=(32, 64)), "has none for this input"),
    ],
)
def test_arms_that_cannot_run_say_why(arm: str, setup: Setup, why: str) -> None:
    with pytest.raises(CannotRun, match=why):
        contenders.make(arm, setup)


def test_a_runtime_that_fails_leaves_the_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **named: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(contenders.runtimes, "load", broken)
    setup = replace(LATENCY, network="cls_hrnet_w18_small_v1", image_size=(32, 32), threads=1)
    timed = measure.measure(setup, ["openvino", "reproduction"], rounds=1)
    assert timed.absent == {"openvino": "openvino failed: RuntimeError: no kernel"}
    assert list(timed.made) == ["reproduction"] and len(timed.rounds) == 1
    # Nor is it asked for its errors, behind all timing.
    monkeypatch.setattr(case.errors, "of_inference", lambda setup, arms: [arms])
    given = SimpleNamespace(weights_file="")
    assert case.error_tables(timed, ["openvino", "reproduction"], given)["errors"] == []


def test_bfloat16_needs_a_cpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders.machine, "features", lambda: ["avx2"])
    setup = Setup(
        network="cls_hrnet_w18",
        task="inference",
        image_size=(32, 32),
        batch_size=2,
        precision="bfloat16",
    )
    with pytest.raises(CannotRun, match="does not compute in bfloat16"):
        contenders.make("folded", setup)


def test_a_size_is_one_side_or_two() -> None:
    assert command._size("", "pose_hrnet_w32") == (256, 192)
    assert command._size("128", "pose_hrnet_w32") == (128, 96)
    assert command._size("64x96", "pose_hrnet_w32") == (64, 96)


def test_a_ratio_that_cannot_be_told_is_not_printed() -> None:
    found = timed(LATENCY, {"reproduction": 1.31, "deploy": 2.6}, spread=0.25)
    rows = command.speed_rows(found)
    peaks = [{**memory.not_measured(row["arm"], "here"), "peak_mib": 400.0} for row in rows]
    text = command.text_of(found, rows, peaks)
    (ours,) = [line for line in text.splitlines() if line.startswith("reproduction  ")]
    assert "no statement" in ours and "1.31" not in ours
    (deployed,) = [line for line in text.splitlines() if line.startswith("deploy  ")]
    assert "x2.60" in deployed and "400" in deployed
    assert "deploy: reproduced: x2.60" not in text  # the interval begins below the aim
    assert "deploy: within tolerance: x2.60 [2.35, 2.85] against x2.5" in text


@pytest.mark.full
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    setup = Setup(
        network="cls_hrnet_w18_small_v1", task="inference", image_size=(32, 32), batch_size=2
    )
    row = memory.measure("reproduction", setup)
    assert row["status"] == "ran"
    assert 100 < row["start_mib"] <= row["making_mib"]
    absent = memory.measure("cuda", setup)
    assert absent["status"] == "not run: cuda does not run on the device 'cpu'"
    assert absent["peak_mib"] is None


@pytest.mark.full
def test_the_peak_is_that_of_the_run_in_a_confined_job_too(tmp_path: Path) -> None:
    """What a step keeps for its gradients is more than what the network itself takes."""
    setup = Setup(
        network="cls_hrnet_w18_small_v1", task="training", image_size=(64, 64), batch_size=64
    )
    code = (
        "import sys, json; from comparison.speed import memory; from comparison.speed.contenders "
        f"import Setup; print(json.dumps(memory.measure('reproduction', {setup!r})))"
    )
    confined = [sys.executable, "-IS", "reference/confinement.py", str(tmp_path), "--"]
    done = subprocess.run(
        [*confined, sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["peak_mib"] > row["making_mib"] + 300


def test_a_tiny_run_prints_and_saves_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        memory, "measure", lambda arm, setup: memory.not_measured(arm, "not in this test")
    )
    target = tmp_path / "times.json"
    given = f"{SMALL} --arms reproduction,folded,fast,cuda --rounds 2 --threads 1 --save {target}"
    assert main(["benchmark", *given.split()]) == 0
    out = capsys.readouterr().out
    assert "cls_hrnet_w18_small_v1, inference, 32x32, batch 2: 2 interleaved rounds on cpu" in out
    assert "fast: not run: the fast form is one of training" in out
    saved = json.loads(target.read_text())
    assert [row["arm"] for row in saved["speed"]] == ["reproduction", "folded", "fast", "cuda"]
    assert all(row["ms"] > 0 for row in saved["speed"][:2])
    assert saved["speed"][0]["statement"] == "no statement: the reference did not run"
    assert len(saved["rounds"]) == 2 and saved["provenance"]["threads"] == 1


def test_an_unknown_arm_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UserError, match="arm 'x' is unknown"):
        contenders.check(LATENCY, ["reference", "x"])
