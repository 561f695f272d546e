"""The command on real data: what a run starts from, by which recipe, and where it is evaluated."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reproduction import TrainConfig, UserError, build_network
from reproduction.checkpoints import save_checkpoint
from reproduction.command import chosen, main, make_parser
from reproduction.config import network_config
from reproduction.published_recipes import published_recipe
from reproduction.tasks.keypoints.poses import Poses
from reproduction.tasks.published import take_start
from reproduction.tasks.segmentation.task import Segmentation
from tests import real_folders

POSE = "pose_hrnet_w32"
SMALL = "seg_hrnet_w18_small_v1_cityscapes"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put one layer, of weights 0, in place of every network."""

    def build(name: str, **_: Any) -> nn.Module:
        network = nn.Conv2d(3, network_config(name).outputs, 4, stride=4)
        for weights in network.parameters():
            nn.init.zeros_(weights)
        return network

    monkeypatch.setattr("reproduction.command.build_network", build)
    monkeypatch.setattr("reproduction.command.save_checkpoint", lambda *_: None)


def command(network: str, data: Path, *more: object) -> list[str]:
    """Return the options of one short run."""
    options = ("--network", network, "--data", data, "--epochs", 1, "--batch-size", 2)
    where = ("--device", "cpu", "--results-dir", data.parent / "results")
    return [str(word) for word in (*options, *where, *more)]


def detections(folder: Path) -> Path:
    """Write two boxes of a detector."""
    path = folder / "detections.json"
    box = {"image_id": 7, "category_id": 1, "bbox": [2.0, 1.0, 20.0, 25.0]}
    path.write_text(json.dumps([{**box, "score": 0.9}, {**box, "score": 0.4}]))
    return path


@pytest.mark.parametrize(
    ("network", "recipe", "origin"),
    [
        (POSE, "", "pose_coco starts from the body of a classification network trained on Image"),
        ("face_hrnet_w18_wflw", "", "face_wflw starts from the body of a classification network"),
        (SMALL, "seg_cityscapes_trainval", "the last weights of a network trained by seg_citysc"),
    ],
)
def test_no_weights_to_start_from_is_a_sentence(
    tiny: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    network: str,
    recipe: str,
    origin: str,
) -> None:
    assert main(command(network, tmp_path / "no", *(["--recipe", recipe] if recipe else []))) == 2

    told = capsys.readouterr().err
    assert origin in told and told.count("\n") == 1
    assert "give it by --body FILE, or --body none to start from random weights on purpose" in told
    assert not list(tmp_path.iterdir())


def test_random_weights_and_annotated_boxes_are_told(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = real_folders.coco(tmp_path / "coco")
    assert main(command(POSE, folder, "--body", "none")) == 0

    random, boxes, scores = capsys.readouterr().out.splitlines()
    assert random.startswith("note: starts from random weights, where pose_coco starts from the bo")
    assert boxes.startswith("note: evaluated in annotated boxes, which is not what the paper publi")
    assert boxes.endswith("which --detections FILE takes") and scores.startswith("AP ")


def test_boxes_of_a_detector_are_evaluated_in(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = real_folders.coco(tmp_path / "coco")
    words = command(POSE, folder, "--body", "none", "--detections", detections(tmp_path))
    _, task, _ = chosen(make_parser().parse_args(words))
    assert isinstance(task, Poses) and [person.score for person in task.test] == [0.9, 0.4]

    assert main(words) == 0
    assert "annotated boxes" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("pose_hrnet_w32_mpii", "but recipe pose_mpii does not evaluate in boxes of a detector"),
        (SMALL, "but recipe seg_cityscapes does not evaluate in boxes of a detector; leave"),
        ("cls_hrnet_w18_small_v1", "--detections is boxes.json, but cls_hrnet_w18_small_v1 has no"),
    ],
)
def test_boxes_that_nothing_looks_at_are_a_sentence(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: str, told: str
) -> None:
    words = command(network, tmp_path / "no", "--body", "none", "--detections", "boxes.json")
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_another_recipe_of_the_task_can_be_chosen(tiny: None, tmp_path: Path) -> None:
    folder = real_folders.cityscapes(tmp_path / "city")

    def task_of(recipe: str) -> Segmentation:
        words = command(SMALL, folder, "--body", "none", "--recipe", recipe)
        _, task, training = chosen(make_parser().parse_args(words))
        assert isinstance(task, Segmentation)
        assert training.learning_rate == published_recipe(recipe or SMALL)["learning_rate"]
        return task

    assert task_of("").settings.ohem_min_kept is None
    assert task_of("seg_cityscapes_ohem").settings.ohem_min_kept == 131072
    assert len(task_of("seg_cityscapes_trainval").train.pairs) == 3


