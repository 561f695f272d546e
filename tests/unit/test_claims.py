"""Claims: each verdict from records that are right, wrong, incomplete or missing."""

import doctest
import math
from dataclasses import replace
from types import ModuleType

import pytest

from comparison import agreement, claims, evidence, judges
from comparison.record import OUTCOMES
from comparison.study import ROOT, Study, StudyError, load_study
from tests import synthetic
from tests.synthetic import Record
from tests.synthetic_trial import trial_rows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the study that the synthetic records belong to."""
    return synthetic.study(tmp_path_factory.mktemp("studies"))


def verdict(study: Study, claim: str, *records: Record) -> judges.Verdict:
    """Judge one claim."""
    return claims.claim_named(claim).verdict(study, records)


@pytest.fixture(scope="module")
def whole(study: Study) -> dict[str, judges.Verdict]:
    """Judge all claims by a complete set of good records."""
    records = synthetic.all_records()
    return {claim.id: claim.verdict(study, records) for claim in claims.CLAIMS}


GOOD = {
    "C1": "reproduced",
    "C2": "reproduced",
    "C3": "reproduced",
    "C4": "reproduced",
    "C5": "reproduced",
    "C6": "reproduced",
    "C7": "reproduced",
    "C8": "within tolerance",
    "C9": "reproduced",
    "C10": "within tolerance",
    "C11": "not comparable",
    "C12": "within tolerance",
    "C13": "explained difference",
    "C14": "reproduced",
    "C15": "reproduced",
    "C16": "within tolerance",
    "C17": "within tolerance",
}


@pytest.mark.parametrize(
    ("shift", "outcome"), [(0.0, "reproduced"), (0.5, "within tolerance"), (30.0, "not reproduced")]
)
def test_dense_tasks_end_alike_only_within_the_margin(
    study: Study, shift: float, outcome: str
) -> None:
    assert verdict(study, "C15", *synthetic.dense_runs(shift)).outcome == outcome


def test_dense_tasks_with_other_batches_are_not_compared(study: Study) -> None:
    runs = synthetic.dense_runs()
    runs[0]["measurements"][-1]["value"] = "other"
    found = verdict(study, "C15", *runs)
    assert found.outcome == "not comparable"


def test_a_dense_decision_that_differs_after_exchange_is_not_reproduced(study: Study) -> None:
    runs = synthetic.dense_runs()
    runs[3]["verdict"] = {"outcome": "not reproduced", "reason": "1 peak"}
    assert verdict(study, "C15", *runs).outcome == "not reproduced"


def test_an_absent_arm_leaves_the_other_tasks_to_decide(study: Study) -> None:
    missing = {"outcome": "not run", "reason": "the official files are absent"}
    runs = synthetic.dense_runs()
    for record in runs:
        if (record["subject"]["task"], record["subject"]["arm"]) == ("segmentation", "reference"):
            record.update(verdict=missing, measurements=[], tables={}, inputs={})
    found = verdict(study, "C15", *runs)
    assert found.outcome == "reproduced"
    assert "not run in both arms: segmentation" in found.reason
    alone = [r for r in runs if r["subject"]["arm"] == "reproduction"]
    assert verdict(study, "C15", *alone).outcome == "not run"


def test_good_records_give_good_verdicts(whole: dict[str, judges.Verdict]) -> None:
    assert {name: verdict.outcome for name, verdict in whole.items()} == GOOD
    assert all(verdict.reason and verdict.records for verdict in whole.values())


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.id)
def test_no_record_is_not_run(study: Study, claim: claims.Claim) -> None:
    assert claim.verdict(study, []).outcome == "not run"


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.id)
def test_a_claim_names_its_notebook_and_command(claim: claims.Claim) -> None:
    assert claim.command(load_study("quick")) == f"make claim ID={claim.id}"
    assert claim.command(load_study("standard")) == f"make claim ID={claim.id} STUDY=standard"
    assert not claim.notebook or (ROOT / "notebooks").is_dir()
    assert claim.sentence.endswith(".")


def test_all_outcomes_have_a_rank() -> None:
    assert set(judges.SEVERITY) == set(OUTCOMES)
    assert judges.worst([]) == "not run"


def test_a_missed_digit_is_not_reproduced(study: Study) -> None:
    good, bad = "cls_hrnet_w18_small_v1", "cls_hrnet_w18"
    records = [synthetic.network(good), synthetic.network(bad, "not reproduced")]
    for claim in ("C1", "C2"):
        found = verdict(study, claim, *records)
        assert found.outcome == "not reproduced"
        assert found.reason.startswith("1 of 2")


def test_missing_networks_are_counted(study: Study) -> None:
    found = verdict(study, "C1", synthetic.network("cls_hrnet_w18"))
    assert found.reason.endswith("1 of 2 networks not run")


def test_a_difference_between_layers_is_not_reproduced(study: Study) -> None:
    wrong = synthetic.equivalence(error=1e-3)
    found = verdict(study, "C5", wrong)
    assert found.outcome == "not reproduced"
    assert "cls_hrnet_w18_small_v1, forward eval" in found.reason


def test_an_error_without_a_number_counts_as_infinite(study: Study) -> None:
    wrong = synthetic.equivalence()
    wrong["tables"]["modes"][3]["max_error"] = None
    assert [row["max_error"] for row in agreement.modes([wrong])][3] == math.inf


@pytest.mark.parametrize("mode", ["static", "data path"])
def test_another_setting_or_another_batch_is_a_difference_of_structure(
    study: Study, mode: str
) -> None:
    wrong = synthetic.equivalence()
    row = next(row for row in wrong["tables"]["modes"] if row["mode"] == mode)
    row |= {"outcome": "not reproduced", "reason": "momentum is 0.91"}
    found = verdict(study, "C3", wrong)
    assert found.outcome == "not reproduced"
    assert found.reason.startswith(f"cls_hrnet_w18_small_v1, {mode}: momentum is 0.91")


def test_a_mode_that_could_not_decide_leaves_the_claim_undecided(study: Study) -> None:
    unsure = synthetic.equivalence()
    unsure["tables"]["modes"][4] |= {"outcome": "undecided", "reason": "too few rewrites"}
    found = verdict(study, "C5", unsure)
    assert found.outcome == "undecided" and "backward: too few rewrites" in found.reason


def test_agreement_tells_its_margin_and_what_is_missing(study: Study) -> None:
    found = verdict(study, "C5", synthetic.equivalence())
    assert found.outcome == "reproduced"
    assert found.reason == ("180 comparisons in 1 run, the closest 2.7 decades inside")
    assert study.equivalence
    longer = replace(study.equivalence, long=("cls_hrnet_w18_small_v1",))
    wanted = replace(study, equivalence=longer)
    found_one = verdict(wanted, "C5", synthetic.equivalence())
    assert found_one.reason == f"{found.reason}; 1 of 2 comparisons not run"
    beside = synthetic.equivalence(against="timm")  # counted and judged by itself
    assert verdict(study, "C5", synthetic.equivalence(), beside) == found
    assert verdict(study, "C5", beside).outcome == "not run"


def test_bits_are_claimed_against_the_reference_alone(study: Study) -> None:
    other = synthetic.equivalence(against="timm")
    other["tables"]["trajectory"][0]["state_bit_equal"] = False
    assert verdict(study, "C7", synthetic.equivalence(), other).outcome == "reproduced"
    assert verdict(study, "C7", other).outcome == "not run"


def test_a_deviation_from_the_traces_is_not_reproduced(study: Study) -> None:
    wrong = synthetic.equivalence()
    wrong["tables"]["traces"][0]["failures"] = 2
    found = verdict(study, "C4", wrong)
    assert found.outcome == "not reproduced"
    assert found.reason.startswith("2 of 90 rows")


def test_a_trace_that_two_runs_replay_counts_once_and_the_worse_one_counts(study: Study) -> None:
    wrong = synthetic.equivalence(steps=200)
    wrong["tables"]["traces"][0]["failures"] = 2
    for records in ((wrong, synthetic.equivalence()), (synthetic.equivalence(), wrong)):
        assert verdict(study, "C4", *records).reason.startswith("2 of 90 rows")


def test_without_a_trace_the_recorded_numbers_are_not_run(study: Study) -> None:
    untraced = synthetic.equivalence()
    untraced["tables"]["traces"] = []
    assert verdict(study, "C4", untraced).outcome == "not run"


def test_the_claim_on_the_comparison_holds_by_its_gates(study: Study) -> None:
    told = verdict(study, "C6", synthetic.trial())
    assert told.outcome == "reproduced" and "11 of 11 faults caught" in told.reason
    rows = trial_rows()
    rows[0]["exact"] = False
    misplaced = verdict(study, "C6", synthetic.trial(rows))
    assert misplaced.outcome == "not reproduced" and "81.8% localized" in misplaced.reason


@pytest.mark.parametrize(("row", "caught"), [(0, False), (-1, True)])
def test_a_missed_fault_and_a_false_alarm_fail(study: Study, row: int, caught: bool) -> None:
    rows = trial_rows()
    rows[row]["caught"] = caught
    assert verdict(study, "C6", synthetic.trial(rows)).outcome == "not reproduced"


def test_an_unnoticed_mutant_of_the_checker_fails(study: Study) -> None:
    told = verdict(study, "C6", synthetic.trial(noticed=False))
    assert told.outcome == "not reproduced" and "a phase dropped" in told.reason


def test_a_trial_by_another_plan_decides_nothing(study: Study) -> None:
    other = synthetic.trial()
    other["subject"]["plan"] = "smoke"
    assert verdict(study, "C6", other).outcome == "not run"


@pytest.mark.parametrize("outcome", ["within tolerance", "not reproduced"])
def test_bits_that_part_are_judged_by_what_float64_says(study: Study, outcome: str) -> None:
    parted = synthetic.equivalence()
    parted["tables"]["trajectory"][1]["state_bit_equal"] = False
    free = next(m for m in parted["tables"]["modes"] if m["mode"] == "free-running trajectory")
    free["outcome"] = outcome
    found = verdict(study, "C7", parted)
    assert found.outcome == outcome
    assert "bits differ after 1 steps at the earliest" in found.reason


def test_bits_that_part_are_never_called_equal(study: Study) -> None:
    parted = synthetic.equivalence()
    rows = parted["tables"]["trajectory"]
    last = [row for row in rows if row["precision"] == "float32"][-1]
    rows.append({**last, "state_bit_equal": False})
    short = synthetic.equivalence()  # equal to its end, which comes before the other one's parting
    short["tables"]["trajectory"].remove(last)
    found = verdict(study, "C7", short, parted)
    assert found.outcome == "within tolerance"
    assert "1 of 2" in found.reason and "after 3 steps" in found.reason


def test_decisions_of_equal_weights_are_said_to_count_twice(study: Study) -> None:
    runs = [synthetic.training(arm, 0, 90.0) for arm in ("reference", "reproduction")]
    for run in runs:
        run["inputs"]["weights"]["final_sha256"] = "a" * 64
    assert "the same weights for 1 seeds" in verdict(study, "C9", *runs).reason
    runs[0]["inputs"]["weights"]["final_sha256"] = "b" * 64
    assert "count twice" not in verdict(study, "C9", *runs).reason


@pytest.mark.parametrize(
    ("shift", "outcome"),
    [(0.0, "within tolerance"), (0.9, "undecided"), (-5.0, "not reproduced")],
)
def test_equal_accuracy_is_decided_by_the_interval(
    study: Study, shift: float, outcome: str
) -> None:
    found = verdict(study, "C8", *synthetic.training_runs(shift))
    assert found.outcome == outcome
    assert "margin 1, power" in found.reason


def test_a_margin_changed_after_the_runs_is_refused(study: Study) -> None:
    found = verdict(study, "C8", *synthetic.training_runs(margin=0.5))
    assert found.outcome == "not comparable"
    assert found.reason == "the study file's margin is 1, the runs were made under 0.5"


def test_runs_outside_the_plan_cannot_tip_the_test(study: Study) -> None:
    planned = synthetic.training_runs(0.9)
    more = [synthetic.training("reproduction", seed, 90.2) for seed in range(3, 30)]
    longer = [synthetic.training("reproduction", 0, 90.2, epochs=9)]
    assert verdict(study, "C8", *planned, *more, *longer) == verdict(study, "C8", *planned)


def test_one_missing_run_is_told(study: Study) -> None:
    found = verdict(study, "C8", *synthetic.training_runs()[1:])
    assert found.reason.endswith("1 of 6 runs not run")


def test_one_arm_alone_is_undecided(study: Study) -> None:
    assert verdict(study, "C8", *synthetic.training_runs()[:3]).outcome == "undecided"


def test_one_flip_in_float64_is_not_reproduced(study: Study) -> None:
    found = verdict(study, "C9", synthetic.training("reference", 0, 90.0, flips=1))
    assert found.outcome == "not reproduced"
    assert found.reason == "1 of 360 decisions differ in float64, 1 in float32"


@pytest.mark.parametrize(
    ("top1", "outcome"), [(72.6, "within tolerance"), (70.0, "not reproduced")]
)
def test_published_accuracy_is_judged_on_imagenet_alone(
    study: Study, top1: float, outcome: str
) -> None:
    data = {"name": "image_folder", "num_classes": 1000, "test_count": 50_000}
    runs = [synthetic.training("reproduction", seed, top1, data=data) for seed in (0, 1)]
    assert verdict(study, "C11", *runs).outcome == outcome


def test_text_in_common_is_not_reproduced(study: Study) -> None:
    assert verdict(study, "C12", synthetic.audit(longest_run=300)).outcome == "not reproduced"


def test_an_unknown_claim_is_told_with_the_known_ones() -> None:
    with pytest.raises(StudyError, match=r"claim 'C0' is unknown; use one of C1, .*C13"):
        claims.claim_named("C0")


def test_the_markdown_table_has_a_row_a_claim(study: Study) -> None:
    lines = claims.verdict_table(study, synthetic.all_records()).splitlines()
    assert len(lines) == 2 + len(claims.CLAIMS)
    assert "| reproduced |" in lines[2] and "`make claim ID=C1 STUDY=synthetic`" in lines[2]


@pytest.mark.parametrize("module", [agreement, judges, evidence])
def test_examples_in_the_documentation_hold(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed
