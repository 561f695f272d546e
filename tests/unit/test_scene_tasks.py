"""Dense tasks on composed scenes: batches, targets, losses and scores, and how they resume."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from comparison.study import ABLATED, ROOT, TASKS, load_study
from comparison.tasks import SCENE_PX
from reproduction import UserError
from reproduction import train as loop
from reproduction.networks import make_network
from reproduction.recipe import Recipe
from reproduction.tasks.keypoints.crops import coco_crop_box
from reproduction.tasks.scenes.dataset import NUM_CLASSES, Scenes, load_scenes
from reproduction.tasks.scenes.keypoints import Heatmaps, SceneLandmarks, ScenePose
from reproduction.tasks.scenes.labeling import SceneLabeling
from reproduction.tasks.scenes.plans import PLANS, scene_plan
from reproduction.tasks.segmentation.losses import LossSettings
from reproduction.tasks.task import Batch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenes, Scenes]:
    """Compose eight training and four test scenes."""
    cache = tmp_path_factory.mktemp("scenes")
    train, test = (
        load_scenes(split, count=count, image_size=64, cache=cache)
        for split, count in (("train", 8), ("test", 4))
    )
    return train, test


class Fixed(nn.Module):
    """A network that puts out what it was given, whatever it sees."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the next outputs, as many as images."""
        self.seen += len(images)
        return self.output[self.seen - len(images) : self.seen]


def test_the_study_knows_the_tasks_that_there_are() -> None:
    assert tuple(PLANS) == TASKS
    assert set(ABLATED) <= set(TASKS)
    with pytest.raises(UserError, match="task 'depth' is unknown; use one of pose, segmentation"):
        scene_plan("depth")


@pytest.mark.parametrize("name", list(PLANS))
def test_batches_follow_from_seed_and_epoch_alone(name: str, scenes: tuple[Scenes, Scenes]) -> None:
    def digests(**given: int) -> list[str]:
        task = PLANS[name].make(*scenes)
        return [batch.digest for batch in task.batches("train", batch_size=4, **given)]

    assert digests() == digests()
    assert digests(start=1) == digests()[1:]
    assert not {*digests(seed=1), *digests(epoch=1)} & {*digests()}
    assert len(digests()) == PLANS[name].make(*scenes).steps(4) == 2


@pytest.mark.full
@pytest.mark.parametrize("name", list(PLANS))
def test_batches_are_those_of_the_committed_records(
    name: str, committed_scenes: tuple[Scenes, Scenes]
) -> None:
    path = ROOT / f"results/standard/records/tasks/{name}.small.reproduction.seed0.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    plan = scene_plan(name)
    digest = ""
    for batch in plan.make(*committed_scenes).batches(
        "train", seed=0, epoch=0, batch_size=plan.recipe.batch_size
    ):
        digest = hashlib.sha256((digest + batch.digest).encode()).hexdigest()
    assert digest == record["tables"]["epochs"][0]["batches_sha256"]


@pytest.fixture(scope="module")
def committed_scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenes, Scenes]:
    """Compose the scenes that the committed study trains on."""
    cache = tmp_path_factory.mktemp("committed")
    count = load_study("standard").tasks.scenes  # type: ignore[union-attr]
    train, test = (
        load_scenes(split, count=number, image_size=SCENE_PX, cache=cache)
        for split, number in (("train", count), ("test", 1))
    )
    return train, test


@pytest.mark.parametrize("kind", [ScenePose, SceneLandmarks])
def test_a_batch_holds_the_bits_of_its_examples(
    kind: type[ScenePose], scenes: tuple[Scenes, Scenes]
) -> None:
    task = kind(*scenes)
    digits = [task.drawn(scene, np.random.default_rng(scene)) for scene in range(8)]
    together = task.examples(task.train, digits)
    alone = [task.examples(task.train, [digit]) for digit in digits]
    for part, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert np.array_equal(part, np.concatenate(parts))


