"""How persons and faces are varied in training: bounds, half bodies, mirrors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reproduction.published_recipes import published_recipe
from reproduction.tasks.keypoints.augmentation import (
    Augmentation,
    Variation,
    draw_variation,
    half_body_box,
    vary,
)
from reproduction.tasks.keypoints.crops import CropBox
from reproduction.tasks.keypoints.flipping import FLIP_PAIRS
from reproduction.tasks.keypoints.persons import Person
from reproduction.tasks.keypoints.poses import Poses
from reproduction.tasks.order import read_batches
from reproduction.tasks.published import crop_augmentation
from tests import real_folders

COCO = crop_augmentation(published_recipe("pose_coco"))


def person_of(points: np.ndarray, visible: np.ndarray | None = None) -> Person:
    visibility = np.full(len(points), 2) if visible is None else visible
    return Person(Path("a.jpg"), CropBox((50.0, 50.0), (1.0, 1.0)), points, visibility, 0)


def test_draws_keep_to_the_published_bounds() -> None:
    person = person_of(np.random.default_rng(0).uniform(0, 90, (17, 2)))
    plain = replace(COCO, half_body_share=0.0)
    rng = np.random.default_rng(1)
    drawn = [draw_variation(person, plain, (192, 256), rng) for _ in range(2000)]
    factors = np.array([variation.box.scale_wh[0] for variation in drawn])
    angles = np.array([variation.rotation_deg for variation in drawn])

    assert factors.min() == pytest.approx(0.65) and factors.max() == pytest.approx(1.35)
    assert angles.min() == -90 and angles.max() == 90
    assert np.mean(angles != 0) == pytest.approx(0.6, abs=0.04)
    assert np.mean([v.is_mirrored for v in drawn]) == pytest.approx(0.5, abs=0.04)
    # Within one standard deviation (which the clip does not touch): 68 % of the factors.
    assert np.mean(np.abs(factors - 1) < 0.349) == pytest.approx(0.68, abs=0.04)


def test_faces_are_varied_uniformly() -> None:
    rule = crop_augmentation(published_recipe("face_wflw"))
    person = person_of(np.zeros((98, 2)))
    rng = np.random.default_rng(2)
    drawn = [draw_variation(person, rule, (256, 256), rng) for _ in range(2000)]
    factors = np.array([variation.box.scale_wh[0] for variation in drawn])

    assert 0.75 <= factors.min() < 0.76 and 1.24 < factors.max() <= 1.25
    assert np.mean(np.abs(factors - 1) < 0.125) == pytest.approx(0.5, abs=0.04)
    assert max(abs(v.rotation_deg) for v in drawn) <= 30 and not rule.half_body_share
    assert (rule.mirror_offset, COCO.mirror_offset) == (0, 1)


def test_half_of_a_body_is_chosen_as_the_official_code_does() -> None:
    points = np.array([[float(k), 10.0 * (k > 10)] for k in range(17)])
    person = person_of(points)
    rng = np.random.default_rng(3)
    boxes = [half_body_box(person, COCO.upper_body, (192, 256), rng) for _ in range(2000)]
    upper = [box.center_xy == (5.0, 0.5) for box in boxes]

    assert {box.center_xy for box in boxes} == {(5.0, 0.5), (13.5, 10.5)}
    assert np.mean(upper) == pytest.approx(0.69, abs=0.03)
    assert boxes[upper.index(True)].scale_wh[0] == pytest.approx(10 / 200 * 1.5)


@pytest.mark.parametrize(
    ("visible", "center"),
    [
        ([0, 1, 2], (1.0, 0.5)),  # the lower half has none
        ([0, 1], (0.5, 0.5)),
        ([0], (50.0, 50.0)),  # too few: all of the person
        ([11, 12, 13, 14], (12.5, 10.5)),  # the upper half has too few
    ],
)
def test_half_a_body_needs_keypoints(visible: list[int], center: tuple[float, float]) -> None:
    points = np.array([[float(k), 10.0 * (k > 10)] for k in range(17)])
    person = person_of(points, np.isin(np.arange(17), visible).astype(int))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert half_body_box(person, COCO.upper_body, (192, 256), rng).center_xy == center


def test_persons_with_few_keypoints_stay_whole() -> None:
    person = person_of(np.zeros((17, 2)), (np.arange(17) < 8).astype(int))
    always = replace(COCO, half_body_share=1.0, scale=0.0)
    drawn = draw_variation(person, always, (192, 256), np.random.default_rng(0))

    assert drawn.box == person.box


@pytest.mark.parametrize("offset", [1, 0])
def test_a_mirror_moves_image_points_and_box_together(offset: int) -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[4, 3] = 255
    points = np.array([[3.0, 4.0], [7.0, 2.0], *[[0.0, 0.0]] * 15])
    person = person_of(points, np.array([2, 1, *[0] * 15]))
    variation = Variation(CropBox((5.0, 6.0), (0.1, 0.1)), 0.0, is_mirrored=True)
    mirrored, moved, box = vary(image, person, variation, FLIP_PAIRS["coco"], offset)

    assert mirrored[4, 16].all()
    assert moved.keypoints_xy[0].tolist() == [20.0 - offset - 3, 4.0]
    assert box.center_xy == (20.0 - offset - 5, 6.0)
    # The right eye was the left one.
    assert moved.keypoints_xy[2].tolist() == [20.0 - offset - 7, 2.0]
    assert moved.visibility[[0, 1, 2]].tolist() == [2, 0, 1]


def test_an_augmentation_of_nothing_leaves_the_box() -> None:
    none = Augmentation(scale=0.0, rotation_deg=0.0, flip_share=0.0)
    person = person_of(np.zeros((17, 2)))

    drawn = draw_variation(person, none, (192, 256), np.random.default_rng(0))
    assert drawn == Variation(person.box, 0.0, False)


def test_a_rotation_turns_the_crop_about_its_center(tmp_path: Path) -> None:
    image = real_folders.write_image(tmp_path / "a.png", 80, 60)
    points = np.tile([40.0, 20.0], (17, 1))
    person = Person(image, CropBox((30.0, 20.0), (0.3, 0.4)), points, np.ones(17, int), 0)
    rule = replace(COCO, scale=0.0, flip_share=0.0, half_body_share=0.0)
    task = Poses(
        **{"name": "coco", "train": (person,), "test": (person,), "input_wh": (192, 256)},
        **{"sigma_px": 2, "augmentation": rule, "score": lambda *_: {}},
    )
    for seed in range(8):
        drawn = draw_variation(person, rule, (192, 256), np.random.default_rng(seed))
        heatmaps = task.read(person, np.random.default_rng(seed)).target_heatmaps
        y, x = np.unravel_index(heatmaps[0].argmax(), heatmaps[0].shape)
        # Ten pixels to the right of the center, of which 60 fill the width of 48.
        angle = np.deg2rad(drawn.rotation_deg)
        assert x == pytest.approx(24 + 8 * np.cos(angle), abs=0.51)
        assert y == pytest.approx(32 - 8 * np.sin(angle), abs=0.51)


def test_each_epoch_has_an_order_of_its_own() -> None:
    def order(split: str, epoch: int) -> list[int]:
        found = read_batches(
            lambda index, rng: index, 11, split, seed=1, epoch=epoch, batch_size=4, workers=2
        )
        return [index for batch in found for index in batch]

    assert order("test", 0) == order("test", 1) == list(range(11))
    assert len(set(order("train", 0))) == 8 and order("train", 0) == order("train", 0)
    assert order("train", 0) != order("train", 1) != sorted(order("train", 1))
