"""COCO and MPII from tiny folders in their layouts, the crops of persons, and bad folders."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn

from reproduction import UserError
from reproduction.published_recipes import published_recipe
from reproduction.tasks.keypoints.coco import coco_results, read_coco
from reproduction.tasks.keypoints.crops import CropBox
from reproduction.tasks.keypoints.mpii import read_mpii, read_pckh_truth
from reproduction.tasks.keypoints.persons import Person
from reproduction.tasks.keypoints.poses import Poses, coco_poses, mpii_poses
from reproduction.tasks.published import crop_augmentation, published_task
from tests import real_folders

INPUT_WH = (48, 64)
COCO = crop_augmentation(published_recipe("pose_coco"))
ANNOTATIONS = "annotations/person_keypoints_val2017.json"


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_folders.coco(tmp_path_factory.mktemp("coco"))


class Peaks(nn.Module):
    """Answer with the same heatmaps for every image."""

    def __init__(self, heatmaps: torch.Tensor) -> None:
        super().__init__()
        self.heatmaps = heatmaps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.heatmaps.expand(len(images), -1, -1, -1)


def tiny(task: Poses, workers: int = 0) -> Poses:
    """Shrink the network's input, so that reading takes no time."""
    return replace(task, input_wh=INPUT_WH, workers=workers)


def test_persons_without_keypoints_and_crowds_are_left_out(coco: Path) -> None:
    split = read_coco(coco, "train", (192, 256))

    assert [person.image_id for person in split.persons] == [7, 9, 7]
    first = split.persons[0]
    assert first.visibility.tolist() == [2] * 12 + [0] * 5
    # The box 20 x 25 at (2, 1): its center, the height the larger side for 3:4, a margin of 1.25.
    assert first.box.center_xy == (12.0, 13.5)
    assert first.box.scale_wh == pytest.approx((0.125, 0.125 * 4 / 3))
    assert len(split.truth["annotations"]) == 5


def test_boxes_are_clipped_to_their_image(coco: Path) -> None:
    path = coco / "detections.json"
    entry = {"image_id": 7, "category_id": 1, "score": 0.5}
    boxes = ([-10.0, 10.0, 20.0, 100.0], [50.0, 0.0, 5.0, 5.0], [0.0, 0.0, 4.0, 4.0])
    content = [{**entry, "bbox": box} for box in boxes]
    path.write_text(json.dumps([*content, {**content[2], "score": 0.1}]))
    split = read_coco(coco, "val", (192, 256), detections=path, least_score=0.2)

    assert [person.box.center_xy for person in split.persons] == [(5.0, 20.0), (2.0, 2.0)]
    assert {person.score for person in split.persons} == {0.5}


def test_batches_follow_from_the_seed_alone(coco: Path) -> None:
    task = tiny(coco_poses(coco, (192, 256), 2, COCO))
    whole = [batch.digest for batch in task.batches("train", seed=3, epoch=1, batch_size=1)]
    again = tiny(task, workers=3).batches("train", seed=3, epoch=1, batch_size=1, start=1)

    assert len(whole) == task.steps(1) == 3 and len(set(whole)) == 3
    assert [batch.digest for batch in again] == whole[1:]
    other = [b.digest for b in task.batches("train", seed=3, epoch=2, batch_size=1)]
    assert not set(other) & set(whole)


def test_a_batch_has_what_the_loss_compares(coco: Path) -> None:
    task = tiny(coco_poses(coco, (192, 256), 2, COCO))
    batch = next(task.batches("test", batch_size=3))

    assert batch.images.shape == (3, 3, 64, 48)
    assert batch.targets.heatmaps.shape == (3, 17, 16, 12)
    assert batch.targets.weights[:, :12].sum() == 36 and not batch.targets.weights[:, 12:].any()
    assert batch.targets.heatmaps[:, :12].amax(dim=(2, 3)).median() == 1.0
    found = task.loss(Peaks(batch.targets.heatmaps[:1] * 0), batch).value
    assert float(found) == pytest.approx(0.5 * float((batch.targets.heatmaps**2).mean()))


