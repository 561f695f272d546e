"""The files that the rules look at: what version control holds, or would."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("reproduction", "reference", "comparison", "workflow")
NOT_OURS = (".git/", ".venv/", ".snakemake/", "data/", "results/", "reference/official/")


def files(root: Path, *suffixes: str) -> Iterator[Path]:
    """Yield the files with one of the suffixes, in order, without what was fetched or made."""
    for name in _listed(root):
        path = root / name
        if not name.startswith(NOT_OURS) and path.suffix in suffixes and path.is_file():
            yield path


def kept_results(root: Path, *suffixes: str) -> Iterator[Path]:
    """Yield the files of the committed study that have one of the suffixes."""
    for name in _listed(root):
        if name.startswith("results/standard/") and Path(name).suffix in suffixes:
            yield root / name


@cache
def _listed(root: Path) -> list[str]:
    if not (root / ".git").exists():
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return sorted(set(done.stdout.split("\0")) - {""})


def sources(root: Path, *packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the name (relative, with slashes) and the syntax tree of the Python files."""
    for path in files(root, ".py"):
        name = path.relative_to(root).as_posix()
        if not packages or name.split("/")[0] in packages:
            yield name, parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_modules(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and line of every absolute import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno


def plant(root: Path, name: str, text: str) -> Path:
    """Write one file of a planted tree and return the tree."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    _listed.cache_clear()
    return root
