"""Taps report what flowed, whatever happens to it afterwards, and change no bit of the run."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison.probe import Checking, Recording, taps, tensors_in
from comparison.verdict import Key
from reproduction import build_network
from tests.unit.toys import Theirs, toy_batches

MODE = "forward train"


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Theirs().double()


@pytest.fixture
def images() -> torch.Tensor:
    return toy_batches()[0].images


def watch(
    model: nn.Module, images: torch.Tensor, *paths: str
) -> dict[tuple[str, str], torch.Tensor]:
    recording = Recording()
    names = {path: path for path in paths}
    with taps(model, names, recording, MODE, gradient_mode="backward"):
        model(images).square().sum().backward()
    return {(key.name, key.part): tensor for key, tensor in recording.tensors.items()}


def out_of_place(model: Theirs, images: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Compute the toy without overwriting anything."""
    bn1 = model.bn1(model.conv1(images))
    x = F.relu(bn1)
    bn2 = model.bn2(model.conv2(x))
    a, b = model.fuse[0](F.relu(bn2 + x)), model.fuse[1](x)
    yield from {"bn1": bn1, "bn2": bn2, "a": a, "b": b}.items()
    yield "loss", model.classifier((a + b).mean((2, 3))).square().sum()


def test_captured_activations_survive_in_place_relu_and_residual_sum(
    model: Theirs, images: torch.Tensor
) -> None:
    expected = dict(out_of_place(model, images))

    seen = watch(model, images, "bn1", "bn2")

    assert torch.equal(seen["bn1", "output"], expected["bn1"])
    assert torch.equal(seen["bn2", "output"], expected["bn2"])
    assert (seen["bn1", "output"] < 0).any()


def test_capture_by_reference_would_be_wrong(model: Theirs, images: torch.Tensor) -> None:
    kept: list[torch.Tensor] = []
    model.bn1.register_forward_hook(lambda _m, _i, output: kept.append(output))

    seen = watch(model, images, "bn1")

    assert not torch.equal(kept[0], seen["bn1", "output"])


def test_gradients_are_those_before_anything_was_overwritten(
    model: Theirs, images: torch.Tensor
) -> None:
    expected = dict(out_of_place(model, images))
    wanted = torch.autograd.grad(expected["loss"], [expected["bn1"], expected["bn2"]])

    seen = watch(model, images, "bn1", "bn2")

    for name, gradient in zip(("bn1", "bn2"), wanted, strict=True):
        assert torch.allclose(seen[name, "gradient"], gradient, rtol=1e-13, atol=0)


def test_a_list_that_is_overwritten_later_is_captured_as_it_was(
    model: Theirs, images: torch.Tensor
) -> None:
    expected = dict(out_of_place(model, images))
    outputs: list[list[torch.Tensor]] = []

    def overwrite(_m: nn.Module, _i: object, output: list[torch.Tensor]) -> None:
        outputs.append(list(output))
        output[1] = torch.zeros(())

    recording = Recording()
    with taps(model, {"fuse": "exchange"}, recording, MODE):
        model.fuse.register_forward_hook(overwrite)
        model(images)

    seen = recording.tensors[Key(MODE, "exchange", "output 1")]
    assert torch.equal(seen, expected["b"]) and outputs[0][1].shape == seen.shape


def test_inputs_of_layers_are_reported_and_calls_are_counted(
    model: Theirs, images: torch.Tensor
) -> None:
    seen = watch(model, images, "conv1", "relu")

    assert torch.equal(seen["conv1", "input"], images)
    assert ("relu", "output") in seen and ("relu", "output, call 2") in seen
    assert ("relu", "input") not in seen
    assert not torch.equal(seen["relu", "output"], seen["relu", "output, call 2"])


def test_a_cut_gradient_is_not_reported(model: Theirs, images: torch.Tensor) -> None:
    model.fuse[1].register_forward_hook(lambda _m, _i, output: output.detach())

    seen = watch(model, images, "fuse.0", "fuse.1")

    assert ("fuse.0", "gradient") in seen and ("fuse.1", "gradient") not in seen


def test_watching_changes_no_bit_of_output_gradients_and_buffers() -> None:
    torch.manual_seed(0)
    plain = build_network("cls_hrnet_w18_small_v1", num_classes=5)
    torch.manual_seed(0)
    watched = build_network("cls_hrnet_w18_small_v1", num_classes=5)
    images = torch.randn(2, 3, 64, 64)
    names = {path: path for path, _ in watched.named_modules()}

    expected = plain(images)
    expected.square().sum().backward()
    recording = Recording()
    with taps(watched, names, recording, MODE, gradient_mode="backward"):
        output = watched(images)
        output.square().sum().backward()

    assert len(recording.tensors) > 500
    assert torch.equal(output, expected)
    for theirs, ours in zip(plain.parameters(), watched.parameters(), strict=True):
        assert theirs.grad is not None and ours.grad is not None
        assert torch.equal(theirs.grad, ours.grad)
    for theirs, ours in zip(plain.buffers(), watched.buffers(), strict=True):
        assert torch.equal(theirs, ours)


def test_taps_are_gone_afterwards_even_after_an_error(model: Theirs, images: torch.Tensor) -> None:
    recording = Recording()
    with pytest.raises(RuntimeError), taps(model, {"conv1": "conv1"}, recording, MODE):
        model(images[:, :1])
    before = len(recording.tensors)

    model(images)

    assert len(recording.tensors) == before
    assert not model.conv1._forward_hooks and not model.conv1._forward_pre_hooks


def test_an_unknown_path_and_a_name_used_twice_are_errors(
    model: Theirs, images: torch.Tensor
) -> None:
    with (
        pytest.raises(KeyError, match="no module 'conv9'"),
        taps(model, {"conv9": "x"}, print, MODE),
    ):
        pass
    with (
        pytest.raises(ValueError, match="recorded twice"),
        taps(model, {"conv1": "x", "conv2": "x"}, Recording(), MODE),
    ):
        model(images)


def test_checking_has_a_row_for_what_either_side_lacks() -> None:
    recording = Recording()
    a, b, c = (Key(MODE, name, "output") for name in "abc")
    recording(a, torch.ones(2))
    recording(b, torch.ones(3))
    check = Checking(recording, lambda _key: 1e-11)
    check(c, torch.ones(4))
    check(a, torch.ones(2))

    rows = {row.key.name: row for row in check.rows()}

    assert list(rows) == ["a", "b", "c"]
    assert rows["a"].agrees and not rows["b"].agrees and not rows["c"].agrees
    assert rows["b"].note == "missing in the reproduction"
    assert rows["c"].note == "missing in the reference"


def test_tensors_are_found_in_nested_containers() -> None:
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)

    assert tensors_in([one, {"a": (two, None)}, "text", three]) == [one, two, three]