def test_too_few_scenes_for_a_batch_are_refused(scenes: tuple[Scenes, Scenes]) -> None:
    for plan in PLANS.values():
        with pytest.raises(UserError, match="batch_size 16 is larger than the 8 scenes"):
            next(plan.make(*scenes).batches("train", batch_size=16))
        with pytest.raises(UserError, match="split 'val' is unknown"):
            next(plan.make(*scenes).batches("val"))


def test_pixels_keep_their_labels(scenes: tuple[Scenes, Scenes]) -> None:
    task = SceneLabeling(*scenes, LossSettings())
    (batch,) = task.batches("test", batch_size=4)
    assert torch.equal(batch.targets, torch.from_numpy(scenes[1].labels.astype(np.int64)))
    digest = hashlib.sha256(scenes[1].images.tobytes() + scenes[1].labels.tobytes())
    assert batch.digest == digest.hexdigest()
    gray = (scenes[1].images[0, 5, 7, 0] / 255 - 0.485) / 0.229
    assert batch.images[0, 0, 5, 7].item() == pytest.approx(gray, rel=1e-5)


def test_perfect_and_trivial_label_maps_score_as_counted(scenes: tuple[Scenes, Scenes]) -> None:
    task = SceneLabeling(*scenes, LossSettings())
    labels = torch.from_numpy(scenes[1].labels.astype(np.int64))
    right = 50.0 * nn.functional.one_hot(labels, NUM_CLASSES).permute(0, 3, 1, 2).float()
    result = task.evaluate(Fixed(right), CPU)
    assert result.scores["pixel_accuracy"] == 100
    present = len(np.unique(scenes[1].labels))
    assert result.scores["miou"] == pytest.approx(100 * present / NUM_CLASSES)
    assert result.loss < 1e-6
    assert np.array_equal(result.predictions, scenes[1].labels)
    background = float((scenes[1].labels == 0).mean())
    assert task.trivial()["miou"] == pytest.approx(100 * background / NUM_CLASSES)


def test_a_segmentation_loss_is_the_cross_entropy(scenes: tuple[Scenes, Scenes]) -> None:
    task = SceneLabeling(*scenes, LossSettings())
    logits = torch.log(torch.tensor([0.25, 0.75])).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    batch = Batch(torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.long), "")
    loss = task.loss(Fixed(logits.clone()), batch).value
    assert loss.item() == pytest.approx(-np.log(0.75))


