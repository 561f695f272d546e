"""Foreign code that runs confined can neither write elsewhere nor reach a network; else it could.

Each attack is tried in processes of its own: a planted "official" module does the harm on import.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reference import confinement, store
from tests.repository.tree import ROOT
from tests.unit.fake_pins import fake_pins

# What the planted module tries when it is imported; it leaves nothing but marker files.
ATTACK = """
import os, socket, subprocess
from pathlib import Path

HOME = Path(os.environ["HOME"])
OUTCOMES = {}

def attempt(name, act):
    try:
        act()
        OUTCOMES[name] = "done"
    except OSError as error:
        OUTCOMES[name] = type(error).__name__

def connect():
    with socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), timeout=5):
        pass

attempt("write", lambda: (HOME / "written").write_text("x"))
attempt("append", lambda: (HOME / "kept").open("a").close())
attempt("remove", (HOME / "kept").unlink)
attempt("rename", lambda: (HOME / "moved").rename(HOME / "gone"))
attempt("folder", (HOME / "made").mkdir)
attempt("link", lambda: os.symlink("/", HOME / "link"))
attempt("child", lambda: subprocess.run(
    ["sh", "-c", "echo x > \\"$HOME/child\\""], stderr=subprocess.DEVNULL))
attempt("tcp", connect)
attempt("udp", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)))
attempt("listen", lambda: socket.socket().listen())
attempt("unix", lambda: socket.socket(socket.AF_UNIX).connect(str(HOME / "service")))
attempt("read", lambda: (HOME / "moved").read_text() if (HOME / "moved").exists() else None)
attempt("result", lambda: Path(os.environ["RESULTS"], "result").write_text("x"))
"""
# Starts a thread, confines itself, imports the planted module, and tries the thread's luck.
RUN = """
import json, os, sys, threading
from pathlib import Path
from reference import confinement, loader
from tests.unit.fake_pins import fake_pins

(planted,) = fake_pins({"a.py": os.environ["ATTACK"]}).repositories
go, started_before = threading.Event(), []

def write():
    go.wait()
    try:
        Path(os.environ["HOME"], "by_thread").write_text("x")
        started_before.append("done")
    except OSError as error:
        started_before.append(type(error).__name__)

thread = threading.Thread(target=write, daemon=True)
thread.start()
confinement.enter(Path(os.environ["RESULTS"]), always=bool(os.environ.get("ALWAYS")))
outcomes = loader.import_official(planted, "a.py", Path(os.environ["OFFICIAL"])).OUTCOMES
go.set()
thread.join()
print(json.dumps({**outcomes, "thread": started_before[0], "state": confinement.state()}))
"""
WRITES = ("write", "append", "remove", "rename", "folder", "link", "child")
NETWORK = ("tcp", "udp", "listen", "unix")
needs_landlock = pytest.mark.skipif(
    confinement._landlock() < 3, reason="this system does not offer Landlock 3 or later"
)


def attack(tmp_path: Path, *launcher: str, **variables: str) -> dict:
    """Run the planted module with a home, a server and a results folder; return what it could."""
    home, results = tmp_path / "home", tmp_path / "results"
    for folder in (home, results):
        folder.mkdir()
    (home / "kept").write_text("k")
    (home / "moved").write_text("m")
    (planted,) = fake_pins({"a.py": ATTACK}).repositories
    store.keep(planted, {"a.py": ATTACK.encode()}, tmp_path)
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as service:
        server.bind(("127.0.0.1", 0))
        server.listen()
        service.bind(str(home / "service"))
        service.listen()
        environment = {
            **{key: value for key, value in os.environ.items() if "CONFINE" not in key},
            **{
                "HOME": str(home),
                "RESULTS": str(results),
                "OFFICIAL": str(tmp_path),
                "ATTACK": ATTACK,
            },
            **{"PORT": str(server.getsockname()[1]), "PYTHONPATH": str(ROOT)},
            **variables,
        }
        done = subprocess.run(
            [*launcher, sys.executable, "-c", RUN],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def launcher(tmp_path: Path) -> list[str]:
    """Return the call that a study puts before its jobs."""
    module = str(ROOT / "reference" / "confinement.py")
    return [sys.executable, "-IS", module, str(tmp_path / "results"), "--"]


def test_unconfined_the_planted_module_does_all_it_tries(tmp_path: Path) -> None:
    outcomes = attack(tmp_path)
    assert {outcomes[name] for name in (*WRITES, *NETWORK, "thread", "result")} == {"done"}
    assert outcomes["state"]["files"] == "not enforced: not a batch run"
    assert (tmp_path / "home" / "written").exists() and (tmp_path / "home" / "child").exists()


@needs_landlock
def test_a_job_of_a_study_writes_to_its_results_only(tmp_path: Path) -> None:
    outcomes = attack(tmp_path, *launcher(tmp_path))
    refused = {name: outcomes[name] for name in (*WRITES, *NETWORK, "thread")}
    assert refused.pop("child") == "done"  # the shell ran, and could not write
    assert set(refused.values()) == {"PermissionError"}, refused
    assert outcomes["read"] == outcomes["result"] == "done"
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [
        "kept",
        "moved",
        "service",
    ]
    assert outcomes["state"]["files"].endswith("all threads")
    assert outcomes["state"]["network"] == "seccomp, all threads"


@needs_landlock
def test_a_process_that_confines_itself_says_what_older_threads_may(tmp_path: Path) -> None:
    outcomes = attack(tmp_path, ALWAYS="yes")
    assert {outcomes[name] for name in ("write", *NETWORK)} == {"PermissionError"}
    said = outcomes["state"]["files"]
    assert outcomes["thread"] == ("done" if said.endswith("started later") else "PermissionError")


def test_the_switch_leaves_everything_as_it_is(tmp_path: Path) -> None:
    outcomes = attack(tmp_path, *launcher(tmp_path), ALWAYS="yes", **{confinement.SWITCH: "off"})
    assert {outcomes[name] for name in (*WRITES, *NETWORK)} == {"done"}
    assert outcomes["state"] == dict.fromkeys(("files", "network"), "not enforced: switched off")


def test_a_system_without_either_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(confinement.sys, "platform", "darwin")
    monkeypatch.setattr(confinement.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(confinement.os, "environ", {})
    confinement.enter(tmp_path, always=True)
    assert {text.partition(" for ")[0][:20] for text in confinement.state().values()} == {
        "not enforced: Darwin",
        "not enforced: no fil",
    }


def test_a_results_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    done = subprocess.run([*launcher(tmp_path), "true"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot confine true" in done.stderr and done.stderr.count("\n") == 1


def test_the_launcher_says_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert confinement.main(["results"]) == 2
    assert "usage" in capsys.readouterr().err
