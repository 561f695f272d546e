"""The published recipes: complete, cited, equal to the official files, and fit to be trained by."""

import doctest
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from reference import store
from reference.errors import ReferenceAbsent
from reference.loader import resolve
from reference.pins import load_pins
from reproduction import NETWORKS, TrainConfig, UserError, build_network, published_recipes
from reproduction.checkpoints import save_checkpoint
from reproduction.networks import Network, PyramidNetwork
from reproduction.published_recipes import PublishedRecipe, published_recipe
from reproduction.recipe import Recipe
from reproduction.tasks import published
from reproduction.tasks.keypoints.faces import LANDMARKS
from reproduction.tasks.keypoints.landmarks import SIGMAS_PX
from reproduction.tasks.keypoints.metrics import KEYPOINT_SCORE_THRESHOLD, OKS_NMS_THRESHOLD
from reproduction.tasks.published import (
    evaluation,
    loss_settings,
    published_task,
    scale_augmentation,
    take_body,
)
from reproduction.tasks.segmentation.folders import CLASSES
from reproduction.tasks.segmentation.inference import LIP_FLIP_PAIRS
from reproduction.tasks.segmentation.losses import OCR_BALANCE, OHEM_MIN_KEPT
from reproduction.tasks.segmentation.task import Segmentation
from reproduction.tasks.trees import TREES
from reproduction.train import learning_rate, make_optimizer, train, train_step
from tests import real_folders
from tests.unit.test_real_segmentation import make

RECIPES = published_recipes.published_recipes()
CITED = re.compile(r"yaml ([A-Z0-9_.]+)")
MISSING = object()
CPU = torch.device("cpu")


