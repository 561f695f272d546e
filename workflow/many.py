"""Take hundreds of tiny jobs through the whole path, and measure what the path itself costs.

`python -m workflow.many --jobs 50 100 200 500` makes, for each count, a study of that many training
jobs in a temporary copy of this repository. A job runs Snakemake's real rule, but in place of
papermill a command that copies a synthetic record, marked as such: what is left is the cost of the
path. Records are then read, and tables, figures and report made, by the real commands.
`--papermill 3` times real notebooks beside it.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from comparison.record import new_record, write_record
from comparison.study import ROOT
from workflow import cluster
from workflow.plan import csv_file, save_rows

STUDY = "many"
PARTS = ("reproduction", "reference", "comparison", "workflow", "notebooks", "reports")
FILES = ("requirements.lock", "pyproject.toml", "CLEANROOM.md", "README.md")
TEMPLATE = "results/standard/records/training"
ARMS = ("reference", "reproduction")
STUDY_FILE = """\
description: {count} synthetic records, to measure what the path costs
training:
  network: cls_hrnet_w18_small_v1
  data: fashion_mnist
  arms: [reference, reproduction]
  seeds: {seeds}
  epochs: 2
  batch_size: 128
  margin_pp: 1.0
differences: false
audit: false
"""
# What runs in place of papermill: notebook, executed copy, and pairs of -p name value.
COPY = """\
import os
import sys

words = sys.argv[1:]
values = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p"}
name = "{network}.{data}.{arm}.seed{seed}.json".format(**values)
with open("spool/records/training/" + name) as source:
    content = source.read()
target = values["results_dir"] + "/records/training/" + name
os.makedirs(os.path.dirname(target), exist_ok=True)
with open(target + ".partial", "w") as copy:
    copy.write(content)
os.replace(target + ".partial", target)
"""
# A process starts with the peak of the one that started it, so that a small one has to do it.
MEASURE = """\
import json
import os
import subprocess
import sys

process = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
STEPS = ("records", "tables", "report", "nothing to do")
COLUMNS = ("jobs", "step", "wall_s", "cpu_s", "peak_mib", "cpu_s_per_job")


class Measured(NamedTuple):
    """What one step took for so many jobs."""

    jobs: int
    step: str
    wall_s: float
    cpu_s: float
    peak_mib: float

    def row(self) -> dict[str, Any]:
        """Return the row of the table."""
        values = (*self[:2], *(round(value, 3) for value in (*self[2:], self.cpu_s / self.jobs)))
        return dict(zip(COLUMNS, values, strict=True))


