"""Where a study runs, and what the page about clusters says."""

import csv
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from comparison.study import load_study
from tests.repository.tree import ROOT
from workflow import cluster, launch, many, plan
from workflow.cluster import Place

TINY = load_study("tiny")
PAGE = ROOT / "docs" / "cluster.md"
SLURM = Place("slurm", 8, 32000)


class Scheduler:
    """Stands in for SLURM's commands; jobs end when they are canceled, or never."""

    def __init__(self, jobs: dict[str, str], sizes: str = "8 32000\n64+ 256000+\n") -> None:
        self.jobs, self.sizes, self.is_stuck = jobs, sizes, False

    def __call__(self, command: tuple[str, ...], **how: Any) -> subprocess.CompletedProcess[str]:
        said = ""
        if command[0] == "sinfo":
            said = self.sizes
        elif command[0] == "squeue":
            said = "".join(f"{number} {name}\n" for number, name in self.jobs.items())
        elif not self.is_stuck:
            for number in command[1:]:
                del self.jobs[number]
        return subprocess.CompletedProcess(command, 0, said, "")


def use(monkeypatch: pytest.MonkeyPatch, jobs: dict[str, str]) -> Scheduler:
    """Put a scheduler with these jobs in the place of SLURM."""
    scheduler = Scheduler(jobs)
    monkeypatch.setattr(cluster.subprocess, "run", scheduler)
    return scheduler


def test_the_largest_node_is_what_jobs_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {})
    assert cluster.place("slurm") == Place("slurm", 64, 256000)
    assert cluster.place("slurm", 4).cores == 4
    assert str(cluster.place("slurm", 4)) == "4 cores, slurm"
    assert str(cluster.place("local", 3)) == "3 cores"


def test_jobs_of_this_study_and_folder_alone_are_canceled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, elsewhere = cluster.job_name(TINY), cluster.job_name(TINY, Path("/elsewhere"))
    quick = cluster.job_name(load_study("quick"))
    others = {
        "3": f"{elsewhere}_aa",
        "4": f"{quick}_aa",
        "5": "somebody's own job",
        "6": f"{own}er_aa",
    }
    scheduler = use(monkeypatch, {"1": f"{own}_aa", "2": f"{own}_bb", **others})
    assert cluster.cancel_left_over(SLURM, TINY) == 2
    assert scheduler.jobs == others
    assert "2 jobs of an earlier call are still in the queue: canceled" in capsys.readouterr().out
    assert cluster.cancel_left_over(SLURM, TINY) == 0
    assert cluster.cancel_left_over(Place("local", 1, 1), TINY) == 0


def test_jobs_that_do_not_end_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {"7": f"{cluster.job_name(TINY)}_aa"}).is_stuck = True
    monkeypatch.setattr(cluster, "CANCEL_TIMEOUT_S", 0.0)
    with pytest.raises(cluster.StudyError, match="jobs 7 do not end"):
        cluster.cancel_left_over(SLURM, TINY)


def test_without_slurm_the_profile_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert launch.main(["report", "--study", "tiny", "--profile", "slurm"]) == 2
    told = capsys.readouterr().err
    assert told == "sinfo was not found: is this a login node of SLURM?\n"


def test_the_executor_accepts_the_names_of_jobs() -> None:
    for study in (TINY, replace(TINY, name="a_study-" * 10), replace(TINY, name="v1.2")):
        assert len(cluster.job_name(study)) <= 50
        assert cluster.job_name(study).replace("-", "").replace("_", "").isalnum()


def test_only_one_machine_bounds_cores_and_memory_for_all_jobs() -> None:
    local = cluster.options(Place("local", 2, 9000), TINY)
    assert local[:6] == [
        *("--workflow-profile", "workflow/profiles/local", "--cores", "2", "--resources"),
        "mem_mb=9000",
    ]
    remote = cluster.options(SLURM, TINY)
    assert "--cores" not in remote
    assert remote[remote.index("--slurm-jobname-prefix") + 1] == cluster.job_name(TINY)
    for told in (local, remote):
        assert told[-3:] == ["--config", *told[-2:]]


def test_profiles_differ_in_the_place_alone() -> None:
    assert cluster.known_profiles() == ["kubernetes", "local", "slurm"]
    common = {"keep-going", "rerun-incomplete", "scheduler", "rerun-triggers", "show-failed-logs"}
    read = {
        name: yaml.safe_load((cluster.PROFILES / name / "config.yaml").read_text())
        for name in cluster.known_profiles()
    }
    shared = [{key: profile[key] for key in common} for profile in read.values()]
    assert shared[0] == shared[1] == shared[2]
    assert read["slurm"]["slurm-status-command"] == "squeue"
    snakefile = (ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8")
    for rule in read["slurm"]["set-resources"]:
        assert f"\nrule {rule}:\n" in snakefile


def test_the_committed_plan_follows_from_its_figures() -> None:
    with (ROOT / "docs" / "gpu_hours.csv").open(newline="") as file:
        committed = list(csv.DictReader(file))
    assert committed == [{key: str(value) for key, value in row.items()} for row in plan.plan()]
    by_hand = 100 * 1281167 / 473.42 / 3600
    (w18,) = (row for row in committed if row["network"] == "cls_hrnet_w18")
    assert float(w18["gpu_hours"]) == pytest.approx(by_hand, abs=0.05)
    assert {row["recipe"] for row in committed} >= {"cls", "pose_coco", "det_1x"}


@pytest.mark.parametrize("name", ["gpu_hours", "many_jobs"])
def test_the_page_shows_what_the_tables_hold(name: str) -> None:
    with (ROOT / "docs" / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    for row in plan.page_rows(rows) if name == "gpu_hours" else many.page_rows(rows):
        assert row in shown, row
