"""Whatever a file of somebody else holds: a valid object comes out, or one sentence.

Each reader is tried on arbitrary bytes, on good files with some bytes changed or cut off, and on
well-formed files of arbitrary structure. The fast tier tries few of each, the full tier many.
"""

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from comparison import parameters
from comparison.engine.report import Report
from comparison.record import ROOT, read_record
from comparison.study import StudyError, load_study
from reference import ReferenceUnavailable, configs, recorded
from reference.pins import PINS_PATH, load_pins
from reproduction import UserError, checkpoints, resume
from reproduction.tasks import trees
from reproduction.tasks.classification.sources import parse_data
from reproduction.tasks.keypoints.coco import read_coco
from reproduction.tasks.keypoints.faces import read_faces
from reproduction.tasks.keypoints.mpii import read_mpii, read_pckh_truth
from reproduction.tasks.scenes.dataset import _read as read_scenes
from reproduction.tasks.segmentation.folders import label_table, read_labeled
from tests import real_folders
from tests.unit.test_study import GOOD

Reader = Callable[[Path], object]
REFUSALS = (UserError, StudyError, ReferenceUnavailable)
LONGEST = timedelta(seconds=20)
FEW, MANY = 8, 600

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
structures = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


def changed(good: bytes) -> st.SearchStrategy[bytes]:
    """Change some bytes of a good file, or cut it off."""

    def apply(edits: list[tuple[int, int]], length: int) -> bytes:
        content = bytearray(good)
        for place, value in edits:
            content[place % max(1, len(content))] = value
        return bytes(content[: length % (len(content) + 1)] if length else content)

    edit = st.tuples(st.integers(0, 1 << 20), st.integers(0, 255))
    return st.builds(
        apply, st.lists(edit, min_size=1, max_size=6), st.just(0) | st.integers(0, 1 << 20)
    )


def replaced(good: Any) -> st.SearchStrategy[Any]:
    """Put an arbitrary structure, or nothing, at an arbitrary place of a good one."""

    def apply(steps: list[int], value: Any, remove: bool) -> Any:
        root = {"": json.loads(json.dumps(good))}
        place, key = root, ""
        for step in steps:
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner:
                break
            keys = list(inner) if isinstance(inner, dict) else range(len(inner))
            place, key = inner, keys[step % len(keys)]
        place[key] = value
        if remove:
            del place[key]
        return root.get("")

    return st.builds(apply, st.lists(st.integers(0, 30), max_size=5), structures, st.booleans())


def as_json(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return values.map(lambda value: json.dumps(value).encode())


@cache
def folders() -> Path:
    """Make a tiny folder of each data set, once."""
    folder = Path(tempfile.mkdtemp(prefix="readers-"))
    real_folders.coco(folder / "coco")
    real_folders.mpii(folder / "mpii")
    real_folders.faces(folder / "wflw", "wflw", 98)
    real_folders.context(folder / "context")
    return folder


def placed(name: str, place: str, read: Callable[[Path], object]) -> tuple[bytes, Reader]:
    """Return a good file of a data set, and a reader that puts other content in its place."""
    target = folders() / name / place
    good = target.read_bytes()

    def read_in_place(path: Path) -> object:
        target.write_bytes(path.read_bytes())
        try:
            return read(folders() / name)
        finally:
            target.write_bytes(good)

    return good, read_in_place


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))


def sealed(content: Any) -> Any:
    """Seal a checkpoint as only its writer would."""
    if not isinstance(content, dict):
        return content
    return {**content, "sha256": resume.content_digest(content)}


def read_progress(path: Path) -> object:
    model = network()
    target = path.with_name(resume.CHECKPOINT)
    target.write_bytes(path.read_bytes())
    return resume.load(path.parent, "identity", model, torch.optim.SGD(model.parameters(), lr=0.1))


def read_study(path: Path) -> object:
    target = path.with_name("mine.yaml")
    target.write_bytes(path.read_bytes())
    return load_study("mine", path.parent)


def read_own_record(path: Path) -> object:
    target = path.parent / "networks" / "cls_hrnet_w18.json"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(path.read_bytes())
    return read_record(target)


def build_from_yaml(path: Path) -> object:
    """Read a user's own configuration as the official code would: sections, then numbers."""

    def kind(settings: Any) -> int:
        return sum(settings.MODEL.EXTRA["STAGE2"]["NUM_CHANNELS"])

    return configs.construct(kind, path, load_pins().network("cls_hrnet_w18"))


