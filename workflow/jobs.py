"""Expand a study into jobs: one papermill call, and one record, each.

A job runs again when its parameters change, when source that it imports changes, or when the
reference does; see `Job.trigger` and `workflow/sources.py`. Nothing here needs PyTorch.
"""

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from comparison.study import ROOT, Study
from comparison.timing_plan import speed_run_id
from workflow import memory
from workflow.images import images_state
from workflow.sources import audit_sources, digest, sources

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
RESUMABLE = ("training", "tasks")  # cases whose notebooks go on from checkpoints
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

    @property
    def checkpoints(self) -> str:
        """Path of the folder that the job resumes from; empty if it keeps no checkpoints."""
        return f"{self.results_dir}/checkpoints/{self.run_id}" if self.case in RESUMABLE else ""

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
    return f"{job.checkpoints}/weights.safetensors"


def donors_of(wanted: Iterable[Job], study: Study, root: Path = ROOT) -> list[Job]:
    """List the jobs that must train again, since the weights that others read are not there.

    Records are committed and copied without the weights that they were made with.
    """
    needed = {key for job in wanted for key in job.depends}
    jobs = [job for job in jobs_of(study) if job.key in needed]
    return [job for job in jobs if not (root / weights_file(job)).exists()]


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


@cache
def _source_digest(notebook: str) -> str:
    """Hash what a notebook's record, or the audit's, depends on; once for all jobs that run it."""
    return digest(sources(notebook) if notebook else audit_sources())


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
