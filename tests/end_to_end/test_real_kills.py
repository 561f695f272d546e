"""Real records, tables, figures and PDF are whole or absent, whenever the study is killed."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import real_study
from tests.end_to_end.test_interruptions import LINUX, running_in, wait_for
from workflow import processes

pytestmark = [pytest.mark.full, pytest.mark.heavy, LINUX]
CALL = [sys.executable, "-m", "workflow.launch", "report", "--study", real_study.NAME]
# What runs while each kind of file is made, and how long that takes at most, in seconds.
STAGES = {"ipykernel": 15.0, "comparison build": 6.0, "comparison report": 6.0}
KILLS = 3
JSON = (".json", ".ipynb")
UNSEALED = ("logs", "checkpoints")  # written as it goes: logs, and what a run goes on from
LAST = ("failures.json",)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_study.lay_out(tmp_path_factory.mktemp("a repository"))


def start(repository: Path) -> subprocess.Popen[str]:
    """Start the study as `make report` does."""
    return subprocess.Popen(
        [*CALL, "--cores", "2"],
        cwd=repository,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def files(repository: Path) -> dict[str, bytes]:
    """Read all results but for what is written as it goes."""
    results = repository / "results" / real_study.NAME
    found = (path for path in results.rglob("*") if path.is_file())
    named = {str(path.relative_to(results)): path for path in found}
    return {
        name: path.read_bytes()
        for name, path in named.items()
        if not name.startswith(UNSEALED) and name not in LAST
    }


def kill_at(repository: Path, stage: str, delay_s: float) -> bool:
    """Kill a study some time into a stage; tell whether it ran until then."""
    study = start(repository)
    begun = wait_for(
        lambda: any(stage in line for line in running_in(repository)) or study.poll() is not None,
        240,
    )
    time.sleep(delay_s)
    hit = begun and study.poll() is None
    study.kill()
    study.communicate()
    assert wait_for(lambda: not running_in(repository), 3), running_in(repository)
    return hit


@pytest.mark.fault(
    "SIGKILL of a study while notebooks, tables, figures and PDF are made",
    how="the real study killed three times in each stage, at random",
    told="",
    kept="what is there is whole and stays as it is to the end; the same call makes the rest",
)
@pytest.mark.skipif(not processes.mortal(), reason="needs setpriv (Linux)")
def test_what_a_killed_study_leaves_is_what_a_finished_one_has(repository: Path) -> None:
    rng, left, hit = random.Random(6), [], set()
    for stage, lasts_s in STAGES.items():
        for _ in range(KILLS):
            if kill_at(repository, stage, rng.uniform(0, lasts_s)):
                hit.add(stage)
            left.append(files(repository))
            if stage != "ipykernel":  # its products are there from now on; make them again
                (repository / "results" / real_study.NAME / "report.pdf").unlink(missing_ok=True)
    assert hit == set(STAGES)
    last = start(repository)
    output = last.communicate()[0]
    assert last.returncode == 0, output
    finished = files(repository)
    assert "report.pdf" in finished and any(name.endswith(".svg") for name in finished)
    for number, snapshot in enumerate(left):
        # A notebook that runs is written cell by cell, and its record is not there yet.
        running = number < KILLS
        assert [name for name in snapshot if running and not is_whole(name, snapshot[name])] == []
        differing = [name for name, content in snapshot.items() if finished.get(name) != content]
        assert [name for name in differing if not (running and name.endswith(JSON))] == []


def is_whole(name: str, content: bytes) -> bool:
    """Tell whether a record, a ledger's entry or a notebook can be read."""
    try:
        return not name.endswith(JSON) or bool(json.loads(content))
    except ValueError:
        return False