def readers() -> Iterator[tuple[str, Reader, st.SearchStrategy[bytes]]]:
    """Yield every reader of outside files with what it is tried on."""
    state = {"conv1.weight": torch.zeros(4, 3)}
    stored = safetensors.torch.save(state)
    pickled = saved(lambda file: torch.save(state, file))
    point = {"identity": "identity", "model": {}, "optimizer": {}, "progress": {}}
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    matrix = saved(lambda file: savemat(file, {"LabelMap": np.eye(9)}, do_compression=True))
    trace = saved(lambda file: np.savez_compressed(file, keys=["a"], values=np.ones((1, 12))))
    kept = (ROOT / "results/standard/records/networks/cls_hrnet_w18.json").read_bytes()
    study = yaml.safe_load(GOOD)
    official = {"MODEL": {"EXTRA": {"STAGE2": {"NUM_CHANNELS": [18, 36]}}}}
    dumped = yaml.safe_dump(official).encode()
    coco, in_coco = placed(
        "coco", "annotations/person_keypoints_val2017.json", lambda f: read_coco(f, "val", (48, 64))
    )
    mpii, in_mpii = placed("mpii", "annot/valid.json", lambda f: read_mpii(f, "valid"))
    truth, in_truth = placed("mpii", "annot/gt_valid.mat", read_pckh_truth)
    faces, in_faces = placed(
        "wflw", "face_landmarks_wflw_test.csv", lambda f: read_faces(f, "wflw", "test")
    )
    labels, in_labels = placed("context", "59_labels.txt", lambda f: label_table(f, "pascal_ctx"))
    listed, in_list = placed(
        "context", "ImageSets/Main/val.txt", lambda f: read_labeled(f, "pascal_ctx", "val")
    )
    yield "safetensors", lambda p: checkpoints.load_checkpoint(network(), p), changed(stored)
    yield "torch file", lambda p: checkpoints.load_checkpoint(network(), p), changed(pickled)
    yield (
        "checkpoint",
        read_progress,
        changed(saved(lambda f: torch.save(point, f)))
        | replaced(point).map(lambda value: saved(lambda f: torch.save(sealed(value), f))),
    )
    yield "record", read_own_record, changed(kept) | as_json(replaced(json.loads(kept)))
    yield "report", lambda p: Report.from_json(p.read_text("latin-1")), as_json(structures)
    yield "pins", load_pins.__wrapped__, changed(PINS_PATH.read_bytes()[:6000]) | st.binary()
    yield "study", read_study, changed(GOOD.encode()) | as_json(replaced(study))
    yield "official yaml", build_from_yaml, changed(dumped) | as_json(replaced(official))
    yield "trace", recorded.read_rows, changed(trace)
    yield "scenes", read_scenes, changed(trace)
    yield (
        "image",
        trees.read_rgb,
        changed(saved(lambda f: picture.save(f, "PNG")))
        | changed(saved(lambda f: picture.save(f, "JPEG"))),
    )
    yield (
        "label image",
        trees.read_indices,
        changed(saved(lambda f: picture.convert("P").save(f, "PNG"))),
    )
    yield "mat file", lambda p: trees.read_mat(p, "LabelMap"), changed(matrix)
    yield "mpii truth", in_truth, changed(truth)
    yield "coco", in_coco, changed(coco) | as_json(replaced(json.loads(coco)))
    yield "mpii", in_mpii, changed(mpii) | as_json(replaced(json.loads(mpii)))
    yield "faces", in_faces, changed(faces)
    yield "labels", in_labels, changed(labels)
    yield "list", in_list, changed(listed)


READERS = MappingProxyType({name: (read, files) for name, read, files in readers()})
ENDINGS = {"safetensors": ".safetensors"}


def check_reader(name: str, content: bytes) -> None:
    """Read a file; anything but an object or a sentence is a failure."""
    read, _ = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{ENDINGS.get(name, '.bin')}")
        path.write_bytes(content)
        try:
            read(path)
        except REFUSALS as refusal:
            assert "\n" not in str(refusal) and 0 < len(str(refusal)) < 2000


def settled(examples: int) -> Callable:
    return settings(
        max_examples=examples,
        deadline=LONGEST,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
@settled(FEW)
@given(data=st.data())
def test_a_reader_gives_an_object_or_a_sentence(name: str, data: st.DataObject) -> None:
    check_reader(name, data.draw(READERS[name][1] | st.binary(max_size=300)))


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
@settled(MANY)
@given(data=st.data())
def test_a_reader_gives_an_object_or_a_sentence_for_many(name: str, data: st.DataObject) -> None:
    check_reader(name, data.draw(READERS[name][1] | st.binary(max_size=3000)))


@settled(60)
@given(name=st.text(max_size=60) | st.from_regex(r"[a-z_0-9.]{1,40}\.(weight|bias)"))
def test_a_name_is_translated_or_refused(name: str) -> None:
    for translate in (checkpoints.our_name, checkpoints.official_name):
        try:
            assert isinstance(translate(name), str)
        except UserError as refusal:
            assert "fits no line" in str(refusal)


@settled(60)
@given(
    name=st.sampled_from(["network", "data", "seed", "results_dir", "epochs", "other"]),
    value=structures | st.integers() | st.floats(),
)
def test_a_parameter_is_taken_or_refused(name: str, value: object) -> None:
    try:
        checked = parameters.check("03_training", {name: value})
    except UserError as refusal:
        assert str(refusal)
        return
    assert checked.results_dir.is_relative_to(ROOT / "results") or name == "results_dir"


@settled(60)
@given(text=st.text(max_size=60) | st.text(max_size=20).map("image_folder:{}".format))
def test_the_name_of_a_data_set_is_taken_or_refused(text: str) -> None:
    try:
        assert parse_data(text).name in text
    except UserError as refusal:
        assert str(refusal)
