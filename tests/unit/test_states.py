"""The shared state is nowhere trivial, and both sides get exactly it."""

import pytest
import torch

from comparison.engine.states import load_state, random_batch, random_state, state_sha256
from reproduction import build_network
from tests.unit.toys import Theirs, name_of, toy_pair


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_state(build_network("cls_hrnet_w18_small_v1"), seed=0)


def test_no_value_of_a_random_state_is_zero_or_one(state: dict[str, torch.Tensor]) -> None:
    assert len(state) == 552  # SPEC 4.4
    assert not any(((tensor == 0) | (tensor == 1)).any() for tensor in state.values())


def test_no_two_tensors_of_one_shape_are_the_same(state: dict[str, torch.Tensor]) -> None:
    scales = [tensor for key, tensor in state.items() if tensor.shape == (32,) and "norm" in key]

    assert len(scales) > 20
    assert not any(torch.equal(a, b) for i, a in enumerate(scales) for b in scales[:i])


def test_variances_are_positive_and_types_are_kept(state: dict[str, torch.Tensor]) -> None:
    assert all(t.min() >= 0.5 for key, t in state.items() if key.endswith("running_var"))
    assert state["backbone.stem.unit1.norm.num_batches_tracked"].dtype == torch.int64
    assert state["head.classifier.weight"].dtype == torch.float32


def test_the_state_depends_on_the_seed_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    first = random_state(Theirs(), seed=3)
    torch.manual_seed(2)
    second = random_state(Theirs(), seed=3)

    assert state_sha256(first) == state_sha256(second)
    assert state_sha256(first) != state_sha256(random_state(Theirs(), seed=4))


def test_both_sides_hold_the_same_state_under_the_references_names() -> None:
    pair = toy_pair()
    theirs, ours = pair.reference.model.state_dict(), pair.reproduction.model.state_dict()

    assert {name_of(own) for own in ours} == set(theirs)
    assert all(torch.equal(tensor, theirs[name_of(own)]) for own, tensor in ours.items())


def test_loading_leaves_alone_what_does_not_fit() -> None:
    model = Theirs()
    before = model.conv2.weight.clone()

    load_state(model, {"conv2.weight": torch.zeros(1), "unknown": torch.zeros(1)})

    assert torch.equal(model.conv2.weight, before)


def test_images_hold_float32_values_in_float64() -> None:
    images, labels = random_batch((2, 3, 4, 4), 10, seed=0)

    assert images.dtype == torch.float64 and torch.equal(images.float().double(), images)
    assert labels.shape == (2,) and int(labels.max()) < 10
