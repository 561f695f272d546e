"""What a user is told by `make report` and `make claim`, without running a study."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import pytest

from comparison.study import Study, StudyError, load_study
from workflow import failures, launch, lock, processes
from workflow.cluster import Place
from workflow.jobs import jobs_of

TINY = load_study("tiny")
FAILED = next(job for job in jobs_of(TINY) if job.case == "training")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the launcher work in an empty folder."""
    for module in (launch, failures):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(launch, "SNAKEMAKE_LOCKS", tmp_path / ".snakemake" / "locks")
    monkeypatch.setattr(lock, "LAUNCH_LOCK", tmp_path / ".snakemake" / "launch.lock")
    return tmp_path


def leave(path: Path, text: str) -> Path:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def executed(*outputs: dict) -> str:
    """Make an executed notebook with these outputs."""
    return json.dumps({"cells": [{"cell_type": "markdown"}, {"outputs": list(outputs)}]})


def test_an_unknown_study_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["report", "--study", "nightly"]) == 2
    told = capsys.readouterr().err
    assert "study 'nightly' is unknown; use one of full, quick, standard, tiny" in told
    assert told.count("\n") == 1


def test_no_core_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["report", "--study", "tiny", "--cores", "0"]) == 2
    assert "--cores is 0; give a whole number of at least 1" in capsys.readouterr().err


def test_an_unknown_claim_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["claim", "C99"]) == 2
    assert "claim 'C99' is unknown; use one of C1, C2" in capsys.readouterr().err


def test_the_notebooks_error_is_told_and_where_to_read_on(root: Path) -> None:
    error = {"output_type": "error", "ename": "UserError", "evalue": "the data\nis broken"}
    leave(root / FAILED.log, "papermill says much\nPapermillExecutionError")
    leave(root / FAILED.executed_notebook, executed({"output_type": "stream"}, error))
    (failure,) = failures.failures_of(TINY, {})
    assert str(failure) == (
        f"{FAILED.key} failed: UserError: the data is broken (see {FAILED.executed_notebook})"
    )


def test_without_an_error_in_the_notebook_the_logs_last_line_is_told(root: Path) -> None:
    leave(root / FAILED.log, "start\n\x1b[31mMemoryError: no room\x1b[0m\n\n")
    leave(root / FAILED.executed_notebook, "{ cut off")
    (failure,) = failures.failures_of(TINY, {})
    assert failure.sentence == "MemoryError: no room"
    assert failure.where == FAILED.log


def test_the_error_of_an_earlier_run_is_not_told_again(root: Path) -> None:
    error = {"output_type": "error", "ename": "UserError", "evalue": "of last week"}
    leave(root / FAILED.executed_notebook, executed(error))
    earlier = failures.logs_of(TINY)
    leave(root / FAILED.log, "ModuleNotFoundError: no module")
    (failure,) = failures.failures_of(TINY, earlier)
    assert failure.sentence == "ModuleNotFoundError: no module"


