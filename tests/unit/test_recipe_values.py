"""Every value of a published recipe: read by code or said to be fixed, and from its true source."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reference.pins import load_pins
from reproduction import UserError
from reproduction.published_recipes import (
    FILE,
    PublishedRecipe,
    fixed_values,
    published_recipe,
    published_recipes,
)
from reproduction.tasks.keypoints.coco import coco_results, read_coco
from reproduction.tasks.keypoints.faces import LANDMARKS
from reproduction.tasks.keypoints.poses import Poses
from reproduction.tasks.published import (
    RANDOM,
    departures,
    pose_evaluation,
    published_task,
    take_start,
)
from tests import real_folders
from tests.unit.test_command import detections
from tests.unit.test_real_segmentation import make

RECIPES = published_recipes()
CPU = torch.device("cpu")
FROM_A_FILE = re.compile(r"\byaml\b")
# The data set whose official file a source names in words.
FILE_OF = re.compile(r"(LIP|PASCAL-Context|COCO-Stuff|ADE20K) file")
DATA_OF = {
    **{"LIP": ("lip",), "PASCAL-Context": ("pascal_ctx", "pascal_ctx60")},
    **{"COCO-Stuff": ("cocostuff",), "ADE20K": ("ade20k",)},
}


def make_folder(folder: Path, data: str) -> Path:
    """Make the folder of any data set that there is an adapter for."""
    if data in ("coco", "mpii"):
        return getattr(real_folders, data)(folder)
    if data in LANDMARKS:
        folder.mkdir()
        return real_folders.faces(folder, data, LANDMARKS[data])
    return make(folder, data)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[str]]]:
    """Note which values of a recipe are read, by task."""
    seen: dict[str, set[str]] = defaultdict(set)
    looked_up = PublishedRecipe.__getitem__

    def note(recipe: PublishedRecipe, key: str) -> Any:
        seen[recipe.task].add(key)
        return looked_up(recipe, key)

    monkeypatch.setattr(PublishedRecipe, "__getitem__", note)
    yield seen


def test_every_value_is_read_or_said_to_be_fixed(tmp_path: Path, read: dict[str, set[str]]) -> None:
    keys = defaultdict(set)
    for name, recipe in RECIPES.items():
        keys[recipe.task] |= set(recipe.entries)
        recipe.training()
        if recipe.task in ("classification", "detection") or recipe.data == "cocostuff":
            continue  # nothing more reads them
        published_task(recipe, make_folder(tmp_path / name, recipe.data))
        departures(recipe, RANDOM)
        take_start(nn.Identity(), recipe, RANDOM)  # type: ignore[arg-type]

    fixed = fixed_values()
    assert set(fixed) == set(keys)
    for task, named in keys.items():
        assert named - read[task] == set(fixed[task]), task
        assert all(reason.strip() for reason in fixed[task].values())


def test_what_is_fixed_is_what_the_recipes_say() -> None:
    """A recipe with another value would need code; so none has one."""
    for recipe in RECIPES.values():
        if recipe.task == "landmarks":
            assert recipe["test_flip"] is False
        if recipe.task in ("pose", "landmarks"):
            assert recipe["heatmap_wh"] == tuple(side // 4 for side in recipe["input_wh"])
        if recipe.task in ("segmentation", "ocr"):
            kind = "ohem_cross_entropy" if recipe["ohem"] else "cross_entropy"
            assert recipe["loss"] == kind


def pinned(recipe: PublishedRecipe) -> bool:
    """Tell whether an official file of the recipe's own data is pinned."""
    configs = [load_pins().network(name).config for name in recipe.networks]
    return any(
        config and (recipe.data == "image_folder" or f"/{recipe.data}/" in config)
        for config in configs
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_source_is_a_file_that_the_recipe_has(name: str) -> None:
    recipe = RECIPES[name]
    for key, cited in recipe.entries.items():
        if not pinned(recipe):
            assert not FROM_A_FILE.search(cited.source), key
        if named := FILE_OF.search(cited.source):
            assert recipe.data in DATA_OF[named[1]], f"{key}: {cited.source}"


def test_the_ignored_label_of_pascal_context_is_ours() -> None:
    for name in ("seg_pascal_ctx", "ocr_pascal_ctx"):
        cited = RECIPES[name].entries["ignore_label"]
        assert cited.value == 255 and "D32" in cited.source and "-1" in cited.source
    assert "trap 22" in RECIPES["ocr_ade20k"].entries["ignore_label"].source
    for name in ("seg_pascal_ctx60", "ocr_pascal_ctx60", "seg_lip"):
        assert RECIPES[name].entries["ignore_label"].source.startswith("ours: all labels are cl")


def test_a_source_without_a_section_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "recipes.toml"
    path.write_text(FILE.read_text(encoding="utf-8").replace('"momentum", ', "", 1))
    told = "momentum of recipe seg_cityscapes_ohem is taken over with the source 'yaml TRAIN.MOM"
    with pytest.raises(UserError, match=told):
        published_recipes(path)


def test_cascade_detection_is_data() -> None:
    recipe = RECIPES["det_cascade_20e"]
    assert (recipe["epochs"], recipe["milestone_epochs"]) == (20, (16, 19))
    assert recipe["mean"] == (123.675, 116.28, 103.53) and recipe["to_rgb"] is False


def changed(recipe: PublishedRecipe, **values: Any) -> PublishedRecipe:
    """Return a recipe with other values."""
    others = {key: replace(recipe.entries[key], value=value) for key, value in values.items()}
    return replace(recipe, entries={**recipe.entries, **others})


def found_by(recipe: PublishedRecipe, folder: Path) -> np.ndarray:
    """Return what a fixed network finds by a recipe, in pixels of the image."""
    torch.manual_seed(0)
    task = published_task(recipe, folder, workers=0)
    assert isinstance(task, Poses)
    task = replace(task, input_wh=(48, 64))
    network = nn.Conv2d(3, 17, 8, stride=4, padding=2)
    return task.evaluate(network, CPU).keypoints_xy


def test_how_poses_are_found_is_what_the_recipe_says(tmp_path: Path) -> None:
    recipe, folder = published_recipe("pose_coco"), real_folders.coco(tmp_path)
    published = found_by(recipe, folder)
    assert np.array_equal(published, found_by(recipe, folder))
    for key in ("test_flip", "test_shift", "test_quarter_offset"):
        assert not np.array_equal(published, found_by(changed(recipe, **{key: False}), folder)), key
    # A box 20 wide with a margin of 1.25 has 12 columns of heatmap.
    peaks = found_by(changed(recipe, test_quarter_offset=False), folder)
    assert set((np.abs(published - peaks) / (20 * 1.25 / 12)).round(6).ravel()) == {0, 0.25}


def test_which_poses_count_is_what_the_recipe_says(tmp_path: Path) -> None:
    recipe, folder = published_recipe("pose_coco"), real_folders.coco(tmp_path)
    boxes = detections(tmp_path)
    for least, expected in ((0.0, [0.9, 0.4]), (0.5, [0.9])):
        task = published_task(changed(recipe, test_box_score=least), folder, detections=boxes)
        assert isinstance(task, Poses) and [person.score for person in task.test] == expected

    persons = read_coco(folder, "val", (192, 256), detections=boxes).persons
    points, peaks = np.zeros((2, 17, 2)), np.ones((2, 17))
    kept = [len(coco_results(persons, points, peaks, limit)) for limit in (0.9, 1.0)]
    assert kept == [1, 2]
    seen: list[float] = []

    def note(*given: Any) -> list[Any]:
        seen.append(given[3])
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduction.tasks.keypoints.poses.coco_results", note)
        patch.setattr("reproduction.tasks.keypoints.poses.keypoint_ap", lambda *_: {})
        task = published_task(changed(recipe, test_oks_nms=0.7), folder)
        assert isinstance(task, Poses)
        task.score(persons, points, peaks)
    assert seen == [0.7]
    assert pose_evaluation(recipe) == pose_evaluation(published_recipe("pose_mpii"))
