"""The hard cases E10, E12, E14, E17 and E18 that the small network of streams leaves open."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison import arms, compare
from comparison.engine.report import Report
from comparison.engine.rewrites import HALVED, MIRRORED
from tests.equivalence.streams import Fuse, Net, against, failed, inputs, modules, pair, run, sgd


def forced(report: Report) -> Any:
    return report.mode("teacher-forced trajectory")


def test_e10_a_sum_that_starts_from_zero_raises_no_alarm() -> None:
    class Started(Fuse):
        def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
            streams = [self.high(streams[0]), self.low(streams[1])]
            down, up = self.paths(streams)
            sums = []
            for terms in ((streams[0], up), (streams[1], down)):
                y: Any = 0
                for term in terms:
                    y += term
                sums.append(F.relu(y))
            return sums

    report = run(lambda net: setattr(net.fuse, "__class__", Started))
    assert report.exit_code == 0, str(report)


def test_e10_a_sum_that_starts_from_one_is_named() -> None:
    class Started(Fuse):
        def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
            streams = [self.high(streams[0]), self.low(streams[1])]
            down, up = self.paths(streams)
            y: Any = 1e-6
            y = y + streams[0]
            y += up
            return [F.relu(y), F.relu(streams[1] + down)]

    report = run(lambda net: setattr(net.fuse, "__class__", Started))
    assert modules(report) == {"fuse"}


class Tied(nn.Module):
    """Pre-activations that are zero in exact arithmetic, and two classes with equal scores."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 3, padding=1)
        self.second.load_state_dict(self.first.state_dict())
        self.head = nn.Linear(4, 4)
        with torch.no_grad():
            self.head.weight[2:] = self.head.weight[:2]
            self.head.bias[2:] = self.head.bias[:2]
        self.shift = shift

    def difference(self, x: torch.Tensor) -> torch.Tensor:
        """Return what would be zero everywhere, were sums exact."""
        return self.first(x.flip(-1)).flip(-1) - self.second(x) + self.shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ties = F.relu(self.difference(x)) * 1e-3
        return self.head((F.relu(self.first(x)) + ties).mean((2, 3)))


def mirrored(shift: float = 0.0) -> Tied:
    """Make the second kernel the mirror image of the first, which ties all signs."""
    model = Tied(shift)
    with torch.no_grad():
        model.second.weight.copy_(model.first.weight.flip(-1))
    return model


def compare_tied(candidate: nn.Module) -> Report:
    return compare(
        mirrored().double(),
        candidate.double(),
        torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]),
        loss=F.cross_entropy,
        optimizer=sgd(),
        weights="given",
        free_steps=0,
    )


def test_e12_flips_at_ties_are_counted_and_raise_no_alarm() -> None:
    images = torch.randn(8, 3, 12, 12)
    model = mirrored()
    with HALVED.active():
        other = model.difference(images) > 0
    flips = int((other != (model.difference(images) > 0)).sum())
    assert flips > 100, flips  # in float32 a rewrite turns the sign of many ties
    report = compare_tied(HALVED.wrapped(mirrored()))
    assert failed(report) == [], str(report)


def test_e12_a_true_fault_beside_ties_is_still_found() -> None:
    report = compare_tied(mirrored(shift=1e-7))
    assert "forward eval" in failed(report)


def test_e14_two_hundred_forced_steps_of_a_rewritten_network_agree() -> None:
    reference, candidate = pair()
    report = against(reference, MIRRORED.wrapped(candidate), steps=200, free_steps=30)
    assert forced(report).outcome == "reproduced", forced(report).reason
    assert len(report.steps) == 200 and forced(report).compared > 200 * 100
    assert forced(report).bit_equal < forced(report).compared
    assert [row["step"] for row in report.steps] == list(range(1, 201))
    free = report.mode("free-running trajectory")
    assert free.outcome != "not reproduced"
    assert "the horizon is" in free.reason


