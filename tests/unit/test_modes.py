"""Each mode agrees on equal sides and fails on its own kind of fault, on toys."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison.ladder import MODES, Ladder, climb
from comparison.modes import static, step, trajectory
from comparison.sides import Side, load_state
from comparison.sites import match
from comparison.verdict import NOT_REPRODUCED, REPRODUCED, WITHIN_TOLERANCE, ZERO_NOTE
from tests.unit.toys import Ours, toy_batches, toy_sides


def ladder_of(theirs: Side, ours: Side, steps: int = 2) -> Ladder:
    return climb(theirs, ours, toy_batches(steps))


def failing(ladder: Ladder) -> dict[str, str]:
    return {verdict.mode: verdict.first_divergent for verdict in ladder.failures()}


def test_two_implementations_of_one_network_agree_in_every_mode() -> None:
    ladder = ladder_of(*toy_sides())

    assert [verdict.mode for verdict in ladder.verdicts] == list(MODES)
    assert {verdict.outcome for verdict in ladder.verdicts} == {REPRODUCED}
    assert all(verdict.compared > 0 for verdict in ladder.verdicts)


def test_every_tensor_has_its_row() -> None:
    ladder = ladder_of(*toy_sides(), steps=3)
    count = {v.mode: v.compared for v in ladder.verdicts}

    layers, parameters, buffers = 7, 11, 6
    assert count["forward eval"] == count["forward train"] == 2 * layers + 1
    assert count["backward"] == layers + parameters
    assert count["buffers"] == buffers
    assert count["step"] == 3 * (2 * parameters + buffers)


def test_only_the_bias_before_batch_normalization_is_zero_in_exact_arithmetic() -> None:
    ladder = ladder_of(*toy_sides())

    excused = {row.key.name for row in ladder.rows if row.note == ZERO_NOTE}

    assert excused == {"conv1.bias"}


def test_the_sides_stay_as_they_were() -> None:
    theirs, ours = toy_sides()
    before = [{k: v.clone() for k, v in side.state().items()} for side in (theirs, ours)]

    ladder_of(theirs, ours)

    for side, old in zip((theirs, ours), before, strict=True):
        assert all(torch.equal(old[name], tensor) for name, tensor in side.state().items())


def change_eps(ours: Ours) -> None:
    ours.second.norm.eps = 1.1e-5


def change_momentum(ours: Ours) -> None:
    ours.second.norm.momentum = 0.11


def freeze_one(ours: Ours) -> None:
    ours.first.norm.weight.requires_grad_(False)


def poison(ours: Ours) -> None:
    with torch.no_grad():
        ours.second.conv.weight[0, 0, 0, 0] = torch.nan


def detach_path(ours: Ours) -> None:
    ours.paths[1].register_forward_hook(lambda _m, _i, output: output.detach())


@pytest.mark.parametrize(
    ("change", "mode", "site", "in_static"),
    [
        (change_eps, "forward eval", "bn2 (output)", True),
        (poison, "forward eval", "conv2 (output)", False),
        (detach_path, "backward", "fuse.1 (gradient)", False),
        (change_momentum, "buffers", "bn2.running_mean (buffer)", True),
        (freeze_one, "backward", "bn1.weight (parameter gradient)", True),
    ],
)
def test_a_fault_of_the_network_shows_in_its_mode_and_at_its_site(
    change: Any, mode: str, site: str, in_static: bool
) -> None:
    theirs, ours = toy_sides()
    change(ours.model)

    found = failing(ladder_of(theirs, ours))

    numeric = {m: s for m, s in found.items() if m != "static"}
    assert next(iter(numeric.items())) == (mode, site)
    assert ("static" in found) is in_static


def with_momentum(value: float) -> Any:
    return lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=value)


def test_a_momentum_that_shows_at_the_second_step_only_is_seen_there() -> None:
    theirs, ours = toy_sides()
    theirs = replace(theirs, make_optimizer=with_momentum(0.9))
    ours = replace(ours, make_optimizer=with_momentum(0.91))

    one, two = (failing(ladder_of(theirs, ours, steps)) for steps in (1, 2))

    assert list(one) == ["static"]
    assert two["step"] == "conv1.weight (step 2)"


def test_teacher_forcing_keeps_a_fault_of_step_two_out_of_step_three() -> None:
    theirs, ours = toy_sides()
    theirs = replace(theirs, make_optimizer=with_momentum(0.9))
    ours = replace(ours, make_optimizer=with_momentum(0.9 + 1e-6))

    rows = [row for row in ladder_of(theirs, ours, steps=6).rows if row.key.mode == step.MODE]
    worst = {
        number: max(row.max_error for row in rows if row.key.part == f"step {number}")
        for number in range(2, 7)
    }

    assert worst[6] < 10 * worst[2]


def test_another_loss_shows_in_loss_and_not_before() -> None:
    theirs, ours = toy_sides()

    def smoothed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=0.01)

    assert next(iter(failing(ladder_of(theirs, replace(ours, loss=smoothed))))) == "loss"


def test_nan_on_both_sides_passes_with_a_notice() -> None:
    theirs, ours = toy_sides()
    weights = theirs.state()["conv2.weight"].clone()
    weights[0] = torch.nan
    for side in (theirs, ours):
        load_state(side, {"conv2.weight": weights})

    verdict = ladder_of(theirs, ours).verdicts[1]

    assert verdict.outcome == REPRODUCED
    assert any("not finite, alike on both sides" in notice for notice in verdict.notices)


def test_the_inventory_names_shape_type_and_what_is_missing() -> None:
    theirs, ours = toy_sides()
    assert isinstance(ours.model, Ours)
    ours.model.head = nn.Linear(4, 6, bias=False)
    matching = match(theirs.model, ours.model, ours.name_of, toy_batches()[0].images.float())

    found = [f"{f.name} {f.text}" for f in static.inspect(theirs, ours, matching).findings]

    assert "classifier out_features is 6, in the reference 5" in found
    assert "classifier.weight parameter is float32 (6, 4), in the reference float32 (5, 4)" in found
    assert "classifier.bias parameter is absent, in the reference float32 (5,)" in found


def test_a_layer_beyond_the_map_of_names_is_a_finding_and_the_rest_is_compared() -> None:
    theirs, ours = toy_sides()
    ours.model.extra = nn.Linear(2, 2, bias=False)

    ladder = ladder_of(theirs, ours)

    texts = {finding.name: finding.text for finding in ladder.findings}
    assert texts["extra"] == "the map of names does not know this layer"
    assert "in the reference absent" in texts["extra.weight (not in the map of names)"]
    assert set(failing(ladder)) == {"static", "step"}


def test_the_inventory_compares_the_optimizers_parameter_by_parameter() -> None:
    theirs, ours = toy_sides()

    def without_decay_on_head(model: nn.Module) -> torch.optim.Optimizer:
        head = list(model.head.parameters())
        rest = [p for name, p in model.named_parameters() if "head" not in name]
        options = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
        return torch.optim.SGD([{"params": rest}, {"params": head, "weight_decay": 0.0}], **options)

    ladder = ladder_of(theirs, replace(ours, make_optimizer=without_decay_on_head))

    assert [f"{f.name} {f.text}" for f in ladder.findings] == [
        "classifier.weight weight_decay is 0.0, in the reference 0.0001",
        "classifier.bias weight_decay is 0.0, in the reference 0.0001",
    ]
    assert failing(ladder)["step"] == "classifier.weight (step 1)"


def follow(theirs: Side, ours: Side, steps: int = 4) -> list[dict[str, Any]]:
    return [
        row
        for dtype in (torch.float32, torch.float64)
        for row in trajectory.follow(theirs.copied(dtype), ours.copied(dtype), toy_batches(steps))
    ]


def test_one_network_follows_itself_to_the_bit() -> None:
    theirs, _ = toy_sides()

    rows = follow(theirs, theirs)

    assert trajectory.bit_equal_steps(rows) == len(rows) == 8
    assert trajectory.judge(rows).outcome == REPRODUCED
    assert len({row["loss_reference"] for row in rows}) > 1


def test_rounding_ends_bit_equality_but_is_told_from_a_fault() -> None:
    theirs, ours = toy_sides()

    rows = follow(theirs, replace(ours, reordered=True), steps=6)

    verdict = trajectory.judge(rows)
    assert trajectory.bit_equal_steps(rows[:6]) < 6
    assert verdict.outcome == WITHIN_TOLERANCE and "to the bit for" in verdict.reason


def test_a_fault_in_the_free_run_is_no_rounding() -> None:
    theirs, ours = toy_sides()
    change_eps(ours.model)  # type: ignore[arg-type]

    verdict = trajectory.judge(follow(theirs, ours))

    assert verdict.outcome == NOT_REPRODUCED and verdict.first_divergent == "step 1"
