"""Study files: what is read, and the sentence for everything that is wrong with one."""

from pathlib import Path

import pytest

from comparison import products
from comparison.speed.contenders import MAKERS
from comparison.speed.statements import aims
from comparison.study import DENSE, ROOT, StudyError, known_studies, load_study, study_of
from reproduction import CLASSIFICATION, NETWORKS

GOOD = """
description: a study
networks: [cls_hrnet_w18]
training:
  network: cls_hrnet_w18
  data: digits
  seeds: [0, 1]
  epochs: 1
  batch_size: 8
  margin_pp: 1
"""


def write(folder: Path, text: str) -> str:
    """Write a study file and return the study's name."""
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return "mine"


@pytest.mark.parametrize("name", known_studies())
def test_committed_studies_are_valid_and_name_known_networks(name: str) -> None:
    study = load_study(name)
    named = {*study.networks}
    assert set(study.classifiers) <= set(CLASSIFICATION)
    for plan in (study.equivalence, study.training):
        if plan is not None:
            named |= set(getattr(plan, "networks", ()) or (plan.network,))  # type: ignore[union-attr]
    runs = study.speed.runs if study.speed else ()
    named |= {run.network for run in runs}
    assert {arm for run in runs for arm in run.arms} <= set(MAKERS)
    assert named <= {*NETWORKS, DENSE}
    assert study.results_dir == f"results/{name}"


def test_the_four_studies_exist() -> None:
    assert {"tiny", "quick", "standard", "full"} <= set(known_studies())


def test_standard_is_what_was_agreed_before_the_first_run() -> None:
    study = load_study("standard")
    assert study.networks == (*CLASSIFICATION, DENSE)
    assert study.equivalence is not None and study.equivalence.traces == (DENSE,)
    dense = [name for name in study.equivalence.networks if name not in CLASSIFICATION]
    assert study.equivalence.networks == (*CLASSIFICATION, *dense)
    assert {NETWORKS[name].task for name in dense} >= {"pose", "segmentation", "landmarks"}
    plan = study.training
    assert plan is not None
    assert (plan.data, plan.network) == ("fashion_mnist", "cls_hrnet_w18_small_v1")
    assert (plan.seeds, plan.epochs, plan.margin_pp) == (tuple(range(6)), 2, 1.0)


def test_entries_are_read_and_left_out_ones_keep_their_defaults(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD), tmp_path)
    assert study.training is not None and study.speed is None
    assert study.training.margin_pp == 1.0
    assert study.training.arms == ("reference", "reproduction")
    assert len(study.sha256) == 64


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs: 1", "epoch: 1", "training.epoch is unknown"),
        ("  epochs: 1\n", "", "training.epochs is missing"),
        ("epochs: 1", "epochs: -1", "training.epochs is -1; give a whole number"),
        ("epochs: 1", "epochs: one", "training.epochs is 'one'; give a value of type int"),
        ("epochs: 1", "epochs: 1.5", "training.epochs is 1.5"),
        ("epochs: 1", "epochs: true", "training.epochs is True"),
        ("[0, 1]", "[0, 0]", "training.seeds is (0, 0)"),
        ("[0, 1]", "[]", "training.seeds is ()"),
        ("[0, 1]", "7", "training.seeds is 7; give a list of int"),
        ("margin_pp: 1", "margin_pp: 0", "training.margin_pp is 0.0; give a number above 0"),
        ("data: digits", "data: digits\n  arms: [ours]", "training.arms is ('ours',)"),
        ("data: digits", "data: digits\n  arms: []", "training.arms is (); give at least one arm"),
        ("[cls_hrnet_w18]", "[cls_hrnet_w18, cls_hrnet_w18]", "; give each entry once"),
        ("[cls_hrnet_w18]", "[cls_hrnet_w19]", "networks is ['cls_hrnet_w19']; give official nam"),
        (GOOD, f"{GOOD}equivalence:\n  networks: [dense]\n  steps: 1\n", "networks is ['dense']"),
        ("description: a study", "description: 3", "description is 3"),
        (GOOD, "- a\n- b", "the file is ['a', 'b']; give a mapping"),
        (GOOD, "a: [", "expected"),
        (GOOD, "", "the file is None; give a mapping"),
    ],
)
def test_a_faulty_file_is_told_in_one_sentence(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(StudyError) as failure:
        load_study(write(tmp_path, GOOD.replace(old, new)), tmp_path)
    assert told in str(failure.value)
    assert str(failure.value).startswith("mine.yaml: ")
    assert "\n" not in str(failure.value)


def test_an_unknown_study_is_told_with_the_known_ones() -> None:
    with pytest.raises(StudyError, match=r"'nightly' is unknown; use one of .*quick.*standard"):
        load_study("nightly")


def test_a_name_cannot_leave_the_folder() -> None:
    with pytest.raises(StudyError, match="unknown"):
        load_study("../profiles/local/config")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("task: guessing", "speed.runs.task is 'guessing'; give one of inference, training"),
        ("image_size: 0", "speed.runs.image_size is 0"),
        ("precision: half", "speed.runs.precision is 'half'"),
        ("arms: [reference, reference]", "speed.runs.arms is ('reference', 'reference')"),
        ("speed: 1", "speed.runs.speed is unknown"),
    ],
)
def test_a_faulty_timing_is_told_in_one_sentence(tmp_path: Path, changed: str, told: str) -> None:
    entries = {"network": "n", "task": "inference", "image_size": "64", "batch_size": "4"}
    name, _, value = changed.partition(": ")
    run = "\n      ".join(f"{key}: {given}" for key, given in {**entries, name: value}.items())
    text = f"{GOOD}speed:\n  runs:\n    - {run}\n"
    with pytest.raises(StudyError) as failure:
        load_study(write(tmp_path, text), tmp_path)
    assert told in str(failure.value)


