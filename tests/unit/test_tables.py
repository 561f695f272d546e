"""Tables: what they print from known records, and that nothing is ever blank."""

import csv
import doctest
import io
import tempfile
from pathlib import Path

import pytest

from comparison import products
from comparison.study import Study
from comparison.tables import Table, build_tables, speed
from comparison.tables import study as about
from comparison.tables import table as cells
from comparison.tables.table import CONTRACT, NOT_RUN, REFERENCE_COLUMN, fixed, make_table
from tests import synthetic, synthetic_speed
from tests.synthetic_speed import LATENCY, TRAINING, error, timing


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the study that the synthetic records belong to."""
    return synthetic.study(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def tables(study: Study) -> dict[str, Table]:
    """Make all tables from good records."""
    return {table.name: table for table in build_tables(study, synthetic.all_records())}


def rows(table: Table) -> list[dict[str, str]]:
    """Read a table back from its CSV file."""
    return list(csv.DictReader(io.StringIO(table.to_csv())))


def test_the_tables_are_those_that_are_announced(study: Study, tables: dict[str, Table]) -> None:
    assert sorted(tables) == sorted(products.table_names(study))


@pytest.mark.parametrize("there", [True, False])
def test_no_cell_is_blank_and_every_row_names_the_reference(study: Study, there: bool) -> None:
    for table in build_tables(study, synthetic.all_records() if there else []):
        for row in rows(table):
            assert all(cell.strip() for cell in row.values()), table.name
            if table.name == "task_accuracy":
                continue  # published figures alone: no record of a dense task was made
            expected = "official f760c988, SHA-256 abababababab" if there else NOT_RUN
            assert row[REFERENCE_COLUMN] == expected


@pytest.mark.parametrize("name", ["networks", "cost", "accuracy"])
def test_results_are_laid_out_by_the_contract(tables: dict[str, Table], name: str) -> None:
    assert [column for column in tables[name].columns if column in CONTRACT] == list(CONTRACT)


def test_networks_without_a_record_read_not_run(study: Study) -> None:
    made = {t.name: t for t in build_tables(study, [synthetic.network("cls_hrnet_w18")])}
    small, w18 = rows(made["networks"])
    assert (small["width"], small["reproduction"], small["verdict"]) == ("16", NOT_RUN, NOT_RUN)
    assert (w18["paper"], w18["reproduction"], w18["delta"]) == ("21.3", "21.2990", "0")
    for compared in rows(made["equivalence"]):
        assert {compared[name] for name in ("tensors", "forward_eval", "verdict")} == {NOT_RUN}
    assert {row["verdict"] for row in rows(made["modes"])} == {NOT_RUN}


def test_aims_are_listed_whether_they_were_timed_or_not(tables: dict[str, Table]) -> None:
    by_input = {(r["network"], r["image_size"], r["precision"]): r for r in rows(tables["aims"])}
    fast = by_input["cls_hrnet_w18_small_v1", "32x32", "float32"]
    assert (fast["ratio"], fast["aim"], fast["lower"]) == ("×1.80", "×1.7", "×1.5")
    assert (fast["interval"], fast["verdict"]) == ("[1.78, 1.82]", "reproduced")
    absent = by_input["pose_hrnet_w32", "256x192", "float32"]
    assert {absent[name] for name in ("ms", "ratio", "interval", "verdict")} == {NOT_RUN}


def test_a_ratio_that_cannot_be_told_is_not_printed(study: Study) -> None:
    made = {t.name: t for t in build_tables(study, synthetic_speed.timings(spread=0.9))}
    wide = [row for row in rows(made["speed"]) if row["arm"] != "reference"]
    assert {row["ratio"] for row in wide} == {"no statement"}
    assert all(row["statement"].startswith("no statement: the spread") for row in wide)


def test_what_is_deployed_stands_beside_the_fastest_runtime_and_the_gpus_memory_counts(
    study: Study,
) -> None:
    record = timing(LATENCY, {"deploy": 2.0, "openvino": 2.5}, spread=0.0)
    record["subject"]["device"] = "cuda"
    record["tables"]["memory"][1]["device_mib"] = 123.0
    told = {row["arm"]: row for row in speed.rows_of(record)}
    assert told["deploy"]["of_best"] == "80 % [80, 80]" and told["openvino"]["of_best"] == "–"
    assert told["deploy"]["device"] == "cuda" and told["deploy"]["peak_mib"] == "123"


def test_gradients_stand_beside_speed_and_folded_networks_have_one_name(study: Study) -> None:
    forms = [
        {**error("training"), "form": "fast"},  # what the arm of that name ran
        {**error("training"), "form": "other", "tuned": 1.5, "tuned_low": 1.4, "tuned_high": 1.6},
        {**error("training"), "form": "unknown"},
    ]
    found = speed.errors(study, [timing(TRAINING, {"fast": 1.8}, spread=0.0, errors=forms)])
    told = {row["form"]: row["speed"] for row in rows(found)}
    assert told["fast"] == "×1.80 [1.80, 1.80]" and told["other"] == "×1.50 [1.40, 1.60]"
    assert told["unknown"] == "not recorded"
    old = timing(LATENCY, {"deploy": 2.0}, errors=[{**error("inference"), "form": "eager"}])
    assert [row["form"] for row in rows(speed.errors(study, [old]))] == ["folded"]


def test_accuracy_shows_means_difference_and_verdict(tables: dict[str, Table]) -> None:
    first, *described = rows(tables["accuracy"])
    assert first["reference"].startswith("90.27 [")  # mean of 90.1, 90.5, 90.2
    assert first["delta"].startswith("+0.03 [-")
    assert (first["tolerance"], first["verdict"]) == ("±1", "within tolerance")
    assert first["runs"] == "3 + 3"
    assert {row["verdict"] for row in described} == {"–"}
    deviation = next(row for row in described if row["quantity"].endswith("deviation"))
    assert deviation["reference"] == "0.21"


def test_layers_have_a_row_each_in_order(tables: dict[str, Table]) -> None:
    found = rows(tables["layers_cls_hrnet_w18_small_v1"])
    assert [row["depth"] for row in found] == [str(depth) for depth in range(1, 31)]
    assert found[29]["forward_eval"] == "2.0e-15"
    assert (found[0]["noise_gradient"], found[0]["parameter_gradient"]) == ("–", "0")


def test_every_planned_comparison_has_a_row(tables: dict[str, Table]) -> None:
    live, timm, traced = rows(tables["equivalence"])
    assert (traced["against"], traced["tensors"]) == ("traces", NOT_RUN)
    assert traced["verdict"] == "reproduced (traces)"
    assert (live["against"], timm["against"]) == ("reference", "timm")
    assert (live["tensors"], live["forward_eval"], live["horizon"]) == ("180", "2.0e-15", "2")
    assert {live["verdict"], timm["verdict"]} == {"reproduced"}


def test_modes_are_summed_up_with_the_reference_and_with_timm(study: Study) -> None:
    other = synthetic.equivalence(against="timm")
    other["tables"]["modes"][10]["outcome"] = "within tolerance"
    made = {t.name: t for t in build_tables(study, [synthetic.equivalence(), other])}
    found = {row["mode"]: row for row in rows(made["modes"])}
    assert list(found)[:2] == ["M0 static", "M1 forward eval"] and len(found) == 11
    assert found["M1 forward eval"]["compared"] == "60"
    assert found["M1 forward eval"]["margin"] == "-2.7"
    assert found["M0 static"]["bit_equal"] == found["M8 data path"]["bit_equal"] == "–"
    assert (found["M0 static"]["margin"], found["M9 accuracy"]["verdict"]) == ("–", NOT_RUN)
    bits = found["M10 bitwise"]
    assert (bits["verdict"], bits["timm"]) == ("reproduced", "within tolerance")


def test_the_trial_is_summed_up_by_family(tables: dict[str, Table]) -> None:
    found = {row["family"]: row for row in rows(tables["trial"])}
    assert (found["all faults"]["faults"], found["all faults"]["exact"]) == ("11", "90.9")
    assert found["optimizer"]["mean_hops"] == "2.00"
    assert (found["harmless"]["caught"], found["harmless"]["exact"]) == ("0", "–")
    assert found["harmless"]["interval"] == "[0.0, 97.5]"


def test_policies_stand_beside_the_checker(tables: dict[str, Table]) -> None:
    found = {row["policy"]: row for row in rows(tables["policies"])}
    assert found["this checker"]["flagged"] == "11" and found["this checker"]["alarms"] == "0"
    close = found["assert_close, defaults"]
    assert (close["flagged"], close["alarms"], close["alarm_rate"]) == ("10", "1", "100.0")


def test_survivors_and_what_was_excluded_have_a_reason(tables: dict[str, Table]) -> None:
    found = rows(tables["survivors"])
    assert [row["kind"] for row in found] == ["fault", "excluded"]
    assert "2 operations away from stem.conv" in found[0]["reason"]
    assert rows(tables["checkers"])[0]["verdict"] == "reproduced"


def test_exchange_judges_float64_alone(tables: dict[str, Table]) -> None:
    verdicts = {(row["precision"], row["verdict"]) for row in rows(tables["exchange"])}
    assert verdicts == {("float64", "reproduced"), ("float32", "–")}


def test_runs_outside_the_plan_are_shown_and_marked(study: Study) -> None:
    records = [*synthetic.training_runs(), synthetic.training("reference", 9, 10.0)]
    made = {t.name: t for t in build_tables(study, records)}
    marks = {row["seed"]: row["in_plan"] for row in rows(made["training"])}
    assert (marks["0"], marks["9"]) == ("yes", "no")
    assert rows(made["accuracy"])[0]["runs"] == "3 + 3"


def test_the_audit_lists_sources_and_sums_up_controls(tables: dict[str, Table]) -> None:
    known, absent, control = rows(tables["audit"])
    assert (known["longest_run"], known["run_limit"], known["verdict"]) == (
        "30",
        "67",
        "within tolerance",
    )
    assert (absent["longest_run"], absent["verdict"]) == (NOT_RUN, NOT_RUN)
    assert (control["source"], control["longest_run"]) == ("control: independent", "66")


def test_the_recipe_cites_every_hyperparameter(tables: dict[str, Table]) -> None:
    found = {row["hyperparameter"]: row for row in rows(tables["recipe"])}
    assert found["learning_rate"]["paper"] == "0.1"
    assert found["learning_rate"]["reference"] == found["learning_rate"]["this_study"] == "0.05"
    assert found["epochs"]["this_study"] == "2"
    assert all(row["source"] for row in found.values())


def test_the_checklist_is_answered_from_records(tables: dict[str, Table]) -> None:
    answers = {row["item"]: row["answer"] for row in rows(tables["checklist"])}
    assert answers["Seeds"] == "0, 1, 2"
    assert answers["Number of runs"] == "3 reference, 3 reproduction"
    assert "digits (CC BY 4.0), 1437 training and 360 test" in answers["Data, splits, license"]
    assert answers["Order and augmentation"] == "the same batches in both arms for 3 of 3 seeds"
    assert answers["Margin, fixed beforehand"] == "1 pp of top-1, study file SHA-256 efefefefefef"


def test_different_batches_show_in_the_checklist(study: Study) -> None:
    records = synthetic.training_runs()
    records[0]["measurements"][5]["value"] = "other"
    made = {t.name: t for t in build_tables(study, records)}
    answers = {row["item"]: row["answer"] for row in rows(made["checklist"])}
    assert answers["Order and augmentation"].endswith("2 of 3 seeds")


def test_what_failed_is_listed(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(about, "ROOT", tmp_path)
    folder = tmp_path / study.results_dir
    folder.mkdir(parents=True)
    entry = '[{"job": "speed/x", "sentence": "ValueError: no", "where": "a.ipynb"}]'
    (folder / "failures.json").write_text(entry)
    (row,) = rows(about.failures(study, []))
    assert (row["job"], row["sentence"]) == ("speed/x", "ValueError: no")


def test_latex_escapes_and_says_which_reference_ran(tables: dict[str, Table]) -> None:
    text = tables["networks"].to_latex()
    assert r"cls\_hrnet\_w18\_small\_v1" in text
    assert "Reference: official f760c988, SHA-256 abababababab." in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {line.count("&") for line in body} == {len(tables["networks"].columns) - 1}


def test_the_frame_has_the_cells(tables: dict[str, Table]) -> None:
    frame = tables["training"].frame()
    assert list(frame["seed"]) == ["0", "1", "2"] * 2


@pytest.mark.parametrize(
    ("row", "told"), [({"a": "1"}, "expected"), ({"a": "1", "b": " "}, "blank")]
)
def test_a_ragged_or_blank_row_is_refused(row: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_table("t", "c", ("a", "b"), [row], [])


def test_rounding_does_not_make_a_negative_zero() -> None:
    assert fixed(-0.0004, 2, sign=True) == "+0.00"


def test_examples_in_the_documentation_hold() -> None:
    done = doctest.testmod(cells)
    assert done.attempted and not done.failed


def test_variants_stand_beside_the_published_effect(tables: dict[str, Table]) -> None:
    full, across, final, bilinear = rows(tables["ablation"])
    assert (full["published"], full["difference"], full["direction"]) == ("73.4", "–", "–")
    assert (across["difference"], across["published_difference"]) == ("-2.00", "-1.5")
    assert (across["direction"], final["direction"]) == ("as published", "as published")
    assert (bilinear["difference"], bilinear["direction"]) == ("+1.00", "opposite")
    doubtful = synthetic.dense_runs()
    doubtful[-1]["measurements"][1]["value"] = 0.0
    study = synthetic.study(Path(tempfile.mkdtemp()))
    table = next(t for t in build_tables(study, doubtful) if t.name == "ablation")
    assert rows(table)[-1]["direction"] == "undecided"


def test_dense_tasks_show_both_arms_and_equal_bits(tables: dict[str, Table]) -> None:
    pose, segmentation = rows(tables["tasks"])
    assert (pose["reference"], pose["reproduction"]) == ("22.00 ± 2.00", "22.00 ± 2.00")
    assert (pose["bit_equal"], pose["verdict"], pose["trivial"]) == ("3 of 3", "reproduced", "8.4")
    assert segmentation["metric"] == "mIoU (%)"