class Late(torch.optim.SGD):
    """Has another momentum from one step on."""

    def __init__(self, *arguments: Any, late: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.late, self.count = late, 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        if self.count == self.late:
            for group in self.param_groups:
                group["momentum"] = 0.91
        return super().step(closure)


def test_e14_a_fault_at_step_150_is_found_at_that_step() -> None:
    def late(model: nn.Module) -> torch.optim.Optimizer:
        return Late(model.parameters(), lr=0.05, momentum=0.9, late=150)

    plain = sgd(weight_decay=0, nesterov=False)
    report = run(optimizer=(plain, late), steps=160, free_steps=0)
    assert failed(report) == ["teacher-forced trajectory"]
    assert "step 150" in forced(report).first_divergent
    assert next(row["step"] for row in report.steps if row["differing"]) == 150


@pytest.mark.full
@pytest.mark.heavy
@pytest.mark.reference
def test_e14_two_hundred_forced_steps_of_the_official_network_agree() -> None:
    network = "cls_hrnet_w18_small_v1"
    report = compare(
        arms.build("reference", network),
        arms.build("reproduction", network),
        inputs(64, 2),
        torch.tensor([1, 2]),
        loss=F.cross_entropy,
        optimizer=sgd(),
        steps=200,
        free_steps=0,
    )
    assert report.exit_code == 0, str(report)
    assert len(report.steps) == 200


def test_e17_a_private_generator_on_one_side_is_named_though_no_seed_is_touched() -> None:
    class Noisy(Net):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noise = torch.rand(1, generator=self.generator).to(x.dtype)
            return super().forward(x) * (1 + 1e-6 * noise)

    reference, _ = pair()
    candidate = Noisy().double()
    candidate.load_state_dict(reference.state_dict())
    report = against(reference, candidate, steps=0, free_steps=0)
    assert report.exit_code == 1
    reason = report.mode("static").reason
    assert "differs from itself on the same inputs with the same seed" in reason
    assert "from network (rand) on" in reason


class Sized(nn.Module):
    """A network with a parameter, a buffer and an output that hold nothing, and a counter."""

    def __init__(self, empty: tuple[int, ...] = (0, 3)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        self.head = nn.Linear(4 * 14 * 14, 5)
        self.nothing = nn.Parameter(torch.zeros(empty))
        self.register_buffer("indices", torch.arange(5))
        self.register_buffer("none", torch.empty(0, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.head(self.net(x)) + self.nothing.sum()
        return y[:, self.indices], x.new_zeros(len(x), 0)


def sized(change: Any = lambda model: None, empty: tuple[int, ...] = (0, 3)) -> Report:
    reference, candidate = Sized().double(), Sized(empty).double()
    change(candidate)
    given = {"loss": lambda output, target: F.cross_entropy(output[0], target)}
    targets = torch.tensor([0, 1, 2, 3])
    return compare(
        reference, candidate, inputs(), targets, optimizer=sgd(), weights="given", **given
    )


def test_e18_tensors_of_size_zero_are_compared_and_agree() -> None:
    report = sized()
    assert report.exit_code == 0, str(report)
    assert any(row.key.part == "output 1" and row.shape == (4, 0) for row in report.rows)
    assert any(row.key.name == "nothing" and row.shape == (0, 3) for row in report.rows)


def test_e18_another_shape_of_nothing_is_a_difference() -> None:
    report = sized(empty=(0, 2))
    assert "nothing: is float64 (0, 2), in the reference float64 (0, 3)" in (
        report.mode("static").reason
    )


def test_e18_whole_numbers_are_compared_exactly() -> None:
    def count(model: Sized) -> None:
        model.net[1].num_batches_tracked.add_(1)  # type: ignore[operator,union-attr]

    assert "net.1.num_batches_tracked" in sized(count).mode("static").reason
    assert failed(sized(count))[0] == "static"

    def swap(model: Sized) -> None:
        model.indices = model.indices.flip(0)

    report = sized(swap)
    assert "indices" in report.mode("static").reason
    assert "forward eval" in failed(report)


def test_e18_random_weights_leave_indices_what_they_are() -> None:
    report = compare(Sized(), Sized(), inputs(), steps=0)
    assert report.exit_code == 0, str(report)
