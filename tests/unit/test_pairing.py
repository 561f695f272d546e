"""Both arms start from one state, and what does not fit is said in a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import parameters
from comparison.engine.modes.data import compare_data
from comparison.engine.sides import Batch
from comparison.pairing import (
    BATCH_SIZE,
    IMAGE_SIZE,
    loaded,
    pair_of,
    random_batches,
    random_pair,
)
from reproduction import UserError, build_network
from reproduction.checkpoints import save_checkpoint, to_official

pytestmark = pytest.mark.reference
SMALLEST = "cls_hrnet_w18_small_v1"


def settings(**given: object) -> parameters.Settings:
    trained = {"weights": "trained"} if "weights_file" in given else {}
    return parameters.check("02_equivalence", {"network": SMALLEST, "steps": 1, **trained, **given})


def test_every_normalization_sees_at_least_eight_values_a_channel() -> None:
    assert BATCH_SIZE * (IMAGE_SIZE // 32) ** 2 >= 8


def test_a_random_pair_is_one_state_and_depends_on_the_seed() -> None:
    one, other = (pair_of(settings(seed=seed)) for seed in (0, 1))

    theirs, ours = one.reference.model.state_dict(), one.reproduction.model.state_dict()
    assert len(theirs) == 552 and one.reference.dtype == torch.float64
    assert all(torch.equal(tensor, theirs[one.name_map(own)]) for own, tensor in ours.items())
    assert one.inputs["weights"]["sha256"] != other.inputs["weights"]["sha256"]


def test_batches_differ_by_step_and_by_seed() -> None:
    first, second = random_batches(2, seed=0)
    (third,) = random_batches(1, seed=1)

    assert first.inputs.shape == (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert not torch.equal(first.inputs, second.inputs)
    assert not torch.equal(first.inputs, third.inputs)


def test_both_arms_load_the_same_batches_and_another_seed_loads_others() -> None:
    first, again, other = (list(loaded(settings(seed=seed))) for seed in (0, 0, 1))

    assert len(first) == 2 and len(first[0].inputs) == 128
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(first, again, strict=True))
    assert compare_data(first, again).outcome == "reproduced"
    assert compare_data(first, other).outcome == "not reproduced"


def test_the_reference_may_be_timms_network() -> None:
    pair = pair_of(settings(against="timm"))

    assert type(pair.reference.model).__module__.startswith("timm")
    assert "taken from the reproduction" in pair.inputs["reference_recipe"]


def test_an_unknown_network_is_a_sentence() -> None:
    with pytest.raises(UserError, match="cls_hrnet_w19"):
        random_pair("cls_hrnet_w19", steps=1)


def test_a_missing_weights_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.safetensors' does not exist"):
        settings(weights_file=str(tmp_path / "gone.safetensors"))


def test_a_damaged_weights_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"no tensors here")

    with pytest.raises(UserError, match=r"damaged\.safetensors cannot be read"):
        pair_of(settings(weights_file=str(path)))


def test_weights_of_fewer_classes_than_the_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "three.safetensors"
    save_checkpoint(build_network(SMALLEST, num_classes=3), path)

    with pytest.raises(UserError, match="knows 3 classes and digits has 10"):
        pair_of(settings(weights_file=str(path)))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_checkpoint(build_network("cls_hrnet_w18_small_v2", num_classes=10), path)

    with pytest.raises(UserError, match="does not fit this network"):
        pair_of(settings(weights_file=str(path)))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_class_count_of_a_pytorch_file_is_read_from_it(prefix: str, tmp_path: Path) -> None:
    state = to_official(build_network(SMALLEST, num_classes=10).state_dict())
    wrapped = {"state_dict": {prefix + name: tensor for name, tensor in state.items()}}
    torch.save(wrapped, tmp_path / "ten.pth")

    pair = pair_of(settings(weights_file=str(tmp_path / "ten.pth")))

    assert pair.inputs["weights"]["num_classes"] == 10
    theirs = pair.reference.model.state_dict()["classifier.weight"]
    assert torch.equal(theirs, state["classifier.weight"].double())


def test_trained_weights_come_with_their_data_and_their_classes(tmp_path: Path) -> None:
    path = tmp_path / "ten.safetensors"
    save_checkpoint(build_network(SMALLEST, num_classes=10), path)

    pair = pair_of(settings(weights_file=str(path)))

    theirs, ours = pair.reference.model.state_dict(), pair.reproduction.model.state_dict()
    assert all(torch.equal(tensor, theirs[pair.name_map(own)]) for own, tensor in ours.items())
    assert theirs["classifier.weight"].shape == (10, 2048)
    assert pair.inputs["data"]["name"] == "digits"
    assert pair.inputs["weights"]["num_classes"] == 10 and pair.inputs["weights"]["shims"]
    assert pair.batches[0].inputs.shape == (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)


@pytest.mark.parametrize(
    ("targets", "others", "said"),
    [
        ((torch.arange(2), torch.ones(2)), (torch.arange(2), torch.zeros(2)), "tensor 1 of the"),
        ([{"boxes": torch.ones(4)}] * 2, [{"boxes": torch.ones(4)}] * 3, "3 targets, in the ref"),
        (torch.arange(2), None, "0 targets, in the reference 2"),
        (torch.arange(2), torch.tensor([0, 2]), "sample 1 has 2, in the reference 1"),
    ],
)
def test_all_targets_are_compared(targets: Any, others: Any, said: str) -> None:
    images = torch.ones(2, 3, 4, 4)
    same = compare_data([Batch(images, targets)], [Batch(images.clone(), targets)])
    assert same.outcome == "reproduced"
    found = compare_data([Batch(images, targets)], [Batch(images, others)])
    assert found.outcome == "not reproduced" and said in found.reason


def test_equal_bytes_of_another_shape_or_type_are_no_equal_inputs() -> None:
    images = torch.ones(2, 3, 4, 2)
    for other, said in ((images.reshape(2, 3, 2, 4), "shape"), (images.view(torch.int32), "type")):
        found = compare_data([Batch(images)], [Batch(other)])
        assert found.outcome == "not reproduced" and said in found.reason
    small = (torch.ones(2, dtype=torch.bfloat16), torch.ones(2))
    assert compare_data([Batch(images, small)], [Batch(images, small)]).outcome == "reproduced"
