"""Bad input: each mistake ends in one sentence that says which side, where, and what to do."""

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import weight_norm
from torch.optim import LBFGS, SGD
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.checkpoint import checkpoint

from comparison import compare
from comparison.engine.sides import Batch
from reproduction import UserError
from tests.equivalence.small import IMAGES, LABELS, Around, plain, sgd, trained

OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"stepz": 3}, "option 'stepz' is unknown; use weights, steps"),
    ({"weights": "mine"}, "weights is 'mine': use random or given"),
    ({"weights": None}, "weights is None"),
    ({"steps": "two"}, "steps is 'two': give a whole number"),
    ({"steps": -1}, "steps is -1: give a whole number of at least 0"),
    ({"free_steps": 1.5}, "free_steps is 1.5"),
    ({"epochs": True}, "epochs is True"),
    ({"seed": -1}, "seed is -1"),
    ({"budget_mib": 0}, "budget_mib is 0: give a number of MiB above 0"),
    ({"budget_mib": float("nan")}, "budget_mib is nan"),
    ({"edge_case": 3}, "edge_case is 3"),
    ({"sweep": "yes"}, "sweep is 'yes': give True or False"),
    ({"loss": "ce"}, "loss is a str: give a function"),
    ({"loss": lambda output, target: output}, "the loss returned a tensor of shape .* scalar"),
    ({"loss": lambda output, target: 1.0}, "the loss returned 1.0; .* scalar"),
    ({"loss": lambda output: output.sum()}, "the loss fails .* takes 1 positional argument"),
    (
        {"loss": lambda output, target: output.sum().detach()},
        "loss of the reference has no gradient",
    ),
    ({"loss": lambda output, target: output.argmax()}, "loss of the reference has no gradient"),
    ({"targets": None}, "the loss fails .* give targets, none were given"),
    ({"targets": LABELS[:3]}, "the loss fails .* give a loss and targets that fit it"),
    ({"targets": LABELS + 10}, "the loss fails .* out of bounds"),
    ({"loss": None}, "an optimizer was given without a loss"),
    ({"optimizer": None, "scheduler": len}, "a scheduler was given without an optimizer"),
    ({"optimizer": "sgd"}, "optimizer of the reference is a str: give a function"),
    ({"optimizer": sgd(plain())}, "optimizer of the reference is a SGD: give a function"),
    ({"optimizer": (sgd, None)}, "optimizer of the candidate is None"),
    ({"optimizer": (sgd,)}, "optimizer holds 1 functions: give one, or a pair"),
    ({"optimizer": SGD}, "the reference's optimizer could not be made .* function of the model"),
    ({"optimizer": lambda model: None}, "the reference's optimizer is None"),
    ({"optimizer": lambda model: sgd(plain())}, "optimizer has none of its model's parameters"),
    ({"optimizer": lambda model: LBFGS(model.parameters())}, "LBFGS needs a closure"),
    ({"scheduler": "step"}, "scheduler of the reference is a str"),
    ({"scheduler": lambda optimizer: None}, "the reference's scheduler is None"),
    ({"scheduler": ReduceLROnPlateau}, "ReduceLROnPlateau needs metrics"),
    ({"scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=9)}, "give epochs=10"),
    ({"name_map": [("a", "b")]}, "name_map is a list: give a mapping or a function"),
    ({"name_map": {"x": "0.bias"}}, "1 tensors that the candidate does not have, .* 'x'"),
    ({"name_map": {"0.bias": "x"}}, "1 tensors that the reference does not have, .* 'x'"),
    ({"name_map": {"0.bias": "0.bias", "1.bias": "0.bias"}}, r"maps 2 tensors \(0.bias, 1.bias\)"),
    ({"name_map": lambda name: "0.bias"}, "name_map maps 9 tensors .* to 0.bias"),
    ({"name_map": lambda name: 1 / 0}, "name_map fails on 0.weight .ZeroDivisionError"),
    ({"data": [1]}, "data is a list: give a pair"),
    ({"data": (1, 2)}, "the reference's data is a int: give its batches"),
    ({"data": ([], [])}, "the reference's data has no batch"),
    ({"data": ([Batch(IMAGES)], [IMAGES])}, "batch 0 of the candidate is a Tensor: give pairs"),
    ({"accuracy": ([1.0], [1.0])}, "accuracy is a tuple: give the reference's, the candidate's"),
    ({"accuracy": ([1.0, 2.0], [1.0, 2.0], 0.0)}, "the margin of accuracy is 0.0"),
    ({"accuracy": (["a"], ["b"], 1.0)}, "must be finite numbers"),
]


@pytest.mark.parametrize(("given", "said"), OPTIONS, ids=[said[:40] for _, said in OPTIONS])
def test_a_wrong_argument_gets_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        trained(**given)
    assert "\n" not in str(told.value)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3))


