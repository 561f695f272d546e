"""Case E11: what the given input hides, the inputs that the checker proposes expose."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison import compare
from comparison.engine.inputs import BATCHES, SIZES, propose
from comparison.engine.report import Report
from comparison.engine.rewrites import MIRRORED


class Small(nn.Module):
    """Two streams: the lower one is upsampled by a factor, and cropped to the higher one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.down = nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Linear(4, 5)

    def activate(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is positive."""
        return F.relu(x)

    def upsample(self, low: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """Return the lower stream in the size of the higher one."""
        up = F.interpolate(low, scale_factor=2, mode="bilinear")
        return up[..., : size[0], : size[1]]

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Return a vector for each image."""
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activate(self.norm(self.stem(x)))
        x = x + self.upsample(self.down(x), x.shape[2:])
        return self.head(self.pool(x))


class Clipped(Small):
    """Takes ReLU6, which is a ReLU for small values."""

    def activate(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(x)


class Sized(Small):
    """Upsamples to a size, which is a factor for even sizes."""

    def upsample(self, low: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return F.interpolate(low, size=size, mode="bilinear")


class Uncropped(Small):
    """Crops nothing: odd sizes do not fit."""

    def upsample(self, low: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return F.interpolate(low, scale_factor=2, mode="bilinear")


class Squeezed(Small):
    """Drops every axis of length one, the batch's as well."""

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(x, 1).squeeze()


class Careful(Small):
    """In train mode, leaves out the norm for a single image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) == 1:
            x = self.activate(self.stem(x))
            x = x + self.upsample(self.down(x), x.shape[2:])
            return self.head(self.pool(x))
        return super().forward(x)


def swept(kind: type[Small], *, sweep: bool = True, reference: type[Small] = Small) -> Report:
    model = reference().double()
    candidate = kind().double()
    candidate.load_state_dict(copy.deepcopy(model.state_dict()))
    images = 0.3 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return compare(model, candidate, images, weights="given", sweep=sweep)


CASES = [
    (Clipped, "forward eval", "scale 10"),
    (Sized, "forward eval", "size 33x33"),
    (Squeezed, "forward eval", "batch 1"),
    (Careful, "forward train", "batch 1 (train)"),
]


@pytest.mark.parametrize(("kind", "mode", "named"), CASES)
def test_e11_proposed_inputs_expose_what_the_given_one_hides(
    kind: type[Small], mode: str, named: str
) -> None:
    hidden = swept(kind, sweep=False)
    assert hidden.mode(mode).outcome == "reproduced"
    report = swept(kind)
    assert report.mode(mode).outcome == "not reproduced"
    assert f"network (output 0, {named})" in report.mode(mode).reason
    assert report.exit_code == 1
    assert any(row.key.part == f"output 0, {named}" for row in report.rows)


def test_e11_an_equal_pair_raises_nothing_on_any_proposed_input() -> None:
    report = swept(Small)
    assert report.exit_code == 0
    tried = 2 * (1 + len(BATCHES)) + len(SIZES) + 2
    assert f"{tried} proposed inputs were compared" in report.notices


def test_e11_a_harmless_rewrite_raises_nothing_on_any_proposed_input() -> None:
    model = Small().double()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    candidate = MIRRORED.wrapped(model)
    report = compare(model, candidate, images, sweep=True)
    assert report.exit_code == 0, str(report)
    rows = report.mode("forward eval")
    assert rows.bit_equal < rows.compared
    assert "on proposed inputs: 74 tensors agree" in rows.reason


@pytest.mark.parametrize("rejecting", ["candidate", "reference"])
def test_e11_a_size_that_only_one_side_takes_is_a_finding(rejecting: str) -> None:
    kinds = {"kind": Uncropped} if rejecting == "candidate" else {"reference": Uncropped}
    report = swept(**{"kind": Small, "reference": Small, **kinds})
    reason = report.mode("forward eval").reason
    assert f"the {rejecting} rejects size 33x33, size 35x35" in reason
    assert "RuntimeError" in reason
    assert any(rejecting in finding.text for finding in report.findings)


def test_e11_what_both_sides_reject_is_told_and_is_no_difference() -> None:
    report = swept(Uncropped, reference=Uncropped)
    assert report.exit_code == 0
    assert any("both sides reject size 33x33" in note for note in report.notices)


def test_proposals_keep_types_ranges_and_structure() -> None:
    given: dict[str, Any] = {
        "tokens": torch.tensor([[3, 5], [5, 9]]),
        "images": torch.full((2, 1, 8, 8), 2.0),
        "flag": True,
    }
    proposals = propose(given)
    assert {"scale 10", "batch 1", "batch 5 (train)", "size 33x33", "size 64x33"} <= set(proposals)
    five = proposals["batch 5"].inputs
    assert five["tokens"].shape == (5, 2) and set(five["tokens"].flatten().tolist()) <= {3, 5, 9}
    assert five["flag"] is True
    assert proposals["size 64x33"].inputs["images"].shape == (1, 1, 64, 33)
    assert torch.equal(proposals["scale 10"].inputs["images"], torch.full((2, 1, 8, 8), 20.0))
    assert proposals["batch 5 (train)"].train and not proposals["batch 5"].train
    assert not any("size" in name for name in propose(torch.zeros(4, 7)))
