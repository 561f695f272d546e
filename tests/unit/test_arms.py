"""Both arms: same weights, same classes, same decisions; and an exchange that can fail."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from comparison import arms, training
from comparison.exchange import exchange
from comparison.parameters import check
from comparison.record import read_record, write_record
from comparison.study import ARMS
from reference.errors import ReferenceAbsent
from reproduction import UserError
from reproduction.device import resolve_device
from reproduction.forms import choose_form, table_sha256
from reproduction.tasks.classification.data import ArraySplit, Dataset

NAME = "cls_hrnet_w18_small_v1"
CPU = torch.device("cpu")


def noise_dataset(count: int = 24) -> Dataset:
    """Make images of noise with labels 0 to 4."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 1, 32, 32), dtype=np.uint8)
    split = ArraySplit(images, np.arange(count) % 5)
    return Dataset("noise", split, split, 5, 32, "0", "", "")


def test_both_arms_start_equal_from_a_seed_with_any_class_count() -> None:
    reference, reproduction = (arms.build_from_seed(arm, NAME, 5, 3) for arm in ARMS)
    states = arms.official_state(reference), arms.official_state(reproduction)
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(reference.eval()(images), reproduction.eval()(images))
    assert reference(images).shape == (2, 5)


@pytest.mark.reference
@pytest.mark.parametrize("network", ["seg_hrnet_w18_small_v1_cityscapes", "face_hrnet_w18_aflw"])
def test_dense_arms_start_equal_with_any_class_count(network: str) -> None:
    try:
        reference, reproduction = (arms.build_from_seed(arm, network, 5, 3) for arm in ARMS)
    except ReferenceAbsent as absent:
        pytest.skip(str(absent))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(reference.eval()(images), reproduction.eval()(images))
    assert reference(images).shape == (2, 5, 8, 8)


def test_another_seed_gives_other_weights() -> None:
    one, two = (arms.build_from_seed("reproduction", NAME, 5, seed) for seed in (0, 1))
    assert not torch.equal(one.backbone.stem.unit1.conv.weight, two.backbone.stem.unit1.conv.weight)


def test_equal_arms_decide_equally_and_a_fault_flips() -> None:
    model = arms.build_from_seed("reproduction", NAME, 5, 0)
    dataset = noise_dataset()
    result = exchange(model, "reproduction", NAME, dataset, CPU)
    assert [row["flips"] for row in result.summary] == [0, 0]
    assert result.flips == []
    # A fault that lives in code, not in weights, is what the exchange is there to find.
    model.head.register_forward_hook(lambda _, __, logits: logits.roll(1, dims=1))
    faulty = exchange(model, "reproduction", NAME, dataset, CPU)
    assert [row["flips"] for row in faulty.summary] == [24, 24]
    assert faulty.flips[0].keys() >= {"image", "label", "reference", "reproduction", "margin"}


def test_unknown_arms_and_devices_get_a_sentence() -> None:
    with pytest.raises(UserError, match="use reference or reproduction"):
        arms.build("timm", NAME)
    with pytest.raises(UserError, match="use one of auto, cpu"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="not available on this machine"):
            resolve_device("cuda")
    assert resolve_device("cpu") == CPU


@pytest.mark.full
def test_whole_runs_of_both_arms_end_with_the_same_bits(tmp_path: object) -> None:
    found = {}
    for arm in ARMS:
        given = {"arm": arm, "epochs": 1, "batch_size": 256, "results_dir": str(tmp_path)}
        settings = check("03_training", {**given, "device": "cpu"})
        record = read_record(write_record(tmp_path, training.run(settings)))
        found[arm] = record
        assert record["verdict"]["outcome"] == "reproduced"
        assert training.epochs_table(record)["epoch"].tolist() == [1]
    digests = [record["inputs"]["weights"]["final_sha256"] for record in found.values()]
    assert digests[0] == digests[1]
    batches = [
        next(m["value"] for m in record["measurements"] if m["name"] == "batches_sha256")
        for record in found.values()
    ]
    assert batches[0] == batches[1]


@pytest.mark.full
def test_a_fast_run_records_its_form_and_decides_as_the_other_arm(tmp_path: object) -> None:
    given = {"form": "fast", "epochs": 1, "batch_size": 128, "results_dir": str(tmp_path)}
    settings = check("03_training", {**given, "device": "cpu"})
    record = read_record(write_record(tmp_path, training.run(settings)))
    assert record["run_id"].endswith(".fast")
    assert record["subject"]["form"] == asdict(choose_form(NAME, 32, 128))
    assert record["subject"]["forms_table_sha256"] == table_sha256()
    assert record["subject"]["config"]["form"] == "fast"
    assert record["verdict"]["outcome"] == "reproduced"  # the weights serve both arms alike


def test_a_run_of_a_few_steps_has_no_curve() -> None:
    rows = [{"step": 10, "train_loss": 2.0}, {"step": 20, "train_loss": 1.0}]
    record = {"subject": {"arm": "reproduction", "seed": 0}, "tables": {"losses": rows}}

    assert training.loss_curve(record) is not None
    assert training.loss_curve({**record, "tables": {"losses": []}}) is None
