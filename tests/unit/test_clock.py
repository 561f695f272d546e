"""The account of a job's time: phases sum up, and the job begins with its process."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from comparison import clock
from tests.repository.tree import ROOT

GRAIN_S = 0.05  # the kernel's clock ticks, and the way from one process to the other
CELL = """from comparison import clock
clock.begin()"""
WORK = """import json
from pathlib import Path
clock.enter("work")
total = sum(range(3_000_000))
clock.enter("writing")
Path(target).write_text(json.dumps(clock.summary()))"""


def test_time_is_charged_to_the_phase_that_ends() -> None:
    account = clock.Account(10.0, 0.0, None, phase="imports", since=10.0)
    for phase, now in (
        ("preparation", 13.0),
        ("work", 14.0),
        ("preparation", 20.0),
        ("work", 22.0),
    ):
        account.enter(phase, now)
    account.enter("writing", 25.0)
    assert account.spent_s == {
        "kernel start": 0.0,
        "imports": 3.0,
        "preparation": 1.0 + 2.0,
        "work": 6.0 + 3.0,
        "writing": 0.0,
    }


def test_a_clock_that_is_set_back_charges_nothing() -> None:
    account = clock.Account(10.0, 0.0, None, phase="work", since=10.0)
    account.enter("writing", 4.0)
    account.enter("writing", 5.0)
    assert account.spent_s["work"] == 0.0 and account.spent_s["writing"] == 1.0


def test_a_second_run_in_a_kernel_is_a_job_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_is_fresh", False)
    monkeypatch.setattr(clock, "_account", clock.Account(0.0, 0.0, None, since=0.0))
    clock.begin()
    found = clock.summary()
    assert found["started_unix_s"] == pytest.approx(time.time(), abs=1)
    assert found["wall_s"] < 1 and found["phases_s"]["kernel start"] == 0.0
    assert found["cpu_s"] < 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork (Linux, macOS)")
def test_a_forked_process_has_processor_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent had used before the job is no part of what the child uses."""
    monkeypatch.setattr(clock, "_account", clock.Account(0.0, 400.0, None, since=0.0))
    queue = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: queue.put(clock.summary()["cpu_s"])
    )
    child.start()
    child.join()
    assert 0 <= queue.get() < 60


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc (Linux)")
def test_a_process_is_read_as_the_system_knows_it() -> None:
    found = clock.read_process()
    assert found is not None
    assert found.parent == os.getppid()
    assert found.cpu_s == pytest.approx(sum(os.times()[:2]), abs=0.2)
    assert clock.read_process(2**22 + 1) is None  # there is no such process


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc (Linux)")
def test_a_commands_phases_sum_to_its_time_since_the_start_of_its_process() -> None:
    program = (
        "import json; from comparison import clock; clock.begin(); clock.enter('work'); "
        "total = sum(range(10**6)); clock.enter('writing'); print(json.dumps(clock.summary()))"
    )
    before = time.time()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    _sums_up(found, before, time.time())
    assert found["phases_s"]["work"] > 0
    assert found["cpu_s"] <= found["wall_s"] * (os.cpu_count() or 1) + GRAIN_S


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc (Linux)")
@pytest.mark.parametrize("runner", clock.RUNNERS)
def test_a_notebook_that_papermill_runs_begins_with_papermill(tmp_path: Path, runner: str) -> None:
    notebook, target = tmp_path / "n.ipynb", tmp_path / "found.json"
    nbformat.write(_notebook(target), notebook)
    command = [sys.executable, "-m", runner, "--no-progress-bar", "-k", "python3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    before = time.time()
    subprocess.run(
        [*command, str(notebook), str(tmp_path / "out.ipynb")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=True,
    )
    found = json.loads(target.read_text())
    _sums_up(found, before, time.time())
    # The start of papermill alone takes longer than this, of the kernel as well.
    assert found["phases_s"]["kernel start"] > 0.3
    executed = json.loads((tmp_path / "out.ipynb").read_text())
    cells = [cell["metadata"]["papermill"]["duration"] for cell in executed["cells"]]
    assert found["phases_s"]["imports"] <= cells[0] + GRAIN_S
    assert found["phases_s"]["work"] <= cells[1] + GRAIN_S


def _notebook(target: Path) -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [
        nbformat.v4.new_code_cell(CELL),
        nbformat.v4.new_code_cell(f"target = {str(target)!r}\n{WORK}"),
    ]
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _sums_up(found: dict[str, Any], before: float, after: float) -> None:
    """Check that a job began with its process, and that no time is lost or counted twice."""
    assert before - GRAIN_S <= found["started_unix_s"] <= before + (after - before) / 2
    assert found["wall_s"] == pytest.approx(sum(found["phases_s"].values()))
    assert set(found["phases_s"]) == set(clock.PHASES)
    assert found["started_unix_s"] + found["wall_s"] <= after + GRAIN_S
    assert found["wall_s"] >= 0.3 * (after - before)
