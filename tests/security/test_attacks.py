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
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from comparison import parameters, record, snapshots
from comparison.study import StudyError, load_study
from reference import ReferenceUnavailable, configs
from reference.pins import load_pins
from reproduction import UserError, build_network, resume
from reproduction.checkpoints import load_checkpoint, load_torch

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
