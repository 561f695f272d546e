"""Expand a study into jobs: one papermill call, and one record, each.

A job runs again when its parameters change, when source that it imports changes, or when the
reference does; see `sources` and `Job.trigger`. Nothing here needs PyTorch.
"""

import ast
import json
import os
import shlex
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from comparison.study import ROOT, Study, StudyError
from comparison.timing_plan import speed_run_id
from workflow import memory
from workflow.images import images_state

NOTEBOOKS = {
    "networks": "notebooks/01_networks.ipynb",
    "equivalence": "notebooks/02_equivalence.ipynb",
    "training": "notebooks/03_training.ipynb",
    "speed": "notebooks/04_speed.ipynb",
    "differences": "notebooks/05_differences.ipynb",
    "trial": "notebooks/06_trial.ipynb",
    "tasks": "notebooks/07_tasks.ipynb",
    "scaling": "notebooks/08_scaling.ipynb",
}
AUDIT = "audit"
PACKAGES = ("reproduction", "reference", "comparison")
SOURCES = (*PACKAGES, "workflow", "notebooks", "reports", "requirements.lock")
# Data that a module reads, beside the modules that it imports.
DATA_FILES = {
    "comparison/differences.py": ("comparison/differences.toml",),
    "comparison/published.py": ("comparison/published.toml",),
    "comparison/speed/statements.py": ("comparison/speed/aims.toml",),
    "reference/pins.py": ("reference/pins.toml",),
    "reference/recorded.py": ("reference/traces/*",),
    "reproduction/forms.py": ("reproduction/training_forms.toml",),
    "reproduction/published_recipes.py": ("reproduction/published_recipes.toml",),
    "reproduction/runtimes.py": ("reproduction/runtimes.toml",),
}
# Modules that notebooks import to show a result: they cannot change it.
DISPLAY = (
    "comparison/figures.py",
    "comparison/speed_figures.py",
    "comparison/tables/__init__.py",
    "comparison/trial_figures.py",
    "comparison/task_figures.py",
    "comparison/cost_figures.py",
)
ALL_CORES = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One record and the call that makes it.

    Attributes:
        case: Case of the record, e.g. ``training``.
        run_id: Name of the record within its case.
        notebook: What papermill runs, relative to the repository; empty for the audit.
        parameters: What papermill is given.
        results_dir: The study's folder, relative to the repository.
        threads: Torch threads; ALL_CORES keeps every other job waiting.
        memory_mib: What to reserve.
        depends: Records that must exist first.
    """

    case: str
    run_id: str
    notebook: str
    parameters: dict[str, str | int] = field(default_factory=dict)
    results_dir: str
    threads: int = 1
    memory_mib: int = memory.USUAL_MIB
    depends: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Case and run id, as in the paths of the job's files."""
        return f"{self.case}/{self.run_id}"

    @property
    def record(self) -> str:
        """Path of the record."""
        return f"{self.results_dir}/records/{self.key}.json"

    @property
    def executed_notebook(self) -> str:
        """Path of the executed copy of the notebook."""
        return f"{self.results_dir}/notebooks/{self.case}.{self.run_id}.ipynb"

    @property
    def log(self) -> str:
        """Path of what the job printed."""
        return f"{self.results_dir}/logs/{self.case}.{self.run_id}.log"

    def trigger(self, reference: str) -> str:
        """Return what the record depends on, as text: changed text means that it must run again."""
        called = json.dumps(self.parameters, sort_keys=True)
        data = images_state(str(self.parameters.get("data", "")))
        source = _source_digest(self.notebook)[:16]
        return f"{called} source {source} reference {reference}{data}"

    def arguments(self) -> str:
        """Return the parameters as papermill's command line takes them."""
        pairs = (f"-p {name} {shlex.quote(str(value))}" for name, value in self.parameters.items())
        return " ".join(pairs)


def jobs_of(study: Study) -> list[Job]:
    """Expand a study into its jobs, in the order of the notebooks."""
    jobs = [*_networks(study), *_equivalence(study), *_training(study)]
    jobs += [*_tasks(study), *_speed(study)]
    if study.differences:
        jobs.append(_notebook_job(study, "differences", "all"))
    if study.trial:
        jobs.append(_trial(study))
    if study.scaling:
        jobs.append(_notebook_job(study, "scaling", "notebooks", threads=ALL_CORES))
    if study.audit:
        jobs.append(Job(case=AUDIT, run_id="all", notebook="", results_dir=study.results_dir))
    return jobs


def threads_for(job: Job, cores: int) -> int:
    """Give a job its torch threads, never more than there are cores."""
    return cores if job.threads == ALL_CORES else min(job.threads, cores)


def memory_for(job: Job, usable_mib: int) -> int:
    """Give a job its memory; one that wants more than there is runs alone, and may do."""
    return min(job.memory_mib, usable_mib)


def concurrent_jobs(job: Job, cores: int) -> int:
    """Say how many jobs of this kind may run at once: jobs times threads stays within the cores."""
    return cores // threads_for(job, cores)


def _notebook_job(study: Study, case: str, run_id: str, **more: Any) -> Job:
    parameters = {**more.pop("parameters", {}), "results_dir": study.results_dir}
    return Job(
        case=case,
        run_id=run_id,
        notebook=NOTEBOOKS[case],
        parameters=parameters,
        results_dir=study.results_dir,
        **more,
    )


