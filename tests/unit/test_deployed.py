"""A deploy form is held to its original; a wrong fold is caught and its layer named."""

import copy

import pytest
import torch
from torch import nn

from comparison.deployed import FORMS, Form, Predictor, check_fold, decisions, output_errors
from reproduction import build_network
from reproduction.deploy import DeployForm, fold
from reproduction.tasks.classification.data import ArraySplit, Dataset
from tests.unit.test_deploy import network, tiny

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
EAGER = [form for form in FORMS if form.runtime == "eager"]


def with_wrong(attribute: str, layer: str, factor: float) -> object:
    """Return a fold that reads one number of one normalization wrongly."""

    def make(model: nn.Module, precision: str) -> DeployForm:
        changed = copy.deepcopy(model)
        norm = changed.get_submodule(layer)
        setattr(norm, attribute, getattr(norm, attribute) * factor)
        return fold(changed, precision)

    return make


def test_a_fold_is_reproduced_in_float64() -> None:
    verdict, rows = check_fold(tiny(), IMAGES)

    assert verdict.outcome == "reproduced"
    # the normalization (not the convolution that it is folded into), relu, convolution, output
    assert next(row.key.name for row in rows) == "0.1 (batch_norm)"
    assert len(rows) == 4


@pytest.mark.parametrize(("attribute", "factor"), [("eps", 100.0), ("running_var", 1.001)])
def test_a_wrong_fold_is_caught_and_named(attribute: str, factor: float) -> None:
    verdict, _ = check_fold(tiny(), IMAGES, with_wrong(attribute, "0.1", factor))

    assert verdict.outcome == "not reproduced"
    assert verdict.first_divergent.startswith("0.1 (batch_norm)")


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("cls_hrnet_w18_small_v1", "backbone.stage3.0.exchange.paths.2.0.1.norm"),
        ("seg_hrnet_w18_small_v1_cityscapes", "head.classify.mix.norm"),
        ("det_hrnetv2p_w18", "body.stage2.0.streams.1.0.unit1.norm"),
    ],
)
def test_a_whole_network_is_held_layer_by_layer(name: str, layer: str) -> None:
    model, images = network(name), torch.randn(2, 3, 64, 64)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    right, rows = check_fold(model, images)
    wrong, _ = check_fold(model, images, with_wrong("eps", layer, 100.0))

    assert right.outcome == "reproduced"
    assert sum("(batch_norm)" in row.key.name for row in rows) == norms
    assert wrong.first_divergent.startswith(f"{layer} (batch_norm)")


def test_errors_stand_beside_the_originals_own() -> None:
    rows = output_errors(tiny(), IMAGES, [*EAGER, Form("cuda", "bfloat16")])
    single, half, accelerated = rows

    assert single["outcome"] == half["outcome"] == "within tolerance"
    assert 0 < single["l2_error"] < 1e-5 < half["l2_error"] < 0.1
    if not torch.cuda.is_available():
        assert accelerated["outcome"] == "not run"
        assert "CUDA" in accelerated["reason"] and accelerated["l2_error"] is None


def test_a_runtime_that_computes_something_else_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = with_wrong("eps", "0.1", 100.0)
    monkeypatch.setattr(
        "comparison.deployed.load", lambda model, *_, precision: wrong(model, precision)
    )
    (row,) = output_errors(tiny(), IMAGES, EAGER[:1])

    assert row["outcome"] == "not reproduced"
    assert row["l2_error"] > 10 * row["own_l2_error"]


def digits_like(count: int) -> Dataset:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng).numpy()
    split = ArraySplit(images, torch.zeros(count, dtype=torch.int64).numpy())
    return Dataset("digits", split, split, 5, 32, "", "made here", "none")


class Scores(nn.Module):
    """A classifier of means, whose decisions depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images).mean(dim=(2, 3))


def test_decisions_are_counted_over_batches_that_are_not_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = digits_like(7)
    (same,) = decisions(Scores().eval(), data, EAGER[:1], batch_size=4)
    monkeypatch.setattr(
        "comparison.deployed.load", lambda model, *_, precision: lambda images: -model(images)
    )
    (other,) = decisions(Scores().eval(), data, EAGER[:1], batch_size=4)

    assert (same["images"], same["changed"], same["margin"]) == (7, 0, None)
    assert other["changed"] == 7 and other["margin"] > 0
    assert other["top1_before"] + other["top1_after"] == pytest.approx(100.0)


def test_a_predictor_cuts_what_it_filled_up() -> None:
    seen = []
    predictor = Predictor(lambda images: seen.append(len(images)) or images.sum(dim=(1, 2, 3)), 4)

    assert torch.equal(predictor(IMAGES), IMAGES.sum(dim=(1, 2, 3)))
    assert seen == [4]


@pytest.mark.full
def test_runtimes_decide_as_the_original_does() -> None:
    torch.manual_seed(0)
    model = build_network("cls_hrnet_w18_small_v1", num_classes=5).eval()
    forms = [form for form in FORMS if form.precision == "float32"]
    rows = decisions(model, digits_like(20), forms, batch_size=8)

    assert [row["images"] for row in rows] == [20] * len(rows) and rows
    assert all(row["changed"] == 0 for row in rows)