def test_a_crop_shows_its_digit_and_heatmaps_peak_at_its_keypoints(
    scenes: tuple[Scenes, Scenes],
) -> None:
    task = ScenePose(*scenes)
    (batch,) = task.batches("test", batch_size=64)
    assert len(batch.images) == len(task.digits["test"]) == int((scenes[1].digits >= 0).sum())
    digit = task.digits["test"][0]
    left, top, width, height = scenes[1].boxes_xywh[digit.scene, digit.place].tolist()
    assert digit.box == coco_crop_box((left, top, width, height), (64, 64))
    side = 1.25 * max(width, height)  # of the crop, in pixels of the scene
    middle = np.array([left + width / 2, top + height / 2])
    points = scenes[1].keypoints_xy[digit.scene, digit.place]
    expected = np.trunc((points - middle) * 16 / side + 8 + 0.5)
    flat = batch.targets.maps[0].flatten(1).argmax(dim=1).numpy()
    assert np.array_equal(np.stack([flat % 16, flat // 16], axis=1), expected)
    assert batch.targets.weights.min() == 1


@pytest.mark.parametrize(("kind", "best"), [(ScenePose, {"ap50": 100}), (SceneLandmarks, {})])
def test_target_heatmaps_decode_to_their_keypoints(
    kind: Callable[..., ScenePose], best: dict[str, float], scenes: tuple[Scenes, Scenes]
) -> None:
    task = kind(*scenes)
    (batch,) = task.batches("test", batch_size=64)
    result = task.evaluate(Fixed(batch.targets.maps), CPU)
    assert result.loss == 0
    truth = np.stack([scenes[1].keypoints_xy[d.scene, d.place] for d in task.digits["test"]])
    # Half a pixel of the heatmaps is up to 1.5 px of the scene on each axis.
    assert np.abs(result.predictions - truth).mean() < 1.5
    assert best.items() <= result.scores.items()
    worse = task.trivial()
    if kind is ScenePose:
        assert worse["ap"] < 20 < result.scores["ap"]
    else:
        assert result.scores["nme"] < 8 < worse["nme"]


def test_losses_of_keypoints_by_hand(scenes: tuple[Scenes, Scenes]) -> None:
    ones = torch.ones(2, 5, 16, 16)
    targets = Heatmaps(0 * ones, torch.tensor([[1.0] * 5, [0.0] * 5]))
    assert ScenePose(*scenes).error(ones, targets).item() == 0.25
    assert SceneLandmarks(*scenes).error(ones, targets).item() == 1


def test_images_and_heatmaps_of_mismatched_size_are_refused(
    scenes: tuple[Scenes, Scenes],
) -> None:
    task = ScenePose(*scenes)
    (batch,) = task.batches("test", batch_size=64)
    small = Fixed(torch.zeros(len(batch.images), 5, 8, 8))
    with pytest.raises(UserError, match=r"heatmaps have shape .*8, 8\) and their targets"):
        task.loss(small, batch)
    with pytest.raises(UserError, match="crop_px is 60; give a multiple of 32"):
        ScenePose(*scenes, crop_px=60)


class Noisy(nn.Module):
    """A network of two layers and dropout, with the resolution of the heatmaps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.Conv2d(4, 5, 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images to heatmaps."""
        return self.layers(images)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_dense_run_resumes_to_the_same_bits_dropout_included(
    optimizer: str,
    scenes: tuple[Scenes, Scenes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1)
    recipe = Recipe(
        optimizer=optimizer, learning_rate=0.01, schedule="poly", batch_size=4, epochs=2
    )

    def run(folder: str) -> tuple[nn.Module, Any]:
        model = Noisy()
        task = ScenePose(*scenes)
        result = loop.train(
            model, task, recipe, seed=0, out_dir=tmp_path / folder, device=CPU, show_progress=False
        )
        return model, result

    expected, straight = run("straight")
    step, left = loop.train_step, iter(range(3))

    def interrupted(*arguments: Any) -> loop.StepResult:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.setattr(loop, "train_step", step)
    torch.manual_seed(7)
    model, resumed = run("killed")
    assert resumed.resumed
    assert resumed.batches_sha256 == straight.batches_sha256
    for a, b in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"optimizer": "lion"}, "optimizer 'lion' is unknown; use sgd or adam"),
        ({"schedule": "cosine"}, "schedule 'cosine' is unknown; use step or poly"),
        ({"epochs": 0}, "epochs is 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
    ],
)
def test_a_wrong_recipe_gets_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(PLANS["pose"].recipe, **wrong)


def test_recipes_keep_the_official_optimizers_and_schedules() -> None:
    recipes = {name: plan.recipe for name, plan in PLANS.items()}
    assert {name: (r.optimizer, r.schedule) for name, r in recipes.items()} == {
        "pose": ("adam", "step"),
        "segmentation": ("sgd", "poly"),
        "ocr": ("sgd", "poly"),
        "landmarks": ("adam", "step"),
        "detection": ("adam", "step"),
    }
    assert "SGD" in recipes["detection"].source  # the one that differs says so
    pose = recipes["pose"]
    rates = [loop.learning_rate(pose, epoch, 210) for epoch in (0, 169, 170, 199, 200)]
    assert rates == [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]


@pytest.mark.parametrize("name", list(PLANS))
def test_small_networks_put_out_what_their_task_compares(
    name: str, scenes: tuple[Scenes, Scenes]
) -> None:
    plan = PLANS[name]
    model, task = plan.complete(make_network(plan.network)), plan.make(*scenes)
    loss = task.loss(model, next(task.batches("train", batch_size=2)))
    loss.value.backward()
    assert sum(p.numel() for p in model.parameters()) < 2.2e6
    assert all(p.grad is not None for p in model.parameters())
