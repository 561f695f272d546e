"""The lock, pyproject.toml and environment.yml agree, and each rule catches its violation."""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.repository import environment_rules as rules
from tests.repository.tree import ROOT, plant

Rule = Callable[[Path], list[str]]
FILES = ("requirements.lock", "pyproject.toml", "environment.yml", "README.md")
# rule, file, text to replace, its replacement, the finding
PLANTED = [
    (rules.lock_is_exact, "requirements.lock", "numpy==", "numpy>=", "numpy>="),
    (rules.lock_is_exact, "requirements.lock", "\nanyio", "\n--index-url x\nanyio", "--index-url"),
    (rules.lock_is_exact, "requirements.lock", "torch==2.14.1", "torch==2.14.1+cpu", "+cpu"),
    (rules.lock_is_exact, "requirements.lock", "\nanyio", "\nrfc3987-syntax==1\nanyio", "slows"),
    (
        rules.lock_is_exact,
        "requirements.lock",
        "3.8.0 ; sys_platform == 'linux'",
        "3.8.0",
        "triton",
    ),
    (rules.lock_is_exact, "requirements.lock", "\nanyio", "\nzanyio", "sorted"),
    (rules.dependencies_are_locked, "requirements.lock", "pandas==3.1.1", "pandas==3.1", "pandas"),
    (rules.dependencies_are_locked, "requirements.lock", "\npandas==3.1.1", "", "has None"),
    (rules.dependencies_are_locked, "pyproject.toml", "pandas==3.1.1", "pandas", "does not pin"),
    (rules.conda_uses_the_lock, "environment.yml", "python=3.11", "python=3.12", "3.12"),
    (
        rules.conda_uses_the_lock,
        "environment.yml",
        "  - pip\n",
        "  - pip\n  - pytorch\n",
        "pytorch",
    ),
    (rules.conda_uses_the_lock, "environment.yml", "nodefaults", "defaults", "'defaults'"),
    (
        rules.conda_uses_the_lock,
        "environment.yml",
        "channels:",
        "prefix: /opt\nchannels:",
        "prefix",
    ),
    (rules.dependencies_have_a_reason, "README.md", "| torch", "| thorch", "no reason for torch"),
    (rules.dependencies_have_a_reason, "pyproject.toml", '"tqdm==', '"tkdm==', "explains tqdm"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a tree with the files that say what is installed."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "rule",
    [
        *dict.fromkeys(row[0] for row in PLANTED),
        rules.imports_are_declared,
        rules.dependencies_are_used,
    ],
    ids=lambda rule: rule.__name__,
)
def test_the_repository_obeys(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "name", "old", "new", "finding"), PLANTED)
def test_a_planted_violation_is_found(
    copy: Path, rule: Rule, name: str, old: str, new: str, finding: str
) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    assert old in text
    findings = rule(plant(copy, name, text.replace(old, new, 1)))

    assert any(finding in found for found in findings), findings


def test_an_undeclared_import_is_found(copy: Path) -> None:
    plant(copy, "workflow/a.py", "import numpy\ndef f():\n    import requests\n")

    assert rules.imports_are_declared(copy) == [
        "workflow/a.py:3 imports requests (requests), which pyproject.toml does not name"
    ]


def test_an_import_is_matched_to_its_package_not_to_its_name(copy: Path) -> None:
    plant(copy, "workflow/a.py", "import sklearn.datasets, yaml\nfrom PIL import Image\n")

    assert rules.imports_are_declared(copy) == []


def test_a_dependency_that_nothing_imports_is_found(copy: Path) -> None:
    plant(copy, "workflow/a.py", "import numpy\n")
    findings = rules.dependencies_are_used(copy)

    assert "pyproject.toml names pandas, which nothing imports" in findings
    assert not any("numpy" in finding for finding in findings)


def test_what_runs_here_is_what_is_locked() -> None:
    locked = rules.locked_versions(ROOT)
    installed = {name: version(name).partition("+")[0] for name in rules.dependency_names(ROOT)}

    assert installed == {name: locked[name] for name in installed}
