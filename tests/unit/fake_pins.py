"""A small official repository that tests may alter: its files, and pins that fit them."""

import hashlib
import subprocess
from pathlib import Path

from reference.pins import FilePin, NetworkPin, Pins, RepositoryPin, StandInPin, load_pins

MODEL_FILE = "lib/models/cls_tiny.py"
CONFIG_FILE = "experiments/tiny.yaml"
MODEL = '''
"""A network whose width is a module global, as careless code has it."""
import os.path
import sys

from torch import nn

WIDTH = 1
sys.path.insert(0, os.path.dirname(__file__))


class Tiny(nn.Module):
    def __init__(self, config):
        super().__init__()
        global WIDTH
        WIDTH = config["MODEL"]["WIDTH"]
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x) * WIDTH
'''
FILES = {"LICENSE": "Do as you like.\n", MODEL_FILE: MODEL, CONFIG_FILE: "MODEL:\n  WIDTH: 3\n"}


def blob_id(content: bytes) -> str:
    """Return what git calls a file of that content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_pin(path: str, text: str) -> FilePin:
    """Pin one file."""
    content = text.encode()
    return FilePin(
        path=path, sha256=hashlib.sha256(content).hexdigest(), blob=blob_id(content)[:12]
    )


def fake_pins(
    files: dict[str, str] = FILES, name: str = "Somebody/Tiny", commit: str = "0" * 40
) -> Pins:
    """Return pins of one repository with one network `tiny`, and the real stand-in."""
    repository = RepositoryPin(
        name=name,
        commit=commit,
        license="MIT",
        files=tuple(file_pin(path, text) for path, text in files.items()),
    )
    network = NetworkPin(
        name="tiny",
        repository=repository.key,
        file=MODEL_FILE,
        class_name="Tiny",
        config=CONFIG_FILE,
        standin="hrnet_w18_small",
        keys="",
    )
    return Pins(
        repositories=(repository,), standin=real_standin(), networks={network.name: network}
    )


def real_standin() -> StandInPin:
    """Return the committed pin of the stand-in."""
    return load_pins().standin


def write_tree(folder: Path, files: dict[str, str] = FILES) -> Path:
    """Write files at their usual paths."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def make_clone(folder: Path, files: dict[str, str] = FILES) -> str:
    """Write files and commit them to a new git repository; return the commit."""
    write_tree(folder, files)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "files")
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as nobody in particular; return what it prints."""
    command = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
