"""One batch tells networks apart; that ours have the official bits, `test_live_networks` shows."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn

from comparison import same_bits
from reproduction import build_network
from tests.unit.test_family import SMALL


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(SMALL)


@pytest.fixture(autouse=True)
def one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both sides be networks of ours, whose parameters have one name."""
    monkeypatch.setattr(same_bits, "official_name", lambda name: name)
    monkeypatch.setattr(same_bits.arms, "official_state", lambda model: model.state_dict())


def hold_back(model: nn.Module) -> None:
    """Let one parameter have no gradient."""
    next(model.parameters()).requires_grad_(False)


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def slow_down(model: nn.Module) -> None:
    norms(model)[-1].momentum = 0.2


def widen(model: nn.Module) -> None:
    """Change outputs in eval mode alone."""
    model.register_forward_hook(lambda net, _, y: y if net.training else y * 1.0000002)


def nudge(model: nn.Module) -> None:
    with torch.no_grad():
        norms(model)[0].bias[0] += 1e-6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: None, ""),
        (nudge, "outputs in train mode"),
        (hold_back, "gradient of "),
        (slow_down, "state "),
        (widen, "outputs in eval mode"),
    ],
)
def test_the_first_difference_is_named(
    network: nn.Module, change: Callable[[nn.Module], None], told: str
) -> None:
    theirs, ours = deepcopy(network), deepcopy(network)
    change(ours)
    found = same_bits.difference(theirs, ours)
    assert found.startswith(told) and bool(found) == bool(told)


def test_outputs_of_nothing_but_zeros_show_nothing() -> None:
    assert not same_bits._equal([torch.zeros(2)], [torch.zeros(2)])


def test_without_the_reference_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: object, **named: object) -> None:
        raise same_bits.ReferenceUnavailable("the official code is not there")

    monkeypatch.setattr(same_bits.reference, "build", absent)
    found = same_bits.row(SMALL)
    assert (found["live"], found["live_verdict"]) == ("the official code is not there", "not run")
