"""Shims reach the file that lists them and nothing else."""

import builtins
import sys
import warnings
from pathlib import Path

import numpy
import pytest

from reference import loader, shims
from reference.pins import load_pins


def run(program: str, *names: str) -> dict[str, object]:
    """Execute a program as an official file with these shims."""
    space: dict[str, object] = {"__name__": "official", "__builtins__": shims.builtins_for(names)}
    exec(program, space)
    return space


def test_a_removed_numpy_alias_is_seen_by_one_file_only() -> None:
    program = "import numpy as np\nvalue = np.int(3.7)\nsame = np.array([1]).sum()"
    assert run(program, "numpy-int")["value"] == 3
    assert not hasattr(numpy, "int")
    assert sys.modules["numpy"] is numpy
    with pytest.raises(AttributeError, match="int"):
        run(program)


def test_a_sibling_is_replaced_by_plain_batch_normalization() -> None:
    space = run("from .bn_helper import BatchNorm2d, relu_inplace", "bn-helper")
    assert space["BatchNorm2d"].__name__ == "BatchNorm2d"
    with pytest.raises(ImportError):
        run("from .bn_helper import BatchNorm2d")


def test_stand_ins_for_mmcv_register_nothing_and_refuse_to_be_called() -> None:
    program = """if True:
        from mmcv.cnn import kaiming_init
        from ..registry import NECKS

        @NECKS.register_module
        class Neck:
            pass
    """
    space = run(program, "mmcv")
    assert isinstance(space["Neck"], type)
    with pytest.raises(RuntimeError, match="stand-in for mmcv was called"):
        space["kaiming_init"](None)  # type: ignore[operator]
    assert "mmcv" not in sys.modules


def test_what_is_not_replaced_is_imported_as_usual() -> None:
    space = run("import os.path\nfrom json import dumps", "mmcv", "numpy-int")
    assert space["os"] is __import__("os") and space["dumps"] is __import__("json").dumps
    assert builtins.__import__ is __import__


def test_only_the_listed_warning_is_hidden() -> None:
    program = "x = 'a'\ny = x is 'a'"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with shims.quiet([shims.QUIET]):
            compile(program, "quiet", "exec")
        assert seen == []
        with shims.quiet([]):
            compile(program, "loud", "exec")
    assert [warning.category for warning in seen] == [SyntaxWarning]


def test_settings_are_items_and_attributes() -> None:
    settings = shims.settings_of({"MODEL": {"EXTRA": [1]}, "DATASET": {"NUM_CLASSES": 19}})
    shims.override(settings, {"DATASET.NUM_CLASSES": 60, "MODEL.OCR.KEY_CHANNELS": 256})
    assert settings["DATASET"].NUM_CLASSES == settings.DATASET["NUM_CLASSES"] == 60
    assert settings.MODEL.OCR.KEY_CHANNELS == 256 and settings.MODEL.EXTRA == [1]
    with pytest.raises(AttributeError, match="ALIGN_CORNERS"):
        _ = settings.MODEL.ALIGN_CORNERS


@pytest.mark.parametrize(("said", "shown"), [("IProgress not found.", 0), ("a real one", 1)])
def test_a_missing_progress_bar_is_not_worth_a_warning(
    said: str, shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"import warnings\nwarnings.warn({said!r})\ndef create_model(*_, **__): return 7\n"
    (tmp_path / "timm.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(loader.store, "standin_file", lambda _pin: None)
    pins = load_pins()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert loader._build_standin(pins.network("cls_hrnet_w18"), pins) == 7
    assert len(caught) == shown
    monkeypatch.delitem(sys.modules, "timm")
