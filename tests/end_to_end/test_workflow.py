"""The real Snakemake and papermill on a study of three short notebooks, in a folder of its own.

What is compared is left out; what is tested is that jobs run, fail, resume and rest as promised.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest

from tests.repository.tree import ROOT

STUDY = """
description: two networks counted, one training run, nothing else
networks: [cls_hrnet_w18, cls_hrnet_w30]
training:
  network: cls_hrnet_w18
  data: digits
  arms: [reproduction]
  seeds: [0]
  epochs: 1
  batch_size: 8
  margin_pp: 1.0
differences: false
audit: false
"""
NOTEBOOK = """
import json, os, time
from pathlib import Path
from comparison import measuring

if Path(f"broken.{network}").exists():
    raise ValueError("the data is damaged")
if Path(f"hungry.{network}").exists():
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    eaten = bytearray(2**31)
if Path(f"killed.{network}").exists():
    os.kill(os.getpid(), 9)
time.sleep(float(os.environ.get("NAP_S", "0")))
name = network if CASE == "networks" else f"{network}.{data}.{arm}.seed{seed}"
path = Path(results_dir) / "records" / CASE / f"{name}.json"
path.parent.mkdir(parents=True, exist_ok=True)
names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "STUDY_JOBS", "STUDY_CONFINED_FILES")
path.write_text(json.dumps({name: os.environ[name] for name in names}))
"""
# Stands in for what makes tables and the PDF from records.
MAKER = """
import sys
from pathlib import Path
from comparison import products
from comparison.study import load_study

command, study = sys.argv[1], load_study(sys.argv[3])
made = {
    "build": [f"tables/{name}" for name in products.table_files(study)]
    + [f"figures/{name}" for name in products.figure_files(study)],
    "report": ["report.pdf"],
}[command]
for name in made:
    path = Path(study.results_dir) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(" ".join(sorted(p.name for p in Path(study.results_dir).rglob("*.json"))))
"""
REFERENCE = """
class ReferenceUnavailable(ValueError): ...
def identity():
    return {"implementation": "stand-in", "version": "1", "sha256": open("reference.sha").read()}
"""
RECORDS = (
    "networks/cls_hrnet_w18.json",
    "networks/cls_hrnet_w30.json",
    "training/cls_hrnet_w18.digits.reproduction.seed0.json",
)


def write(path: Path, text: str) -> None:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


def notebook(case: str) -> nbformat.NotebookNode:
    """Make a notebook that writes the record of a case."""
    parameters = 'network = ""\ndata = ""\narm = ""\nseed = 0\nresults_dir = ""'
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [tagged, nbformat.v4.new_code_cell(f"CASE = {case!r}\n{NOTEBOOK}")]
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out a repository whose path has spaces, with the real workflow in it."""
    tree = tmp_path_factory.mktemp("a repository")
    shutil.copytree(ROOT / "workflow", tree / "workflow")
    write(tree / "workflow" / "studies" / "small.yaml", STUDY)
    (tree / "comparison" / "mutation").mkdir(parents=True)
    for name in (
        "study.py",
        "timing_plan.py",
        "products.py",
        "mutation/__init__.py",
        "mutation/plan.py",
    ):
        shutil.copy(ROOT / "comparison" / name, tree / "comparison" / name)
    write(tree / "comparison" / "__main__.py", MAKER)
    for name in ("__init__", "measuring", "build", "report"):
        write(tree / "comparison" / f"{name}.py", "value = 1\n")
    write(tree / "reference" / "__init__.py", REFERENCE)
    for name in ("confinement.py", "errors.py", "pins.py", "pins.toml", "plain_yaml.py"):
        shutil.copy(ROOT / "reference" / name, tree / "reference" / name)
    write(
        tree / "reference" / "fetch.py",
        """
        class Fetched:
            line = "the stand-in serves"
        def fetch_if_absent(pins, official):
            return Fetched
        """,
    )
    write(tree / "reference" / "store.py", "OFFICIAL = None\n")
    write(tree / "reference.sha", "aaaa")
    write(tree / "reports" / "report.typ", "text")
    write(tree / "reproduction" / "__init__.py", "")
    for case, name in (("networks", "01_networks"), ("training", "03_training")):
        (tree / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook(case), tree / "notebooks" / f"{name}.ipynb")
    return tree


def command(*arguments: str) -> list[str]:
    """Return the call that `make report` makes."""
    return [sys.executable, "-m", "workflow.launch", *arguments, "--study", "small"]


