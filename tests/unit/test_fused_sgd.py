"""SGD on weights as they lie in memory: the bits and the state of PyTorch's."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from reproduction import fused_sgd
from reproduction.fused_sgd import FusedSGD

PLAIN = {"lr": 0.1}
RECIPE = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": True}


def trained(kind: type[torch.optim.SGD], steps: int = 3, **settings: Any) -> dict[str, Any]:
    """Return weights and momentum of a channels-last layer and a classifier after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(5, 4, 3), nn.Conv2d(4, 6, 1), nn.Linear(3, 2))
    model.to(memory_format=torch.channels_last)
    optimizer = kind(model.parameters(), **settings)
    for _ in range(steps):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.randn_like(parameter)
            if number == 1:  # one that got no gradient, one in another layout
                parameter.grad = None
            if number == 2:
                parameter.grad = parameter.grad.contiguous()
        optimizer.step()
    state = optimizer.state_dict()
    momentum = {k: v["momentum_buffer"] for k, v in state["state"].items() if settings != PLAIN}
    return {"weights": list(model.parameters()), "momentum": momentum}


@pytest.mark.parametrize("settings", [PLAIN, RECIPE])
def test_bits_and_state_are_those_of_pytorch(settings: dict[str, Any]) -> None:
    found = trained(FusedSGD, **settings)
    expected = trained(torch.optim.SGD, fused=True, **settings)
    assert all(map(torch.equal, found["weights"], expected["weights"]))
    assert found["momentum"].keys() == expected["momentum"].keys()
    for key, buffer in expected["momentum"].items():
        assert torch.equal(found["momentum"][key], buffer)
        assert found["momentum"][key].stride() == buffer.stride()


def test_a_run_goes_on_from_a_state_of_pytorch() -> None:
    weight = nn.Parameter(torch.randn(2, 2, 3, 3).to(memory_format=torch.channels_last))
    weight.grad = torch.randn_like(weight)
    old = torch.optim.SGD([weight], fused=True, **RECIPE)
    old.step()
    copy = nn.Parameter(weight.detach().clone())
    copy.grad = weight.grad.clone()
    new = FusedSGD([copy], **RECIPE)
    new.load_state_dict(deepcopy(old.state_dict()))
    old.step()
    assert new.step(closure=lambda: 3.0) == 3.0
    assert torch.equal(copy, weight)


def test_no_gradient_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(fused_sgd, "sgd", lambda *lists, **_: shown.extend(lists[1]))
    trained(FusedSGD, steps=1, **PLAIN)
    assert [gradient.is_contiguous() for gradient in shown] == [True] * len(shown)