def test_a_target_lies_where_the_image_shows_its_keypoint(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[23:26, 29:32] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    points = np.zeros((17, 2))
    points[0] = (30.0, 24.0)
    box = CropBox((35.0, 28.0), (0.3, 0.4))
    person = Person(tmp_path / "a.png", box, points, np.eye(1, 17, dtype=int)[0], 0)
    task = Poses(
        **{"name": "coco", "train": (person,), "test": (person,), "input_wh": (192, 256)},
        **{"sigma_px": 2, "augmentation": replace(COCO, flip_share=0.5), "score": lambda *_: {}},
    )
    for seed in range(8):
        crop, heatmaps, weights = task.read(person, np.random.default_rng(seed))
        rows, columns = np.nonzero(crop[:, :, 0] > 127)
        y, x = np.unravel_index(heatmaps[0].argmax(), heatmaps[0].shape)
        assert weights[0] == 1 and heatmaps[0].max() == 1.0
        # A heatmap pixel is four of the crop, so that its center is within two.
        assert 4 * x == pytest.approx(columns.mean(), abs=2.5)
        assert 4 * y == pytest.approx(rows.mean(), abs=2.5)


def test_the_scorer_is_given_what_the_network_finds(coco: Path) -> None:
    task = tiny(coco_poses(coco, (192, 256), 2, COCO))
    heatmaps = torch.zeros(1, 17, 16, 12)
    heatmaps[:, :, 8, 6] = 1.0
    model = Peaks(heatmaps).train()
    result = task.evaluate(model, torch.device("cpu"))

    assert model.training and result.keypoints_xy.shape == (3, 17, 2)
    assert set(result.scores) == set(COCO_NAMES)
    # The middle of the heatmap is the middle of the box; the flip test averages with 5 + 1 = 6.
    assert result.keypoints_xy[0, 0] == pytest.approx((12.0, 13.5), abs=1.5)
    assert result.loss > 0


COCO_NAMES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")


def test_the_annotation_itself_scores_one(coco: Path) -> None:
    split = read_coco(coco, "val", (192, 256))
    points = np.stack([person.keypoints_xy for person in split.persons])
    task = coco_poses(coco, (192, 256), 2, COCO)
    scores = task.score(split.persons, points, np.ones((3, 17)))

    assert scores["AP"] == pytest.approx(1.0)
    assert task.score(split.persons, points + 30, np.ones((3, 17)))["AP"] == pytest.approx(0.0)


def test_similar_results_of_an_image_are_left_out(coco: Path) -> None:
    persons = read_coco(coco, "val", (192, 256)).persons
    points = np.zeros((3, 17, 2))
    scores = np.array([[0.5] * 17, [0.9] * 17, [0.7] * 17])
    results = coco_results(persons, points, scores)

    assert [(r["image_id"], round(r["score"], 3)) for r in results] == [(7, 0.7), (9, 0.9)]


def test_mpii_counts_from_zero(tmp_path: Path) -> None:
    persons = read_mpii(real_folders.mpii(tmp_path), "train")
    raw = json.loads((tmp_path / "annot" / "train.json").read_text())[0]

    assert persons[0].keypoints_xy[0].tolist() == [value - 1 for value in raw["joints"][0]]
    assert persons[0].visibility[3] == 0 and persons[0].visibility.sum() == 15
    assert persons[0].box.center_xy == pytest.approx((19.0, 15 + 15 * 0.15 - 1))


def test_mpii_scores_its_own_annotation_fully(tmp_path: Path) -> None:
    task = mpii_poses(real_folders.mpii(tmp_path), (256, 256), 2, COCO)
    points = np.stack([person.keypoints_xy for person in task.test])
    truth = read_pckh_truth(tmp_path)

    assert task.score(task.test, points, np.ones((2, 16)))["mean"] == pytest.approx(100)
    # Half of 0.6 times the diagonal of 3 x 4 is 1.5 pixels: off by 1.41 is right, by 1.84 wrong.
    assert task.score(task.test, points - 1, np.ones((2, 16)))["mean"] == pytest.approx(100)
    assert task.score(task.test, points + 1.3, np.ones((2, 16)))["mean"] == pytest.approx(0)
    assert truth.head_boxes[0].tolist() == [5, 5, 8, 9] and not truth.is_visible[0, 3]
    batch = next(tiny(task).batches("train", batch_size=2))
    assert batch.targets.heatmaps.shape == (2, 16, 16, 12)


@pytest.mark.parametrize("name", ["pose_coco", "pose_coco_384x288_w48", "pose_mpii"])
def test_a_published_recipe_is_read(tmp_path: Path, name: str) -> None:
    recipe = published_recipe(name)
    folder = getattr(real_folders, recipe.data)(tmp_path)
    task = published_task(recipe, folder)
    batch = next(task.batches("train", batch_size=1))

    width, height = recipe["heatmap_wh"]
    assert batch.targets.heatmaps.shape[-2:] == (height, width)
    assert batch.images.shape[-2:] == (4 * height, 4 * width)


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def first(**fields: Any) -> Callable[[Any], None]:
    return lambda content: content["annotations"][0].update(fields)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / ANNOTATIONS).unlink(), "person_keypoints_val2017.json is missing: coco ne"),
        (lambda f: (f / ANNOTATIONS).write_text('{"images": ['), "is damaged"),
        (lambda f: (f / ANNOTATIONS).write_text("[]"), "not COCO's format"),
        (lambda f: change(f / ANNOTATIONS, first(keypoints=[1] * 6)), "a file of another task"),
        (
            lambda f: change(
                f / ANNOTATIONS, lambda c: [a.pop("keypoints") for a in c["annotations"]]
            ),
            "without 17 keypoints, of area, bbox, category_id",
        ),
        (
            lambda f: change(f / ANNOTATIONS, lambda c: c.update(annotations=[])),
            "no annotated keypoint in 0 annotations",
        ),
        (
            lambda f: change(f / ANNOTATIONS, first(keypoints=[40, 3, 2] + [0] * 48)),
            "annotation 1 of .* keypoint 0 is marked visible at .40, 3., outside of its image of 4",
        ),
        (lambda f: change(f / ANNOTATIONS, first(image_id=5)), "annotates image 5"),
        (lambda f: (f / "images/val2017/000000000009.jpg").unlink(), "1 of 2 files are missing"),
        (lambda f: (f / "images/val2017/000000000009.jpg").write_bytes(b""), "missing or empty"),
        (
            lambda f: [path.unlink() for path in (f / "images/val2017").iterdir()],
            "2 of 2 files .*not downloaded or unpacked to its end; coco needs",
        ),
    ],
)
def test_a_bad_folder_of_coco_is_a_sentence(
    tmp_path: Path, damage: Callable[[Path], Any], told: str
) -> None:
    damage(real_folders.coco(tmp_path))

    with pytest.raises(UserError, match=told):
        read_coco(tmp_path, "val", (192, 256))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "do not exist"),
        ([{"image_id": 7, "category_id": 1}], "entry of category_id, image_id; expected image_id"),
        (
            [{"image_id": 8, "category_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}],
            "image 8, which is not in this split",
        ),
        ([], "no person with a score of at least 0.0"),
    ],
)
def test_bad_detections_are_a_sentence(coco: Path, content: Any, told: str) -> None:
    path = coco / "bad.json"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(json.dumps(content))

    with pytest.raises(UserError, match=told):
        read_coco(coco, "val", (192, 256), detections=path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "annot/valid.json").unlink(), "valid.json is missing: mpii needs"),
        (lambda f: (f / "annot/valid.json").write_text("[]"), "lists no person"),
        (lambda f: change(f / "annot/valid.json", lambda c: c[1].pop("joints")), "person 1 of"),
        (
            lambda f: change(f / "annot/valid.json", lambda c: c[0].update(joints=[[1, 2]] * 17)),
            r"has joints \(17, 2\) and joints_vis \(16,\)",
        ),
        (
            lambda f: change(
                f / "annot/valid.json",
                lambda c: [entry.update(joints_vis=[0] * 16) for entry in c],
            ),
            "no annotated keypoint of 2 persons",
        ),
        (lambda f: (f / "images/000000000.jpg").unlink(), "1 of 2 files are missing"),
        (lambda f: (f / "annot/gt_valid.mat").unlink(), "gt_valid.mat is missing"),
        (lambda f: (f / "annot/gt_valid.mat").write_bytes(b"no mat" * 99), "is damaged"),
        (lambda f: savemat(f / "annot/gt_valid.mat", {"a": 1}), "lacks one of pos_gt_src"),
        (
            lambda f: savemat(
                f / "annot/gt_valid.mat",
                {"pos_gt_src": np.ones((16, 2, 2)), "jnt_missing": 1, "headboxes_src": 1},
            ),
            "has arrays of shape",
        ),
        (
            lambda f: change(f / "annot/valid.json", lambda c: c.pop()),
            "lists 1 persons and gt_valid.mat 2",
        ),
    ],
)
def test_a_bad_folder_of_mpii_is_a_sentence(
    tmp_path: Path, damage: Callable[[Path], Any], told: str
) -> None:
    damage(real_folders.mpii(tmp_path))

    with pytest.raises(UserError, match=told):
        mpii_poses(tmp_path, (256, 256), 2, COCO)