@pytest.mark.parametrize("module", [published_recipes, published])
def test_the_examples_of_the_docstrings_hold(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed


def test_every_network_has_one_recipe_of_its_task() -> None:
    named = [name for recipe in RECIPES.values() for name in recipe.networks]

    assert sorted(named) == sorted(NETWORKS)
    for recipe in RECIPES.values():
        assert {NETWORKS[name].task for name in recipe.networks} <= {recipe.task}
        assert recipe.data in (*TREES, "image_folder", "cocostuff")


def test_the_classification_recipe_is_that_of_the_studies() -> None:
    training, config = RECIPES["cls"].training(), TrainConfig()

    for name in ("learning_rate", "momentum", "nesterov", "weight_decay", "batch_size", "epochs"):
        assert getattr(training, name) == getattr(config, name)
    assert (training.milestones, training.gamma) == (config.milestones, config.gamma)


@pytest.mark.parametrize("name", ["pose_coco", "face_wflw", "det_1x", "det_2x"])
def test_rates_fall_at_the_published_epochs(name: str) -> None:
    recipe = RECIPES[name]
    training, steps = recipe.training(), 10 * recipe["epochs"]
    rates = [learning_rate(training, step, steps) for step in range(steps)]
    falls = [step / 10 for step in range(1, steps) if rates[step] < rates[step - 1]]

    assert falls == list(recipe["milestone_epochs"])


def test_values_agree_with_the_networks_and_the_rules_of_the_tasks() -> None:
    for recipe in RECIPES.values():
        for network in (NETWORKS[name] for name in recipe.networks):
            if recipe.task == "pose":
                assert recipe["input_wh"] == network.image_size[::-1]
            elif recipe.task == "landmarks":
                assert network.outputs == LANDMARKS[recipe.data]
                assert recipe["sigma_px"] == SIGMAS_PX[recipe.data]
            elif recipe.task in ("segmentation", "ocr"):
                assert recipe["align_corners"] == network.upsampling.align_corners
                assert network.outputs == CLASSES.get(recipe.data, 171)
                assert network.image_size == recipe["test_wh"][::-1]
                assert recipe["ohem_min_kept"] == OHEM_MIN_KEPT
                assert recipe["balance"] == (OCR_BALANCE if recipe.task == "ocr" else (1.0,))
                assert recipe["batch_per_gpu"] * recipe["gpus"] in (12, 16, 40)
    pose = RECIPES["pose_mpii"]
    assert pose["test_keypoint_score"] == KEYPOINT_SCORE_THRESHOLD
    assert pose["test_oks_nms"] == OKS_NMS_THRESHOLD


def entry(settings: dict[str, Any], key: str) -> Any:
    """Return an entry of an official file by its dotted name."""
    found: Any = settings
    for part in key.split("."):
        found = found.get(part, MISSING) if isinstance(found, dict) else MISSING
    return found


def differences(recipe: PublishedRecipe, settings: dict[str, Any]) -> list[str]:
    """List the values of a recipe that an official file contradicts."""
    said = []
    for name, cited in recipe.entries.items():
        match = CITED.fullmatch(cited.source)
        official = entry(settings, match[1]) if match else MISSING
        if official is MISSING:
            continue
        if name == "gpus":  # written as a tuple of their numbers
            official = len(re.findall(r"\d+", str(official)))
        official = tuple(official) if isinstance(official, list) else official
        if official != cited.value:
            said.append(f"{name} is {cited.value}, officially {official}")
    return said


def has_file(network: str) -> bool:
    """Tell whether a network's own official configuration is pinned, not that of other data."""
    config, data = load_pins().network(network).config, published_recipe(network).data
    return bool(config) and (data == "image_folder" or f"/{data}/" in config)


WITH_FILE = [name for name in NETWORKS if has_file(name)]


def official_settings(network: str) -> dict[str, Any]:
    """Return a network's official file; skip where it is absent."""
    pins = load_pins()
    pin = pins.network(network)
    try:
        found = resolve("auto", pin, pins)
    except ReferenceAbsent as error:
        pytest.skip(f"{network}: {error}")
    if found == "timm":
        pytest.skip(f"{network}: its official configuration is absent, {store.FETCH} gets it")
    repository = pins.repository(pin.repository if found == "official" else pin.wheel)
    return dict(yaml.safe_load(store.read_verified(repository, pin.config, store.OFFICIAL)))


@pytest.mark.reference
@pytest.mark.parametrize("network", WITH_FILE)
def test_values_are_those_of_the_official_file(network: str) -> None:
    recipe = published_recipe(network)
    settings = official_settings(network)
    keys = [match[1] for c in recipe.entries.values() if (match := CITED.fullmatch(c.source))]
    silent = {key for key in keys if entry(settings, key) is MISSING}

    assert differences(recipe, settings) == []
    assert len(keys) - len(silent) >= 11 and silent <= SILENT.get(recipe.data, set())


# Entries that an official file leaves out: detectors' boxes in MPII's, and in the small networks'.
SILENT = {
    "mpii": {"TEST.IMAGE_THRE", "TEST.IN_VIS_THRE", "TEST.OKS_THRE"},
    "cityscapes": {"MODEL.ALIGN_CORNERS"},
}


def test_what_cannot_be_checked_does_not_cite_an_entry() -> None:
    """Where no file is pinned, values that the data set alone decides say so in words."""
    unpinned = sorted({published_recipe(name).data for name in NETWORKS if name not in WITH_FILE})
    assert unpinned == ["ade20k", "coco", "cocostuff", "lip", "pascal_ctx", "pascal_ctx60"]
    for name in ("seg_lip", "seg_pascal_ctx60", "seg_pascal_ctx", "ocr_ade20k", "det_1x"):
        for key in ("learning_rate", "epochs", "batch_per_gpu", "input_wh"):
            assert not CITED.fullmatch(RECIPES[name].entries[key].source)


def test_another_value_in_the_official_file_is_a_difference() -> None:
    settings = {"TRAIN": {"LR": 0.002, "LR_STEP": [170, 200]}, "GPUS": "(0,1)"}

    assert differences(RECIPES["pose_coco"], settings) == [
        "learning_rate is 0.001, officially 0.002",
        "gpus is 4, officially 2",
    ]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            lambda t: t + '\n[x]\nbased_on = "y"\nnetworks = []',
            "based on y, unknown or in a circle",
        ),
        (
            lambda t: t + '\n[x]\nbased_on = "x"\nnetworks = []',
            "based on x, unknown or in a circle",
        ),
        (lambda t: t.replace('source = "yaml TRAIN.WD"', 'source = ""', 1), "give a value and its"),
        (lambda t: t.replace(', source = "yaml TRAIN.WD"', "", 1), "weight_decay of recipe cls"),
        (lambda t: t.replace("\nepochs = {", "\nepoch = {", 1), "cls lacks epochs"),
        (lambda t: t.replace('data = "image_folder"', "", 1), "recipe cls has or lacks data"),
    ],
)
def test_a_bad_file_is_a_sentence(tmp_path: Path, edit: Callable[[str], str], told: str) -> None:
    path = tmp_path / "recipes.toml"
    path.write_text(edit(published_recipes.FILE.read_text(encoding="utf-8")))

    with pytest.raises(UserError, match=told):
        published_recipes.published_recipes(path)


def test_what_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe or network is called 'pose'; recipes are cls, "):
        published_recipe("pose")
    with pytest.raises(UserError, match="recipe cls has no 'sigma_px'; it has batch_per_gpu"):
        RECIPES["cls"]["sigma_px"]
    with pytest.raises(UserError, match="needs cocostuff, for which there is no adapter"):
        published_task(RECIPES["seg_cocostuff"], tmp_path)
    with pytest.raises(UserError, match="det_1x is of detection; there are adapters for pose"):
        published_task(RECIPES["det_1x"], tmp_path)


def test_the_loss_is_what_the_recipe_says() -> None:
    weighted = loss_settings(RECIPES["seg_cityscapes_ohem"])
    assert weighted.class_weights and len(weighted.class_weights) == 19
    assert weighted.ohem_min_kept == 131072 and weighted.ohem_threshold == 0.9
    plain = loss_settings(RECIPES["ocr_lip"])
    assert plain.class_weights is None and plain.ohem_min_kept is None
    assert plain.balance == (0.4, 1.0) and plain.align_corners


