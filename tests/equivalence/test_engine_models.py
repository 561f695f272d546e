"""Models and arguments that are odd and right: compared, and their faults found."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from comparison import compare
from reproduction import UserError
from tests.equivalence.small import IMAGES, LABELS, Around, plain, sgd, trained
from tests.equivalence.streams import against, failed, pair, run

ODD: list[tuple[str, Callable[[], nn.Module], dict[str, Any]]] = [
    (
        "bool inputs",
        lambda: Around(lambda m, x: m(x.to(m[0].weight.dtype))),
        {"inputs": IMAGES > 0},
    ),
    ("a dictionary", lambda: Around(lambda m, x: m(x["a"])), {"inputs": {"a": IMAGES}}),
    ("a list in a tuple", lambda: Around(lambda m, x: m(x[0])), {"inputs": ([IMAGES],)}),
    ("a number", lambda: Around(lambda m, x, k: m(x) * k), {"inputs": (IMAGES, 2.0)}),
    ("a loss module", plain, {"loss": nn.CrossEntropyLoss(weight=torch.ones(5))}),
    (
        "sparse gradients",
        lambda: nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten()),
        {"inputs": torch.arange(8).reshape(4, 2) % 9},
    ),
    ("bfloat16", lambda: plain().bfloat16(), {}),
    ("half", lambda: plain().half(), {}),
    ("a frozen layer", lambda: nn.Sequential(plain()[0].requires_grad_(False), *plain()[1:]), {}),
    ("a cumulative norm", lambda: nn.Sequential(nn.BatchNorm2d(3, momentum=None), *plain()), {}),
    ("dropout", lambda: nn.Sequential(*plain(), nn.Dropout(0.5)), {}),
    ("adam", plain, {"optimizer": lambda model: torch.optim.AdamW(model.parameters())}),
    (
        "a short schedule",
        plain,
        {"scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=9), "epochs": 10},
    ),
]


@pytest.mark.parametrize(("make", "given"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
def test_what_is_odd_and_right_is_compared_and_agrees(
    make: Callable[[], nn.Module], given: dict[str, Any]
) -> None:
    report = trained(make, **given)
    assert failed(report) == [], str(report)
    assert report.mode("teacher-forced trajectory").compared > 0


@pytest.mark.full
def test_a_compiled_candidate_is_compared() -> None:
    candidate = torch.compile(plain(), backend="eager")
    assert isinstance(candidate, nn.Module)
    report = compare(plain(), candidate, IMAGES)
    assert report.exit_code == 0, str(report)
    assert report.matched.tensors == 9


def test_a_mistake_in_an_odd_model_is_still_found() -> None:
    def dropped(eps: float) -> nn.Module:
        model = nn.Sequential(*plain(), nn.Dropout(0.5))
        model[1].eps = eps  # type: ignore[assignment]
        return model

    report = compare(dropped(1e-5), dropped(1.1e-5), IMAGES)
    assert {"forward eval", "forward train"} <= set(failed(report))
    optimizers = sgd, lambda model: torch.optim.SGD(model.parameters(), lr=0.11)
    report = trained(lambda: dropped(1e-5), optimizer=optimizers)
    assert "state after step" in failed(report)  # the order of a batch decides what is dropped
    first, second = (Around(lambda m, x: m(x[None].expand(4, -1, -1, -1))) for _ in range(2))
    second.inner[1].eps = 1.1e-5  # type: ignore[index,union-attr,assignment]
    report = compare(first, second, IMAGES[0])  # the first axis is that of channels
    assert {"forward eval", "forward train"} <= set(failed(report))


def scaled(factor: float, slope: float) -> nn.Module:
    """Make a model whose last operation is a function with a gradient of its own."""

    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return factor * x.relu()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return slope * gradients[0]

    return Around(lambda m, x: Scale.apply(m(x).exp()))


def test_a_function_with_a_gradient_of_its_own_is_one_operation() -> None:
    """Its inside is no part of the graph: gradients are compared at what it returns."""
    plain_one = Around(lambda m, x: 2 * m(x).exp())
    theirs = torch.autograd.Function.__dict__["apply"]
    given = (IMAGES, LABELS)
    right = compare(plain_one, scaled(2.0, 2.0), *given, loss=F.cross_entropy)
    assert failed(right) == [] and right.mode("backward").compared > 0, str(right)
    wrong = compare(plain_one, scaled(2.0, 3.0), *given, loss=F.cross_entropy)
    assert failed(wrong)[0] == "backward", str(wrong)
    assert torch.autograd.Function.__dict__["apply"] is theirs


def test_constants_are_no_weights_to_be_drawn() -> None:
    def shifted(factor: float) -> nn.Module:
        model = Around(lambda m, x: m(x - m.mean))
        mean = factor * torch.tensor([0.5, 0.4, 0.3])
        model.inner.register_buffer("mean", mean[:, None, None], persistent=False)
        return model

    assert compare(shifted(1), shifted(1), IMAGES).exit_code == 0
    report = compare(shifted(1), shifted(1.01), IMAGES)
    assert "inner.mean: values differ by up to 1.0e-02" in report.mode("static").reason
    assert failed(report)[:2] == ["static", "forward eval"]


@pytest.mark.parametrize("merged", [True, False], ids=["merged into", "unlike"])
def test_an_axis_that_is_not_the_batch_s_hides_no_fault(merged: bool) -> None:
    """An axis into which the batch is merged, or one of channels that is as long as the batch."""

    def scaled(factor: float) -> nn.Module:
        def merge(m: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
            y = m[0](x).reshape(16, 8, 8) * factor
            return m[3:](F.relu(y.reshape(4, 4, 8, 8)))  # type: ignore[no-any-return]

        def gate(m: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
            y = m[0](x)
            gates = torch.sigmoid(y.mean((0, 2, 3))) * factor
            return m[3:](y * gates[:, None, None])  # type: ignore[no-any-return]

        return Around(merge if merged else gate)

    report = compare(scaled(1), scaled(1.0001), IMAGES)
    assert report.origins[0].site == "network (mul) (output)"
    assert "behaves as 1.0001 times" in report.origins[0].text


def test_complex_values_are_compared_and_complex_parameters_refused() -> None:
    equal, other = (Around(lambda m, x, k=k: torch.fft.fft(k * m(x))) for k in (1, 1.001))
    assert compare(equal, equal, IMAGES).exit_code == 0
    assert "forward eval" in failed(compare(equal, other, IMAGES))
    with pytest.raises(UserError, match=r"call.weight of the reference is complex"):
        compare(Around(nn.Linear(2, 2, dtype=torch.cfloat)), equal, IMAGES)


def test_models_that_share_little_are_compared_to_the_end() -> None:
    first, second = (nn.LSTM(6, 5, batch_first=True), nn.GRU(6, 5, batch_first=True))
    report = compare(
        Around(lambda m, x: m(x)[0][:, -1], first),
        Around(lambda m, x: m(x)[0][:, -1], second),
        torch.randn(4, 3, 6),
        LABELS,
        loss=F.cross_entropy,
        optimizer=sgd,
    )
    assert report.exit_code == 1
    assert failed(report)[0] == "static"


def test_another_number_of_outputs_is_a_difference() -> None:
    both = Around(lambda m, x: (m(x), 2 * m(x)))
    report = compare(both, Around(lambda m, x: m(x)), IMAGES)
    assert "returns 1 tensors in eval mode, in the reference 2" in report.mode("static").reason
    assert report.exit_code == 1


def test_hooks_on_gradients_are_part_of_a_model() -> None:
    candidate = plain()
    candidate[1].weight.register_hook(lambda gradient: 2 * gradient)  # type: ignore[union-attr]
    report = compare(plain(), candidate, IMAGES, LABELS, loss=F.cross_entropy, free_steps=0)
    assert failed(report)[0] == "backward"


def test_models_without_state_are_compared() -> None:
    same = compare(nn.ReLU(), nn.ReLU(), 10 * IMAGES)
    assert same.mode("forward eval").outcome == "reproduced"
    other = compare(nn.ReLU(), nn.ReLU6(), 10 * IMAGES)
    assert "forward eval" in failed(other)


def noisy(net: nn.Module) -> None:
    generator = torch.Generator()

    def noise(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output * (1 + 1e-3 * torch.rand(1, generator=generator).to(output.dtype))

    net.get_submodule("fuse.low.0.bn1").register_forward_hook(noise)


def test_a_reference_that_is_not_deterministic_is_named_and_nothing_is_held_against_it() -> None:
    _, reference = pair(noisy)
    report = against(reference, pair()[1])
    assert report.outcome == "undecided"
    assert "fuse.low.0.bn1" in report.mode("bitwise").reason
    (said,) = [note for note in report.notices if "differs from itself" in note]
    assert "the reference differs from itself on the same inputs with the same seed" in said
    assert "of the output, from fuse.low.0.bn1 (rand) on: seed what it draws itself" in said
    assert "by up to 0.0" not in said


def test_a_candidate_that_is_not_deterministic_is_a_difference() -> None:
    report = run(noisy, steps=0, free_steps=0)
    assert report.exit_code == 1
    assert "from fuse.low.0.bn1 (rand) on: seed what it draws itself; the reference does not" in (
        report.mode("static").reason
    )
