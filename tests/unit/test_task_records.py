"""Records of dense tasks: both arms, an absent arm, and what pictures survive in them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from comparison import dense_arms, parameters, task_figures, tasks
from comparison.evidence import measured
from comparison.snapshots import pack_image, unpack_image
from comparison.study import VARIANTS
from reference import ReferenceUnavailable
from reproduction import UserError
from reproduction.tasks.scenes.plans import PLANS, scene_plan


def run(folder: Path, **given: Any) -> dict[str, Any]:
    """Train on 16 scenes for one step."""
    defaults = {"epochs": 1, "scenes": 16, "device": "cpu", "results_dir": str(folder)}
    return tasks.run(parameters.check("07_tasks", {**defaults, **given}))


def is_absent(name: str) -> bool:
    """Tell whether the official code of a task is not there."""
    try:
        reference.identity(network=PLANS[name].official)
    except ReferenceUnavailable:
        return True
    return False


def absent(*arguments: Any, **options: Any) -> None:
    """Take the place of a reference that is not there."""
    raise ReferenceUnavailable("the official files are absent; get them with …")


def test_without_official_code_its_arm_is_recorded_as_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "build", absent)
    record = run(tmp_path, arm="reference")
    assert record["verdict"]["outcome"] == "not run"
    assert "official files are absent" in record["verdict"]["reason"]
    assert record["measurements"] == [] and "reference" not in record["inputs"]
    assert tasks.loss_curve(record) is None and tasks.epochs_table(record).empty


def test_the_reproduction_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "build", absent)
    record = run(tmp_path, arm="reproduction")
    assert record["verdict"]["outcome"] == "not comparable"
    assert measured(record, "trivial_miou") < 10
    assert len(record["tables"]["snapshots"]) == 3
    figure = task_figures.predictions([record])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("not run") == 2 and "segmentation" in texts


@pytest.mark.reference
@pytest.mark.parametrize(
    "name",
    [name if name == "pose" else pytest.param(name, marks=pytest.mark.full) for name in PLANS],
)
def test_both_arms_end_with_equal_bits(name: str, tmp_path: Path) -> None:
    if is_absent(name):
        pytest.skip(f"the official code of {name} is absent")
    records = [run(tmp_path, task=name, arm=arm) for arm in ("reference", "reproduction")]
    weights = [record["inputs"]["weights"] for record in records]
    assert weights[0]["start_sha256"] == weights[1]["start_sha256"]
    assert weights[0]["start_sha256"] != weights[0]["final_sha256"] == weights[1]["final_sha256"]
    digests = {measured(record, "batches_sha256") for record in records}
    assert len(digests) == 1
    assert {record["verdict"]["outcome"] for record in records} == {"reproduced"}
    assert {measured(record, "exchange_other_decisions") for record in records} == {0}
    changed = "constructor's width" if name == "detection" else "STAGE2.NUM_CHANNELS"
    assert any(changed in shim for shim in records[0]["inputs"]["reference"]["study_shims"])


def test_only_the_reproduction_has_variants(tmp_path: Path) -> None:
    record = run(tmp_path, arm="reference", variant="final")
    assert record["verdict"]["outcome"] == "not run"
    assert "has no variant 'final'" in record["verdict"]["reason"]
    assert tuple(dense_arms.VARIANTS) == VARIANTS
    names = {dense_arms.network_of(scene_plan("pose"), variant).name for variant in VARIANTS}
    assert len(names) == len(VARIANTS)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"task": "depth"}, "task 'depth' is unknown; use one of pose"),
        ({"variant": "sum"}, "variant 'sum' is unknown; use one of small, full"),
        ({"scenes": 0}, "parameter scenes is 0; give a number of at least 1"),
        ({"scenes": 4}, "batch_size 16 is larger than the 4 scenes"),
    ],
)
def test_wrong_parameters_get_a_sentence(
    tmp_path: Path, wrong: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run(tmp_path, **wrong)


def test_images_are_kept_nearly_as_they_are() -> None:
    image = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    kept = unpack_image(pack_image(image)).astype(int)
    assert np.abs(kept - image).mean() < 4
