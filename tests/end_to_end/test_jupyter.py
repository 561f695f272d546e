"""JupyterLab as `make lab` starts it, and the kernel that notebooks get."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.tree import ROOT

START_LIMIT_S = 90  # a busy machine; an idle one takes five
KERNEL_COMMAND = (
    "from jupyter_client.manager import KernelManager;"
    "print(KernelManager(kernel_name='python3').format_kernel_cmd()[0])"
)


def free_port() -> int:
    """Ask the system for a port that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def lab_command(port: int) -> str:
    """Return what `make lab` would run in the environment of these tests."""
    arguments = [f"VENV={sys.prefix}", f"PORT={port}", "LAB_ARGS=--no-browser"]
    command = ["make", "--dry-run", "--silent", "lab", *arguments]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return shown[shown.index(f'"{sys.prefix}/bin/python" -m jupyterlab') :]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start JupyterLab and return the address that it printed."""
    home = tmp_path_factory.mktemp("home")
    folders = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    output = home / "lab.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {lab_command(free_port())}"],
            cwd=ROOT,
            env={**os.environ, **folders},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield printed_address(process, output)
    finally:
        process.terminate()
        process.wait()


def listens(address: str) -> bool:
    """Say whether somebody accepts connections at the address."""
    url = urllib.parse.urlsplit(address)
    with socket.socket() as probe:
        return probe.connect_ex((url.hostname, url.port)) == 0


def printed_address(process: subprocess.Popen[bytes], output: Path) -> str:
    """Wait until JupyterLab has printed its address and answers there: a busy machine is late."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+/lab\S*\?token=\w+", output.read_text())
        if found and listens(found.group()):
            return found.group()
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start: {output.read_text()[-2000:]}")


def test_the_lab_shows_the_notebooks_to_whoever_has_the_token(lab: str) -> None:
    server, _, token = lab.partition("/lab?token=")
    with urllib.request.urlopen(f"{server}/api/contents/notebooks?token={token}") as answer:
        names = {entry["name"] for entry in json.load(answer)["content"]}

    assert "01_networks.ipynb" in names


def test_the_lab_refuses_whoever_has_no_token(lab: str) -> None:
    server = lab.partition("/lab")[0]

    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{server}/api/contents/notebooks")


def test_the_lab_listens_on_the_loopback_only(lab: str) -> None:
    port = int(re.search(r":(\d+)/", lab).group(1))  # type: ignore[union-attr]
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", port))  # free, unless something listens on every address
        taken = probe.getsockname()

    assert taken == ("127.0.0.2", port)


def test_the_kernel_is_this_environment_whatever_the_user_has_installed(tmp_path: Path) -> None:
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "other"}))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "JUPYTER_PATH"},
        "JUPYTER_DATA_DIR": str(tmp_path),
        "JUPYTER_PREFER_ENV_PATH": "1",  # as the Makefile sets it
    }
    done = subprocess.run(
        [sys.executable, "-c", KERNEL_COMMAND],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(done.stdout.strip()).samefile(sys.executable)
    assert "export JUPYTER_PREFER_ENV_PATH := 1" in (ROOT / "Makefile").read_text("utf-8")
