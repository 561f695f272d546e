"""Convolutions on small maps as matrix products: exact, in float64, for every shape used."""

import doctest
from copy import deepcopy
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reproduction import forms, small_maps
from reproduction.forms import EAGER, Form
from tests.unit.toys import dropping

KERNELS = ((1, 1, 0), (3, 1, 1), (3, 2, 1))  # kernel, stride, padding
SIZES = tuple(product((1, 2, 3, 4), repeat=2))
PRODUCTS = Form(name="products", gemm_limit=4)


def gradients(layer: nn.Conv2d, x: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Return output and all gradients of a weighted sum of it."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])]


def error_of(kernel: int, stride: int, padding: int, size: tuple[int, int], *, last: bool) -> float:
    """Return the largest relative error of output and gradients against PyTorch's convolution."""
    worst = 0.0
    for images, bias in product((1, 3), (False, True)):
        layer = nn.Conv2d(5, 7, kernel, stride, padding, bias=bias).double()
        x = torch.randn(images, 5, *size, dtype=torch.float64)
        weights = torch.randn_like(layer(x))
        expected = gradients(layer, x, weights)
        form = Form(name="", gemm_limit=4, channels_last=last)
        found = gradients(forms.prepare(layer, form), form.place(x), weights)
        errors = [
            float((a - b).norm() / b.norm().clamp(min=1e-30)) if b.norm() else float(a.norm())
            for a, b in zip(found, expected, strict=True)
        ]
        worst = max(worst, *errors)
    return worst


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), KERNELS)
def test_products_are_the_convolution_on_every_small_map(
    kernel: int, stride: int, padding: int, last: bool
) -> None:
    torch.manual_seed(0)
    for size in SIZES:
        assert error_of(kernel, stride, padding, size, last=last) < 1e-14


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, 2, 1).double()
    forms.prepare(layer, PRODUCTS)
    x = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x), (x,))


def test_a_dropped_tap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_maps, "reach", dropping(small_maps.reach))
    torch.manual_seed(0)
    assert error_of(3, 2, 1, (2, 2), last=True) > 0.1


def test_taps_that_touch_only_padding_have_gradient_zero() -> None:
    layer = forms.prepare(nn.Conv2d(2, 2, 3, padding=1), PRODUCTS)
    layer(torch.ones(2, 2, 1, 1)).sum().backward()
    gradient = next(layer.parameters()).grad
    assert gradient is not None
    assert gradient[:, :, 1, 1].abs().min() > 0
    gradient[:, :, 1, 1] = 0
    assert not gradient.any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_what_is_no_plain_convolution_goes_as_ever(
    layer: nn.Conv2d, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(1, 4, 3, 3)
    expected = layer(x)
    monkeypatch.setattr(small_maps, "SmallMapConvolution", None)
    assert torch.equal(forms.prepare(layer, PRODUCTS)(x), expected)


@pytest.mark.parametrize(("kernel", "stride", "padding"), KERNELS)
def test_large_weights_are_products_on_every_map(
    kernel: int, stride: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, kernel, stride, padding).double()
    x = torch.randn(2, 5, 9, 6, dtype=torch.float64)
    weights = torch.randn_like(layer(x))
    expected = gradients(layer, x, weights)
    form = Form(name="", gemm_weights=layer.weight.numel(), channels_last=True)
    found = gradients(forms.prepare(layer, form), form.place(x), weights)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)
    monkeypatch.setattr(small_maps, "SmallMapConvolution", None)
    with pytest.raises(AttributeError):
        layer(x)
    form = replace(form, gemm_weights=layer.weight.numel() + 1)
    assert torch.allclose(forms.prepare(layer, form)(form.place(x)), expected[0])


def test_under_autocast_products_are_of_its_type() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 48, 3, 2, 1)
    x, form = torch.randn(4, 32, 7, 7), Form(name="", gemm_weights=1, channels_last=True)
    weights = torch.randn(4, 48, 4, 4)
    exact = gradients(deepcopy(layer).double(), x.double(), weights.double())
    off = {}
    for kind, chosen in (("as ever", EAGER), ("products", form)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradients(forms.prepare(deepcopy(layer), chosen), chosen.place(x), weights)
        off[kind] = [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
        assert found[0].dtype == torch.bfloat16
        assert [each.dtype for each in found[1:]] == 3 * [torch.float32]
    for products, as_ever in zip(off["products"], off["as ever"], strict=True):
        assert 1e-4 < products < 1.2 * as_ever


def test_larger_maps_go_as_ever() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x = torch.randn(1, 3, 5, 5)
    expected = layer(x)
    assert torch.equal(forms.prepare(layer, PRODUCTS)(x), expected)
    assert torch.equal(expected, F.conv2d(x, layer.weight, layer.bias, padding=1))
    assert type(forms.prepare(layer, EAGER)) is nn.Conv2d


def test_the_examples_in_the_docstrings_hold() -> None:
    done = doctest.testmod(small_maps)
    assert done.attempted > 0 and done.failed == 0
