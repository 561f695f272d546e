"""Batches as functions of the seed, and what the data sets' readers refuse."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction import UserError
from reproduction.tasks.classification import sources
from reproduction.tasks.classification.data import MEAN, STD, ArraySplit, Dataset
from reproduction.tasks.classification.sources import load_dataset, parse_data


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return the embedded data set."""
    return load_dataset("digits")


def digests(dataset: Dataset, **options: int) -> list[str]:
    """Return the digests of the training batches of an epoch."""
    return [batch.digest for batch in dataset.batches("train", batch_size=256, **options)]


def test_batches_depend_on_seed_and_epoch_alone(digits: Dataset) -> None:
    np.random.seed(1)
    first = digests(digits, seed=3, epoch=1)
    np.random.seed(2)
    torch.manual_seed(2)
    assert digests(digits, seed=3, epoch=1) == first
    assert digests(digits, seed=4, epoch=1) != first
    assert digests(digits, seed=3, epoch=2) != first


def test_an_epoch_can_be_entered_in_the_middle(digits: Dataset) -> None:
    assert digests(digits, seed=3, start=2) == digests(digits, seed=3)[2:]


def test_test_batches_are_complete_and_in_order(digits: Dataset) -> None:
    labels = torch.cat([batch.labels for batch in digits.batches("test", batch_size=50)])
    assert labels.tolist() == digits.test.labels.tolist()
    assert digits.steps("test", 50) == 8


def test_training_batches_leave_a_short_rest_out(digits: Dataset) -> None:
    count = len(digits.train.labels)
    assert digits.steps("train", 256) == count // 256 == len(digests(digits, seed=0))


def test_the_split_of_digits_is_balanced_and_disjoint(digits: Dataset) -> None:
    assert (len(digits.train.labels), len(digits.test.labels)) == (1433, 364)
    assert np.bincount(digits.test.labels).min() >= 35
    everything = np.concatenate([digits.train.read(np.arange(1433), None)])
    seen = {image.tobytes() for image in everything}
    test_images = digits.test.read(np.arange(364), None)
    # Two of the scans are in the data set twice; a leaking split would share hundreds.
    assert sum(image.tobytes() in seen for image in test_images) <= 2


def test_augmentation_shifts_and_mirrors() -> None:
    image = np.zeros((1, 1, 8, 8), dtype=np.uint8)
    image[0, 0, 4, 2] = 255
    split = ArraySplit(np.repeat(image, 500, axis=0), np.zeros(500, np.int64), flip=True)
    found = split.read(np.arange(500), np.random.default_rng(0))
    places = {tuple(place) for place in np.argwhere(found[:, 0] == 255)[:, 1:].tolist()}
    rows, columns = range(2, 7), {*range(0, 5), *range(3, 8)}
    assert places == {(row, column) for row in rows for column in columns}
    assert np.array_equal(split.read(np.arange(3), None), split.images[:3])


def test_gray_images_reach_the_network_normalized_in_three_channels() -> None:
    split = ArraySplit(np.full((2, 1, 4, 4), 255, np.uint8), np.array([0, 1]))
    dataset = Dataset("white", split, split, 2, 4, "", "", "")
    (batch,) = dataset.batches("test", batch_size=2)
    assert batch.images.shape == (2, 3, 4, 4)
    expected = [(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    assert batch.images[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert batch.digest == hashlib.sha256(b"\xff" * 32 + np.arange(2).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("cifar10", "use digits, fashion_mnist or image_folder:PATH"),
        ("digits:somewhere", "names a folder"),
        ("image_folder", "needs a folder"),
        ("image_folder:nowhere", "has no class folders"),
        ("fashion_mnist:nowhere", "has no train-images-idx3-ubyte.gz"),
    ],
)
def test_an_unknown_or_missing_data_set_gets_a_sentence(data: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_dataset(data)


def test_a_wrong_split_or_batch_size_gets_a_sentence(digits: Dataset) -> None:
    with pytest.raises(UserError, match="use train or test"):
        digits.split("validation")
    with pytest.raises(UserError, match="larger than the 1433 training images"):
        next(digits.batches("train", batch_size=2000))


@pytest.mark.fault(
    "truncated or bit-flipped data file",
    how="a file cut in half or with one bit flipped, beside the pinned digest of the whole one",
    told="the file is damaged or not Fashion-MNIST's; remove it and fetch it again",
    kept="nothing is trained on damaged data; checkpoints and records stay",
)
@pytest.mark.parametrize("how", ["truncated", "bit-flipped"])
def test_a_damaged_fashion_mnist_file_is_refused_with_both_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, how: str
) -> None:
    content = bytearray(range(200))
    expected = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(sources, "FASHION_MNIST_FILES", {"images.gz": expected})
    (tmp_path / "images.gz").write_bytes(content)
    assert sources._checked_folder(tmp_path) == tmp_path
    content[100] ^= 4
    damaged = content[: 200 if how == "bit-flipped" else 100]
    (tmp_path / "images.gz").write_bytes(damaged)
    found = hashlib.sha256(damaged).hexdigest()
    with pytest.raises(UserError, match=f"{found}, expected {expected}: {told}"):
        load_dataset(f"fashion_mnist:{tmp_path}")


def test_no_way_to_fashion_mnist_names_every_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("unreachable")

    monkeypatch.setattr(sources, "CACHE", tmp_path / "data")
    monkeypatch.setattr(sources, "_content_of", refuse)
    monkeypatch.setattr(sources.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"download: unreachable; from debian package: .*no apt"):
        load_dataset("fashion_mnist")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder in ImageNet's layout: two classes, of red and of blue images."""
    for split, count in (("train", 4), ("val", 3)):
        for name, color in (("n01", (200, 0, 0)), ("n02", (0, 0, 200))):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (60 + index, 40), color).save(place / f"{index}.png")
    return tmp_path


def test_a_folder_of_images_is_read_as_published(folder: Path) -> None:
    dataset = load_dataset(f"image_folder:{folder}", image_size=32)
    assert (dataset.num_classes, len(dataset.train.labels), len(dataset.test.labels)) == (2, 8, 6)
    (batch,) = dataset.batches("test", batch_size=6)
    assert batch.images.shape == (6, 3, 32, 32)
    red = (200 / 255 - MEAN[0]) / STD[0]
    assert batch.images[0, 0].flatten().tolist() == pytest.approx([red] * 1024)
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_decoding_threads_change_nothing(folder: Path) -> None:
    one = load_dataset(f"image_folder:{folder}", image_size=32)
    four = load_dataset(f"image_folder:{folder}", image_size=32, workers=4)
    for a, b in zip(
        one.batches("train", seed=1, batch_size=4),
        four.batches("train", seed=1, batch_size=4),
        strict=True,
    ):
        assert a.digest == b.digest


def test_an_unreadable_image_and_unequal_classes_get_a_sentence(folder: Path) -> None:
    (folder / "train" / "n01" / "0.png").write_bytes(b"no image")
    dataset = load_dataset(f"image_folder:{folder}", image_size=32)
    with pytest.raises(UserError, match=r"0\.png cannot be read as an image"):
        dataset.train.read(np.arange(8), None)
    (folder / "val" / "n03").mkdir()
    with pytest.raises(UserError, match="different class folders"):
        load_dataset(f"image_folder:{folder}")


def test_data_names_keep_colons_of_paths() -> None:
    assert parse_data("image_folder:C:/data").folder == Path("C:/data")