def test_two_timings_of_one_input_are_refused(tmp_path: Path) -> None:
    run = "    - {network: n, task: inference, image_size: 64, batch_size: 4}\n"
    with pytest.raises(StudyError, match="give distinct runs"):
        load_study(write(tmp_path, f"{GOOD}speed:\n  runs:\n{run}{run}"), tmp_path)


def test_standard_times_every_aim_and_the_latency_of_the_family() -> None:
    study = load_study("standard")
    assert study.speed is not None
    timed = {
        (run.network, run.task, run.image_size, run.batch_size, run.precision, arm)
        for run in study.speed.runs
        for arm in run.arms
    }
    for aim in aims():
        size = aim.image_size[0]
        wanted = (aim.network, aim.task, size, aim.batch_size, aim.precision, aim.arm)
        assert wanted in timed
    assert {run.network for run in study.latencies} == set(CLASSIFICATION)


def test_only_a_studys_own_folder_belongs_to_it() -> None:
    found = study_of("results/quick")
    assert found is not None and found.name == "quick"
    assert study_of(ROOT / "results" / "quick") == found
    assert study_of("results/by_hand") is None
    assert study_of("elsewhere/quick") is None


def test_a_comparison_is_named_by_all_that_decides_it(tmp_path: Path) -> None:
    a, b, c = "cls_hrnet_w18", "cls_hrnet_w30", "cls_hrnet_w32"
    plan = f"equivalence:\n  networks: [{a}, {b}]\n  steps: 2\n  timm: [{b}]\n  long: [{a}]\n"
    plan += f"  traces: [{c}]\n"
    study = load_study(write(tmp_path, GOOD + plan), tmp_path)
    assert [compared.run_id for compared in study.compared()] == [
        *(f"{a}.random.reference.steps2", f"{b}.random.reference.steps2"),
        *(f"{b}.random.timm.steps2", f"{a}.random.reference.steps200", f"{c}.traces"),
    ]


def test_products_follow_the_plan(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD), tmp_path)
    assert "speed.svg" not in products.figure_files(study)
    assert "training_curves.svg" in products.figure_files(study)
    assert not any(name.startswith("layers_") for name in products.table_files(study))
    standard = products.table_files(load_study("standard"))
    assert {f"layers_{name}.csv" for name in CLASSIFICATION} <= set(standard)
