"""The data sets: scikit-learn's digits, Fashion-MNIST, and any folder in ImageNet's layout."""

import gzip
import hashlib
import http.client
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from reproduction.errors import UserError
from reproduction.tasks.classification.data import ArraySplit, Dataset
from reproduction.tasks.classification.folder import read_image_folder

DATASETS = ("digits", "fashion_mnist", "image_folder")
SMALL_IMAGE_SIZE = 32
TEST_SHARE_OF_DIGITS = 5
CACHE = Path(__file__).resolve().parents[3] / "data"
# What a source of Fashion-MNIST can fail with; then the next one is tried.
FAILURES = (OSError, http.client.HTTPException, subprocess.SubprocessError, UserError, zlib.error)

FASHION_MNIST_URL = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
)
FASHION_MNIST_PACKAGE = "dataset-fashion-mnist"
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": (
        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
    ),
    "train-labels-idx1-ubyte.gz": (
        "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
    ),
}
DOWNLOAD_TIMEOUT_S = 10
LARGEST_DOWNLOAD_BYTES = 40_000_000  # the largest of the four has 26 MB


@dataclass(frozen=True)
class DataName:
    """A user's words for a data set, taken apart: ``name`` or ``name:FOLDER``."""

    name: str
    folder: Path | None


def parse_data(data: str) -> DataName:
    """Take ``digits``, ``fashion_mnist[:FOLDER]`` or ``image_folder:FOLDER`` apart.

    Raises:
        UserError: The name is unknown, or a folder is missing or one too many.
    """
    name, _, folder = data.partition(":")
    if name not in DATASETS:
        raise UserError(f"data {data!r} is unknown; use digits, fashion_mnist or image_folder:PATH")
    if name == "digits" and folder:
        raise UserError(f"data {data!r} names a folder, but digits comes with scikit-learn")
    if name == "image_folder" and not folder:
        raise UserError("data 'image_folder' needs a folder: write image_folder:PATH")
    try:
        return DataName(name, Path(folder).expanduser() if folder else None)
    except RuntimeError:
        raise UserError(
            f"data {data!r} names the home of somebody unknown; give the path"
        ) from None


def obtain(data: DataName) -> None:
    """Download a data set that is not there yet; later it is read without a network.

    Raises:
        UserError: It cannot be had, or its files are not the expected ones.
    """
    if data.name == "fashion_mnist" and data.folder is None:
        _cached_fashion_mnist()


def load_dataset(data: str, *, image_size: int | None = None, workers: int = 0) -> Dataset:
    """Load a data set by name.

    Args:
        data: ``digits``, ``fashion_mnist[:FOLDER]`` or ``image_folder:FOLDER``.
        image_size: Pixels of height and width; by default 32, and 224 for a folder of images.
        workers: Threads that decode images of a folder; no effect on what they yield.

    Returns:
        The data set.

    Raises:
        UserError: It is unknown, missing, or its files are not the expected ones.
    """
    parsed = parse_data(data)
    if parsed.name == "image_folder":
        assert parsed.folder is not None
        return read_image_folder(parsed.folder, image_size or 224, workers)
    if parsed.name == "digits":
        return _digits(image_size or SMALL_IMAGE_SIZE)
    return _fashion_mnist(parsed.folder, image_size or SMALL_IMAGE_SIZE)


