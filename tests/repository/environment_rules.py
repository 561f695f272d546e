"""Rules for what is installed. Each takes a tree and returns its findings, one sentence each."""

import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

from tests.repository.notebook_rules import code_of
from tests.repository.tree import PACKAGES, files, imported_modules, sources

LOCK_LINE = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[0-9][a-z0-9.]*)"
    r"(?: ; sys_platform == '(?P<platform>linux|darwin)')?"
)
LINUX_ONLY = re.compile(r"cuda-|nvidia-|triton")
# jsonschema asks whether it is there, and importing it costs every kernel two seconds.
UNWANTED = "rfc3987-syntax"
# Called as `python -m`, by the Makefile or by a job, and imported by nobody.
CALLED = {"jupyterlab", "mypy", "papermill", "ruff", "snakemake"}
# Imported on our behalf: the kernel of the notebooks, what timm needs in torch's version, what
# torch's exporter to ONNX needs, and Snakemake's executor that the SLURM profile names.
BEHIND = {"ipykernel", "torchvision", "onnxscript", "snakemake-executor-plugin-slurm"}
DEPENDENCY_ROW = re.compile(r"^\| ([a-z][a-z0-9, -]+) \| .+ \|$")


def lock_is_exact(root: Path) -> list[str]:
    """Every line pins one version, says on which system if not on both, and names no server."""
    findings = []
    for number, line in enumerate(lock_lines(root), 1):
        found = LOCK_LINE.fullmatch(line)
        if not found:
            findings.append(f"requirements.lock, pin {number}, is not 'name==version': {line}")
        elif found["name"] == UNWANTED:
            findings.append(f"requirements.lock pins {UNWANTED}, which slows every notebook down")
        elif LINUX_ONLY.match(line) and found["platform"] != "linux":
            findings.append(f"requirements.lock lacks the Linux marker: {line}")
    if lock_lines(root) != sorted(lock_lines(root)):
        findings.append("requirements.lock is not sorted; `make lock` writes it")
    return findings


def lock_lines(root: Path) -> list[str]:
    """Return the lines of the lock that are not comments."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def locked_versions(root: Path) -> dict[str, str]:
    """Return the version of every locked package."""
    found = (LOCK_LINE.fullmatch(line) for line in lock_lines(root))
    return {match["name"]: match["version"] for match in found if match}


def dependencies_are_locked(root: Path) -> list[str]:
    """Every direct dependency is pinned, in pyproject.toml and in the lock, to the same version."""
    locked = locked_versions(root)
    findings = []
    for requirement in requirements(root):
        name, _, version = requirement.partition("==")
        if not version:
            findings.append(f"pyproject.toml does not pin {requirement}")
        elif locked.get(name) != version:
            findings.append(f"pyproject.toml pins {requirement}, the lock has {locked.get(name)}")
    return findings


def requirements(root: Path) -> list[str]:
    """Return the direct dependencies as pyproject.toml writes them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"]


def dependency_names(root: Path) -> set[str]:
    """Return the names of the direct dependencies."""
    return {requirement.partition("==")[0] for requirement in requirements(root)}


def conda_uses_the_lock(root: Path) -> list[str]:
    """environment.yml adds Python and pip to the lock, and nothing else."""
    environment = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    findings = [f"environment.yml has {key!r}" for key in environment.keys() - CONDA_KEYS]
    if environment.get("dependencies") != CONDA_DEPENDENCIES:
        findings.append(f"environment.yml depends on {environment.get('dependencies')}")
    if "defaults" in environment.get("channels", []):
        findings.append("environment.yml uses the channel 'defaults', which is not free for all")
    return findings


CONDA_KEYS = {"name", "channels", "dependencies"}
CONDA_DEPENDENCIES = ["python=3.11", "pip", {"pip": ["-r requirements.lock"]}]


def imports_are_declared(root: Path) -> list[str]:
    """What the code and the notebooks import is a direct dependency, ours, or Python's own."""
    declared = dependency_names(root)
    return [
        f"{where} imports {module} ({distribution}), which pyproject.toml does not name"
        for module, where in third_party_imports(root).items()
        if (distribution := distribution_of(module)) not in declared
    ]


def dependencies_are_used(root: Path) -> list[str]:
    """Every direct dependency is imported by us or called by name."""
    imported = {distribution_of(module) for module in third_party_imports(root)}
    unused = dependency_names(root) - imported - CALLED - BEHIND
    return [f"pyproject.toml names {name}, which nothing imports" for name in sorted(unused)]


def third_party_imports(root: Path) -> dict[str, str]:
    """Return every module of somebody else that is imported, and one place that does."""
    own = {*PACKAGES, "tests"}
    trees = [*sources(root), *((path.name, code_of(path)) for path in files(root, ".ipynb"))]
    return {
        top: f"{name}:{line}"
        for name, tree in trees
        for module, line in imported_modules(tree)
        if (top := module.split(".")[0]) not in own and top not in sys.stdlib_module_names
    }


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: list(owners) for name, owners in packages_distributions().items()}


def distribution_of(module: str) -> str:
    """Return the normalized name of the package that brings a module; its own name if none does."""
    owners = {owner.lower().replace("_", "-") for owner in _distributions().get(module, [module])}
    return min(owners, key=lambda owner: (owner != module, owner))


def dependencies_have_a_reason(root: Path) -> list[str]:
    """README's table of dependencies has a row for each direct one, and no other."""
    text = (root / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Dependencies")[2].partition("\n## ")[0]
    rows = (DEPENDENCY_ROW.match(line) for line in section.splitlines())
    explained = {name.strip() for row in rows if row for name in row[1].split(",")} - {"package"}
    declared = dependency_names(root)
    return [
        *(f"README.md gives no reason for {name}" for name in sorted(declared - explained)),
        *(f"README.md explains {name}, which is none" for name in sorted(explained - declared)),
    ]
