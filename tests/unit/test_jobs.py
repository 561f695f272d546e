"""Jobs of a study: names, parameters, threads, and what makes a record run again."""

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from comparison.parameters import COMMON
from comparison.parameters import NOTEBOOKS as KNOWN_PARAMETERS
from comparison.study import load_study
from workflow import document, expected, jobs, memory
from workflow.images import images_state
from workflow.jobs import Job, jobs_of

STANDARD = load_study("standard")


def of_case(case: str) -> list[Job]:
    """Return the standard study's jobs of one case."""
    return [job for job in jobs_of(STANDARD) if job.case == case]


def test_standard_has_one_job_a_record() -> None:
    keys = [job.key for job in jobs_of(STANDARD)]
    assert len(keys) == len(set(keys)) == 10 + 18 + 12 + 54 + 17 + 1 + 1 + 1 + 1


def test_training_runs_have_the_names_of_their_records() -> None:
    names = [job.run_id for job in of_case("training")]
    assert names[0] == "cls_hrnet_w18_small_v1.fashion_mnist.reference.seed0"
    assert len({job.parameters["seed"] for job in of_case("training")}) == 6
    assert of_case("training")[0].record == f"results/standard/records/training/{names[0]}.json"


@pytest.mark.parametrize("study", ["tiny", "quick", "standard", "full"])
def test_notebooks_know_every_parameter_that_they_are_given(study: str) -> None:
    for job in jobs_of(load_study(study)):
        if job.notebook:
            name = Path(job.notebook).stem
            assert set(job.parameters) <= {*COMMON, *KNOWN_PARAMETERS[name]}
            defaults = {**COMMON, **KNOWN_PARAMETERS[name]}
            for parameter, value in job.parameters.items():
                assert type(value) is type(defaults[parameter]), parameter


def test_trained_weights_wait_for_the_run_that_trains_them() -> None:
    (trained,) = [job for job in of_case("equivalence") if ".trained." in job.run_id]
    (donor,) = trained.depends
    assert donor == "training/cls_hrnet_w18_small_v1.fashion_mnist.reference.seed0"
    assert donor.split("/")[1] in str(trained.parameters["weights_file"])


def test_tiny_compares_random_weights_only() -> None:
    ids = [job.run_id for job in jobs_of(load_study("tiny")) if job.case == "equivalence"]
    assert ids == [
        "cls_hrnet_w18_small_v1.random.reference.steps2",
        "seg_hrnet_w18_small_v1_cityscapes.traces",
    ]


def test_standard_compares_with_timm_as_well_and_follows_one_network_longer() -> None:
    ids = [job.run_id for job in of_case("equivalence")]
    assert len(ids) == len(set(ids)) == 18
    assert "cls_hrnet_w18.random.timm.steps10" in ids
    (long,) = [job for job in of_case("equivalence") if job.parameters["steps"] == 200]
    assert long.run_id == "cls_hrnet_w18_small_v1.random.reference.steps200"


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
def test_jobs_times_threads_stay_within_the_cores(cores: int) -> None:
    for job in [*jobs_of(STANDARD), *jobs_of(load_study("full"))]:
        threads = jobs.threads_for(job, cores)
        assert threads >= 1
        assert jobs.concurrent_jobs(job, cores) * threads <= cores


def test_a_deployed_network_gets_the_weights_that_the_study_trains() -> None:
    (trained,) = [job for job in of_case("speed") if job.depends]
    assert trained.run_id == "cls_hrnet_w18_small_v1.inference.32.b128.float32"
    assert trained.depends == ("training/cls_hrnet_w18_small_v1.fashion_mnist.reference.seed0",)
    assert trained.parameters["data"] == "fashion_mnist"


def test_timing_has_the_machine_for_itself() -> None:
    speed = of_case("speed")[0]
    assert jobs.concurrent_jobs(speed, 8) == 1
    assert jobs.concurrent_jobs(of_case("training")[0], 8) == 8


def test_large_networks_reserve_more_memory() -> None:
    by_network = {job.parameters["network"]: job.memory_mib for job in of_case("equivalence")}
    assert by_network["cls_hrnet_w64"] > by_network["cls_hrnet_w18"]


