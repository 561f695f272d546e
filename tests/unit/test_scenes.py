"""Sets of composed scenes: their bytes, cache, ground truth and what is refused."""

import doctest
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from reproduction import UserError
from reproduction.tasks.classification import sources
from reproduction.tasks.keypoints.metrics import keypoint_ap
from reproduction.tasks.scenes import compose, dataset
from reproduction.tasks.scenes.compose import KEYPOINTS, Pose, draw_levels, find_keypoints
from reproduction.tasks.scenes.dataset import SIGMA, Scenes, load_scenes, read_scans, scan_pools
from reproduction.tasks.scenes.picture import draw_scenes, main
from reproduction.tasks.scenes.plans import SCENE_PX

FIRST_SCENES = "99e312534de5ab5e3f20f3a742cea26fd35db48c5e86445c63a0f8d79955077f"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for composed scenes."""
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def scenes(cache: Path) -> Scenes:
    """Return twenty-four training scenes."""
    return load_scenes("train", count=24, cache=cache)


@pytest.mark.parametrize("module", [compose, sources])
def test_the_examples_of_the_docstrings_hold(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed


def test_the_bytes_are_the_same_on_every_machine(scenes: Scenes) -> None:
    assert scenes.sha256 == FIRST_SCENES


def test_a_scene_depends_on_seed_split_and_place_alone(scenes: Scenes, tmp_path: Path) -> None:
    np.random.seed(1)
    fewer = load_scenes("train", count=3, cache=tmp_path)
    for name, array in fewer.arrays().items():
        assert (array == scenes.arrays()[name][:3]).all()
    assert (load_scenes("train", count=3, seed=1, cache=tmp_path).images != fewer.images).any()
    assert (load_scenes("test", count=3, cache=tmp_path).images != fewer.images).any()


def test_the_scenes_of_the_studies_hold_several_digits(cache: Path) -> None:
    used = load_scenes("train", count=100, image_size=SCENE_PX, cache=cache)
    counts = (used.digits >= 0).sum(axis=1)
    assert set(counts) == {2, 3, 4}


def test_scenes_hold_several_digits_and_every_class(scenes: Scenes) -> None:
    counts = (scenes.digits >= 0).sum(axis=1)
    assert counts.min() >= 2 and counts.max() == 4
    assert set(np.unique(scenes.labels)) == set(range(dataset.NUM_CLASSES))
    missing = scenes.digits < 0
    for array in (scenes.sources, scenes.keypoints_xy, scenes.boxes_xywh):
        assert (array[missing] == -1).all() and (array[~missing] >= 0).all()
    assert (scenes.visibility()[missing] == 0).all() and (scenes.visibility()[~missing] == 2).all()


def test_the_pools_are_the_splits_of_classification_without_twins() -> None:
    scans, digits = read_scans()
    pools = scan_pools(scans, digits)
    assert (pools["test"] == np.flatnonzero(sources.held_out_digits(digits))).all()
    test = {scans[source].tobytes() for source in pools["test"]}
    assert not any(scans[source].tobytes() in test for source in pools["train"])
    assert 1430 <= len(pools["train"]) <= 1433


def test_keypoints_of_an_upright_bar_by_hand() -> None:
    scan = np.zeros((8, 8), dtype=int)
    scan[1:7, 3:5] = 16  # two cells wide, six high: 6 x 18 px at 3 px a cell
    pose = Pose((20, 30), 48, 0)
    ink = draw_levels(scan, pose, 64) >= compose.INK_LEVEL * compose.LEVEL_ONE
    # Half the level is reached half a cell beyond the last cell's center: at -3 and 3, -9 and 9.
    assert dataset.compose.find_box(ink).tolist() == [17, 21, 7, 19]
    # There, the other axis must lie between cell centers, where the level is full: corners are cut.
    found = dict(zip(KEYPOINTS, find_keypoints(ink, pose).tolist(), strict=True))
    assert found == {
        "top": [19, 21],
        "bottom": [19, 39],
        "left": [17, 23],
        "right": [23, 23],
        "center": [20, 30],
    }


def test_a_turned_bar_keeps_its_top() -> None:
    scan = np.zeros((8, 8), dtype=int)
    scan[1:7, 3:5] = 16
    for angle_deg, side in ((30, 1), (-30, -1)):  # clockwise: the top goes to the right
        pose = Pose((32, 32), 64, angle_deg)
        ink = draw_levels(scan, pose, 64) >= compose.INK_LEVEL * compose.LEVEL_ONE
        top, bottom = find_keypoints(ink, pose)[:2]
        assert side * (top[0] - 32) > 3 and side * (bottom[0] - 32) < -3
        assert top[1] < 24 and bottom[1] > 40


def test_a_cached_set_is_read_and_not_composed_again(
    scenes: Scenes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(dataset, "compose_scene")
    assert load_scenes("train", count=24, cache=cache).sha256 == scenes.sha256


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    load_scenes("test", count=1, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    arrays["labels"] = arrays["labels"] + 1
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=rf"{path.name} is damaged: remove it"):
        load_scenes("test", count=1, cache=tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged: remove it"):
        load_scenes("test", count=1, cache=tmp_path)


def test_the_ground_truth_is_cocos(scenes: Scenes) -> None:
    truth = scenes.coco()
    assert len(truth["images"]) == 24
    assert len(truth["annotations"]) == (scenes.digits >= 0).sum()
    areas = sum(annotation["area"] for annotation in truth["annotations"])
    assert areas == (scenes.labels > 0).sum()
    found = [
        {**{key: entry[key] for key in ("image_id", "category_id", "keypoints")}, "score": 1.0}
        for entry in truth["annotations"]
    ]
    assert keypoint_ap(truth, found, np.full(len(KEYPOINTS), SIGMA))["AP"] == 1


def test_scenes_refuse_what_they_cannot_be() -> None:
    with pytest.raises(UserError, match="split 'val' is unknown; use train or test"):
        load_scenes("val", count=1)
    with pytest.raises(UserError, match="count is 0; scenes need at least 1"):
        load_scenes("train", count=0)
    with pytest.raises(UserError, match="seed is -1; scenes need at least 0"):
        load_scenes("train", count=1, seed=-1)
    with pytest.raises(UserError, match="image_size is 32; scenes need at least 64"):
        load_scenes("train", count=1, image_size=32)


def test_a_picture_shows_scenes_and_their_keypoints(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = np.asarray(draw_scenes(scenes, 2))
    assert drawn.shape == (2 * 3 * 96, 2 * 3 * 96, 3)
    assert (drawn[: 3 * 96 : 3, : 3 * 96 : 3] == scenes.images[0]).all()
    for x, y in scenes.keypoints_xy[0, 0]:
        assert (drawn[3 * (96 + y) + 1, 3 * x + 1] == 255).all()
    monkeypatch.setattr(
        "reproduction.tasks.scenes.picture.load_scenes", lambda split, **numbers: scenes
    )
    main([str(tmp_path / "scenes.png"), "--count", "3"])
    with Image.open(tmp_path / "scenes.png") as image:
        assert image.size == (3 * 3 * 96, 2 * 3 * 96)