def launch(tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the study to its end."""
    return subprocess.run(
        [*command("report"), "--cores", "2"],
        cwd=tree,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def cpu_s() -> float:
    """Return the processor seconds that finished children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def times(tree: Path) -> dict[str, int]:
    """Return when each record was written."""
    folder = tree / "results" / "small" / "records"
    return {name: (folder / name).stat().st_mtime_ns for name in RECORDS}


def test_a_study_fails_in_part_is_mended_and_rests(tree: Path) -> None:
    """One job fails: the others finish, all is told; mended, only that one runs; then none."""
    write(tree / "broken.cls_hrnet_w30", "")
    done = launch(tree)
    assert done.returncode == 1
    told = (
        "networks/cls_hrnet_w30 failed: ValueError: the data is damaged "
        "(see results/small/notebooks/networks.cls_hrnet_w30.ipynb)"
    )
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    results = tree / "results" / "small"
    there = [name for name in RECORDS if (results / "records" / name).exists()]
    assert there == [RECORDS[0], RECORDS[2]]
    assert json.loads((results / "failures.json").read_text())[0]["job"] == "networks/cls_hrnet_w30"
    assert (tree / "reports" / "report.pdf").exists()

    (tree / "broken.cls_hrnet_w30").unlink()
    first = (results / "records" / RECORDS[0]).stat().st_mtime_ns
    done = launch(tree)
    assert done.returncode == 0, done.stderr
    assert times(tree)[RECORDS[0]] == first
    assert not (results / "failures.json").exists()
    assert RECORDS[1].split("/")[1] in (tree / "reports" / "report.pdf").read_text()

    started = cpu_s()
    done = launch(tree)
    assert "nothing to do: the report of study 'small' is up to date" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert cpu_s() - started < 8  # of the ten seconds; a clock would measure the neighbors too


def test_jobs_set_quiet_threads(tree: Path) -> None:
    record = json.loads((tree / "results" / "small" / "records" / RECORDS[2]).read_text())
    confined = record.pop("STUDY_CONFINED_FILES")  # on every system it says what holds there
    assert confined.startswith("not enforced") or confined.endswith("all threads")
    assert record == {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", "STUDY_JOBS": "2"}


def test_changed_source_repeats_what_depends_on_it(tree: Path) -> None:
    before = times(tree)
    path = tree / "notebooks" / "03_training.ipynb"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1"))
    stale = tree / "results" / "small" / "checkpoints" / Path(RECORDS[2]).stem / "last.pt"
    write(stale, "made with the former source")
    assert launch(tree).returncode == 0
    assert not stale.exists() and stale.with_name("trigger.txt").exists()
    after = times(tree)
    assert [name for name in RECORDS if before[name] != after[name]] == [RECORDS[2]]


@pytest.mark.fault(
    "truncated or bit-flipped notebook of the study",
    how="a notebook's JSON cut off, or with a bit flipped in its structure",
    told="03_training.ipynb is damaged",
    kept="nothing is run; the message names the notebook and where to get it back",
)
@pytest.mark.parametrize("how", ["truncated", "bit-flipped"])
def test_a_damaged_notebook_is_one_sentence(tree: Path, told: str, how: str) -> None:
    path = tree / "notebooks" / "03_training.ipynb"
    text, before = path.read_text(), times(tree)
    path.write_text(text[:500] if how == "truncated" else text.replace('"cells"', '"cdlls"', 1))
    done = launch(tree)
    path.write_text(text)
    assert re.fullmatch(rf"{told} \(\w+\): restore it from version control\n", done.stderr)
    assert done.returncode == 2
    assert times(tree) == before


def test_a_fresh_checkout_repeats_no_committed_record(tree: Path, tmp_path: Path) -> None:
    """Neither Snakemake's notes nor file times come with a clone."""
    clone = tmp_path / "clone"
    shutil.copytree(tree, clone, ignore=shutil.ignore_patterns(".snakemake"))
    for path in sorted(clone.rglob("*"), reverse=True):
        os.utime(path)
    before = times(clone)
    done = launch(clone)
    assert done.returncode == 0, done.stderr
    assert times(clone) == before


@pytest.mark.full
def test_another_reference_repeats_every_record(tree: Path) -> None:
    assert launch(tree).returncode == 0
    before = times(tree)
    write(tree / "reference.sha", "bbbb")
    assert launch(tree).returncode == 0
    assert all(before[name] != moment for name, moment in times(tree).items())


@pytest.mark.full
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (Linux)")
def test_a_killed_study_leaves_no_job_behind_and_goes_on(tree: Path) -> None:
    shutil.rmtree(tree / "results" / "small" / "records", ignore_errors=True)
    running = subprocess.Popen(
        command("report"), cwd=tree, env={**os.environ, "NAP_S": "600"}, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while _kernels(tree) < 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _kernels(tree) >= 1
    running.send_signal(signal.SIGKILL)
    running.wait()
    while _kernels(tree) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _kernels(tree) == 0
    assert launch(tree).returncode == 0
    assert set(times(tree)) == set(RECORDS)


def _kernels(tree: Path) -> int:
    """Count the Python processes that run in a folder: papermill, kernels, Snakemake."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += (process / "cwd").resolve() == tree.resolve() and "ipykernel" in (
                process / "cmdline"
            ).read_text()
        except OSError:
            continue
    return found
