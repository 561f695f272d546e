"""Run a study, or the jobs of one claim: what `make report` and `make claim` call.

One call of Snakemake does the work; this finds the reference beforehand and says afterwards, in a
sentence each, what failed and where to look.
"""

import argparse
import compileall
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from comparison import products
from comparison.study import DEFAULT, ROOT, Study, StudyError, known_studies, load_study
from workflow import cluster, processes
from workflow.cluster import Place
from workflow.failures import Failure, failures_of, logs_of, note_failures
from workflow.jobs import Job, donors_of, jobs_of
from workflow.lock import note_holder, only_launch
from workflow.sources import PACKAGES

SNAKEMAKE_LOCKS = ROOT / ".snakemake" / "locks"
PARTIAL = "**/.*.partial"  # what was being written when something was killed
# Compiling official files would print the lines that warnings are about (CLEANROOM.md).
NOT_OURS = re.compile(r"[/\\]official[/\\]")
NOTHING_TO_DO = "Nothing to be done"
# A fault of the study that Snakemake met while it laid out the jobs; theirs are in their logs.
TOLD = re.compile(r"^Error:\n  StudyError: (.+)$", re.MULTILINE)
SHOWN = re.compile(r"^(Job \d+: |\d+ of \d+ steps)")


def report(study: Study, place: Place) -> int:
    """Bring a study's report up to date; the exit status is 0 only if every job succeeded."""
    with only_launch() as lock:
        before = logs_of(study)
        print(f"study {study.name!r}: {len(jobs_of(study))} records, on {place}", flush=True)
        note_failures(study, [])
        absent = [job for job in jobs_of(study) if not (ROOT / job.record).exists()]
        again = [job.record for job in donors_of(absent, study, ROOT)]
        forced = ["--forcerun", *again] if again else []
        status, idle = run_snakemake(study, place, lock, [*forced, "--", "report"])
        failures = failures_of(study, before) if status else []
        if status:
            note_failures(study, failures)
            build_partial(study)
        publish(study)
    for failure in failures:
        print(failure, file=sys.stderr)
    if idle:
        print(f"nothing to do: the report of study {study.name!r} is up to date")
    elif status:
        print(f"study {study.name!r} is incomplete: {_advice(study, failures)}", file=sys.stderr)
    else:
        print(f"study {study.name!r} is complete: {_relative(products.REPORT)}")
    return 1 if status else 0


def claim(identifier: str, study: Study, place: Place) -> int:
    """Run the jobs behind one claim again and print its verdict."""
    from comparison.claims import claim_named

    cases = claim_named(identifier).cases
    jobs = [job for job in jobs_of(study) if job.case in cases]
    if not jobs:
        print(f"study {study.name!r} has no job for claim {identifier}: not run")
        return 0
    print(f"claim {identifier}: {len(jobs)} jobs of study {study.name!r}")
    donors = [job for job in donors_of(jobs, study, ROOT) if job not in jobs]
    for job in donors:
        print(f"and {job.key}, whose weights they need")
    with only_launch() as lock:
        before = logs_of(study)
        wanted = ["--force", "--", *(job.record for job in (*donors, *jobs))]
        status, _ = run_snakemake(study, place, lock, wanted, anew=[*donors, *jobs])
        failures = failures_of(study, before) if status else []
    for failure in failures:
        print(failure, file=sys.stderr)
    verdict = [sys.executable, "-m", "comparison", "verdicts", "--study", study.name]
    shown = subprocess.run([*verdict, "--claim", identifier], cwd=ROOT, check=False)
    print(f"tables and PDF show this after `make report STUDY={study.name}`")
    return 1 if status else shown.returncode


def prepare_reference() -> str:
    """Obtain the reference if need be, say which one runs, and return its identity as one word."""
    from reference import ReferenceUnavailable, fetch, identity, store
    from reference.pins import load_pins

    try:
        print(fetch.fetch_if_absent(load_pins(), store.OFFICIAL).line, flush=True)
        chosen = identity()
    except ReferenceUnavailable as problem:
        raise StudyError(str(problem)) from None
    return f"{chosen['implementation']}-{chosen['version']}-{chosen['sha256'][:12]}"


