"""Data files made to do harm: images, lists, arrays and traces; each is refused in one sentence."""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from reference import ReferenceUnavailable, recorded
from reproduction import UserError
from reproduction.tasks import matfile, trees
from reproduction.tasks.keypoints.coco import read_coco
from reproduction.tasks.segmentation.folders import read_labeled
from tests import real_folders
from tests.security.test_attacks import BOMB_BYTES, Touch


def zipped(path: Path, name: str, content: bytes) -> Path:
    """Write a zip file of one compressed member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def bomb_of_pixels(path: Path) -> None:
    """Write a PNG whose header claims 65535 x 65535 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1 << 20), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def program_of_pixels(path: Path) -> None:
    """Write PostScript, for which Pillow would start an interpreter."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n")


@pytest.mark.parametrize("make", [bomb_of_pixels, program_of_pixels])
def test_a_hostile_image_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(UserError, match="cannot be read as an image"):
        trees.read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/passwd", "a\0b.jpg", "../../x/../y"])
def test_a_list_that_leaves_its_data_set_is_refused(tmp_path: Path, name: str) -> None:
    folder = real_folders.coco(tmp_path / "coco")
    path = folder / "annotations/person_keypoints_val2017.json"
    truth = json.loads(path.read_text())
    for image in truth["images"]:
        image["file_name"] = name
    path.write_text(json.dumps(truth))
    with pytest.raises(UserError, match="is no file of the data set"):
        read_coco(folder, "val", (192, 256))


def test_a_list_of_pairs_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    real_folders.cityscapes(tmp_path)
    (tmp_path / "list").write_text("../../etc/passwd /etc/passwd\n")
    with pytest.raises(UserError, match="is no file of the data set"):
        read_labeled(tmp_path, "cityscapes", "val", list_file=tmp_path / "list")


def test_a_mat_file_of_endless_or_foreign_arrays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mat"
    monkeypatch.setattr(matfile, "LARGEST_BYTES", 999)
    savemat(path, {"LabelMap": np.zeros((100, 100))}, do_compression=True)
    with pytest.raises(UserError, match="has more than 999 bytes"):
        trees.read_mat(path, "LabelMap")
    savemat(path, {"LabelMap": np.array([{"a": 1}, [2]], dtype=object)})
    with pytest.raises(UserError, match="not of real numbers"):
        trees.read_mat(path, "LabelMap")


def test_a_trace_that_is_a_bomb_or_a_pickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    objects = np.array([Touch(marker)], dtype=object)
    np.savez(tmp_path / "a.npz", keys=objects, values=objects)
    zipped(tmp_path / "b.npz", "keys.npy", bytes(BOMB_BYTES))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(ReferenceUnavailable, match="cannot be read"):
            recorded.read_rows(tmp_path / name)
    assert not marker.exists()


def test_a_picture_in_a_folder_of_images_is_decoded_as_one(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    assert trees.read_rgb(tmp_path / "a.png").shape == (4, 4, 3)
