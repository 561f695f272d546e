"""What the notebooks accept."""

import json
from pathlib import Path
from typing import Any

import pytest

from comparison import parameters
from comparison.study import ROOT
from reproduction import UserError


@pytest.mark.parametrize("notebook", parameters.NOTEBOOKS)
def test_the_defaults_of_the_notebooks_are_those_checked_here(notebook: str) -> None:
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    (cell,) = (c for c in cells if "parameters" in c["metadata"].get("tags", []))
    namespace: dict[str, Any] = {}
    exec("".join(cell["source"]), namespace)
    del namespace["__builtins__"]
    expected = {**parameters.COMMON, **parameters.NOTEBOOKS[notebook]}
    assert namespace == expected
    settings = parameters.check(notebook, namespace)
    assert settings.results_dir == ROOT / "results" / "by_hand"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"network": "resnet50"}, "network 'resnet50' is unknown; use one of cls_hrnet_w18_small"),
        ({"data": "mnist"}, "data 'mnist' is unknown"),
        ({"device": "tpu"}, "device 'tpu' is unknown; use one of auto, cpu"),
        ({"arm": "timm"}, "arm 'timm' is unknown; use one of reference, reproduction"),
        ({"epochs": -1}, "parameter epochs is -1; give a number of at least 1"),
        ({"epochs": "two"}, "parameter epochs is 'two'; give a value of type int"),
        ({"batch_size": 12.5}, "give a value of type int"),
        ({"seed": True}, "parameter seed is True; give a value of type int"),
        ({"epoch": 3}, "parameter 'epoch' is unknown; 03_training takes network, data"),
    ],
)
def test_a_wrong_parameter_gets_a_sentence(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parameters.check("03_training", wrong)


def test_trained_weights_need_a_file() -> None:
    with pytest.raises(UserError, match="weights_file is empty"):
        parameters.check("02_equivalence", {"weights": "trained"})
    with pytest.raises(UserError, match="against 'ours' is unknown; use one of reference, timm"):
        parameters.check("02_equivalence", {"against": "ours"})


def test_weights_that_are_not_there_or_decide_nothing_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights_file 'no\.pt' does not exist"):
        parameters.check("04_speed", {"weights_file": "no.pt"})
    there = tmp_path / "weights.pt"
    there.touch()
    for wrong in ({"task": "training"}, {"network": "pose_hrnet_w32"}):
        with pytest.raises(UserError, match="accuracy is that of a deployed classifier"):
            parameters.check("04_speed", {"weights_file": str(there), **wrong})


def test_imports_and_the_kernels_own_names_are_no_parameters() -> None:
    namespace = {"In": [], "Out": {}, "_i1": "text", "parameters": parameters, "seed": 3}
    assert parameters.check("01_networks", namespace).seed == 3


def test_a_record_names_neither_folders_nor_machines() -> None:
    given = {"data": "image_folder:/home/someone/imagenet", "results_dir": "/tmp/results"}
    settings = parameters.check("03_training", given)
    said = f"{settings.decisive()} {settings.command()}"
    assert "someone" not in said
    assert "/tmp" not in said


def test_a_users_error_is_drawn_as_one_sentence() -> None:
    assert UserError("say why")._render_traceback_() == ["UserError: say why"]