def told_by_snakemake(root: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> tuple[int, bool]:
    """Run the study with a Snakemake that fails and says this."""
    monkeypatch.setattr(launch, "prepare_reference", lambda: "official-1")
    monkeypatch.setattr(launch.compileall, "compile_dir", lambda *args, **named: True)

    def follow(command: list[str], held: object, kept: TextIO) -> tuple[int, bool]:
        kept.write(said)
        return 1, False

    monkeypatch.setattr(launch, "_follow", follow)
    place = launch.cluster.place(launch.cluster.LOCAL, 1)
    with (root / "lock").open("w") as held:
        return launch.run_snakemake(TINY, place, held, ["--", "report"])


def test_a_fault_of_the_study_is_told_and_one_of_a_job_is_left_to_its_log(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "InputFunctionException in rule record\nError:\n  StudyError: a.py is damaged\nWild:\n"
    with pytest.raises(StudyError, match=r"^a\.py is damaged$"):
        told_by_snakemake(root, monkeypatch, own)
    jobs = "Logfile results/tiny/logs/x.log:\n====\ncomparison.study.StudyError: other\n====\n"
    assert told_by_snakemake(root, monkeypatch, jobs) == (1, False)


def test_an_unavailable_reference_costs_a_claim_no_checkpoint(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> str:
        raise StudyError("the reference is not there")

    kept = leave(root / FAILED.checkpoints / "last.pt", "weights")
    monkeypatch.setattr(launch, "prepare_reference", absent)
    place = launch.cluster.place(launch.cluster.LOCAL, 1)
    with pytest.raises(StudyError, match="not there"):
        launch.claim("C8", TINY, place)
    assert kept.exists()


def test_a_missing_record_that_needs_weights_has_them_trained_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study("quick")
    for job in jobs_of(study):
        leave(root / job.record, "{}")
    asked: list[str] = []

    def run(study: Study, place: Place, held: TextIO, wanted: list[str]) -> tuple[int, bool]:
        asked[:] = wanted
        return 0, True

    monkeypatch.setattr(launch, "run_snakemake", run)
    monkeypatch.setattr(launch, "publish", lambda study: None)
    place = launch.cluster.place(launch.cluster.LOCAL, 1)
    launch.report(study, place)
    assert asked == ["--", "report"]  # committed records need no weights

    waits = next(job for job in jobs_of(study) if job.depends)
    (root / waits.record).unlink()
    launch.report(study, place)
    (donor,) = (job for job in jobs_of(study) if job.key in waits.depends)
    assert asked == ["--forcerun", donor.record, "--", "report"]


def test_a_job_that_said_nothing_is_told_too(root: Path) -> None:
    leave(root / FAILED.log, "")
    (failure,) = failures.failures_of(TINY, {})
    assert failure.sentence == "it was stopped before it printed anything"


def test_a_job_that_was_killed_before_it_opened_its_log_is_told(root: Path) -> None:
    """As SLURM's are; what the log holds is of an earlier run, and no news."""
    leave(root / FAILED.log, "all went well, last week")
    earlier = failures.logs_of(TINY)
    where = "results/tiny/logs/snakemake.log"
    made = (
        f"Error in rule record:\n    message: CANCELLED\n    output: {FAILED.record}\n    log: x\n"
    )
    leave(root / where, f"Job 1: some\n    output: {jobs_of(TINY)[0].record}\n{made}")
    (failure,) = failures.failures_of(TINY, earlier)
    assert (failure.job, failure.where) == (FAILED.key, where)
    assert failure.sentence == "it was stopped before it printed anything"
    leave(root / FAILED.log, "ValueError")
    assert len(failures.failures_of(TINY, earlier)) == 1


def test_jobs_with_a_record_and_logs_of_earlier_runs_are_no_failures(root: Path) -> None:
    leave(root / FAILED.log, "ValueError")
    leave(root / FAILED.record, "{}")
    leave(root / jobs_of(TINY)[0].log, "ValueError of last week")
    earlier = failures.logs_of(TINY)
    leave(root / FAILED.log, "ValueError again")
    assert failures.failures_of(TINY, earlier) == []


@pytest.mark.fault(
    "clock going backwards",
    how="a failing job writes its log an hour before the launch began",
    told="networks/cls_hrnet_w18_small_v1 failed: ValueError: no",
    kept="what failed is told all the same: states of files are compared, never times",
)
def test_a_clock_that_goes_backwards_hides_no_failure(root: Path, told: str) -> None:
    job = jobs_of(TINY)[0]
    leave(root / job.log, "ValueError of last week")
    earlier = failures.logs_of(TINY)
    os.utime(leave(root / job.log, "ValueError: no"), (time.time() - 3600,) * 2)
    (failure,) = failures.failures_of(TINY, earlier)
    assert re.search(told, str(failure))


@pytest.mark.parametrize(
    "log", ["nbclient.exceptions.DeadKernelError: Kernel died\n", "Executing Cell 3\n"]
)
def test_a_job_that_was_killed_is_told_in_plain_words(root: Path, log: str) -> None:
    leave(root / FAILED.log, log)
    (failure,) = failures.failures_of(TINY, {})
    assert failure.sentence.startswith("it was killed, as happens when memory runs out")


def test_a_failure_of_the_tables_is_told(root: Path) -> None:
    leave(root / "results/tiny/logs/tables.log", "RecordError: a.json was changed\n")
    (failure,) = failures.failures_of(TINY, {})
    assert (failure.job, failure.sentence) == ("tables", "RecordError: a.json was changed")


def test_failures_are_kept_for_the_report_and_forgotten_when_mended(root: Path) -> None:
    failure = failures.Failure(job="speed/x", sentence="no", where="there")
    failures.note_failures(TINY, [failure])
    path = root / "results/tiny/failures.json"
    assert json.loads(path.read_text()) == [{"job": "speed/x", "sentence": "no", "where": "there"}]
    failures.note_failures(TINY, [])
    assert not path.exists()


def hold(path: Path, ready: str) -> subprocess.Popen[str]:
    """Let another process hold the lock, as Snakemake does."""
    code = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print('held')"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdout.flush(); time.sleep(60)", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    path.write_text(ready.replace("HOLDER", str(holder.pid)))
    return holder


def test_two_studies_at_once_are_refused(root: Path) -> None:
    leave(lock.LAUNCH_LOCK, "")
    note = json.dumps({"host": "elsewhere", "launch": os.getpid(), "snakemake": 1})
    holder = hold(lock.LAUNCH_LOCK, note)
    told = f"a study is running in this folder .process {os.getpid()} on elsewhere.; wait for it"
    with pytest.raises(StudyError, match=told), lock.only_launch():
        pass
    holder.kill()
    holder.wait()
    with lock.only_launch() as held:
        assert lock.holder_of(held)["launch"] == os.getpid()


def test_a_snakemake_whose_launch_was_killed_gives_way(root: Path) -> None:
    """Where nothing ends it with its launch, as on macOS, the next launch does."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave(lock.LAUNCH_LOCK, "")
    note = {"host": lock.socket.gethostname(), "launch": gone.pid, "snakemake": 0}
    text = json.dumps(note).replace('"snakemake": 0', '"snakemake": HOLDER')
    holder = hold(lock.LAUNCH_LOCK, text)
    with lock.only_launch():
        assert holder.wait(5) == -signal.SIGKILL


def test_what_a_killed_run_left_is_removed(root: Path) -> None:
    leave(launch.SNAKEMAKE_LOCKS / "0.output.lock", "results/x")
    kept = leave(root / "results/tiny/records/speed/x.json", "{}")
    leave(kept.with_name(".x.json.01ab.partial"), "{")
    launch.clear(TINY)
    assert not list(launch.SNAKEMAKE_LOCKS.iterdir())
    assert list(kept.parent.iterdir()) == [kept]


def test_a_session_is_ended_with_all_that_left_it() -> None:
    """Kernels lead sessions of their own, and whoever ignores SIGINT is killed."""
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    parent = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]],"
        " start_new_session=True); print(p.pid, flush=True); exec(sys.argv[1])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, child],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    grandchild = int(process.stdout.readline())
    assert grandchild in processes.descendants(process.pid)
    processes.end(process, grace_s=0.1)
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while Path(f"/proc/{grandchild}/cwd").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{grandchild}/cwd").exists()


def test_a_request_to_end_is_what_ctrl_c_is() -> None:
    with pytest.raises(KeyboardInterrupt), processes.ended_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_pdf_is_copied_only_when_it_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = root / "reports" / "report.pdf"
    published.parent.mkdir()
    monkeypatch.setattr(launch.products, "REPORT", published)
    launch.publish(TINY)
    assert not published.exists()
    leave(root / "results/tiny/report.pdf", "one")
    launch.publish(TINY)
    os.utime(published, (1, 1))
    launch.publish(TINY)
    assert published.stat().st_mtime == 1
    leave(root / "results/tiny/report.pdf", "two")
    launch.publish(TINY)
    assert published.read_text() == "two"


def test_official_files_are_never_compiled_by_a_launch() -> None:
    """Compiling one prints the line that a warning is about, and CLEANROOM.md forbids that."""
    official = "/a/reference/official/HRNet-X@123/lib/models/net.py"
    assert launch.NOT_OURS.search(official) and not launch.NOT_OURS.search("/a/reference/loader.py")
