"""The reference is built from checked bytes, leaves no trace, and keeps its settings to itself."""

import hashlib
import json
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _pytest.mark.structures import ParameterSet

from reference import (
    ReferenceUnavailable,
    build,
    configs,
    identity,
    loader,
    store,
    training_settings,
)
from reference.errors import ReferenceAbsent
from reference.pins import Pins, load_pins
from reproduction import CLASSIFICATION, TrainConfig
from tests.unit.fake_pins import CONFIG_FILE, FILES, MODEL_FILE, fake_pins, write_tree

PRESENT = {
    pin.key
    for pin in (*load_pins().repositories, *load_pins().wheels)
    if store.presence(pin, store.OFFICIAL).state == "verified"
}
OFFICIAL_IS_THERE = load_pins().network("cls_hrnet_w18").repository in PRESENT
needs_official = pytest.mark.skipif(
    not OFFICIAL_IS_THERE,
    reason="the official code is not there: python -m reference fetch --from PATH",
)
SOURCES = [pytest.param("official", marks=needs_official), "timm"]


def offers() -> Iterator[ParameterSet]:
    """Yield every network with every source that has it; skip what is not there."""
    for name, pin in load_pins().networks.items():
        for source, key in (("official", pin.repository), ("wheel", pin.wheel)):
            reason = f"{key} is not there: python -m reference fetch --from PATH"
            marks = [pytest.mark.skipif(key not in PRESENT, reason=reason)]
            if key:
                yield pytest.param(name, source, marks=marks)
        if pin.standin:
            yield pytest.param(name, "timm")


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a fake official repository where the loader looks; return its folder."""
    use_pins(monkeypatch, fake_pins())
    monkeypatch.setattr(store, "OFFICIAL", tmp_path)
    return write_tree(tmp_path / fake_pins().repositories[0].key)


def use_pins(monkeypatch: pytest.MonkeyPatch, pins: Pins) -> None:
    """Let the loader see other pins."""
    monkeypatch.setattr(loader, "load_pins", lambda: pins)


@pytest.mark.reference
@pytest.mark.parametrize(("network", "source"), offers())
def test_state_dict_has_the_official_names_shapes_and_order(network: str, source: str) -> None:
    with torch.device("meta"):
        state = build(network, source=source).state_dict()
    lines = "\n".join(f"{key} {list(entry.shape)}" for key, entry in state.items())
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert digest[:16] == load_pins().network(network).keys


@pytest.mark.reference
@pytest.mark.parametrize("source", SOURCES)
def test_a_network_takes_images_to_1000_logits_in_float32(source: str) -> None:
    model = build("cls_hrnet_w18_small_v1", source=source).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 1000)
    assert logits.dtype == torch.float32


@needs_official
@pytest.mark.reference
def test_official_code_is_preferred_and_says_what_it_is() -> None:
    chosen = identity()
    assert chosen == identity("official")
    assert chosen["label"] == "official f760c988"
    assert chosen["official"] is True
    assert chosen["license"] == "MIT"
    path = store.OFFICIAL / "HRNet-Image-Classification@f760c988/lib/models/cls_hrnet.py"
    assert chosen["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@needs_official
@pytest.mark.parametrize("network", CLASSIFICATION)
def test_every_official_file_trains_by_the_recipe_that_ours_cites(network: str) -> None:
    found = training_settings(network)
    ours = TrainConfig()
    assert found is not None
    assert (found["OPTIMIZER"], found["LR"], found["WD"]) == ("sgd", 0.05, ours.weight_decay)
    assert (found["MOMENTUM"], found["NESTEROV"]) == (ours.momentum, ours.nesterov)
    assert (found["LR_STEP"], found["LR_FACTOR"]) == ([30, 60, 90], ours.gamma)


def test_the_stand_in_has_no_recipe() -> None:
    assert training_settings("cls_hrnet_w18", source="timm") is None


def test_stand_in_says_that_it_is_one() -> None:
    chosen = identity("timm")
    assert chosen["label"] == "timm 1.0.31 (stand-in)"
    assert chosen["official"] is False
    assert chosen["license"] == "Apache-2.0"
    assert json.loads(json.dumps(chosen)) == chosen


def test_auto_is_the_official_code_where_it_is_there(official: Path) -> None:
    assert identity("auto", "tiny")["implementation"] == "Tiny"
    assert type(build("tiny")).__name__ == "Tiny"


@pytest.mark.parametrize("missing", [[MODEL_FILE], list(FILES)])
def test_auto_falls_back_where_official_files_are_missing(
    official: Path, missing: list[str]
) -> None:
    for path in missing:
        (official / path).unlink()
    assert identity("auto", "tiny")["implementation"] == "timm"
    with pytest.raises(ReferenceUnavailable, match="python -m reference fetch --from PATH"):
        build("tiny", source="official")


@pytest.mark.parametrize("path", [MODEL_FILE, CONFIG_FILE, "LICENSE"])
@pytest.mark.parametrize("source", ["auto", "official"])
def test_an_altered_file_is_never_run(official: Path, path: str, source: str) -> None:
    pinned = hashlib.sha256((official / path).read_bytes()).hexdigest()
    (official / path).write_text(FILES[path] + "\n")
    altered = hashlib.sha256((official / path).read_bytes()).hexdigest()
    for use in (lambda: build("tiny", source=source), lambda: identity(source, "tiny")):
        with pytest.raises(ReferenceUnavailable) as refusal:
            use()
        for part in (path, pinned, altered, "python -m reference fetch"):
            assert part in str(refusal.value)


def test_a_file_is_hashed_again_before_every_import(official: Path) -> None:
    build("tiny")
    (official / MODEL_FILE).write_text("raise RuntimeError('ran an unchecked file')")
    with pytest.raises(ReferenceUnavailable, match="SHA-256"):
        loader.import_official(fake_pins().repositories[0], MODEL_FILE, store.OFFICIAL)


def test_a_traceback_does_not_quote_the_official_text(official: Path) -> None:
    with pytest.raises(RuntimeError) as failure:
        build("tiny")(torch.ones(1, 5))  # three values are expected
    quoted = "".join(traceback.format_exception(failure.value))
    assert "cls_tiny.py" in quoted
    assert "self.linear(x) * WIDTH" not in quoted


def test_import_leaves_path_and_modules_as_they_were(official: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    build("tiny")
    assert sys.path == path
    assert set(sys.modules) == modules
    assert not list(official.rglob("*.pyc"))


@needs_official
@pytest.mark.reference
def test_official_import_leaves_path_modules_and_settings_as_they_were() -> None:
    program = """if True:
        import sys, torch, numpy, yaml
        import reference, reference.loader
        seen = lambda: (list(sys.path), set(sys.modules), torch.get_default_dtype(),
                        torch.is_grad_enabled(), torch.get_num_threads())
        before = seen()
        reference.build("cls_hrnet_w18_small_v1", source="official")
        assert seen() == before, "the import changed something"
    """
    root = Path(loader.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_kept_in_a_module_do_not_leak_between_two_models(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build("tiny")
    image = torch.ones(1, 3)
    before = first(image)

    files = {**FILES, CONFIG_FILE: "MODEL:\n  WIDTH: 50\n"}
    use_pins(monkeypatch, fake_pins(files))
    write_tree(official, files)
    second = build("tiny")
    second.load_state_dict(first.state_dict())

    torch.testing.assert_close(second(image), before * 50 / 3)
    torch.testing.assert_close(first(image), before, rtol=0, atol=0)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ReferenceUnavailable, match="'paddle'; choose one of auto, official, timm"):
        build("cls_hrnet_w18", source="paddle")


def test_settings_that_would_be_passed_over_are_refused() -> None:
    with pytest.raises(ReferenceUnavailable, match="no yaml file, and settings were given"):
        build("cls_hrnet_w18", source="timm", settings={"MODEL.NAME": "x"})


@pytest.mark.parametrize(
    ("network", "source"),
    [("pose_hrnet_w32", "timm"), ("cls_hrnet_w18", "wheel"), ("det_hrnetv2p_w18", "wheel")],
)
def test_a_source_without_the_network_is_refused(network: str, source: str) -> None:
    with pytest.raises(ReferenceAbsent, match=f"{source} has no network {network}"):
        build(network, source=source)


@pytest.mark.parametrize("network", ["seg_hrnet_w48_lip", "pose_hrnet_w32", "det_hrnetv2p_w40"])
def test_a_network_without_any_source_says_how_to_get_one(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "OFFICIAL", tmp_path)
    with pytest.raises(ReferenceAbsent, match=r"are absent; get them with .* fetch --from PATH"):
        build(network)


@pytest.mark.parametrize("source", ["auto", "wheel"])
def test_the_wheel_serves_where_the_repository_is_not(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wheel,) = load_pins().wheels
    if wheel.key not in PRESENT:
        pytest.skip(f"{wheel.key} is not there: python -m reference fetch")
    (tmp_path / wheel.key).symlink_to(store.OFFICIAL / wheel.key)
    monkeypatch.setattr(store, "OFFICIAL", tmp_path)
    assert identity(source, "pose_hrnet_w48")["label"] == "aja-pose 0.0.1 (stand-in)"
    with torch.device("meta"):
        model = build("pose_hrnet_w48", source=source)
    assert sum(parameter.numel() for parameter in model.parameters()) == 63_595_745


def test_a_yaml_file_of_ones_own_is_used(official: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("MODEL:\n  WIDTH: 5\n")
    own, usual = build("tiny", config=tmp_path / "own.yaml"), build("tiny")
    with pytest.raises(ReferenceUnavailable, match="decides how many outputs there are"):
        build("tiny", config=tmp_path / "own.yaml", outputs=3)
    own.load_state_dict(usual.state_dict())
    image = torch.ones(1, 3)
    torch.testing.assert_close(own(image) / 5, usual(image) / 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("MODEL:\n  HEIGHT: 3\n", "own.yaml lacks WIDTH, which lib/models/cls_tiny.py of Tiny"),
        ("MODEL: [", "cannot be read as yaml"),
        ("just words", "holds no sections"),
    ],
)
def test_a_yaml_file_that_does_not_fit_is_refused(
    text: str, said: str, official: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ReferenceUnavailable, match=said):
        build("tiny", config=tmp_path / "own.yaml")
    with pytest.raises(ReferenceUnavailable, match=r"gone\.yaml does not exist"):
        build("tiny", config=tmp_path / "gone.yaml")


def test_a_yaml_file_of_another_repository_is_named(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = fake_pins()
    other = fake_pins({**FILES, CONFIG_FILE: "MODEL: {}\n"}, name="Somebody/Other")
    use_pins(monkeypatch, replace(pins, repositories=(*pins.repositories, *other.repositories)))
    path = official / "other.yaml"
    path.write_text("MODEL: {}\n")
    with pytest.raises(ReferenceUnavailable, match=r"of Other@0{8}, but tiny needs one of Tiny@0"):
        build("tiny", config=path)


@pytest.mark.parametrize("network", ["cls_hrnet_w18", "det_hrnetv2p_w18"])
def test_a_fixed_number_of_outputs_is_not_overridden(network: str) -> None:
    with pytest.raises(ReferenceUnavailable, match="a fixed number of outputs"):
        configs.with_outputs(load_pins().network(network), 7)


def test_detection_and_the_stand_in_take_no_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(ReferenceUnavailable, match="is built without a yaml file here"):
        build("cls_hrnet_w18", source="timm", config=tmp_path / "own.yaml")


def test_another_release_of_the_stand_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = load_pins()
    use_pins(monkeypatch, replace(pins, standin=replace(pins.standin, version="0.0.1")))
    with pytest.raises(ReferenceUnavailable, match=r"1\.0\.31 is installed, but 0\.0\.1 is pinned"):
        build("cls_hrnet_w18", source="timm")


def test_an_altered_stand_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = load_pins()
    use_pins(monkeypatch, replace(pins, standin=replace(pins.standin, sha256="0" * 64)))
    with pytest.raises(ReferenceUnavailable, match=r"models/hrnet.py has SHA-256 .* pip install"):
        identity("timm")


def test_a_missing_stand_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = load_pins()
    standin = replace(pins.standin, package="no_such_package")
    use_pins(monkeypatch, replace(pins, standin=standin))
    with pytest.raises(ReferenceUnavailable, match="no_such_package is not installed"):
        identity("timm")


def test_notebooks_show_one_sentence() -> None:
    lines = ReferenceUnavailable("fetch it")._render_traceback_()
    assert lines == ["ReferenceUnavailable: fetch it"]


def test_the_official_folder_is_outside_version_control() -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed, so nothing can be said about what it ignores")
    root = Path(loader.__file__).parent.parent
    command = ["git", "-C", str(root), "check-ignore", "--quiet", "reference/official/any/file.py"]
    done = subprocess.run(command, capture_output=True)
    if done.returncode == 128:
        pytest.skip("this copy of the repository is not a git checkout")
    assert done.returncode == 0