def _enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Resize gray images (N, H, W) in [0, 255] bilinearly to (N, 1, size, size) uint8."""
    tensor = torch.from_numpy(images.astype(np.float32))[:, None]
    resized = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8).numpy()


def held_out_digits(labels: np.ndarray) -> np.ndarray:
    """Say which of the digits (N,) are for testing: every fifth of each class, hence balanced.

    >>> held_out_digits(np.array([3, 3, 3, 8, 3, 3, 3])).tolist()
    [True, False, False, True, False, False, True]
    """
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[::TEST_SHARE_OF_DIGITS]] = True
    return is_test


def _digits(image_size: int) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = _enlarge(bunch.images * (255 / 16), image_size)
    labels = bunch.target.astype(np.int64)
    is_test = held_out_digits(labels)
    content = bunch.images.astype(np.uint8).tobytes() + labels.tobytes()
    return Dataset(
        name="digits",
        train=ArraySplit(images[~is_test], labels[~is_test]),
        test=ArraySplit(images[is_test], labels[is_test]),
        num_classes=10,
        image_size=image_size,
        sha256=hashlib.sha256(content).hexdigest(),
        source="scikit-learn load_digits (UCI, Optical Recognition of Handwritten Digits)",
        license="CC BY 4.0",
    )


def _fashion_mnist(folder: Path | None, image_size: int) -> Dataset:
    folder = _checked_folder(folder) if folder else _cached_fashion_mnist()
    raw = {name: gzip.decompress((folder / name).read_bytes()) for name in FASHION_MNIST_FILES}

    def split(prefix: str, flip: bool) -> ArraySplit:
        pixels = np.frombuffer(raw[f"{prefix}-images-idx3-ubyte.gz"], np.uint8, offset=16)
        labels = np.frombuffer(raw[f"{prefix}-labels-idx1-ubyte.gz"], np.uint8, offset=8)
        images = _enlarge(pixels.reshape(-1, 28, 28), image_size)
        return ArraySplit(images, labels.astype(np.int64), flip=flip)

    digest = hashlib.sha256("".join(FASHION_MNIST_FILES.values()).encode()).hexdigest()
    return Dataset(
        name="fashion_mnist",
        train=split("train", flip=True),
        test=split("t10k", flip=False),
        num_classes=10,
        image_size=image_size,
        sha256=digest,
        source="github.com/zalandoresearch/fashion-mnist (Xiao et al., 2017)",
        license="MIT",
    )


def _checked_folder(folder: Path) -> Path:
    for name, expected in FASHION_MNIST_FILES.items():
        path = folder / name
        if not path.is_file():
            raise UserError(
                f"{folder} has no {name}; expected the four files {', '.join(FASHION_MNIST_FILES)}"
            )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise UserError(
                f"{path.name} has SHA-256 {found}, expected {expected}: the file is damaged or not "
                "Fashion-MNIST's; remove it and fetch it again"
            )
    return folder


def _cached_fashion_mnist() -> Path:
    target = CACHE / "fashion_mnist"
    if target.is_dir():
        return _checked_folder(target)
    CACHE.mkdir(exist_ok=True)
    failures = []
    for obtain in (_download, _from_debian_package):
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            try:
                found = _checked_folder(obtain(Path(temporary)))
            except FAILURES as error:
                failures.append(f"{obtain.__name__.strip('_').replace('_', ' ')}: {error}")
                continue
            _move_into_place(found, target)
            return target
    raise UserError(
        "Fashion-MNIST could not be obtained ("
        + "; ".join(failures)
        + "): put its four gz files into a folder and write fashion_mnist:FOLDER"
    )


def _move_into_place(found: Path, target: Path) -> None:
    try:
        found.rename(target)
    except OSError:
        # Another job was first; its files have been checked as well.
        if not target.is_dir():
            raise


def _download(folder: Path) -> Path:
    files = folder / "files"
    files.mkdir()
    for name in FASHION_MNIST_FILES:
        (files / name).write_bytes(_content_of(FASHION_MNIST_URL + name))
    return files


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_https(url: str) -> None:
    if not url.startswith("https://"):
        raise OSError(f"{url[:80]} is not https")


def _content_of(url: str) -> bytes:
    _check_https(url)
    opener = urllib.request.build_opener(_OnlyHttps)
    with opener.open(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
        content: bytes = answer.read(LARGEST_DOWNLOAD_BYTES + 1)
    if answer.length or len(content) > LARGEST_DOWNLOAD_BYTES:
        raise OSError("the answer was cut short, or is too long")
    return content


def _from_debian_package(folder: Path) -> Path:
    """Unpack Debian's package without installing it: needs neither root nor a change of system."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise FileNotFoundError("this system has no apt-get")
    environment = {**os.environ, "LC_ALL": "C"}

    def call(*command: str) -> None:
        subprocess.run(
            command, cwd=folder, check=True, timeout=120, env=environment, capture_output=True
        )

    call("apt-get", "download", FASHION_MNIST_PACKAGE)
    call("dpkg", "-x", next(folder.glob("*.deb")).name, "unpacked")
    return folder / "unpacked/usr/share/datasets/fashion-mnist"
