"""Normalization over wide rows, and what follows it: exact in float64, closer to it in float32."""

import doctest
from copy import deepcopy

import pytest
import torch
from torch import nn

from reproduction import forms, wide_norm
from reproduction.blocks import BasicBlock, Bottleneck
from reproduction.forms import EAGER, Form
from tests.unit.toys import without_spread

LAST = Form(name="last", channels_last=True)
SHAPES = ((8, 18, 8, 8), (3, 5, 7, 1), (2, 16, 4, 4), (1, 1, 1, 2), (4, 2048, 1, 1))


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take maps of every size."""
    monkeypatch.setattr(wide_norm, "_least_pixels", lambda _: 0)


def layer(channels: int) -> nn.BatchNorm2d:
    """Make a normalization in float64, with weights and statistics of its own."""
    made = nn.BatchNorm2d(channels).double()
    for value in (made.weight, made.bias, made.running_mean, made.running_var):
        nn.init.uniform_(value, 0.5, 1.5)
    return made


def outcome(made: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return output, gradients and state after one step of a sum with its own weights."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = made(x)
    generator = torch.Generator().manual_seed(1)
    weights = LAST.place(torch.randn(y.shape, dtype=torch.float64, generator=generator))
    inputs = {"x": x, **dict(made.named_parameters())}
    gradients = torch.autograd.grad((y * weights.to(y.dtype)).sum(), list(inputs.values()))
    return {
        "y": y.detach(),
        **dict(zip(inputs, gradients, strict=True)),
        **dict(made.named_buffers()),
    }


def errors(shape: tuple[int, ...]) -> dict[str, float]:
    """Return relative errors in float64 against PyTorch's normalization."""
    torch.manual_seed(0)
    made, x = layer(shape[1]), 3 + 2 * torch.randn(shape, dtype=torch.float64)
    expected = outcome(deepcopy(made), x)
    found = outcome(forms.prepare(made, LAST), LAST.place(x))
    return {
        name: float((found[name] - value).norm() / value.norm().clamp(min=1e-3))
        for name, value in expected.items()
        if value.is_floating_point()
    } | {"count": float(found["num_batches_tracked"] - expected["num_batches_tracked"])}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_normalization_on_every_map(shape: tuple[int, ...]) -> None:
    assert max(errors(shape).values()) < 1e-12


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    made = forms.prepare(layer(3), LAST)
    x = LAST.place(torch.randn(2, 3, 4, 2, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: made(LAST.place(x)), (x,))


def test_columns_brought_together_without_their_spread_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "var_mean", without_spread(torch.var_mean))
    found = errors(SHAPES[0])
    assert found["y"] > 1e-4 and found["running_var"] > 1e-4


def test_float32_is_closer_to_float64_than_row_by_row() -> None:
    torch.manual_seed(0)
    x = LAST.place(1 + torch.randn(8, 18, 56, 56))
    made = nn.BatchNorm2d(18)
    exact = outcome(deepcopy(made).double(), x.double())
    found = {
        kind: outcome(forms.prepare(deepcopy(made), form), x)
        for kind, form in (("row by row", EAGER), ("wide", LAST))
    }
    for name in ("y", "x", "weight", "bias", "running_mean", "running_var"):
        off = {kind: float((it[name] - exact[name]).norm()) for kind, it in found.items()}
        assert off["wide"] < 0.5 * off["row by row"], name


def test_what_follows_may_work_in_place() -> None:
    block = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    x = torch.randn(2, 4, 3, 3)
    expected = block(x)
    assert torch.allclose(forms.prepare(block, LAST)(LAST.place(x)), expected, atol=1e-6)


def residual(kind: str) -> nn.Module:
    """Make a residual block in float64, with parameters of its own."""
    torch.manual_seed(0)
    block = {"basic": BasicBlock(6), "identity": Bottleneck(12, 3), "projection": Bottleneck(5, 3)}
    for parameter in block[kind].parameters():
        nn.init.uniform_(parameter, -0.5, 1)
    return block[kind].double()


