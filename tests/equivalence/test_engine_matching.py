"""What cannot be told apart is listed, never guessed in silence; wrong maps are refused."""

import copy
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison import compare
from comparison.engine.report import Report
from reproduction import UserError


class Branches(nn.Module):
    """Two branches of one shape whose sum is taken; nothing but their weights tells them apart."""

    def __init__(self, names: tuple[str, str] = ("left", "right"), *, equal: bool = True) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.names = names
        self.add_module(f"{names[0]}_stem", nn.Conv2d(3, 4, 3))
        for name in names:
            self.add_module(name, nn.Conv2d(4, 4, 3))
        if equal:
            first, second = (self.get_submodule(name) for name in names)
            second.load_state_dict(first.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.get_submodule(f"{self.names[0]}_stem")(x))
        first, second = (self.get_submodule(name)(x) for name in self.names)
        return F.relu(first) + F.relu(second)


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def renamed(equal: bool, weights: str = "given") -> tuple[Branches, Branches, Report]:
    reference = Branches(equal=equal).double()
    candidate = Branches(("one", "two"), equal=equal).double()
    return reference, candidate, compare(reference, candidate, IMAGES, weights=weights)


def test_branches_with_equal_weights_are_listed_as_ambiguous() -> None:
    _, _, report = renamed(equal=True)
    assert report.exit_code == 0
    assert report.matched.how == "structure"
    assert report.matched.ambiguous == (("left.weight", "right.weight"),)
    assert "told apart by order only: left.weight, right.weight" in str(report)


def test_branches_with_different_weights_are_told_apart_by_value() -> None:
    _, _, report = renamed(equal=False)
    assert report.exit_code == 0
    assert (report.matched.how, report.matched.ambiguous) == ("values", ())


def test_equal_names_leave_no_ambiguity() -> None:
    model = Branches()
    report = compare(model, copy.deepcopy(model), IMAGES)
    assert (report.matched.how, report.matched.ambiguous) == ("names", ())


def test_a_pairing_in_the_wrong_order_is_listed_and_seen() -> None:
    """Fresh weights on both sides: only a map can say which branch is which."""
    reference, candidate = Branches(equal=False), Branches(("one", "two"), equal=False)
    for parameter in candidate.parameters():
        nn.init.normal_(parameter)
    report = compare(reference, candidate, IMAGES)
    assert report.matched.ambiguous == (("left.weight", "right.weight"),)
    assert report.mode("forward eval").outcome == "reproduced"


def swapped(names: tuple[str, str]) -> Mapping[str, str]:
    theirs = {"one_stem": "left_stem", names[0]: "left", names[1]: "right"}
    return {f"{a}.{k}": f"{b}.{k}" for a, b in theirs.items() for k in ("weight", "bias")}


def test_a_map_that_swaps_branches_is_seen_where_weights_tell() -> None:
    reference, candidate, _ = renamed(equal=False)
    right = compare(reference, candidate, IMAGES, weights="given", name_map=swapped(("one", "two")))
    assert (right.exit_code, right.matched.how) == (0, "map")
    wrong = compare(reference, candidate, IMAGES, weights="given", name_map=swapped(("two", "one")))
    assert "left.weight: values differ" in wrong.mode("static").reason
    assert wrong.exit_code == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"three.weight": "left.weight"}, "1 tensors that the candidate does not have"),
        ({"one.weight": "middle.weight"}, "1 tensors that the reference does not have"),
        ({"one.weight": "right.weight"}, r"maps 2 tensors \(one.weight, two.weight\)"),
    ],
)
def test_a_wrong_map_is_refused(change: dict[str, str], said: str) -> None:
    reference, candidate, _ = renamed(equal=False)
    with pytest.raises(UserError, match=said):
        compare(reference, candidate, IMAGES, name_map={**swapped(("one", "two")), **change})


def test_a_map_that_leaves_tensors_out_is_told() -> None:
    reference, candidate, _ = renamed(equal=False)
    some = {k: v for k, v in swapped(("one", "two")).items() if k != "two.bias"}
    report = compare(reference, candidate, IMAGES, weights="given", name_map=some)
    assert "right.bias: has no counterpart in the candidate" in report.mode("static").reason
    assert report.exit_code == 1


class Summed(nn.Module):
    """A sum of two convolutions and a ReLU; written in another way, it begins from zero."""

    def __init__(self, written_otherwise: bool = False) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.head = nn.Conv2d(4, 2, 3)
        self.otherwise = written_otherwise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.otherwise:
            y = 0 + self.left(x)
            return self.head(F.relu(F.relu(y + self.right(x))))
        y = self.left(x)
        y = y + self.right(x)
        return self.head(F.relu(y))


def test_what_returns_other_values_is_no_partner_while_another_operation_returns_them() -> None:
    report = compare(Summed(), Summed(written_otherwise=True), IMAGES)
    assert report.exit_code == 0, str(report)