def test_memory_stays_within_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    assert 0 < memory.usable_mib() < total
    assert max(jobs.memory_for(job, 4000) for job in jobs_of(STANDARD)) == 4000


def test_arguments_are_quoted() -> None:
    job = Job(
        case="training",
        run_id="x",
        notebook="n.ipynb",
        parameters={"data": "image_folder:my pictures; rm x", "seed": 3},
        results_dir="results/mine",
    )
    assert job.arguments() == "-p data 'image_folder:my pictures; rm x' -p seed 3"


def test_weights_that_are_not_there_are_trained_again(tmp_path: Path) -> None:
    """Records are committed, weights are not: a fresh clone has the one without the other."""
    trained = [job for job in of_case("equivalence") if "weights_file" in job.parameters]
    (donor,) = jobs.donors_of(trained, STANDARD, tmp_path)
    assert donor == of_case("training")[0]
    weights = tmp_path / jobs.weights_file(donor)
    assert str(weights.relative_to(tmp_path)) == trained[0].parameters["weights_file"]
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    assert jobs.donors_of(trained, STANDARD, tmp_path) == []
    weights.unlink()
    assert jobs.donors_of(of_case("networks"), STANDARD, tmp_path) == []


def test_a_users_images_that_change_make_a_record_run_again(tmp_path: Path) -> None:
    image = tmp_path / "train" / "cat" / "1.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    parameters = {"data": f"image_folder:{tmp_path}"}
    job = Job(case="audit", run_id="x", notebook="", results_dir="r", parameters=parameters)
    before = job.trigger("a")
    image.write_bytes(b"xx")
    assert job.trigger("a") == before  # asked once a process
    images_state.cache_clear()
    assert job.trigger("a") != before
    assert images_state("digits") == images_state("image_folder:/not/there") == ""


def test_another_reference_or_parameter_makes_a_record_run_again() -> None:
    job = of_case("networks")[0]
    other = of_case("networks")[1]
    assert job.trigger("official-1") == job.trigger("official-1")
    assert job.trigger("official-1") != job.trigger("stand-in-2")
    assert job.trigger("official-1") != other.trigger("official-1")


def test_the_report_depends_on_its_text() -> None:
    assert {"reports/report.typ", "reports/metadata.toml"} <= set(document.report_files())


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_reports_state_is_commit_and_changed_source(tmp_path: Path) -> None:
    assert document.source_state(tmp_path) == "no version control"
    for folder in ("reproduction", "results"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("x = 1\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "-m", "one")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    clean = document.source_state(tmp_path)
    assert len(clean) == 40
    (tmp_path / "results" / "a.py").write_text("x = 2\n")
    assert document.source_state(tmp_path) == clean
    (tmp_path / "reproduction" / "a.py").write_text("x = 2\n")
    assert document.source_state(tmp_path) == f"{clean} with uncommitted changes"


def test_the_longest_jobs_begin_first_and_donors_before_what_waits() -> None:
    quick = jobs_of(load_study("quick"))
    order = expected.priorities(quick)
    first = sorted(order, key=lambda key: -order[key])
    assert first[0] == "training/cls_hrnet_w18_small_v1.digits.reference.seed0"  # eq. waits for it
    assert first.index("trial/quick.seed0") < first.index("networks/dense")
    assert {order[job.key] for job in quick if job.threads == jobs.ALL_CORES} == {0}


@pytest.mark.parametrize("study", ["tiny", "quick", "standard", "full"])
def test_every_job_has_an_expected_time(study: str) -> None:
    for job in jobs_of(load_study(study)):
        assert expected.seconds(job) > 0 or job.threads == jobs.ALL_CORES
    own = {"cls_hrnet_w18", "cls_hrnet_w64"}
    by_network = {
        job.parameters["network"]: expected.seconds(job)
        for job in of_case("equivalence")
        if job.parameters["network"] in own
    }
    assert by_network["cls_hrnet_w64"] > by_network["cls_hrnet_w18"]


def test_quick_has_the_documented_jobs() -> None:
    counts = Counter(job.case for job in jobs_of(load_study("quick")))
    assert counts == {
        **{"networks": 10, "equivalence": 5, "training": 6, "tasks": 4, "speed": 2},
        **{"differences": 1, "trial": 1, "audit": 1},
    }