def body_of(network: Network | PyramidNetwork) -> nn.Module:
    return network.backbone if isinstance(network, Network) else network.body


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["pose_hrnet_w32_384x288", "det_hrnetv2p_w40", "face_hrnet_w18_wflw"]
)
def test_a_classification_network_has_all_weights_of_a_body(name: str) -> None:
    with torch.device("meta"):
        body = body_of(build_network(name)).state_dict()
        whole = body_of(build_network(f"cls_hrnet_w{NETWORKS[name].width}")).state_dict()

    assert {key: value.shape for key, value in body.items()}.items() <= {
        key: value.shape for key, value in whole.items()
    }.items()


def test_a_body_is_taken_from_a_checkpoint(tmp_path: Path) -> None:
    source = build_network("cls_hrnet_w18_small_v1")
    save_checkpoint(source, tmp_path / "cls.safetensors")
    network = build_network("seg_hrnet_w18_small_v1_cityscapes")
    head = {name: tensor.clone() for name, tensor in network.head.state_dict().items()}
    take_body(network, tmp_path / "cls.safetensors")

    expected = body_of(source).state_dict()
    assert all(
        torch.equal(tensor, expected[key]) for key, tensor in body_of(network).state_dict().items()
    )
    assert all(torch.equal(tensor, head[k]) for k, tensor in network.head.state_dict().items())
    save_checkpoint(network, tmp_path / "seg.safetensors")
    with pytest.raises(UserError):
        take_body(network, tmp_path / "seg.safetensors")


@pytest.mark.parametrize("name", ["pose_coco", "face_300w", "seg_lip"])
def test_the_training_loop_trains_by_a_recipe(tmp_path: Path, name: str) -> None:
    recipe, folder = RECIPES[name], tmp_path / "data"
    if name == "seg_lip":
        make(folder, "lip")
    elif name == "face_300w":
        folder.mkdir()
        real_folders.faces(folder, "300w", 68)
    else:
        real_folders.coco(folder)
    outputs = {"pose_coco": 17, "face_300w": 68, "seg_lip": 20}[name]
    torch.manual_seed(0)
    network = nn.Conv2d(3, outputs, 4, stride=4)
    short = replace(recipe.training(), epochs=1, batch_size=2)
    task = published_task(recipe, folder, workers=2)
    found = train(
        network, task, short, seed=0, out_dir=tmp_path / "run", device=CPU, show_progress=False
    )

    assert isinstance(short, Recipe) and short.optimizer == recipe["optimizer"]
    assert found.history[0]["steps"] == 1 and found.history[0]["train_loss"] > 0
    score = {"pose_coco": "test_AP", "face_300w": "test_nme", "seg_lip": "test_miou"}[name]
    assert score in found.history[0]


class BodyAndHead(nn.Module):
    """The least network with a head by name."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 4, stride=4)
        self.head = nn.Conv2d(2, outputs, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


def test_a_head_is_trained_at_its_own_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["seg_pascal_ctx"]
    task = published_task(recipe, make(tmp_path, "pascal_ctx"))
    assert isinstance(task, Segmentation)
    task = replace(task, short_side=21, scales=(1.0,))
    short = replace(recipe.training(), epochs=2, batch_size=1)
    seen: list[list[float]] = []

    def note(model: Any, batch: Any, optimizer: torch.optim.Optimizer, *more: Any) -> Any:
        seen.append([group["lr"] for group in optimizer.param_groups])
        assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
        return train_step(model, batch, optimizer, *more)

    monkeypatch.setattr("reproduction.train.train_step", note)
    train(
        BodyAndHead(59), task, short, seed=0, out_dir=tmp_path / "run", device=CPU,
        show_progress=False,
    )  # fmt: skip

    assert seen[0] == pytest.approx([1e-3, 1e-2])
    assert seen[1] == pytest.approx([1e-3 * 0.5**0.9, 1e-2 * 0.5**0.9])
    with pytest.raises(UserError, match="head 10 times as fast, and 0 of 2 parameters are called"):
        make_optimizer(nn.Linear(1, 1), short)


def test_heads_have_the_names_that_the_rates_go_by() -> None:
    with torch.device("meta"):
        network = build_network("seg_hrnet_ocr_w48_pascal_ctx")
    groups = make_optimizer(network, RECIPES["ocr_pascal_ctx"].training()).param_groups

    assert len(groups[1]["params"]) == len(list(network.head.parameters()))
    assert groups[1]["rate_factor"] == 10.0


def test_the_published_crops_are_height_by_width() -> None:
    assert scale_augmentation(published_recipe("seg_cityscapes")).crop_hw == (512, 1024)
    assert scale_augmentation(published_recipe("seg_lip")).fixed_hw == (473, 473)
    assert scale_augmentation(published_recipe("ocr_ade20k")).short_side == 520
    rule = evaluation(RECIPES["seg_cityscapes"])
    assert (rule.crop_hw, rule.flip, rule.whole_up_to) == ((1024, 2048), False, 1.0)
    assert evaluation(RECIPES["ocr_lip"]).flip_pairs == LIP_FLIP_PAIRS
    trainval = RECIPES["seg_cityscapes_trainval"]
    assert trainval["split"] == "trainval" and len(trainval["test_scales"]) == 6
