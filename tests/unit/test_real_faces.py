"""Landmarks from tiny folders in the layout of the official csv files, and bad ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction import UserError
from reproduction.published_recipes import published_recipe
from reproduction.tasks.keypoints.augmentation import shrink
from reproduction.tasks.keypoints.crops import CropBox
from reproduction.tasks.keypoints.faces import LANDMARKS, Faces, read_face_task, read_faces
from reproduction.tasks.keypoints.flipping import FLIP_PAIRS, mirrored_order
from reproduction.tasks.keypoints.persons import Person
from reproduction.tasks.published import crop_augmentation, published_task
from tests import real_folders
from tests.unit.test_real_poses import Peaks

RULE = crop_augmentation(published_recipe("face_wflw"))
# Landmarks on the middle line of a face, which a mirror leaves where they are.
MIDDLE = {
    "wflw": {16, 51, 52, 53, 54, 57, 79, 85, 90, 94},
    "300w": {8, 27, 28, 29, 30, 33, 51, 57, 62, 66},
    "cofw": {20, 21, 24, 25, 26, 27, 28},
    "aflw": {13, 16, 18},
}


@pytest.mark.parametrize("name", LANDMARKS)
def test_every_set_is_read_and_gives_batches(tmp_path: Path, name: str) -> None:
    folder = real_folders.faces(tmp_path, name, LANDMARKS[name])
    task = published_task(published_recipe(f"face_{name}"), folder)
    batches = list(task.batches("train", seed=1, batch_size=3))

    assert len(batches) == 1 and batches[0].images.shape == (3, 3, 256, 256)
    assert batches[0].targets.shape == (3, LANDMARKS[name], 64, 64)
    assert isinstance(task, Faces) and len(task.test) == 3
    assert task.test[0].size_px == (24.0 if name == "aflw" else 0.0)
    assert task.test[0].box == CropBox((18.0, 15.0), (0.14 * 1.25, 0.14 * 1.25))


@pytest.mark.parametrize("name", LANDMARKS)
def test_the_mirror_leaves_the_middle_of_a_face(name: str) -> None:
    order = mirrored_order(LANDMARKS[name], FLIP_PAIRS[name])

    assert {n for n, other in enumerate(order) if n == other} == MIDDLE[name]
    assert [order[other] for other in order] == list(range(LANDMARKS[name]))


def test_landmarks_are_drawn_where_the_crop_shows_them(tmp_path: Path) -> None:
    pixels = np.zeros((120, 100, 3), np.uint8)
    pixels[58:63, 38:43] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    points = np.zeros((98, 2))
    points[51] = (40.0, 60.0)  # its own mirror image
    box = CropBox((45.0, 55.0), (0.5, 0.5))
    face = Person(tmp_path / "a.png", box, points, np.ones(98, int), 0)
    task = Faces(name="wflw", train=(face,), test=(face,), augmentation=RULE)
    for seed in range(8):
        crop, heatmaps = task.read(face, np.random.default_rng(seed))
        rows, columns = np.nonzero(crop[:, :, 0] > 127)
        y, x = np.unravel_index(heatmaps[51].argmax(), heatmaps[51].shape)
        # Cut to whole heatmap pixels of four, and one image pixel (2.56) off in a mirror.
        assert -2 <= columns.mean() - 4 * x <= 7
        assert -1 <= rows.mean() - 4 * y <= 5
        assert not heatmaps[0].any()  # y is not above 0: not drawn


def test_large_faces_are_shrunk_before_they_are_cropped() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    small, box = shrink(stripes, CropBox((200.0, 100.0), (1.0, 1.0)), (50, 50))

    assert small.shape == (100, 100, 3) and np.abs(small[:, 5:-5].astype(int) - 127).max() < 20
    assert box == CropBox((50.0, 25.0), (0.25, 0.25))
    same, kept = shrink(stripes, CropBox((200.0, 100.0), (0.4, 0.4)), (50, 50))
    assert same is stripes and kept.scale_wh == (0.4, 0.4)


def test_a_perfect_network_has_the_error_of_rounding(tmp_path: Path) -> None:
    task = read_face_task(real_folders.faces(tmp_path, "300w", 68, count=1), "300w", RULE)
    target = next(task.batches("test", batch_size=1)).targets
    result = task.evaluate(Peaks(target), torch.device("cpu"))

    assert result.landmarks_xy.shape == (1, 68, 2) and result.loss == 0.0
    # Heatmap pixels are half a pixel of the image here; predictions are whole pixels from 1.
    off = np.abs(result.landmarks_xy[0] - task.test[0].keypoints_xy)
    inside = target[0].amax(dim=(1, 2)).numpy() == 1
    assert inside.sum() > 30 and off[inside].max() <= 2
    assert set(result.scores) == {"nme", "failures_8", "failures_10"}


def test_errors_of_aflw_are_divided_by_its_boxes(tmp_path: Path) -> None:
    folder = real_folders.faces(tmp_path, "aflw", 19, count=1)
    task = read_face_task(folder, "aflw", RULE)
    heatmaps = torch.zeros(1, 19, 64, 64)
    one = task.evaluate(Peaks(heatmaps), torch.device("cpu")).scores["nme"]
    larger = replace(task, test=(replace(task.test[0], size_px=48.0),))

    assert larger.evaluate(Peaks(heatmaps), torch.device("cpu")).scores["nme"] == one / 2


def lines(path: Path, edit: Callable[[list[str]], Any]) -> None:
    content = path.read_text().splitlines()
    edit(content)
    path.write_text("\n".join(content) + "\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda csv: csv.unlink(),
            "face_landmarks_wflw_test.csv is missing: wflw needs .*train,te",
        ),
        (lambda csv: lines(csv, lambda x: x.__delitem__(slice(1, None))), "lists no face"),
        (
            lambda csv: lines(csv, lambda x: x.__setitem__(2, x[2].rsplit(",", 60)[0])),
            "line 3 .* 68 landmarks; wflw has 200 columns for 98 landmarks",
        ),
        (
            lambda csv: lines(csv, lambda x: x.__setitem__(1, x[1].replace("0.14", "wide"))),
            "line 2 .* value that is no number",
        ),
        (
            lambda csv: lines(csv, lambda x: x.__setitem__(1, x[1].replace("0.14", "0"))),
            "line 2 .* scale 0; expected more than 0",
        ),
        (lambda csv: csv.write_bytes(b"\xff\xfe" * 99), "cannot be read as csv"),
        (lambda csv: (csv.parent / "images/a/1.jpg").unlink(), "1 of 3 files are missing"),
    ],
)
def test_a_bad_folder_is_a_sentence(
    tmp_path: Path, damage: Callable[[Path], Any], told: str
) -> None:
    folder = real_folders.faces(tmp_path, "wflw", 98)
    damage(folder / "face_landmarks_wflw_test.csv")

    with pytest.raises(UserError, match=told):
        read_faces(folder, "wflw", "test")


def test_an_unknown_set_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data set 'faces' is unknown; use wflw, 300w"):
        read_faces(tmp_path, "faces", "train")


@pytest.mark.parametrize("x", ["900", "nan"])
def test_a_landmark_of_another_image_is_a_sentence(tmp_path: Path, x: str) -> None:
    folder = real_folders.faces(tmp_path, "wflw", 98)
    csv = folder / "face_landmarks_wflw_train.csv"
    lines(csv, lambda content: content.__setitem__(1, f"{content[1].rsplit(',', 2)[0]},{x},5"))
    task = read_face_task(folder, "wflw", RULE)

    with pytest.raises(UserError, match=rf"40 x 30 pixels and a keypoint at \({x}, 5\)"):
        task.read(task.train[0], None)
