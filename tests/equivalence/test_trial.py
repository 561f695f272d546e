"""A seeded, small part of the trial of the checker; `python -m comparison trial` is the whole."""

import pytest

from comparison.mutation import checkers
from comparison.mutation.benches import make_benches
from comparison.mutation.operators import draw_neutral, sample
from comparison.mutation.operators_operations import operation_faults
from comparison.mutation.plan import Setting
from comparison.mutation.scoring import Named
from comparison.mutation.suite import Bench, harmless_candidates, try_fault, try_harmless

SMALL = Setting(network="cls_hrnet_w18_small_v1", batch_size=2, faults=0, changes=0)


@pytest.fixture(scope="module")
def benches() -> tuple[Bench, Bench]:
    return make_benches(SMALL, seed=3)


def sum_fault(bench: Bench, call: int):
    inputs = bench.candidate.sees(bench.leader.batches[0]).inputs
    return next(
        fault
        for fault in operation_faults(bench.candidate.model, inputs)
        if fault.operator == "added term x0.9" and fault.operation.call == call
    )


@pytest.mark.parametrize("count", [1, pytest.param(None, marks=pytest.mark.full)])
def test_the_checker_as_it_is_passes_the_fixed_set(
    benches: tuple[Bench, Bench], count: int | None
) -> None:
    own, _ = benches
    row = checkers.try_mutant(own, checkers.REAL, checkers.fixed_faults(own)[:count])
    assert not row["noticed"], row


def test_kept_gradients_are_told_by_their_cause(benches: tuple[Bench, Bench]) -> None:
    """Entries near zero cancel; the cause must be seen in spite of their rounding."""
    own, _ = benches
    faults = checkers.fixed_faults(own)
    row = try_fault(own, next(one for one in faults if one.operator == "gradients not reset"))
    assert row["said"].startswith("gradients are not reset between steps")
    assert row["phase_correct"] and row["exact"]


@pytest.mark.parametrize(
    "name",
    (
        "backward phase",
        pytest.param("threshold", marks=pytest.mark.full),
        pytest.param("captured by reference", marks=pytest.mark.full),
    ),
)
def test_a_spoiled_checker_is_noticed(benches: tuple[Bench, Bench], name: str) -> None:
    own, _ = benches
    (mutant,) = [one for one in checkers.MUTANTS if one.name.startswith(name)]
    row = checkers.try_mutant(own, mutant, checkers.fixed_faults(own)[:1])
    assert row["noticed"] and row["by"], row


def test_a_late_capture_without_in_place_work_would_pass(benches: tuple[Bench, Bench]) -> None:
    """What notices a capture by reference is the reference's in-place work, not the mutant."""
    own, _ = benches
    assert any(getattr(module, "inplace", False) for module in own.leader.side.model.modules()), (
        "the reference writes nothing in place: this mutant could not be noticed"
    )


def test_a_function_in_the_other_tree_is_right_in_its_own_module_only(
    benches: tuple[Bench, Bench],
) -> None:
    _, other = benches
    truth = other.ruler.truth(sum_fault(other, 0))
    assert truth == {"backbone.stage1.0"}
    assert other.ruler.is_right(Named(places=("layer1.0 (add)",)), truth)
    elsewhere = Named(places=("stage2.0.branches.0.0 (add)",))
    assert not other.ruler.is_right(elsewhere, truth)
    assert (other.ruler.hops(elsewhere, truth) or 0) > 3


def test_drawn_faults_are_caught_placed_and_harmless_changes_are_silent(
    benches: tuple[Bench, Bench],
) -> None:
    _, other = benches
    batches = other.leader.batches
    row = try_fault(other, sum_fault(other, 5))
    assert row["caught"] and row["phase_correct"] and row["exact"], row
    assert "assert_close, defaults" in row["flagged_by"]
    for fault in sample(other.candidate, batches, 1, seed=5).faults:
        row = try_fault(other, fault)
        assert row["caught"] and row["phase_correct"] and row["exact"], row
    candidates = harmless_candidates(other, draw_neutral(other.candidate, batches, 1, seed=5))
    row = try_harmless(other, candidates[-1])
    assert not row["caught"], row
