"""A study on a real SLURM of one node, started here: submitted, killed, gone on with, collected."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import real_study
from tests.end_to_end.test_workflow import RECORDS, command, times, tree
from tests.repository.tree import ROOT

__all__ = ["tree"]
NODE = ROOT / "tests" / "cluster" / "one_node.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "runuser")
MISSING = [
    name for name in PROGRAMS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") is None
]
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"no SLURM here ({', '.join(MISSING)}): apt-get install slurm-wlm munge",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="starting SLURM's daemons needs root"),
]
KILLED = ("slurm", "quick")
ON_SLURM = ["--profile", "slurm"]
# Cells that say when, how long or how fast: tables as a whole, verdicts on speed, columns, the
# digest of a record with its times, and the hours on the checklist.
TIMED = re.compile(
    r"^(study_cost|scaling|speed|operators|aims)\.csv|^claims\.csv: C1[067] |hours in"
    r"|: (train_wall_s|wall_s|mean_s|max_s|created_utc|peak_memory_mib|sha256): "
)


@pytest.fixture(scope="module", autouse=True)
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start SLURM on this machine, and stop it afterwards."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([NODE, "up", folder], stderr=subprocess.PIPE, text=True, check=False)
    if started.returncode == 2:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    try:
        yield
    finally:
        subprocess.run(["scancel", "--me"], check=False)
        subprocess.run([NODE, "down", folder], check=True)


def queue() -> list[str]:
    """List what SLURM has: number and state of each job that is not over."""
    done = subprocess.run(
        ["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def wait_for(count: int, state: str, patience_s: float = 90) -> list[str]:
    """Wait until so many jobs are in a state, and list their numbers."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = [line.split()[0] for line in queue() if line.endswith(state)]
        if len(found) >= count:
            return found
        time.sleep(0.3)
    raise AssertionError(f"no {count} jobs in state {state}: {queue()}")


def history() -> Counter[str]:
    """Count the jobs that SLURM remembers by what they were for and how they ended."""
    told = subprocess.run(
        ["scontrol", "-o", "show", "jobs"], capture_output=True, text=True, check=True
    ).stdout
    jobs = (
        dict(word.split("=", 1) for word in line.split() if "=" in word)
        for line in told.splitlines()
    )
    return Counter(
        f"{job.get('Comment', '')} {job['JobState']}" for job in jobs if "JobState" in job
    )


def launch(tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the small study on SLURM to its end."""
    return subprocess.run(
        [*command("report"), *ON_SLURM],
        cwd=tree,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_study_survives_its_submitter_and_a_job(tree: Path) -> None:
    """Killed are the submitter, then a job; the same call goes on, and nothing runs twice."""
    submitter = subprocess.Popen(
        [*command("report"), *ON_SLURM],
        cwd=tree,
        env={**os.environ, "NAP_S": "300"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(1, "RUNNING")
    submitter.send_signal(signal.SIGKILL)
    submitter.wait()
    left = len(queue())
    assert left >= 1  # SLURM's jobs outlive who submitted them

    started = time.monotonic()
    second = subprocess.Popen(
        [*command("report"), *ON_SLURM],
        cwd=tree,
        env={**os.environ, "NAP_S": "20"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(queue()) and time.monotonic() < started + 60:
        time.sleep(0.1)  # until those of the first call are gone
    victim = wait_for(1, "RUNNING")[0]
    subprocess.run(["scancel", "--signal=KILL", victim], check=True)
    told, errors = second.communicate(timeout=200)
    assert f"{left} jobs of an earlier call are still in the queue: canceled" in told
    assert second.returncode == 1, errors
    assert errors.count(" failed: ") == 1, errors

    third = launch(tree)
    assert third.returncode == 0, third.stderr
    assert set(times(tree)) == set(RECORDS)
    assert queue() == []
    ended = history()
    completed = [name for name in ended if name.endswith("COMPLETED") and "rule_" in name]
    assert all(ended[name] == 1 for name in completed), ended
    before = times(tree)
    again = launch(tree)
    assert "nothing to do" in again.stdout
    assert times(tree) == before


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the real packages, with a study of one counted network and one training run."""
    return real_study.lay_out(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize("study", [real_study.NAME, pytest.param("quick", marks=pytest.mark.heavy)])
def test_tables_are_those_of_the_local_run(repository: Path, study: str) -> None:
    """The same numbers on SLURM; the quick study also with its submitter and a job killed."""
    tables = {}
    results = repository / "results" / study
    for place in ("slurm", "local"):
        call = [*command("report")[:-1], study, "--profile", place]
        finished = kill_submitter_and_job(call, results) if (place, study) == KILLED else {}
        done = subprocess.run(call, cwd=repository, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert finished.items() <= written(results).items()  # no finished job ran again
        assert (results / "report.pdf").read_bytes().startswith(b"%PDF-")
        tables[place] = {path.name: path.read_text() for path in (results / "tables").glob("*.csv")}
        shutil.rmtree(results)
    differing = differences(tables["local"], tables["slurm"])
    assert tables["local"].keys() == tables["slurm"].keys()
    unexplained = [entry for entry in differing if not TIMED.search(entry)]
    assert not unexplained, "\n".join(unexplained)
    assert differences(tables["local"], {**tables["slurm"], "training.csv": "a\nb"})  # can fail


def kill_submitter_and_job(call: list[str], results: Path) -> dict[str, int]:
    """Kill who submits after some records, then a job of the second call; say what was done."""
    submitter = subprocess.Popen(
        call, cwd=results.parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(written(results)) < 6 and submitter.poll() is None:
        time.sleep(0.3)
    submitter.kill()
    submitter.wait()
    longest_end_ns = 20 * 10**9  # a job whose record is there has yet to end
    finished = {
        name: when
        for name, when in written(results).items()
        if time.time_ns() - when > longest_end_ns
    }
    earlier = {line.split()[0] for line in queue()}
    assert finished and earlier  # SLURM's jobs outlive who submitted them
    second = subprocess.Popen(
        call, cwd=results.parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while {line.split()[0] for line in queue()} & earlier and second.poll() is None:
        time.sleep(0.3)
    victim = wait_for(1, "RUNNING", patience_s=300)[0]
    subprocess.run(["scancel", "--signal=KILL", victim], check=True)
    told, errors = second.communicate()
    assert "jobs of an earlier call are still in the queue: canceled" in told
    assert second.returncode == 1, errors
    assert errors.count(" failed: ") == 1, errors
    now = written(results)
    assert finished.items() <= now.items()
    return now


def written(results: Path) -> dict[str, int]:
    """Return when each record of a study was written."""
    return {str(path): path.stat().st_mtime_ns for path in results.glob("records/**/*.json")}


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """List the cells that differ, as table, row by its first cells, and column."""
    found = []
    for name, text in first.items():
        rows = [list(csv.DictReader(io.StringIO(content))) for content in (text, second[name])]
        if len(rows[0]) != len(rows[1]):
            found.append(f"{name}: {len(rows[0])} rows and {len(rows[1])}")
            continue
        for a, b in zip(*rows, strict=True):
            row = f"{name}: {' '.join(list(a.values())[:3])}"
            different = [column for column in a if a[column] != b.get(column)]
            found += [f"{row}: {column}: {a[column]} and {b.get(column)}" for column in different]
    return found