def test_an_image_that_is_cut_short_is_a_sentence(tmp_path: Path) -> None:
    task = coco_poses(real_folders.coco(tmp_path), (192, 256), 2, COCO)
    image = task.train[0].image
    image.write_bytes(image.read_bytes()[:400])

    with pytest.raises(UserError, match=r"000000000007.jpg cannot be read as an image"):
        task.read(task.train[0], None)


def test_a_keypoint_far_from_its_image_is_a_sentence(tmp_path: Path) -> None:
    task = mpii_poses(real_folders.mpii(tmp_path), (256, 256), 2, COCO)
    points = task.train[0].keypoints_xy.copy()
    points[0] = (45.0, 31.0)  # a little outside: people are cut by the image's border
    assert task.read(replace(task.train[0], keypoints_xy=points), None)
    points[0] = (500.0, 31.0)

    with pytest.raises(UserError, match=r"40 x 30 pixels and a keypoint at \(500, 31\)"):
        task.read(replace(task.train[0], keypoints_xy=points), None)


def test_a_set_smaller_than_a_batch_is_a_sentence(coco: Path) -> None:
    task = tiny(coco_poses(coco, (192, 256), 2, COCO))

    with pytest.raises(UserError, match="batch_size 4 is larger than the 3 training samples"):
        next(task.batches("train", batch_size=4))
    with pytest.raises(UserError, match="split 'valid' is unknown"):
        next(task.batches("valid"))
