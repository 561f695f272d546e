"""What failed in a study, in a sentence each, for people and for the report."""

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from comparison.study import ROOT, Study
from workflow.jobs import Job, jobs_of

TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
ERROR = re.compile(r"error|exception|killed", re.IGNORECASE)
# What Snakemake prints of a job that failed: among other lines, what it was to make.
FAILED_OUTPUT = re.compile(r"^Error in rule \w+:\n(?: {4}.*\n)*? {4}output: (\S+)$", re.MULTILINE)
SILENT = "it was stopped before it printed anything"
KILLED = (
    "it was killed, as happens when memory runs out: close other programs or give fewer --cores"
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that left no record: its name, the last thing it said, and where to read on."""

    job: str
    sentence: str
    where: str

    def __str__(self) -> str:
        return f"{self.job} failed: {self.sentence} (see {self.where})"


Logs = dict[Path, tuple[int, int]]


def logs_of(study: Study) -> Logs:
    """Return the state of every log and executed notebook, to be held to a later one.

    Clocks may lie: what counts is that the state is another.
    """
    folder = ROOT / study.results_dir
    paths = [*folder.glob("logs/*.log"), *folder.glob("notebooks/*.ipynb")]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def failures_of(study: Study, before: Logs) -> list[Failure]:
    """Find the jobs that ran since `before` and left no record, and what each said last.

    A job of a cluster may be killed before it opens its log, which then is that of an earlier run.
    """
    now = logs_of(study)
    ran = {path for path, state in now.items() if before.get(path) != state}
    told = ROOT / study.results_dir / "logs" / "snakemake.log"
    failed = FAILED_OUTPUT.findall(told.read_text(encoding="utf-8")) if told.exists() else []
    jobs = [job for job in jobs_of(study) if not (ROOT / job.record).exists()]
    failures = [failure_of(job, ran) for job in jobs if ROOT / job.log in ran]
    failures += [
        Failure(job=job.key, sentence=SILENT, where=str(told.relative_to(ROOT)))
        for job in jobs
        if job.record in failed and ROOT / job.log not in ran
    ]
    for name in ("tables", "report"):
        log = ROOT / study.results_dir / "logs" / f"{name}.log"
        if not failures and log in ran and log.stat().st_size:
            failures.append(
                Failure(job=name, sentence=last_line(log), where=str(log.relative_to(ROOT)))
            )
    return failures


def failure_of(job: Job, ran: Collection[Path]) -> Failure:
    """Say why a job failed: the error that its notebook kept just now, or the log's last line."""
    notebook, log = ROOT / job.executed_notebook, ROOT / job.log
    sentence = notebook_error(notebook) if job.notebook and notebook in ran else None
    where = notebook if sentence else log
    return Failure(
        job=job.key, sentence=sentence or log_error(log), where=str(where.relative_to(ROOT))
    )


def notebook_error(notebook: Path) -> str | None:
    """Return the error that stopped an executed notebook, in one line, or None."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError):
        return None
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    errors = [output for output in outputs if output["output_type"] == "error"]
    if not errors:
        return None
    return f"{errors[-1]['ename']}: {' '.join(errors[-1]['evalue'].split())}"


def last_line(log: Path) -> str:
    """Return the last line of a log, which in Python is the error."""
    text = TERMINAL_CODES.sub("", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else SILENT


def log_error(log: Path) -> str:
    """Return the error that a log ends with, or that there was no time to say one."""
    last = last_line(log)
    was_killed = "DeadKernelError" in last or not (ERROR.search(last) or last == SILENT)
    return KILLED if was_killed else last


def note_failures(study: Study, failures: list[Failure]) -> None:
    """Keep what failed beside the records, so that the report can say so; nothing if nothing."""
    path = ROOT / study.results_dir / "failures.json"
    if failures:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps([asdict(item) for item in failures], indent=2) + "\n")
        partial.replace(path)
    else:
        path.unlink(missing_ok=True)
