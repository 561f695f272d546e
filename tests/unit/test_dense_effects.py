"""The documented differences of dense tasks are measured, and a change of ours is noticed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from comparison.effects import dense, scores
from comparison.effects.recipe import drops, rates_stepped_first
from comparison.effects.subjects import Effect
from reference.errors import ReferenceAbsent
from reproduction.config import BILINEAR


@pytest.mark.parametrize(
    "measure",
    [
        lambda: dense.corners(0),
        lambda: dense.shared_setting(0),
        dense.drops_of_pose,
        dense.late_decay,
        dense.cut_names,
        dense.numpy_names,
        scores.no_hard_pixel,
        lambda: scores.auxiliary_mean(0),
        lambda: scores.summed_exponentials(0),
        scores.absent_class,
        scores.empty_targets,
        scores.wider_threshold,
        scores.shifted_peaks,
        scores.wrapped_label,
    ],
)
def test_a_difference_is_as_documented(measure: Callable[[], Effect]) -> None:
    found = measure()
    assert found.holds and found.what


def always(value: Any) -> Callable[..., Any]:
    return lambda *args, **given: value


@pytest.mark.parametrize(
    ("where", "name", "instead", "measure"),
    [
        (dense, "ALIGNED", BILINEAR, lambda: dense.corners(0)),
        (dense, "rates_stepped_first", lambda r, m, *_: _rates(m), dense.drops_of_pose),
        (dense, "PREFIX", "", dense.cut_names),
        (scores, "ohem_cross_entropy", always(torch.tensor(1.0)), scores.no_hard_pixel),
        (scores, "combined_loss", always(torch.tensor(3.0)), lambda: scores.auxiliary_mean(0)),
        (scores, "OFFICIAL_MEAN_01_THRESHOLD", 0.1, scores.wider_threshold),
        (scores, "check_labels", always(None), scores.wrapped_label),
        (scores, "SIGMAS_PX", {"wflw": 2.0, "300w": 1.0}, scores.shifted_peaks),
    ],
)
def test_a_difference_that_has_gone_is_noticed(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, instead: Any, measure: Any
) -> None:
    monkeypatch.setattr(where, name, instead)
    try:
        holds = measure().holds
    except KeyError:  # a measure of a value that is no longer there
        holds = False
    assert not holds


def _rates(milestones: tuple[int, ...]) -> list[float]:
    return [0.1 ** sum(epoch >= m for m in milestones) for epoch in range(210)]


def test_rates_that_are_stepped_first_drop_early() -> None:
    assert drops(rates_stepped_first(1.0, (3, 5), 0.1, 8)) == [2, 4]


def test_without_the_official_code_the_shared_setting_is_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(*given: Any) -> list[nn.Module]:
        raise ReferenceAbsent("gone")

    monkeypatch.setattr(dense, "build_together", absent)
    found = dense.shared_setting(0)

    assert found.value is None and found.what.startswith("not run: ")


def test_a_setting_of_ours_that_leaked_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = dense.built(dense.tiny(dense.NETWORKS[dense.SEGMENTATION]))
    outputs = iter(torch.ones(1) * n for n in range(9))
    monkeypatch.setattr(shared, "forward", lambda images: next(outputs))
    monkeypatch.setattr(dense, "built", lambda *given: shared)

    assert not dense._ours_apart(0)
