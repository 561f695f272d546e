"""Folding, exporting and running networks for prediction; no form may change what is predicted."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from torch import nn

from reproduction import UserError, build_network
from reproduction.deploy import DeployForm, fold
from reproduction.export import export_onnx, main, weights_sha256
from reproduction.runtimes import (
    PRECISIONS,
    RUNTIMES,
    Predict,
    chosen,
    deploy,
    load,
    load_file,
    unavailable,
)

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ROOT = Path(__file__).parents[2]


def network(name: str) -> nn.Module:
    """Build a network whose running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    model = build_network(name, num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def tiny() -> nn.Module:
    torch.manual_seed(0)
    pair = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Sequential(*pair), nn.ReLU(), nn.Conv2d(4, 2, 1))
    nn.init.uniform_(model[0][1].running_var, 0.5, 2.0)
    nn.init.uniform_(model[0][1].running_mean, -0.5, 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the tiny network once; the exporter takes seconds to start."""
    return export_onnx(tiny(), IMAGES, tmp_path_factory.mktemp("onnx") / "a.onnx", network="tiny")


def prepared(runtime: str, exported: Path) -> Predict:
    if runtime == "eager":
        return load(tiny(), IMAGES, runtime)
    return load_file(exported, IMAGES, runtime, threads=2)  # one image for each thread


def close(model: nn.Module, predict: Callable[[torch.Tensor], torch.Tensor], bound: float) -> bool:
    with torch.inference_mode():
        truth = model.double()(IMAGES.double())
    return float((predict(IMAGES) - truth).norm() / truth.norm()) < bound


@pytest.mark.parametrize(
    "name",
    [
        "cls_hrnet_w18_small_v1",
        "seg_hrnet_w18_small_v1_cityscapes",
        pytest.param("pose_hrnet_w32", marks=pytest.mark.full),
        pytest.param("face_hrnet_w18_wflw", marks=pytest.mark.full),
        pytest.param("det_hrnetv2p_w18", marks=pytest.mark.full),
        pytest.param("seg_hrnet_ocr_w48_lip", marks=pytest.mark.full),
    ],
)
def test_a_folded_network_computes_the_same(name: str) -> None:
    model = network(name).double()
    form = fold(model, "float64")
    images = torch.nn.functional.interpolate(IMAGES.double(), size=64)  # the least for a pyramid
    with torch.inference_mode():
        theirs, ours = model(images), form(images)
    pairs = [(theirs, ours)] if isinstance(theirs, torch.Tensor) else zip(theirs, ours, strict=True)

    assert not any(isinstance(m, nn.BatchNorm2d) for m in form.modules())
    assert all(float((a - b).norm() / a.norm()) < 1e-12 for a, b in pairs)


def test_the_original_stays_as_it_is() -> None:
    model = tiny()
    before = weights_sha256(model)
    fold(model)

    assert weights_sha256(model) == before
    assert isinstance(model[0][1], nn.BatchNorm2d)


def test_a_form_in_bfloat16_takes_and_gives_float32() -> None:
    form = fold(tiny(), "bfloat16")

    assert next(form.parameters()).dtype == torch.bfloat16
    assert form(IMAGES).dtype == torch.float32
    assert close(tiny(), form, 2e-2)


def test_a_form_cannot_be_trained() -> None:
    with pytest.raises(UserError, match="cannot be trained"):
        fold(tiny()).train()


def shared() -> nn.Module:
    conv = nn.Conv2d(3, 3, 1)
    parts = (nn.Sequential(conv, nn.BatchNorm2d(3)) for _ in range(2))
    return nn.Sequential(*parts)


UNFOLDABLE = {
    "no convolution before it": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
    "statistics of the batch": lambda: nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
    ),
    "one convolution, two normalizations": shared,
    "something between": lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
}


@pytest.mark.parametrize("case", UNFOLDABLE)
def test_what_cannot_be_folded_is_refused(case: str) -> None:
    with pytest.raises(UserError, match=r"cannot be folded, the first is '\d"):
        fold(UNFOLDABLE[case]())


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="precision 'half' is unknown"):
        fold(tiny(), "half")


def test_a_file_says_what_it_holds_and_takes_any_batch(exported: Path) -> None:
    proto = onnx.load(exported)
    facts = {entry.key: entry.value for entry in proto.metadata_props}

    assert facts["network"] == "tiny"
    assert facts["weights_sha256"] == weights_sha256(fold(tiny()))
    assert facts["opset"] == str(proto.opset_import[0].version)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert list(exported.parent.iterdir()) == [exported]


@pytest.mark.full
def test_a_file_can_have_one_batch_size(tmp_path: Path) -> None:
    proto = onnx.load(export_onnx(tiny(), IMAGES, tmp_path / "a.onnx", batch=3))

    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_nothing_is_left_of_a_file_that_fails(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = SimpleNamespace(model_proto=onnx.load(exported))
    monkeypatch.setattr("reproduction.export._traced", lambda *_: traced)
    path = tmp_path / "a.onnx"
    path.write_bytes(b"before")

    def refuse(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("damaged")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(tiny(), IMAGES, path)

    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_networks_own_size_and_says_if_weights_are_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes, weights = [], []

    def keep(model: nn.Module, example: torch.Tensor, path: str, **_: object) -> str:
        shapes.append(tuple(example.shape))
        weights.append(next(model.parameters()).detach().clone())
        return path

    monkeypatch.setattr("reproduction.export.export_onnx", keep)
    for _ in range(2):
        assert main(["--network", "pose_hrnet_w32", "--out", str(tmp_path / "a.onnx")]) == 0
    assert shapes[0] == (1, 3, 256, 192)
    assert torch.equal(*weights)
    assert "the weights are random" in capsys.readouterr().err


MISTAKES = {
    "unknown network": (["--network", "resnet"], "resnet"),
    "no pixels": (["--network", "cls_hrnet_w18_small_v1", "--image-size", "0"], "at least 1"),
    "no weights": (["--network", "cls_hrnet_w18_small_v1", "--weights", "no.pt"], "no.pt"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = MISTAKES[case]
    status = main([*arguments, "--out", str(tmp_path / "a.onnx")])
    shown = capsys.readouterr()

    assert status == 2
    assert said in shown.err and "Traceback" not in shown.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_a_runtime_computes_the_same(runtime: str, exported: Path) -> None:
    assert close(tiny(), prepared(runtime, exported), 1e-5)


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_a_call_leaves_earlier_outputs_alone(runtime: str, exported: Path) -> None:
    predict = prepared(runtime, exported)
    first = predict(IMAGES)
    kept = first.clone()
    second = predict(2 * IMAGES)

    assert torch.equal(first, kept)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_images_of_another_shape_are_refused(runtime: str, exported: Path) -> None:
    with pytest.raises(UserError, match=r"prepared for torch\.float32 of shape"):
        prepared(runtime, exported)(IMAGES[:1])


@pytest.mark.full
@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["cls_hrnet_w18_small_v1", "seg_hrnet_w18_small_v1_cityscapes"])
def test_a_runtime_runs_a_whole_network(name: str, runtime: str) -> None:
    model = network(name)

    assert close(model, load(model.float(), IMAGES, runtime), 1e-4)


@pytest.mark.full
def test_several_outputs_come_as_a_tuple() -> None:
    model = network("det_hrnetv2p_w18")
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        truth = model(images)
    found = load(model, images, "openvino")(images)

    assert isinstance(found, tuple) and len(found) == len(truth)
    assert all(float((a - b).norm() / a.norm()) < 1e-4 for a, b in zip(truth, found, strict=True))


def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduction.runtimes._is_installed", lambda _: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda _: None)

    assert unavailable("eager") == ""
    assert "not installed" in unavailable("openvino")
    assert "no CUDA device" in unavailable("cuda", "bfloat16")
    monkeypatch.setenv("CXX", "clang++-99")
    assert "needs the C++ compiler clang++-99, which is missing" in unavailable("torch_compile")
    with pytest.raises(UserError, match=r"openvino in float32 cannot be used: .*not installed"):
        deploy(tiny(), IMAGES)


def test_onnxruntime_has_no_bfloat16() -> None:
    with pytest.raises(UserError, match="no bfloat16 convolution"):
        load(tiny(), IMAGES, "onnxruntime", precision="bfloat16")


def test_unknown_words_are_refused() -> None:
    with pytest.raises(UserError, match="runtime 'tvm' is unknown"):
        load(tiny(), IMAGES, "tvm")
    with pytest.raises(UserError, match="precision 'int8' is unknown"):
        deploy(tiny(), IMAGES, "int8")


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Telemetry leaves an identity in the home folder before it sends anything."""
    code = (
        "import sys, reproduction.runtimes as r; r._core();"
        "import openvino.tools.ovc as o;"
        "assert o.telemetry.__class__.__module__ == 'openvino.tools.ovc.telemetry_stub';"
        "assert sys.modules['openvino_telemetry'] is None"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)

    assert ended.returncode == 0, ended.stderr.decode()
    assert not [p for p in tmp_path.rglob("*") if "openvino" in p.name]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_committed_choice_is_a_runtime(precision: str) -> None:
    assert chosen(precision) in RUNTIMES


def test_deploy_runs_the_committed_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "reproduction.runtimes.load", lambda *given, **named: asked.append((given[2], named))
    )
    deploy(tiny(), IMAGES, "bfloat16")

    assert asked == [(chosen("bfloat16"), {"precision": "bfloat16"})]


def test_a_form_is_a_module_around_the_network() -> None:
    form = fold(tiny())

    assert isinstance(form, DeployForm)
    assert isinstance(fold(form.network), DeployForm)
