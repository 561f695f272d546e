"""`make setup`, with a lock of one small wheel: what a user meets before the first study."""

import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from tests.repository.tree import ROOT

WHEEL = {
    "tinydep.py": "VALUE = 7\n",
    "tinydep-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n",
    "tinydep-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tinydep-1.0.dist-info/RECORD": "tinydep.py,,\n",
}


def make(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make in a tree, as a user with a plain environment would."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    plain = {"PATH": os.environ["PATH"], "HOME": str(tree), "LC_ALL": "C"}
    return subprocess.run(
        ["make", *arguments, *settings],
        cwd=tree,
        env=plain,
        capture_output=True,
        text=True,
        check=False,
    )


def new_tree(parent: Path, lock: str = "tinydep==1.0\n") -> Path:
    """Write the Makefile, a lock, a package and a wheel into a folder with spaces in its name."""
    tree = parent / "a folder"
    (tree / "wheels").mkdir(parents=True)
    (tree / "reproduction").mkdir()
    (tree / "reproduction" / "__init__.py").write_text("")
    shutil.copy(ROOT / "Makefile", tree)
    (tree / "requirements.lock").write_text(f"# a lock\n{lock}")
    with zipfile.ZipFile(tree / "wheels" / "tinydep-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in WHEEL.items():
            wheel.writestr(name, text)
    return tree


def setup(tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `make setup` offline, from the tree's own wheels."""
    # The first folder is not there: pip warns of it in many words, which a user need not see.
    offline = "--no-index --find-links nowhere --find-links wheels"
    return make(tree, "setup", PIP_ARGS=offline, **variables)


def imported_from(tree: Path, cwd: Path) -> str:
    """Import our package and the dependency from a folder and say where ours came from."""
    code = "import tinydep, reproduction as r; assert tinydep.VALUE == 7; print(r.__file__)"
    command = [str(tree / ".venv" / "bin" / "python"), "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return str(Path(done.stdout.strip()).resolve().relative_to(tree.resolve()))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree that was set up once."""
    tree = new_tree(tmp_path_factory.mktemp("setup"))
    done = setup(tree)
    assert done.returncode == 0, done.stderr
    assert "is ignored" not in done.stdout + done.stderr
    return tree


def test_packages_import_from_any_folder(tree: Path, tmp_path: Path) -> None:
    assert imported_from(tree, cwd=tmp_path) == "reproduction/__init__.py"


def test_a_copied_tree_imports_its_own_packages(tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tree, tmp_path / "copy", symlinks=True)

    assert imported_from(copy, cwd=tmp_path) == "reproduction/__init__.py"


def test_a_second_setup_does_nothing(tree: Path) -> None:
    before = (tree / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    begun = time.monotonic()
    done = setup(tree)

    assert done.returncode == 0
    assert (tree / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == before
    assert time.monotonic() - begun < 2


def test_an_interrupted_setup_is_made_anew(tmp_path: Path) -> None:
    tree = new_tree(tmp_path)
    half = tree / ".venv" / "lib" / "half-installed"
    half.mkdir(parents=True)

    assert setup(tree).returncode == 0
    assert not half.exists()
    assert imported_from(tree, cwd=tmp_path) == "reproduction/__init__.py"


def test_a_failed_setup_says_why_and_leaves_no_stamp(tmp_path: Path) -> None:
    tree = new_tree(tmp_path, lock="tinydep==2.0\n")
    done = setup(tree)

    assert done.returncode != 0
    assert "tinydep==2.0" in done.stdout + done.stderr
    assert not list((tree / ".venv").glob(".installed-*"))


def test_a_cpu_only_setup_leaves_the_cuda_packages_out(tmp_path: Path) -> None:
    linux = " ; sys_platform == 'linux'\n"
    tree = new_tree(
        tmp_path, lock=f"cuda-x==1{linux}nvidia-y==1{linux}tinydep==1.0\ntriton==1{linux}"
    )
    done = setup(tree, CPU_INDEX="file:///nowhere")

    assert done.returncode == 0, done.stderr
    assert imported_from(tree, cwd=tmp_path) == "reproduction/__init__.py"


def test_an_unsuitable_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make(new_tree(tmp_path), "setup", PYTHON=str(old))

    assert done.returncode == 2
    first_line = done.stderr.splitlines()[0]
    assert (
        f"PYTHON is '{old}' (Python 3.9.1): Python 3.11 (3.11.5 or later) is needed" in first_line
    )


def test_a_missing_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = make(new_tree(tmp_path), "setup", PYTHON="")

    assert done.returncode == 2
    assert "Python 3.11 (3.11.5 or later) was not found" in done.stderr.splitlines()[0]


def test_a_python_without_venv_is_refused_in_one_sentence(tmp_path: Path) -> None:
    bare = tmp_path / "python-bare"
    bare.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
    bare.chmod(0o755)
    done = make(new_tree(tmp_path), "setup", PYTHON=str(bare))

    assert done.returncode == 2
    assert "cannot make virtual environments: install its venv package" in done.stderr


@pytest.mark.parametrize("target", ["setup", "clean"])
@pytest.mark.parametrize("kind", ["conda-meta", "photos"])
def test_a_folder_that_is_no_virtual_environment_is_never_removed(
    tmp_path: Path, target: str, kind: str
) -> None:
    tree = new_tree(tmp_path)
    precious = tree / "mine" / kind
    precious.mkdir(parents=True)
    done = make(tree, target, VENV="mine")

    assert done.returncode == 2
    assert "VENV is 'mine', which exists and is not a virtual environment" in done.stderr
    assert precious.is_dir()


def test_an_environment_path_with_spaces_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = make(new_tree(tmp_path), "setup", VENV="my env")

    assert done.returncode == 2
    assert "VENV is 'my env': give it one path without spaces" in done.stderr


def test_clean_removes_what_was_made_and_keeps_studies_that_took_long(tmp_path: Path) -> None:
    tree = new_tree(tmp_path)
    for folder in ("results/quick", "results/standard", "results/full", "a/__pycache__", "data"):
        (tree / folder).mkdir(parents=True)

    assert make(tree, "clean").returncode == 0
    kept = {path.relative_to(tree).as_posix() for path in tree.glob("*/*") if path.is_dir()}
    assert kept == {"results/standard", "results/full"}
    assert (tree / "data").is_dir()


def test_a_claim_without_a_name_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = make(new_tree(tmp_path), "claim")

    assert done.returncode == 2
    assert "which claim? README.md lists them: make claim ID=C1" in done.stderr


def test_make_alone_lists_every_command(tmp_path: Path) -> None:
    done = make(new_tree(tmp_path))
    targets = ("setup", "report", "test", "test-full", "lint", "verify", "claim", "lab", "clean")

    assert done.returncode == 0
    for target in targets:
        assert f"make {target} " in done.stdout
