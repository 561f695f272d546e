"""Files made to do harm: each is refused in one sentence, and what it would have done is not done.

Every attack is tried for real, with proofs that hurt nobody: a marker file that would appear, or
memory that would be taken. `docs/security.md` lists them.
"""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from comparison import parameters, record, snapshots
from comparison.study import StudyError, load_study
from reference import ReferenceUnavailable, configs, recorded
from reference.pins import load_pins
from reproduction import UserError, build_network, resume
from reproduction.checkpoints import load_checkpoint, load_torch
from reproduction.tasks import trees
from reproduction.tasks.keypoints.coco import read_coco
from reproduction.tasks.segmentation.folders import read_labeled
from tests import real_folders

BOMB_BYTES = 1 << 26  # unpacked; a few kB as it lies on the disk
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(9 * ['*' + old])}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


class Touch:
    """What a pickle can hold: a call that happens when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return build_network("cls_hrnet_w18_small_v1")


@pytest.fixture()
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def zipped(path: Path, name: str, content: bytes) -> Path:
    """Write a zip file of one compressed member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def plain_pickle(path: Path, marker: Path) -> Path:
    path.write_bytes(pickle.dumps({"conv1.weight": Touch(marker)}, protocol=2))
    return path


def torch_pickle(path: Path, marker: Path) -> Path:
    torch.save({"identity": Touch(marker), "conv1.weight": Touch(marker)}, path)
    return path


def zip_bomb(path: Path, marker: Path) -> Path:
    path.write_bytes(bomb())
    return path


@cache
def bomb() -> bytes:
    """Return a PyTorch file of which one member is compressed zeros."""
    path = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, bytes(BOMB_BYTES) if name.endswith("/data/0") else content)
    return path.getvalue()


def endless_tensor(path: Path, marker: Path) -> Path:
    torch.save({"conv1.weight": torch.zeros(1).expand(10**15)}, path)
    return path


def endless_lists(path: Path, marker: Path) -> Path:
    content: list = []
    for _ in range(60):
        content = [content, content]
    torch.save({"identity": content, "conv1.weight": torch.zeros(1)}, path)
    return path


def lying_header(path: Path, marker: Path) -> Path:
    path.write_bytes(struct.pack("<Q", 2**63 - 1) + b"{}" + bytes(64))
    return path


