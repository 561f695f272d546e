"""Each measured effect is as documented for the two arms, and not for arms that are otherwise."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison import published
from comparison.effects import networks, recipe
from comparison.effects.subjects import Subjects, train_mode
from comparison.published import Figure
from reproduction import TrainConfig, UserError


class Linear(nn.Module):
    """A classifier that does nothing remarkable: any size, any batch, no interpolation."""

    def __init__(self, outputs: int = 1000) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(x.mean((2, 3)))


class BiasedConv(nn.Module):
    """A convolution whose bias no normalization takes away again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


class Fails(nn.Module):
    """Raises whatever it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise self.error


class Upsamples(nn.Module):
    """Interpolates, by name or by default."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(F.interpolate(x, scale_factor=2.0, mode="nearest"), size=(9, 9))


class Passes(nn.Module):
    """Hands a list of streams to another module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner([x, x])


class OverwritesItsInput(nn.Module):
    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        streams[0] = streams[0] + 1
        return streams[0]


class LeavesItsInput(nn.Module):
    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        return streams[0] + streams[1]


@dataclass(frozen=True)
class Fakes(Subjects):
    """Subjects whose arms a test gives."""

    reference: nn.Module
    reproduction: nn.Module

    @property
    def models(self) -> dict[str, nn.Module]:  # type: ignore[override]
        arms = {"reference": self.reference, "reproduction": self.reproduction}
        return {arm: model.double().eval() for arm, model in arms.items()}


def fakes(reference: nn.Module, reproduction: nn.Module) -> Fakes:
    return Fakes("cls_hrnet_w18_small_v1", 0, reference, reproduction)


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    return Subjects("cls_hrnet_w18_small_v1", 0)


def test_train_mode_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with train_mode(model):
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        assert not torch.equal(model[1].running_mean, before["1.running_mean"])

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and model[0].weight.grad is None


def test_bilinear_takes_the_place_of_nearest_and_of_nothing_else() -> None:
    x = torch.rand(1, 1, 4, 4)
    with networks._BilinearInsteadOfNearest():
        changed = Upsamples()(x)
        cubic = F.interpolate(x, size=(9, 9), mode="bicubic")
    once = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    both = F.interpolate(once, size=(9, 9), mode="bilinear", align_corners=False)

    assert torch.equal(changed, both)
    assert torch.equal(cubic, F.interpolate(x, size=(9, 9), mode="bicubic"))


def test_interpolation_matters_equally_in_both_arms(subjects: Subjects) -> None:
    effect = networks.interpolation(subjects)

    assert effect.holds
    assert effect.value is not None and effect.value > 0.01


def test_interpolation_in_one_arm_only_is_noticed(subjects: Subjects) -> None:
    ours = subjects.models["reproduction"]

    assert not networks.interpolation(fakes(Linear(), ours)).holds
    assert not networks.interpolation(fakes(Linear(), Linear())).holds


def test_the_order_of_convolution_and_upsampling_is_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert networks.convolution_order(0).holds

    monkeypatch.setattr(networks, "relative", lambda a, b: 1e-9)
    assert not networks.convolution_order(0).holds


@pytest.mark.parametrize("size", [64, 63, 62, 61, 29])
def test_both_arms_run_where_the_streams_fit(subjects: Subjects, size: int) -> None:
    row = networks.run_size(subjects, size)

    assert (row["reference"], row["reproduction"]) == ("runs", "runs")
    assert row["relative_difference"] < networks.EQUAL


@pytest.mark.parametrize("size", [60, 33])
def test_the_reproduction_alone_runs_where_they_do_not(subjects: Subjects, size: int) -> None:
    row = networks.run_size(subjects, size)

    assert (row["reference"], row["reproduction"]) == ("raises RuntimeError", "runs")
    assert row["relative_difference"] is None


def test_an_output_that_is_not_finite_does_not_count_as_running() -> None:
    broken = Linear()
    nn.init.constant_(broken.classifier.bias, float("nan"))

    assert networks.run_size(fakes(broken, Linear()), 8)["reference"] == "not finite"


def sizes(**changes: Any) -> list[dict[str, Any]]:
    fit = [
        {"image_size": n, "reference": "runs", "reproduction": "runs", "relative_difference": 0.0}
        for n in networks.SIZES_THAT_FIT
    ]
    refused = {"reference": "raises RuntimeError", "relative_difference": None}
    rest = [{**fit[0], **refused, "image_size": n} for n in networks.SIZES_THAT_DO_NOT]
    rows = [*fit, *rest]
    rows[0] = {**rows[0], **changes}
    return rows


def test_input_sizes_hold_as_documented() -> None:
    effect = networks.input_sizes(sizes())

    assert effect.holds and effect.value == 4 and effect.unit == "of 9 sizes tried"


@pytest.mark.parametrize(
    "changes",
    [
        {"relative_difference": 1e-9},
        {"relative_difference": None, "reference": "raises RuntimeError"},
        {"reproduction": "raises RuntimeError"},
        {"reproduction": "not finite"},
    ],
)
def test_other_behavior_at_a_size_is_noticed(changes: dict[str, Any]) -> None:
    assert not networks.input_sizes(sizes(**changes)).holds


def test_a_reference_that_learned_to_run_every_size_is_noticed() -> None:
    rows = [{**row, "reference": "runs", "relative_difference": 0.0} for row in sizes()]

    assert not networks.input_sizes(rows).holds


def test_the_official_order_of_calls_drops_one_epoch_early() -> None:
    rows = recipe.schedule_table(TrainConfig())

    assert [row["paper"] for row in rows] == [30, 60, 90]
    assert [row["reference"] for row in rows] == [29, 59, 89]
    assert [row["reproduction"] for row in rows] == [30, 60, 90]
    assert recipe.schedule(rows).holds


@pytest.mark.parametrize("change", [{"reference": 30}, {"reproduction": 29}])
def test_another_schedule_is_noticed(change: dict[str, int]) -> None:
    rows = recipe.schedule_table(TrainConfig())

    assert not recipe.schedule([{**rows[0], **change}, *rows[1:]]).holds


def test_a_view_of_a_transposed_slice_fails_for_top_five_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert recipe.accuracy_view().holds

    monkeypatch.setattr(torch.Tensor, "view", torch.Tensor.reshape)
    assert not recipe.accuracy_view().holds


def test_the_reference_has_a_thousand_outputs(subjects: Subjects) -> None:
    ours = subjects.models["reproduction"]

    assert networks.class_count(subjects).value == 1000
    assert networks.class_count(subjects).holds
    assert not networks.class_count(fakes(Linear(10), ours)).holds


def test_only_width_sixteen_meets_the_published_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    effect = recipe.width_of_small()
    assert effect.holds and effect.value == pytest.approx(13.58, abs=0.01)

    other = Figure(source="readme", title="", quantity="parameters_m", printed="13.6")
    monkeypatch.setattr(published, "figures", lambda name, source: {"parameters_m": other})
    assert not recipe.width_of_small().holds


def test_the_rate_per_image_is_that_of_the_paper() -> None:
    effect = recipe.batch_and_rate(TrainConfig())

    assert effect.holds and effect.value == pytest.approx(1.0)
    assert not recipe.batch_and_rate(TrainConfig(batch_size=64)).holds


def test_printed_gflops_are_counts_over_two_to_the_thirty(monkeypatch: pytest.MonkeyPatch) -> None:
    effect = recipe.cost_convention("cls_hrnet_w18_small_v1")
    assert effect.holds and effect.value == pytest.approx(7.374, abs=1e-3)

    in_billions = Figure(source="readme", title="", quantity="gflops", printed="1.60")
    monkeypatch.setattr(published, "figures", lambda name, source: {"gflops": in_billions})
    assert not recipe.cost_convention("cls_hrnet_w18_small_v1").holds


def test_biases_before_a_normalization_have_no_gradient(subjects: Subjects) -> None:
    assert networks.head_biases(subjects).holds
    assert not networks.head_biases(fakes(BiasedConv(), BiasedConv())).holds


def test_both_arms_refuse_one_small_image_in_train_mode(subjects: Subjects) -> None:
    ours = subjects.models["reproduction"]

    assert networks.batch_of_one(subjects).holds
    assert not networks.batch_of_one(fakes(Linear(), ours)).holds
    assert not networks.batch_of_one(fakes(ours, Fails(ValueError("deep inside")))).holds
    assert networks.batch_of_one(fakes(Fails(ValueError("x")), Fails(UserError("y")))).holds


def test_the_reference_alone_changes_lists_that_it_was_given(subjects: Subjects) -> None:
    assert networks.list_mutation(subjects).holds


@pytest.mark.parametrize(("inner", "count"), [(OverwritesItsInput(), 1), (LeavesItsInput(), 0)])
def test_replaced_entries_of_lists_are_counted(inner: nn.Module, count: int) -> None:
    assert networks.replaced_inputs(Passes(inner), torch.zeros(1, 3, 4, 4)) == count


def test_lists_that_we_change_or_that_nobody_changes_are_noticed() -> None:
    tidy, untidy = Passes(LeavesItsInput()), Passes(OverwritesItsInput())

    assert networks.list_mutation(fakes(untidy, tidy)).holds
    assert not networks.list_mutation(fakes(tidy, tidy)).holds
    assert not networks.list_mutation(fakes(untidy, untidy)).holds


def test_a_missing_checkpoint_is_refused(
    subjects: Subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert networks.missing_checkpoint(subjects).holds

    monkeypatch.setattr(networks, "load_checkpoint", lambda model, path: None)
    assert not networks.missing_checkpoint(subjects).holds


def test_published_errors_differ_by_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    effect = recipe.published_twice()
    assert effect.holds and effect.value == 0.1 and "5 of 6" in effect.what

    same = Figure(source="", title="", quantity="top1_error", printed="23.2")
    monkeypatch.setattr(published, "figures", lambda name, source: {"top1_error": same})
    assert not recipe.published_twice().holds


def test_the_table_translates_every_name(
    subjects: Subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect = networks.weight_names(subjects)
    assert effect.holds and effect.value == 552

    swapped = SimpleNamespace(models=dict(reversed(subjects.models.items())))
    monkeypatch.setattr(networks, "to_official", lambda state: state)
    assert not networks.weight_names(swapped).holds