def lay_out(tree: Path, count: int) -> None:
    """Copy what a study needs, and put the synthetic records where the jobs find them."""
    ignored = shutil.ignore_patterns("__pycache__", "official")
    for part in PARTS:
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "results" / "standard", tree / "results" / "standard")
    official = ROOT / "reference" / "official"
    if official.exists():
        (tree / "reference" / "official").symlink_to(official)
    seeds = list(range(count // len(ARMS)))
    study = STUDY_FILE.format(count=count, seeds=seeds)
    (tree / "workflow" / "studies" / f"{STUDY}.yaml").write_text(study, encoding="utf-8")
    (tree / "workflow" / "execute.py").write_text(COPY, encoding="utf-8")
    for arm in ARMS:
        template = json.loads(
            next((ROOT / TEMPLATE).glob(f"*.{arm}.seed0.json")).read_text(encoding="utf-8")
        )
        for seed in seeds:
            write_record(tree / "spool", synthetic(template, arm, seed))
    # What the spool knows of its records beside the records themselves.
    results = tree / "results" / STUDY
    shutil.copytree(tree / "spool", results, ignore=shutil.ignore_patterns("records"))


def synthetic(template: dict[str, Any], arm: str, seed: int) -> dict[str, Any]:
    """Return a record like the template's for another seed, with noise, and marked as synthetic."""
    noise = random.Random(f"{arm} {seed}").gauss(0, 0.3)
    measurements = [
        {**entry, "value": entry["value"] + noise} if entry["name"] in ("top1", "top5") else entry
        for entry in template["measurements"]
    ]
    source = "synthetic: a committed record with noise, by python -m workflow.many"
    inputs = {**template["inputs"], "data": {**template["inputs"]["data"], "source": source}}
    config = {**template["subject"]["config"], "seed": seed, "study": STUDY}
    kept = {key: template["subject"][key] for key in ("network", "arm", "device")}
    return new_record(
        case="training",
        run_id=template["run_id"].replace("seed0", f"seed{seed}"),
        claim_ids=template["claim_ids"],
        subject={**kept, "seed": seed},
        inputs=inputs,
        measurements=measurements,
        tables=template["tables"],
        expectations=template["expectations"],
        verdict=template["verdict"],
        wall_s=0.0,
        parameters=config,
        command="python -m workflow.many",
    )


def measured(tree: Path, jobs: int, step: str, command: Sequence[str]) -> Measured:
    """Run one step; its memory is that of its largest process, its processor time that of all."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    started = time.perf_counter()
    call = [sys.executable, "-c", MEASURE, "used.json", sys.executable, *command]
    with (tree / "steps.log").open("a") as log:
        done = subprocess.run(call, cwd=tree, env=environment, stdout=log, stderr=log, check=False)
    wall_s = time.perf_counter() - started
    if done.returncode:
        last = (tree / "steps.log").read_text(encoding="utf-8").splitlines()[-20:]
        raise SystemExit("\n".join([f"{step} failed:", *last]))
    cpu_s, peak = json.loads((tree / "used.json").read_text(encoding="utf-8"))
    return Measured(jobs, step, wall_s, cpu_s, peak / (1024 if sys.platform == "linux" else 2**20))


def snakemake(cores: int, *wanted: str) -> list[str]:
    """Return Snakemake's call as `workflow.launch` makes it on one machine."""
    memory_mib = cluster.place().memory_mib
    return [
        *("-m", "snakemake", "--snakefile", "workflow/Snakefile", "--nocolor", "--quiet", "all"),
        *("--workflow-profile", "workflow/profiles/local", "--cores", str(cores)),
        *("--config", f"cores={cores}", f"memory_mib={memory_mib}"),
        *(f"study={STUDY}", "reference=synthetic", "--", *wanted),
    ]


def path_of(tree: Path, jobs: int, cores: int) -> list[Measured]:
    """Take so many jobs through the path."""
    records = [
        f"results/{STUDY}/records/training/{path.name}"
        for path in sorted((tree / "spool" / "records" / "training").glob("*.json"))
    ]
    build = ("-m", "comparison", "build", "--study", STUDY)
    report = ("-m", "comparison", "report", "--study", STUDY)
    return [
        measured(tree, jobs, "records", snakemake(cores, *records)),
        measured(tree, jobs, "tables", build),
        measured(tree, jobs, "report", report),
        measured(tree, jobs, "nothing to do", snakemake(cores, "report")),
    ]


def papermill_sample(count: int) -> list[Measured]:
    """Time real notebooks, one after the other: the start of papermill, torch and a network."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = ROOT / "notebooks" / "01_networks.ipynb"
        given = ("-p", "network", "cls_hrnet_w18_small_v1", "-p", "results_dir", folder)
        call = ("-m", "papermill", "--no-progress-bar", "-k", "python3", str(notebook))
        place = Path(folder)
        runs = [
            measured(place, 1, "real notebook", (*call, f"{folder}/{run}.ipynb", *given))
            for run in range(count)
        ]
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser(prog="python -m workflow.many", description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--papermill", type=int, default=0, metavar="N", help="real notebooks")
    parser.add_argument("--save", type=csv_file, help="a CSV file; rows of other counts are kept")
    options = parser.parse_args(argv)
    if any(count < len(ARMS) or count % len(ARMS) for count in options.jobs):
        parser.error(f"--jobs is {options.jobs}; give even numbers, one job an arm and seed")
    rows = [run.row() for run in papermill_sample(options.papermill)]
    for count in options.jobs:
        with tempfile.TemporaryDirectory() as folder:
            lay_out(Path(folder), count)
            rows += [step.row() for step in path_of(Path(folder), count, options.cores)]
        for row in rows[-len(STEPS) :]:
            print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)
    if options.save:
        save(options.save, rows)
        print(f"{options.save} and {draw(options.save)}")
    return 0


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table; rows that were measured again replace the old ones."""
    measured_again = {(str(row["jobs"]), row["step"]) for row in rows}
    kept: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [
                row
                for row in csv.DictReader(file)
                if (row["jobs"], row["step"]) not in measured_again
            ]
    ordered = sorted([*kept, *rows], key=lambda row: (int(row["jobs"]), row["step"]))
    save_rows(path, COLUMNS, ordered)


def page_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the rows of the page's table: seconds of processor and MiB of each step, by count."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row["jobs"]), {})[str(row["step"])] = row
    return [
        [
            jobs,
            *(f"{float(of[step]['cpu_s']):.1f}" for step in STEPS),
            *(f"{float(of[step]['peak_mib']):.0f}" for step in STEPS[:2]),
        ]
        for jobs, of in found.items()
        if set(STEPS) <= of.keys()
    ]


def draw(table: Path) -> Path:
    """Draw how time and memory grow with the number of jobs, beside the table."""
    import matplotlib.pyplot as plt
    import pandas as pd

    plt.style.use(ROOT / "comparison" / "study.mplstyle")
    rows = pd.read_csv(table)
    grown = rows[rows["step"].isin(STEPS)]
    figure, panels = plt.subplots(1, 2, figsize=(6.3, 2.8), layout="constrained")
    labels = {"cpu_s": "processor seconds", "peak_mib": "peak memory (MiB)"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        for step, marker in zip(STEPS, "osv^", strict=True):
            shown = grown[grown["step"] == step]
            axes.plot(shown["jobs"], shown[column], marker=marker, markersize=4, label=step)
        axes.set(xlabel="jobs", ylabel=label, xlim=0, ylim=0)
    panels[0].legend()
    picture = table.with_suffix(".svg")
    with plt.rc_context({"svg.hashsalt": "many"}):
        figure.savefig(picture, metadata={"Date": None})
    return picture


if __name__ == "__main__":
    sys.exit(main())