def test_the_published_classification_recipe_can_be_chosen() -> None:
    options = ["--network", "cls_hrnet_w18_small_v1", "--recipe", "cls"]
    assert chosen(make_parser().parse_args(options))[2] == TrainConfig()
    changed = chosen(make_parser().parse_args([*options, "--epochs", "2"]))[2]
    assert (changed.epochs, changed.batch_size) == (2, 128)


@pytest.mark.parametrize(
    ("network", "recipe", "told"),
    [
        (
            SMALL,
            "seg_lip",
            "recipe 'seg_lip' does not fit seg_hrnet_w18_small_v1_cityscapes, a network for "
            "segmentation on cityscapes; those that fit are seg_cityscapes, seg_cityscapes_ohem, "
            "seg_cityscapes_trainval\n",
        ),
        ("det_hrnetv2p_w18", "det_3x", "'det_3x' is unknown to det_hrnetv2p_w18"),
        ("det_hrnetv2p_w18", "det_2x", "recipe det_2x is of detection; there are adapters for"),
        ("cls_hrnet_w18", "det_2x", "a network for classification on image_folder; those that fi"),
    ],
)
def test_a_recipe_that_does_not_fit_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], network: str, recipe: str, told: str
) -> None:
    assert main(command(network, tmp_path / "no", "--recipe", recipe)) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


@pytest.mark.parametrize("option", ["--seed", "--image-size"])
def test_a_negative_number_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    given = ["--results-dir", str(tmp_path), option, "-1"]
    assert main(given) == 2
    assert capsys.readouterr().err == f"{option} is -1; give a whole number of at least 0\n"
    assert not list(tmp_path.iterdir())


def test_results_that_cannot_be_written_are_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["--epochs", "1", "--results-dir", str(tmp_path / "file" / "below")]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_a_run_from_other_weights_is_another_run(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []

    def note(*_: object, out_dir: Path, **__: object) -> None:
        folders.append(out_dir.name)
        raise UserError("far enough")

    real_folders.cityscapes(tmp_path)
    monkeypatch.setattr("reproduction.command.train", note)
    for number in range(2):
        body = tmp_path / f"{number}.safetensors"
        torch.manual_seed(number)
        save_checkpoint(build_network(SMALL), body)
        monkeypatch.setattr("reproduction.command.take_start", lambda *_: None)
        assert main(command(SMALL, tmp_path, "--body", body)) == 2
    assert len(set(folders)) == 2 and all(".body_" in name for name in folders)


def test_a_run_that_goes_on_from_another_recipe_starts_from_the_whole_network(
    tmp_path: Path,
) -> None:
    source, network = build_network(SMALL), build_network(SMALL)
    save_checkpoint(source, tmp_path / "cityscapes.safetensors")
    take_start(
        network, published_recipe("seg_cityscapes_trainval"), tmp_path / "cityscapes.safetensors"
    )

    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_classes_that_never_appear_are_told(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Road and sidewalk alone (raw labels 7 and 8), and what a network says in its first step."""
    folder = real_folders.cityscapes(tmp_path / "city")
    for path in folder.glob("gtFine/*/*/*_labelIds.png"):
        real_folders.write_labels(path, np.repeat([[7, 8]], 32, 0).repeat(32, 1))
    assert main(command(SMALL, folder, "--body", "none")) == 0

    scores, remark = capsys.readouterr().out.splitlines()[-2:]
    told = re.match(
        r"note: (\d+) of 19 classes never appear in labels or predictions \((.*?)\)", remark
    )
    assert told
    absent = [int(label) for label in told[2].split(", ")]
    assert len(absent) == int(told[1]) > 9 and not {0, 1} & set(absent)
    found = [part.split()[0] for part in scores.partition(";")[0].split(", ")]
    assert found == ["miou", "miou_of_present", "pixel_accuracy", "mean_accuracy"]
    history = next(tmp_path.glob("results/checkpoints/*/log.jsonl")).read_text().splitlines()
    row = json.loads(history[-1])
    present = 19 - len(absent)
    assert row["test_miou_of_present"] == pytest.approx(row["test_miou"] * 19 / present)
    assert row["test_miou"] > 0