def run_snakemake(
    study: Study, place: Place, lock: TextIO, wanted: list[str], anew: Sequence[Job] = ()
) -> tuple[int, bool]:
    """Run Snakemake once and show its progress; return its status and whether it was idle.

    Args:
        study: The study.
        place: Where its jobs run.
        lock: Held as long as Snakemake lives.
        wanted: Snakemake's last arguments: what it is to make.
        anew: Jobs that may not find themselves finished.
    """
    reference = prepare_reference()
    cluster.cancel_left_over(place, study)
    clear(study)
    for job in anew:
        if job.checkpoints:
            shutil.rmtree(ROOT / job.checkpoints, ignore_errors=True)
    for package in PACKAGES:  # jobs are confined to the results and cannot keep what they compile
        compileall.compile_dir(ROOT / package, rx=NOT_OURS, quiet=2)
    command = [
        *processes.mortal(),
        *(sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--nocolor"),
        *cluster.options(place, study),
        *(f"study={study.name}", f"reference={reference}"),
        *wanted,
    ]
    log = ROOT / study.results_dir / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as kept:
        try:
            status, idle = _follow(command, lock, kept)
        finally:
            clear(study)
    if status and (told := TOLD.search(log.read_text(encoding="utf-8"))):
        raise StudyError(told[1])
    return status, idle


def _follow(command: list[str], lock: TextIO, kept: TextIO) -> tuple[int, bool]:
    """Run a command in a session of its own; end all of it if this process is to end."""
    idle = False
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=[lock.fileno()],  # as long as Snakemake lives, the folder is held
    )
    try:
        note_holder(lock, process.pid)
        for line in process.stdout or ():
            kept.write(line)
            idle = idle or NOTHING_TO_DO in line
            if SHOWN.match(line):
                print(line, end="", flush=True)
        return process.wait(), idle
    except BaseException:
        processes.end(process)
        raise


def clear(study: Study) -> None:
    """Remove what a killed run left; whoever calls this holds the folder."""
    for stale in SNAKEMAKE_LOCKS.glob("*.lock"):
        stale.unlink()
    for partial in (ROOT / study.results_dir).glob(PARTIAL):
        partial.unlink(missing_ok=True)


def build_partial(study: Study) -> None:
    """Make tables, figures and PDF from the records there are; the rest reads "not run"."""
    for step in ("build", "report"):
        made = subprocess.run(
            [sys.executable, "-m", "comparison", step, "--study", study.name],
            cwd=ROOT,
            check=False,
        )
        if made.returncode:
            return


def publish(study: Study) -> None:
    """Copy the study's PDF to where the report is looked for."""
    made = ROOT / study.results_dir / "report.pdf"
    if not made.exists():
        return
    if not products.REPORT.exists() or products.REPORT.read_bytes() != made.read_bytes():
        partial = products.REPORT.with_name(f".{products.REPORT.name}.partial")
        shutil.copyfile(made, partial)
        partial.replace(products.REPORT)


def _advice(study: Study, failures: list[Failure]) -> str:
    if failures:
        return f"{len(failures)} failed; the PDF says what; the same command goes on from here"
    return f"see {study.results_dir}/logs/snakemake.log; the same command goes on from here"


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def make_parser() -> argparse.ArgumentParser:
    """Describe the two subcommands."""
    parser = argparse.ArgumentParser(prog="python -m workflow.launch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("report", help="run a study and make its report")
    one = commands.add_parser("claim", help="run the jobs of one claim again")
    one.add_argument("identifier", metavar="ID", help="e.g. C2")
    for command in (whole, one):
        command.add_argument("--study", default=DEFAULT, help=", ".join(known_studies()))
        command.add_argument("--cores", type=int, help="of one machine; by default all")
        command.add_argument("--profile", default=cluster.LOCAL, choices=cluster.known_profiles())
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake becomes one sentence and exit status 2."""
    arguments = make_parser().parse_args(argv)
    try:
        study = load_study(arguments.study)
        if arguments.cores is not None and arguments.cores < 1:
            raise StudyError(f"--cores is {arguments.cores}; give a whole number of at least 1")
        with processes.ended_by_signals():
            place = cluster.place(arguments.profile, arguments.cores)
            if arguments.command == "claim":
                return claim(arguments.identifier, study, place)
            return report(study, place)
    except StudyError as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as problem:
        print(
            f"{problem.filename or 'a file'} could not be written ({problem.strerror}): free some "
            "space or make the folder writable; the same command goes on from here",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        how = "starts its jobs again" if arguments.command == "claim" else "goes on from here"
        print(f"stopped; the same command {how}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
