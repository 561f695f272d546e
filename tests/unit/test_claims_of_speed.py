"""Claims of speed: aims that are met, missed or not timed, and what faster forms compute."""

from typing import Any

import pytest

from comparison import claims, judges
from comparison.study import Study
from tests import synthetic
from tests.synthetic import Record
from tests.synthetic_speed import TRAINING, error, timing, timings


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the study that the synthetic records belong to."""
    return synthetic.study(tmp_path_factory.mktemp("studies"))


def verdict(study: Study, claim: str, *records: Record) -> judges.Verdict:
    """Judge one claim."""
    return claims.claim_named(claim).verdict(study, records)


@pytest.mark.parametrize(
    ("claim", "changed", "outcome", "said"),
    [
        ("C10", {}, "within tolerance", "no interval of the ratio begins below 0.9"),
        ("C10", {"rounds": 3}, "undecided", "0 of 2 timings within the margin"),
        ("C16", {}, "within tolerance", "1 of 1 aims met; 1 of 1 gradients within tolerance"),
        ("C16", {"fast": 1.2}, "not reproduced", "in 1 the whole interval lies below the factor"),
        ("C16", {"fast": 1.5, "spread": 0.3}, "undecided", "0 of 1 aims met"),
        ("C16", {"rounds": 3}, "undecided", "without an interval"),
        ("C17", {"deploy": 2.2}, "not reproduced", "x2.20 [2.18, 2.22] against x2.5"),
        ("C17", {"deploy": 0.8}, "not reproduced", "slower than the reference: cls_hrnet_w18, inf"),
        ("C17", {"errors": []}, "reproduced", "faster forms compute was not compared"),
        ("C17", {"errors": [error("x", "not reproduced")]}, "not reproduced", "x: 2 times"),
        ("C16", {"errors": [error("x", "explained difference")]}, "explained difference", "x: 2"),
    ],
)
def test_arms_can_miss_their_aims_or_compute_something_else(
    study: Study, claim: str, changed: dict[str, Any], outcome: str, said: str
) -> None:
    found = verdict(study, claim, *timings(**changed))
    assert found.outcome == outcome
    assert said in found.reason


def test_an_aim_that_could_not_be_timed_is_told_and_decides_nothing(study: Study) -> None:
    absent = timing(TRAINING, {"reproduction": 1.0}, absent={"fast": "no such form"})
    found = verdict(study, "C16", absent)
    assert (found.outcome, found.reason) == ("not run", "training_32: no such form")
    assert verdict(study, "C10", absent).outcome == "within tolerance"