@pytest.mark.parametrize("kind", ["basic", "identity", "projection"])
@pytest.mark.parametrize("together", [2**19, 50])
def test_a_block_adds_and_rectifies_as_ever(
    kind: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a map is worked on in several parts, the last of which is shorter."""
    monkeypatch.setattr(wide_norm, "BLOCK", together)
    monkeypatch.setattr(wide_norm, "WIDTH", 32)
    block = residual(kind)
    channels = next(block.parameters()).shape[1]
    x = torch.randn(3, channels, 5, 4, dtype=torch.float64)
    expected = outcome(deepcopy(block), x)
    monkeypatch.setattr(wide_norm.WideBatchNorm2d.__mro__[1], "forward", None)  # takes no part
    found = outcome(forms.prepare(block, LAST), LAST.place(x))
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-10, atol=1e-12), name


@pytest.mark.parametrize("fault", ["shortcut", "relu"])
def test_a_block_without_its_shortcut_or_its_relu_is_noticed(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = residual("basic")
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    expected = deepcopy(block)(x)
    plain = wide_norm.WideBatchNorm2d.forward
    dropped = {"shortcut": lambda n, x, s, r: plain(n, x, None, r)}
    dropped["relu"] = lambda n, x, s, r: plain(n, x, s, False)
    monkeypatch.setattr(wide_norm.WideBatchNorm2d, "forward", dropped[fault])
    assert not torch.allclose(forms.prepare(block, LAST)(LAST.place(x)), expected)


def test_bfloat16_is_no_further_from_float64_than_as_ever() -> None:
    torch.manual_seed(0)
    block, x = BasicBlock(18), torch.randn(8, 18, 56, 56).bfloat16()
    exact = outcome(deepcopy(block).double(), x.double())
    off = {}
    for kind, form in (("as ever", EAGER), ("wide", LAST)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = outcome(forms.prepare(deepcopy(block), form), form.place(x))
        off[kind] = {
            name: float((found[name] - value).norm() / value.norm())
            for name, value in exact.items()
            if value.is_floating_point()
        }
    assert off["wide"]["y"] < off["as ever"]["y"]
    assert sum(off["wide"].values()) < 1.1 * sum(off["as ever"].values())


@pytest.mark.parametrize("other", ["type", "shape", "layout"])
def test_a_shortcut_of_another_kind_is_added_as_ever(other: str) -> None:
    made = layer(4)
    x = LAST.place(torch.randn(2, 4, 3, 3, dtype=torch.float64))
    shortcut = {
        "type": LAST.place(torch.randn(2, 4, 3, 3)),
        "shape": torch.randn(2, 4, 1, 1, dtype=torch.float64),
        "layout": torch.randn(2, 4, 3, 3, dtype=torch.float64),
    }[other]
    expected = torch.relu(deepcopy(made)(x) + shortcut)
    assert torch.equal(forms.prepare(made, LAST)(x, shortcut, relu=True), expected)


@pytest.mark.parametrize("case", ["evaluation", "other layout", "other type", "small", "momentum"])
def test_what_it_is_not_made_for_goes_as_ever(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = nn.BatchNorm2d(4, momentum=None if case == "momentum" else 0.1)
    made.train(case != "evaluation")
    x = torch.randn(2, 4, 3, 3)
    if case == "other type":
        x = x.half()
    if case != "other layout":
        x = LAST.place(x)
    if case == "small":
        monkeypatch.setattr(wide_norm, "_least_pixels", lambda _: 10**6)
    expected = deepcopy(made)(x)
    monkeypatch.setattr(wide_norm, "WideBatchNorm", None)
    assert torch.equal(forms.prepare(made, LAST)(x), expected)


def test_a_map_elsewhere_than_on_the_cpu_goes_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_norm, "WideBatchNorm", None)
    made = forms.prepare(nn.BatchNorm2d(4, device="meta"), LAST)
    assert made(LAST.place(torch.empty(2, 4, 3, 3, device="meta"))).shape == (2, 4, 3, 3)


def test_the_eager_form_brings_the_layer_back() -> None:
    made = forms.prepare(nn.BatchNorm2d(4), LAST)
    assert type(made) is wide_norm.WideBatchNorm2d
    assert type(forms.prepare(made, EAGER)) is nn.BatchNorm2d
    blocks = nn.Sequential(BasicBlock(2), Bottleneck(2, 2))
    before = [type(module) for module in blocks.modules()]
    assert not set(before) - {nn.Sequential, nn.Conv2d, nn.ReLU, nn.Identity} & {
        type(module) for module in forms.prepare(blocks, LAST).modules()
    }
    assert [type(module) for module in forms.prepare(blocks, EAGER).modules()] == before


def test_the_examples_in_the_docstrings_hold() -> None:
    done = doctest.testmod(wide_norm)
    assert done.attempted > 0 and done.failed == 0