def lying_sizes(path: Path, marker: Path) -> Path:
    entry = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    header = json.dumps({"conv1.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    return path


def lying_offsets(path: Path, marker: Path) -> Path:
    entry = {"dtype": "F32", "shape": [16], "data_offsets": [-64, 0]}
    header = json.dumps({"conv1.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    return path


CHECKPOINTS = [
    (plain_pickle, "w.pth"),
    (torch_pickle, "w.pth"),
    (zip_bomb, "w.pt"),
    (endless_tensor, "w.pt"),
    (endless_lists, "w.pt"),
    (lying_header, "w.safetensors"),
    (lying_sizes, "w.safetensors"),
    (lying_offsets, "w.safetensors"),
]


@pytest.mark.parametrize(("make", "name"), CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused(
    tmp_path: Path, marker: Path, network: torch.nn.Module, make: Callable, name: str
) -> None:
    path, before = make(tmp_path / name, marker), network.state_dict()["head.classifier.bias"].sum()
    with pytest.raises(UserError) as refusal:
        load_checkpoint(network, path)
    assert "\n" not in str(refusal.value)
    assert not marker.exists()
    assert network.state_dict()["head.classifier.bias"].sum() == before


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_opened_as_pickles_are_would_have_acted(tmp_path: Path, marker: Path) -> None:
    """The attack itself works: opened without care, the very same file leaves its marker."""
    with open(torch_pickle(tmp_path / "w.pth", marker), "rb") as file:
        torch.load(file, weights_only=False)
    assert marker.exists()


def test_a_hostile_checkpoint_to_resume_from_is_refused(tmp_path: Path, marker: Path) -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for make in (torch_pickle, zip_bomb, endless_tensor, endless_lists):
        make(tmp_path / resume.CHECKPOINT, marker)
        with pytest.raises(UserError, match="damaged"):
            resume.load(tmp_path, "identity", model, optimizer)
    assert not marker.exists()


def test_an_unpacked_bomb_would_have_taken_memory(tmp_path: Path, marker: Path) -> None:
    path = zip_bomb(tmp_path / "w.pt", marker)
    assert path.stat().st_size < BOMB_BYTES / 500
    with pytest.raises(zipfile.BadZipFile, match="compressed"):
        load_torch(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", '"); import os; os.system("touch MARKER") #'),
        ("network", "__import__('os').system('touch MARKER')"),
        ("data", "image_folder"),
        ("data", "digits:$(touch MARKER)"),
        ("data", ["__import__('os')"]),
        ("device", "cpu; touch MARKER"),
        ("results_dir", "../../../tmp/elsewhere"),
        ("results_dir", "results/../reference"),
        ("results_dir", "reference/traces"),
        ("results_dir", "/"),
        ("results_dir", "results/a\nb"),
        ("results_dir", "results/\0"),
        ("results_dir", ""),
        ("seed", 10**30),
        ("os", "touch MARKER"),
    ],
)
def test_a_hostile_parameter_of_a_notebook_is_refused(
    name: str, value: object, marker: Path
) -> None:
    if isinstance(value, str):
        value = value.replace("MARKER", str(marker))
    with pytest.raises(UserError) as refusal:
        parameters.check("03_training", {name: value})
    assert "\n" not in str(refusal.value)
    assert not marker.exists()


STUDY = "description: d\nnetworks: [cls_hrnet_w18]\n"
STUDIES = [
    "!!python/object/apply:os.system ['touch MARKER']",
    STUDY + "trial: !!python/object/new:os.system ['touch MARKER']",
    STUDY + "trial: !!python/name:os.system",
    LAUGHS,
    STUDY + f"networks: &n [{'a, ' * 9}a]\nspeed: *n",
    "&a [*a]",
    "[" * 20_000,
    "{a: " * 20_000,
    "- " * 20_000,
    "description: " + "9" * 5_000,
    STUDY + "trial: " + "x" * 200_000,
    "description: d\nnetworks: [$(touch MARKER)]",
    "description: d\nnetworks: ['a; touch MARKER']",
    "description: d\nnetworks: ['../../../../tmp/x']\nequivalence: {networks: [\"a'`touch M`\"]}",
    "description: 2001-99-99",
    "description: !!timestamp x",
    "description: \0",
    "\xff\xfe",
]


@pytest.mark.parametrize("text", STUDIES, ids=lambda text: text[-40:])
def test_a_hostile_study_is_refused(tmp_path: Path, marker: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.replace("MARKER", str(marker)).encode("latin-1"))
    with pytest.raises(StudyError) as refusal:
        load_study("mine", tmp_path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 1000
    assert not marker.exists()


def test_the_name_of_a_study_is_no_command(tmp_path: Path) -> None:
    (tmp_path / "a; touch x.yaml").write_text(STUDY)
    with pytest.raises(StudyError, match="name is letters"):
        load_study("a; touch x", tmp_path)


@pytest.mark.parametrize("text", [STUDIES[0], LAUGHS, "&a {a: *a}", "{a: " * 20_000, "a", "\0"])
def test_a_hostile_configuration_is_refused(tmp_path: Path, marker: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text.replace("MARKER", str(marker)))
    with pytest.raises(ReferenceUnavailable):
        configs.construct(dict, path, load_pins().network("cls_hrnet_w18"))
    assert not marker.exists()


def hostile_record(change: Callable[[dict], object]) -> bytes:
    """Return a committed record with a change, sealed anew as only an insider would."""
    folder = record.ROOT / "results" / "standard" / "records" / "networks"
    content = json.loads((folder / "cls_hrnet_w18.json").read_text())
    change(content)
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return json.dumps({**rest, "sha256": record._digest(rest)}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe\x00",
        b"9" * 10_000,
        b"NaN",
        b'{"case": NaN}',
        b"null",
        pickle.dumps({"case": "networks"}),
        hostile_record(lambda r: r.update(run_id="../../../escaped")),
        hostile_record(lambda r: r.update(run_id="/etc/escaped")),
        hostile_record(lambda r: r.update(run_id="cls_hrnet_w18\n")),
        hostile_record(lambda r: r.update(case="../escaped")),
        hostile_record(lambda r: r["verdict"].update(outcome="reproduced\n")),
        hostile_record(lambda r: r.update(more="things")),
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_hostile_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "networks" / "cls_hrnet_w18.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(record.RecordError) as refusal:
        record.read_record(path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 1000


def test_a_record_of_boundless_size_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "LARGEST_BYTES", 10)
    path = tmp_path / "a.json"
    path.write_text(" " * 11)
    with pytest.raises(record.RecordError, match="more than any record"):
        record.read_record(path)


def test_a_snapshot_unpacks_to_its_shape_only() -> None:
    packed = snapshots.pack(np.zeros((1000, 1000), np.uint8))
    assert len(snapshots.unpack({**packed, "shape": [2, 2]})) == 2


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


def test_a_mat_file_of_endless_arrays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mat"
    monkeypatch.setattr(trees, "LARGEST_ARRAY", 999)
    savemat(path, {"LabelMap": np.zeros((100, 100))}, do_compression=True)
    with pytest.raises(UserError, match="expected few numbers"):
        trees.read_mat(path, "LabelMap")
    savemat(path, {"LabelMap": np.array([{"a": 1}, [2]], dtype=object)})
    with pytest.raises(UserError, match="expected few numbers"):
        trees.read_mat(path, "LabelMap")


def test_a_trace_that_is_a_bomb_or_a_pickle_is_refused(tmp_path: Path, marker: Path) -> None:
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
