"""Labeled images from tiny folders in the real sets' layouts, their crops, and bad folders."""

import doctest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn

from reproduction import UserError
from reproduction.published_recipes import published_recipe
from reproduction.tasks import order, trees
from reproduction.tasks.data import check_folder, main
from reproduction.tasks.published import published_task
from reproduction.tasks.segmentation import augmentation
from reproduction.tasks.segmentation.augmentation import Augmentation, augment, resize, swapped
from reproduction.tasks.segmentation.folders import CLASSES, IGNORED, PLACES, read_labeled
from reproduction.tasks.segmentation.inference import windowed
from reproduction.tasks.segmentation.task import Segmentation
from tests import real_folders

CPU = torch.device("cpu")
ADE_LABELS = "annotations/training/00000000.png"
SMALL = Augmentation(crop_hw=(16, 24), base_size=40, scale_steps=11)


def make(folder: Path, name: str) -> Path:
    """Make the folder of any set."""
    if name in PLACES:
        return real_folders.equal_names(folder, PLACES[name], {"lip": 19, "ade20k": 150}[name])
    return (real_folders.cityscapes if name == "cityscapes" else real_folders.context)(folder)


class Constant(nn.Module):
    """Answer with the same logits for every place of every image, as OCR does: in a list."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)[None, :, None, None]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        size = [len(images), -1, -(-images.shape[2] // 4), -(-images.shape[3] // 4)]
        return [0 * self.logits.expand(size), self.logits.expand(size)]


@pytest.mark.parametrize("module", [augmentation, order, trees])
def test_the_examples_of_the_docstrings_hold(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed


@pytest.mark.parametrize("name", CLASSES)
def test_every_set_is_read_with_all_its_classes(tmp_path: Path, name: str) -> None:
    data = read_labeled(make(tmp_path, name), name, "train")
    image, labels = data.read(0)

    assert image.shape == (*labels.shape, 3) and labels.dtype == np.uint8
    assert set(np.unique(labels)) - {IGNORED} == set(range(CLASSES[name]))
    assert (IGNORED in labels) == (name not in ("lip", "pascal_ctx60"))
    both = read_labeled(tmp_path, name, "trainval")
    assert len(both.pairs) == len(data.pairs) + len(read_labeled(tmp_path, name, "val").pairs)


def test_raw_labels_become_the_published_classes(tmp_path: Path) -> None:
    table = read_labeled(make(tmp_path / "c", "cityscapes"), "cityscapes", "val").table
    assert [int(table[raw]) for raw in (7, 8, 11, 17, 33)] == [0, 1, 2, 5, 18]
    assert table[0] == table[9] == table[29] == IGNORED and table[34] == -1
    table = read_labeled(make(tmp_path / "a", "ade20k"), "ade20k", "val").table
    assert (table[0], table[1], table[150], table[151]) == (IGNORED, 0, 149, -1)
    folder = make(tmp_path / "p", "pascal_ctx")
    tables = [read_labeled(folder, name, "val").table for name in ("pascal_ctx", "pascal_ctx60")]
    # Label 5 is the table, which the list of classes calls diningtable; label 64 is no class.
    assert [(int(t[4]), int(t[5]), int(t[63]), int(t[64])) for t in tables] == [
        (IGNORED, 0, 58, IGNORED),
        (0, 1, 59, 0),
    ]


def test_a_list_names_the_pairs(tmp_path: Path) -> None:
    folder = make(tmp_path, "cityscapes")
    shot = "train/ulm/ulm_000001_000019"
    line = f"leftImg8bit/{shot}_leftImg8bit.png\tgtFine/{shot}_gtFine_labelIds.png\n"
    (folder / "train.lst").write_text(line)
    data = read_labeled(folder, "cityscapes", "train", list_file=folder / "train.lst")

    assert [pair.image.name for pair in data.pairs] == ["ulm_000001_000019_leftImg8bit.png"]
    (folder / "train.lst").write_text("only_one_name.png\n")
    with pytest.raises(UserError, match=r"line 1 of .* has 1 names; expected an image and its lab"):
        read_labeled(folder, "cityscapes", "train", list_file=folder / "train.lst")
    with pytest.raises(UserError, match=r"none.lst does not exist"):
        read_labeled(folder, "cityscapes", "train", list_file=folder / "none.lst")


def test_image_and_labels_are_cropped_together() -> None:
    labels = np.repeat(np.repeat(np.arange(15).reshape(3, 5), 40, 0), 40, 1).astype(np.uint8)
    image = np.repeat(labels[:, :, None] * 10 + 50, 3, 2)
    rule = replace(SMALL, crop_hw=(96, 128), base_size=200)
    for seed in range(20):
        crop, found = augment(image, labels, rule, np.random.default_rng(seed))
        assert crop.shape == (96, 128, 3) and found.shape == (96, 128)
        inside = found != IGNORED
        assert (crop[~inside] == 0).all() and inside.any()
        # But for the seams, which bilinear interpolation blurs, both say the same.
        assert (crop[:, :, 0] == found * 10 + 50)[inside].mean() > 0.85


def test_a_mirror_exchanges_what_the_recipe_says() -> None:
    labels = np.tile(np.array([14, 15, 3, 16], np.uint8), (4, 1))
    image = np.zeros((4, 4, 3), np.uint8)
    rule = Augmentation(
        **{"crop_hw": (4, 4), "base_size": 8, "scale_steps": 0, "flip_share": 1.0},
        flip_pairs=((14, 15), (16, 17)),
    )
    _, mirrored = augment(image, labels, rule, np.random.default_rng(0))

    assert mirrored[0].tolist() == [17, 3, 14, 15]
    assert swapped(labels, rule.flip_pairs)[0].tolist() == [15, 14, 3, 17]


def test_scales_and_mirrors_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []

    def note(image: Any, labels: Any, size: tuple[int, int]) -> Any:
        drawn.append(size)
        return resize(image, labels, size)

    monkeypatch.setattr(augmentation, "resize", note)
    labels = np.zeros((20, 40), np.uint8)
    labels[:, :20] = 1
    image = np.zeros((20, 40, 3), np.uint8)
    rng = np.random.default_rng(0)
    rule = replace(SMALL, crop_hw=(64, 64))
    mirrored = [augment(image, labels, rule, rng)[1][0, -1] != IGNORED for _ in range(600)]
    widths = [size[1] for size in drawn][1::2]

    assert sorted(set(widths)) == [20 + 4 * step for step in range(12)]
    assert np.bincount((np.array(widths) - 20) // 4).min() > 25
    # A mirrored crop has its padding on the left; full crops show no difference.
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.08)


def test_resizing_takes_pixels_where_opencv_does() -> None:
    image = np.array([[[0] * 3, [100] * 3]], np.uint8)
    labels = np.array([[1, 2]], np.uint8)
    wide, numbers = resize(image, labels, (1, 4))

    assert wide[0, :, 0].tolist() == [0, 25, 75, 100] and numbers.tolist() == [[1, 1, 2, 2]]
    three = np.array([[1, 2, 3]], np.uint8)
    assert resize(np.zeros((1, 3, 3), np.uint8), three, (1, 2))[1].tolist() == [[1, 2]]


def test_batches_follow_from_the_seed_alone(tmp_path: Path) -> None:
    task = published_task(published_recipe("ocr_cityscapes"), make(tmp_path, "cityscapes"))
    assert isinstance(task, Segmentation)
    task = replace(task, augmentation=SMALL)
    whole = [batch.digest for batch in task.batches("train", seed=3, epoch=1, batch_size=1)]
    again = replace(task, workers=0).batches("train", seed=3, epoch=1, batch_size=1, start=1)

    assert len(whole) == task.steps(1) == 2 and len(set(whole)) == 2
    assert [batch.digest for batch in again] == whole[1:]
    assert published_task(published_recipe("seg_cityscapes_trainval"), tmp_path).steps(1) == 3
    other = [b.digest for b in task.batches("train", seed=4, epoch=1, batch_size=1)]
    assert not set(other) & set(whole)


def test_the_loss_and_the_scores_of_a_known_answer(tmp_path: Path) -> None:
    task = published_task(published_recipe("ocr_lip"), make(tmp_path, "lip"))
    assert isinstance(task, Segmentation)
    small = replace(
        task.augmentation, crop_hw=(16, 16), base_size=16, fixed_hw=(24, 32), scale_steps=0
    )
    windows = windowed(32, (24, 24), task.rule.flip_pairs)
    task = replace(task, augmentation=small, rule=replace(windows, align_corners=True))
    batch = next(task.batches("train", batch_size=2))
    assert next(task.batches("test")).images.shape[-2:] == (24, 32)
    model = Constant([9.0] + [0.0] * 19).train()
    share = float((batch.targets == 0).sum() / (batch.targets != IGNORED).sum())
    expected = np.log(np.exp(9) + 19) - 9 * share + 0.4 * np.log(20)
    assert float(task.loss(model, batch).value) == pytest.approx(expected, rel=1e-4)

    result = task.evaluate(model, CPU)
    # One class of 20, each on a twentieth of the pixels, is always said.
    assert result.scores["miou"] == pytest.approx(100 / 20 / 20)
    assert result.scores["pixel_accuracy"] == pytest.approx(5) and model.training
    assert result.confusion[:, 0].sum() == result.confusion.sum() == 2 * 2 * 30 * 20


@pytest.mark.parametrize("name", ["seg_ade20k", "ocr_pascal_ctx60"])
def test_images_are_seen_whole_at_one_scale(tmp_path: Path, name: str) -> None:
    recipe = published_recipe(name)
    task = published_task(recipe, make(tmp_path, recipe.data))
    assert isinstance(task, Segmentation)
    task = replace(task, short_side=21, scales=(1.0,))
    seen: list[torch.Size] = []
    model = Constant([1.0] + [0.0] * (CLASSES[recipe.data] - 1))
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    result = task.evaluate(model, CPU)

    # 30 x 40 to 21 x 28, padded to 24 x 32.
    assert {tuple(shape[-2:]) for shape in seen} == {(24, 32)}
    # What is predicted for the padding is cut off, but for ADE20K.
    scores = task._scores(lambda images: model(images)[-1], torch.zeros(1, 3, 30, 40))
    assert scores.shape[-2:] == ((24, 32) if recipe.data == "ade20k" else (21, 28))
    _, labels = task.test.read(0)
    counted = int((labels != IGNORED).sum()) * len(task.test.pairs)
    assert result.confusion.sum() == result.confusion[:, 0].sum() == counted


def test_whole_images_of_two_sizes_need_batches_of_one(tmp_path: Path) -> None:
    folder = make(tmp_path, "ade20k")
    real_folders.write_image(folder / "images/validation/00000001.jpg", 41, 30)
    labels = np.zeros((30, 41))
    real_folders.write_labels(folder / "annotations/validation/00000001.png", labels)
    task = published_task(published_recipe("seg_ade20k"), folder)

    assert len(list(task.batches("test", batch_size=1))) == 2
    with pytest.raises(UserError, match=r"sizes \[\(30, 40\), \(30, 41\)\].*need batch_size 1"):
        next(task.batches("test", batch_size=2))


def recolor(folder: Path) -> None:
    real_folders.write_image(folder / ADE_LABELS)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda f: real_folders.write_labels(f / ADE_LABELS, np.full((30, 40), 200)),
            "has label 200, which ade20k with its 150 classes does not have",
        ),
        (
            lambda f: real_folders.write_labels(f / ADE_LABELS, np.ones((30, 39))),
            "30 rows of 40 pixels and its labels .* have 30 of 39: they do not belong together",
        ),
        (recolor, r"has 3 channels \(RGB\); labels are one number a pixel"),
        (lambda f: (f / ADE_LABELS).write_bytes(b"no image"), "cannot be read as an image"),
    ],
)
def test_bad_labels_are_a_sentence(
    tmp_path: Path, damage: Callable[[Path], Any], told: str
) -> None:
    damage(make(tmp_path, "ade20k"))

    with pytest.raises(UserError, match=told):
        read_labeled(tmp_path, "ade20k", "train").read(0)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("ade20k", lambda f: (f / ADE_LABELS).unlink(), "1 of 4 files are missing .*ade20k needs"),
        ("ade20k", lambda f: (f / "images").rename(f / "i"), "images/training is missing: ade20k"),
        (
            "lip",
            lambda f: (f / PLACES["lip"]["train"][0] / "00000001.jpg").unlink(),
            "1 of 4 files are missing or empty, such as .*00000001.jpg: the data set was not down",
        ),
        (
            "cityscapes",
            lambda f: [path.unlink() for path in f.glob("*/train/*/*") if "color" not in path.name],
            "has no image of train: cityscapes needs",
        ),
        ("pascal_ctx", lambda f: (f / "labels.txt").unlink(), "labels.txt is missing: pascal_ctx"),
        (
            "pascal_ctx",
            lambda f: (f / "59_labels.txt").write_text("1: tables\n"),
            "has 'tables', w",
        ),
        (
            "pascal_ctx",
            lambda f: (f / "59_labels.txt").write_text("1: table\n"),
            "has 1 names; exp",
        ),
        ("pascal_ctx", lambda f: (f / "labels.txt").write_text("table\n"), "a line is a number"),
    ],
)
def test_a_bad_folder_is_a_sentence(
    tmp_path: Path, name: str, damage: Callable[[Path], Any], told: str
) -> None:
    damage(make(tmp_path, name))

    with pytest.raises(UserError, match=told):
        read_labeled(tmp_path, name, "train")


def test_a_damaged_mat_file_is_a_sentence(tmp_path: Path) -> None:
    data = read_labeled(make(tmp_path, "pascal_ctx"), "pascal_ctx", "train")
    savemat(data.pairs[0].labels, {"Other": np.ones((30, 40))})
    with pytest.raises(UserError, match="lacks one of LabelMap: it is another file"):
        data.read(0)
    data.pairs[0].labels.write_bytes(b"no mat file at all" * 20)
    with pytest.raises(UserError, match=r"is damaged \(.*\): get it again"):
        data.read(0)


@pytest.mark.parametrize(("name", "split"), [("voc", "train"), ("lip", "test")])
def test_an_unknown_set_or_split_is_a_sentence(tmp_path: Path, name: str, split: str) -> None:
    with pytest.raises(UserError, match="is unknown; use"):
        read_labeled(tmp_path, name, split)


def test_labels_of_a_palette_are_numbers(tmp_path: Path) -> None:
    folder = make(tmp_path, "lip")
    data = read_labeled(folder, "lip", "train")
    image = Image.open(data.pairs[0].labels).convert("L")
    image.putpalette(np.arange(768, dtype=np.uint8).tobytes())
    image.save(data.pairs[0].labels)

    assert image.mode == "P" and set(np.unique(data.read(0)[1])) == set(range(20))


@pytest.mark.parametrize("name", trees.TREES)
def test_the_command_counts_what_is_there(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in CLASSES:
        make(tmp_path, name)
    elif name in ("coco", "mpii"):
        getattr(real_folders, name)(tmp_path)
    else:
        count = {"wflw": 98, "300w": 68, "cofw": 29, "aflw": 19}[name]
        real_folders.faces(tmp_path, name, count)

    assert main([name, str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("train: ") and lines[0][7] in "123"


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coco", str(tmp_path)]) == 2
    assert "coco needs" in capsys.readouterr().err
    assert main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(trees.TREES)
    assert main(["coco"]) == 2
    assert main(["coco", "~nobody-of-this-name/data"]) == 2
    with pytest.raises(UserError, match="'voc' is unknown; use coco"):
        check_folder("voc", tmp_path)
    with pytest.raises(UserError, match="is no folder; lip needs"):
        check_folder("lip", tmp_path / "none")
