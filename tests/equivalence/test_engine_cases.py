"""The hard cases E1 to E19 on a small network; E11, E14 and E19 to E21 have files of their own."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from comparison import compare
from comparison.engine.passes import Batch, Side, Sites, run_train
from comparison.engine.recordings import Recording
from comparison.engine.rewrites import REWRITES
from comparison.engine.trace import trace
from comparison.engine.verdict import MODES
from reproduction import UserError
from tests.equivalence.streams import (
    Flat,
    Fuse,
    Net,
    against,
    failed,
    inputs,
    modules,
    pair,
    run,
    sgd,
)

torch.set_num_threads(1)


def test_equal_networks_agree_in_every_mode_that_ran() -> None:
    report = run(steps=3)
    assert report.exit_code == 0
    assert [verdict.mode for verdict in report.modes] == list(MODES)
    assert not report.origins


def test_e1_a_bias_before_a_norm_is_zero_by_symmetry_and_its_loss_is_noticed() -> None:
    assert any("zero in exact arithmetic" in note for note in run().notices)
    report = run(lambda net: net.head[0].register_parameter("bias", None))
    assert "head.0.bias" in report.mode("static").reason
    assert report.mode("loss").outcome == "reproduced"
    assert "forward eval" in failed(report)


def test_e2_a_tenth_more_eps_is_named_with_its_value() -> None:
    report = run(lambda net: setattr(net.fuse.low[0].bn1, "eps", 1.1e-5))
    assert modules(report) == {"fuse.low.0.bn1"}
    assert "eps behaves as 1.1e-05" in report.origins[0].text
    assert report.origins[0].confirmed


def test_e3_in_place_work_and_rewritten_lists_do_not_fool_the_capture() -> None:
    reference, _ = pair()
    nodes = trace(reference, inputs().double(), train=True)
    recording, plain = Recording(), {}
    side = Side(model=reference, loss=F.cross_entropy)
    batch = Batch(inputs().double(), torch.tensor([0, 1, 2, 3]))
    run_train(side, batch, Sites.own(nodes), recording)
    hook = reference.fuse.low[0].bn2.register_forward_hook(
        lambda _module, _inputs, output: plain.update(bn=output.clone())
    )
    reference.train()(batch.inputs)
    hook.remove()
    kept = next(recording[k] for k in recording.shapes() if k.name.startswith("fuse.low.0.bn2 ("))
    assert torch.equal(kept, plain["bn"])
    assert {str(n.place) for n in nodes} >= {"fuse.low.0.relu (relu)", "fuse.low.0.relu (relu 2)"}


def test_e4_a_cut_edge_is_named_not_the_stem() -> None:
    class Cut(Fuse):
        def paths(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
            down, up = super().paths(streams)
            return [down, up.detach()]

    report = run(lambda net: setattr(net.fuse, "__class__", Cut))
    assert failed(report)[0] == "backward"
    assert "cut off" in report.origins[0].text
    assert report.origins[0].module == "fuse"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"momentum": 0.91}, "momentum behaves as 0.91"),
        ({"weight_decay": 5e-4}, "weight decay behaves as 0.0005"),
        ({"lr": 0.05 * (1 + 1e-6)}, "lr behaves as"),
        ({"nesterov": False}, "plain momentum"),
    ],
)
def test_e5_options_of_the_optimizer_are_fitted(option: dict[str, Any], said: str) -> None:
    report = run(optimizer=(sgd(), sgd(**option)), steps=3)
    assert "state after step" in failed(report)
    assert said in report.origins[0].text


def test_e5_plain_momentum_shows_at_the_second_step_only() -> None:
    plain = sgd(nesterov=False)
    report = run(optimizer=(plain, sgd(nesterov=False, momentum=0.91)), steps=3)
    assert failed(report) == ["static", "free-running trajectory", "teacher-forced trajectory"]
    assert "momentum behaves as 0.91" in report.origins[0].text


def test_e6_momentum_of_one_norm_is_fitted() -> None:
    report = run(lambda net: setattr(net.fuse.low[0].bn2, "momentum", 0.11))
    assert modules(report) == {"fuse.low.0.bn2"}
    assert "momentum behaves as 0.11" in report.origins[0].text
    assert report.mode("backward").outcome == "reproduced"


def test_e7_two_faults_in_parallel_streams_are_both_named() -> None:
    def change(net: Net) -> None:
        net.fuse.low[0].bn1.eps = 1.1e-5
        net.fuse.high[1].bn2.eps = 1.1e-5

    assert modules(run(change)) == {"fuse.low.0.bn1", "fuse.high.1.bn2"}


def test_e7_two_faults_in_a_row_that_cancel_at_the_output_are_both_named() -> None:
    def change(net: Net) -> None:
        with torch.no_grad():
            net.head[0].weight.mul_(2)
            net.head[0].bias.mul_(2)
            net.head[1].running_mean.mul_(2)
            net.head[1].weight.mul_(0.5)

    report = run(change)
    assert {"head.0", "head.1"} <= modules(report)


def test_e8_another_module_tree_is_matched_without_a_map() -> None:
    reference, _ = pair()
    report = against(reference, Flat(reference))
    assert report.exit_code == 0
    assert report.matched.tensors == len(reference.state_dict())


def test_e8_another_tree_is_matched_by_structure_where_values_differ() -> None:
    reference, _ = pair()
    torch.manual_seed(5)
    report = against(reference, Flat(Net().double()), weights="random")
    assert report.matched.how == "structure"
    assert report.exit_code == 0


def test_e8_a_fault_in_another_tree_is_named() -> None:
    reference, _ = pair()
    candidate = Flat(reference)
    candidate.parts[22 - 13].eps = 1.1e-5
    assert modules(against(reference, candidate)) == {"fuse.low.0.bn1"}


def test_e9_swapped_units_are_seen_though_shapes_agree() -> None:
    def change(net: Net) -> None:
        units = net.fuse.high
        units[0], units[1] = units[1], units[0]

    report = run(change, name_map=str)
    assert "forward eval" in failed(report)
    assert all(name.startswith("fuse.high") for name in modules(report))


@pytest.mark.parametrize("rewrite", [r for r in REWRITES if not r.reordered], ids=lambda r: r.name)
def test_e10_no_harmless_rewrite_raises_an_alarm(rewrite: Any) -> None:
    reference, candidate = pair()
    report = against(reference, rewrite.wrapped(candidate))
    assert report.exit_code == 0, str(report)


def test_e11_an_edge_case_must_be_named() -> None:
    reference, candidate = pair()
    with pytest.raises(UserError, match="values per channel"):
        compare(reference, candidate, inputs(4, 1), weights="given")
    report = compare(reference, candidate, inputs(4, 1), weights="given", edge_case="one image")
    assert report.exit_code == 0


def test_e12_near_ties_of_relu_raise_no_alarm() -> None:
    def change(net: Net) -> None:
        with torch.no_grad():
            net.stem[1].bias.zero_()

    reference, candidate = pair(change)
    change(reference)
    report = against(reference, REWRITES[1].wrapped(candidate))
    assert report.exit_code == 0, str(report)


def test_e13_a_schedule_slip_is_found_without_training() -> None:
    schedules = tuple(
        lambda optimizer, at=at: MultiStepLR(optimizer, at) for at in ([30, 60, 90], [29, 59, 89])
    )
    report = run(scheduler=schedules)
    assert failed(report) == ["static"]
    assert "29, 59, 89, in the reference at 30, 60, 90" in report.mode("static").reason


def test_e14_free_runs_say_their_horizon_and_teacher_forced_ones_have_none() -> None:
    reference, candidate = pair()
    report = against(reference, REWRITES[6].wrapped(candidate), steps=20, free_steps=20)
    assert report.mode("teacher-forced trajectory").outcome == "reproduced"
    assert "horizon is" in report.mode("free-running trajectory").reason


def test_e16_a_watched_run_is_equal_to_a_plain_one_to_the_bit() -> None:
    reference, _ = pair()
    batch = Batch(inputs().double(), torch.tensor([0, 1, 2, 3]))
    reference.train()
    F.cross_entropy(reference(batch.inputs), batch.targets).backward()
    plain = {name: p.grad.clone() for name, p in reference.named_parameters()}
    reference, _ = pair()
    recording = Recording()
    nodes = trace(reference, batch.inputs, train=True)
    run_train(Side(model=reference, loss=F.cross_entropy), batch, Sites.own(nodes), recording)
    seen = {k.name: recording[k] for k in recording.shapes() if k.part == "parameter gradient"}
    assert seen.keys() == plain.keys()
    assert all(torch.equal(plain[name], seen[name]) for name in plain)


def test_e17_an_extra_random_number_is_named() -> None:
    def change(net: Net) -> None:
        def draw(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            torch.rand(1)
            return output

        net.fuse.low[0].bn1.register_forward_hook(draw)

    report = run(change)
    assert "fuse.low.0.bn1 (batch_norm): draws random numbers" in report.mode("static").reason
    assert "random state" in report.mode("state after step").reason


def test_e18_nan_on_one_side_is_traced_to_its_source_and_on_both_is_noted() -> None:
    def spoil(net: Net) -> None:
        with torch.no_grad():
            net.fuse.low[0].bn1.weight[0] = torch.nan

    report = run(spoil)
    assert modules(report) == {"fuse.low.0.bn1"}
    reference, candidate = pair(spoil)
    spoil(reference)
    both = against(reference, candidate, steps=0)
    assert both.exit_code == 0
    assert any("not finite" in note for note in both.notices)


def test_e19_a_single_run_is_no_accuracy() -> None:
    report = run(accuracy=([90.0], [90.0], 1.0))
    assert report.mode("accuracy").outcome == "undecided"
    assert report.exit_code == 3
    shifted = run(accuracy=([90.0, 90.1, 90.2], [80.0, 80.1, 80.2], 1.0))
    assert shifted.mode("accuracy").outcome == "not reproduced"


def test_several_faults_of_different_kinds_are_all_found_at_once() -> None:
    class Cut(Fuse):
        def paths(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
            down, up = super().paths(streams)
            return [down.detach(), up]

    def change(net: Net) -> None:
        net.fuse.high[0].bn1.eps = 1.1e-5
        net.fuse.__class__ = Cut
        net.head[1].momentum = 0.2

    report = run(change)
    assert {"fuse.high.0.bn1", "fuse.down.1", "head.1"} <= modules(report)


def test_both_models_stay_as_they_were() -> None:
    reference, candidate = pair()
    before = copy.deepcopy(reference.state_dict())
    against(reference, candidate)
    assert all(torch.equal(before[name], t) for name, t in reference.state_dict().items())
    assert all(p.grad is None for p in candidate.parameters())
    assert reference.training


def test_what_is_computed_and_never_read_has_no_counterpart() -> None:
    class Idle(Fuse):
        def paths(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
            up = self.up(streams[1])
            F.interpolate(up.detach(), scale_factor=2)
            rows = up.repeat_interleave(2, -2)
            return [self.down(streams[0]), rows.repeat_interleave(2, -1)]

    report = run(lambda net: setattr(net.fuse, "__class__", Idle))
    assert report.exit_code == 0, str(report)