def _networks(study: Study) -> Iterator[Job]:
    for network in study.networks:
        parameters = {"network": network}
        yield _notebook_job(study, "networks", network, parameters=parameters)


def _equivalence(study: Study) -> Iterator[Job]:
    for compared in study.compared():
        parameters = {**compared._asdict()}
        donor = next(_training(study)) if compared.weights == "trained" else None
        if donor:
            parameters["weights_file"] = weights_file(donor)
        yield _notebook_job(
            study,
            "equivalence",
            compared.run_id,
            parameters=parameters,
            memory_mib=memory.comparison_mib(compared),
            depends=(donor.key,) if donor else (),
        )


def weights_file(job: Job) -> str:
    """Return where a training job leaves its last weights."""
    return f"{job.results_dir}/checkpoints/{job.run_id}/weights.safetensors"


def _training(study: Study) -> Iterator[Job]:
    plan = study.training
    if plan is None:
        return
    data_name = plan.data.partition(":")[0]
    for seed in plan.seeds:
        for arm in plan.arms:
            parameters = {
                "network": plan.network,
                "data": plan.data,
                "arm": arm,
                "seed": seed,
                "epochs": plan.epochs,
                "batch_size": plan.batch_size,
                "device": plan.device,
            }
            yield _notebook_job(
                study,
                "training",
                f"{plan.network}.{data_name}.{arm}.seed{seed}",
                parameters=parameters,
                threads=plan.threads,
            )


def _tasks(study: Study) -> Iterator[Job]:
    plan = study.tasks
    if plan is None:
        return
    for task, variant, arm, seed in plan.runs():
        parameters = {"task": task, "variant": variant, "arm": arm, "seed": seed, "device": "cpu"}
        parameters |= {"epochs": plan.epochs, "scenes": plan.scenes}
        run_id = f"{task}.{variant}.{arm}.seed{seed}"
        yield _notebook_job(
            study, "tasks", run_id, parameters=parameters, memory_mib=memory.TASK_MIB
        )


def _speed(study: Study) -> Iterator[Job]:
    plan = study.speed
    if plan is None:
        return
    for run in plan.runs:
        parameters = {**asdict(run), "arms": ",".join(run.arms)}
        if not run.accuracy_seeds:
            del parameters["accuracy_seeds"]
        donor = next(_training(study)) if study.deploys_trained(run) else None
        if donor and study.training:
            parameters |= {"weights_file": weights_file(donor), "data": study.training.data}
        yield _notebook_job(
            study,
            "speed",
            speed_run_id(run),
            parameters=parameters,
            threads=ALL_CORES,
            memory_mib=memory.SPEED_MIB,
            depends=(donor.key,) if donor else (),
        )


def _trial(study: Study) -> Job:
    return _notebook_job(
        study,
        "trial",
        f"{study.trial}.seed0",
        parameters={"plan": study.trial},
        memory_mib=memory.TRIAL_MIB,
    )


def sources(entry: str, root: Path = ROOT, without: Collection[str] = DISPLAY) -> list[Path]:
    """List what a notebook's or module's result depends on: itself, what it imports, their data."""
    shown = {root / name for name in without}
    found: set[Path] = set()
    waiting = [root / entry]
    while waiting:
        path = waiting.pop()
        if path.is_file() and path not in found and path not in shown:
            found.add(path)
            waiting.extend(_imported(path, root))
    for module, patterns in DATA_FILES.items():
        if root / module in found:
            found.update(path for pattern in patterns for path in root.glob(pattern))
    return sorted(found)


@cache
def _source_digest(notebook: str) -> str:
    """Hash what a notebook's record, or the audit's, depends on; once for all jobs that run it."""
    return digest(sources(notebook) if notebook else audit_sources())


def audit_sources(root: Path = ROOT) -> list[Path]:
    """List what the clean-room audit reads of this repository."""
    audited = [*(root / "reproduction").rglob("*.py"), root / "CLEANROOM.md"]
    return sorted({*audited, *sources("comparison/audit.py", root)})


def digest(files: list[Path], root: Path = ROOT) -> str:
    """Hash files; layout and comments of Python, and outputs of notebooks, do not count."""
    total = sha256()
    for path in files:
        total.update(str(path.relative_to(root)).encode())
        total.update(_content(path) if path.exists() else b"absent")
    return total.hexdigest()


def _content(path: Path) -> bytes:
    if path.suffix in (".py", ".ipynb"):
        return ast.dump(_tree(path)).encode()
    return path.read_bytes()


@cache
def _tree(path: Path) -> ast.Module:
    """Parse a module, or a notebook's code cells."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
            text = "\n".join("".join(cell["source"]) for cell in cells)
        return ast.parse(text)
    except (ValueError, KeyError, TypeError, SyntaxError) as problem:
        raise StudyError(
            f"{path.name} is damaged ({type(problem).__name__}): restore it from version control"
        ) from problem


def _imported(path: Path, root: Path) -> Iterator[Path]:
    """Find the modules of this repository that a file names in its imports."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield from _modules(name, root)


def _modules(name: str, root: Path) -> Iterator[Path]:
    """Yield the files that importing a dotted name runs: each package's own and the module's."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return
    for length in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:length])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                yield path


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
