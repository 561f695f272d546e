"""Both arms start from one state, and what does not fit is said in a sentence."""

from pathlib import Path

import pytest
import torch

from comparison import parameters
from comparison.pairing import BATCH_SIZE, IMAGE_SIZE, pair_of, random_batches, random_pair
from reproduction import UserError, build_network
from reproduction.checkpoints import save_checkpoint

pytestmark = pytest.mark.reference
SMALLEST = "cls_hrnet_w18_small_v1"


def settings(**given: object) -> parameters.Settings:
    trained = {"weights": "trained"} if "weights_file" in given else {}
    return parameters.check("02_equivalence", {"network": SMALLEST, "steps": 1, **trained, **given})


def test_every_normalization_sees_at_least_eight_values_a_channel() -> None:
    assert BATCH_SIZE * (IMAGE_SIZE // 32) ** 2 >= 8


def test_a_random_pair_is_one_state_and_depends_on_the_seed() -> None:
    one, other = (pair_of(settings(seed=seed)) for seed in (0, 1))

    theirs, ours = one.reference.state(), one.reproduction.state()
    assert len(theirs) == 552
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert one.inputs["weights"]["sha256"] != other.inputs["weights"]["sha256"]


def test_batches_differ_by_step_and_by_seed() -> None:
    first, second = random_batches(2, seed=0)
    (third,) = random_batches(1, seed=1)

    assert first.images.shape == (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(first.images, third.images)


def test_an_unknown_network_is_a_sentence() -> None:
    with pytest.raises(UserError, match="cls_hrnet_w19"):
        random_pair("cls_hrnet_w19", steps=1)


def test_a_missing_weights_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.safetensors does not exist"):
        pair_of(settings(weights_file=str(tmp_path / "gone.safetensors")))


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