def frozen() -> nn.Module:
    return plain().requires_grad_(False)


def locked() -> nn.Module:
    model = plain()
    model.lock = threading.Lock()  # type: ignore[assignment]
    return model


def with_graph() -> nn.Module:
    model = plain()
    weight_norm(model[0])
    return model


def half_inside() -> nn.Module:
    return Around(lambda inner, x: inner(x.float()))


def recomputing() -> nn.Module:
    return Around(lambda inner, x: checkpoint(inner, x, use_reentrant=False))


def without_gradients() -> nn.Module:
    return Around(torch.no_grad()(lambda inner, x: inner(x)))


def untrainable(inner: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if inner.training:
        raise RuntimeError("no training")
    return inner(x)


MODELS: list[tuple[Callable[[], Any], dict[str, Any], str]] = [
    (lambda: len, {}, "the reference is a builtin_function_or_method: give a torch.nn.Module"),
    (lambda: torch.jit.script(plain()), {}, "the reference is a ScriptModule"),
    (lazy, {}, "0.weight of the reference is not initialized yet: run the model once"),
    (frozen, {}, "the loss of the reference has no gradient"),
    (without_gradients, {}, "the loss of the reference has no gradient"),
    (locked, {}, "a Sequential cannot be copied .cannot pickle '_thread.lock' object."),
    (with_graph, {}, "parametrizations.weight_norm does not"),
    (half_inside, {}, "the reference runs in float32 but not in float64"),
    (recomputing, {}, "recomputes what it does not keep"),
    (lambda: Around(lambda inner, x: None), {}, "the reference returns no tensor but NoneType"),
    (lambda: Around(untrainable), {}, "rejects inputs of shape .4, 3, 8, 8. in train mode"),
    (plain, {"inputs": IMAGES[:, :2]}, "rejects inputs of shape .4, 2, 8, 8. in eval mode"),
    (plain, {"inputs": None}, "inputs hold no tensor but None"),
    (plain, {"inputs": ()}, "inputs hold no tensor but a tuple"),
    (plain, {"inputs": IMAGES.numpy()}, "inputs hold no tensor but a ndarray"),
    (
        plain,
        {"inputs": IMAGES[:0], "targets": LABELS[:0]},
        r"inputs of shape \(0, 3, 8, 8\) are empty",
    ),
    (lambda: plain().to("meta"), {}, "reference on meta; candidate on meta; inputs on cpu"),
    (
        lambda: plain().to("meta"),
        {"inputs": IMAGES.to("meta"), "targets": LABELS.to("meta")},
        "the meta device, which holds no values",
    ),
    (nn.Sequential, {}, "the reference's optimizer could not be made .*empty parameter list"),
]


@pytest.mark.parametrize(("make", "given", "said"), MODELS, ids=[said[:40] for *_, said in MODELS])
def test_a_model_that_cannot_be_compared_gets_a_sentence(
    make: Callable[[], Any], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as told:
        trained(make, **given)
    assert "\n" not in str(told.value)


def test_the_side_at_fault_is_named() -> None:
    with pytest.raises(UserError, match="the candidate is a ScriptModule"):
        compare(plain(), torch.jit.script(plain()), IMAGES)
    with pytest.raises(UserError, match="the candidate rejects inputs"):
        compare(plain(), nn.Sequential(nn.Conv2d(4, 4, 3)), IMAGES)
    with pytest.raises(UserError, match="the loss of the candidate has no gradient"):
        compare(plain(), frozen(), IMAGES, LABELS, loss=F.cross_entropy)
    with pytest.raises(UserError, match="reference on cpu; candidate on meta; inputs on cpu"):
        compare(plain(), plain().to("meta"), IMAGES)


def test_models_that_cannot_be_matched_get_a_sentence() -> None:
    with pytest.raises(
        UserError, match=r"none of the 9 tensors of the reference \(0.weight, .*map"
    ):
        compare(plain(), nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), IMAGES)
    with pytest.raises(UserError, match="none of the 0 tensors of the reference corresponds"):
        compare(nn.ReLU(), nn.Conv2d(3, 3, 1), IMAGES)


def test_what_breaks_late_gets_a_sentence_too() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise ValueError("no gradient is known")

    broken = Around(lambda m, x: Broken.apply(m(x)))
    with pytest.raises(UserError, match=r"backward pass of the candidate fails .*no gradient is"):
        compare(plain(), broken, IMAGES, LABELS, loss=F.cross_entropy)
    with pytest.raises(UserError, match=r"SparseAdam cannot make step 1 .*dense gradients"):
        trained(optimizer=lambda model: torch.optim.SparseAdam(list(model.parameters())))


def test_rejected_models_stay_as_they_were() -> None:
    model = with_graph()
    before = copy.deepcopy(dict(model.named_parameters()))
    with pytest.raises(UserError):
        compare(model, plain(), IMAGES)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
