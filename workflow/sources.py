"""What a result depends on: source files, by the imports between them, and the data they read.

Each file is read once in a process, however many notebooks import it, and no syntax tree is kept:
an unchanged `make report` spends most of its time here.
"""

import ast
import json
from collections.abc import Collection, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from comparison.study import ROOT, StudyError

PACKAGES = ("reproduction", "reference", "comparison")
SOURCES = (*PACKAGES, "workflow", "notebooks", "reports", "requirements.lock")
# Data that a module reads, beside the modules that it imports.
DATA_FILES = {
    "comparison/differences.py": ("comparison/differences.toml",),
    "comparison/figures.py": ("comparison/study.mplstyle",),
    "comparison/published.py": ("comparison/published.toml",),
    "comparison/speed/statements.py": ("comparison/speed/aims.toml",),
    "reference/pins.py": ("reference/pins.toml",),
    "reference/recorded.py": ("reference/traces/*",),
    "reproduction/forms.py": ("reproduction/training_forms.toml",),
    "reproduction/published_recipes.py": ("reproduction/published_recipes.toml",),
    "reproduction/runtimes.py": ("reproduction/runtimes.toml",),
}
# Modules that notebooks import to show a result: they cannot change it.
DISPLAY = (
    "comparison/figures.py",
    "comparison/speed_figures.py",
    "comparison/tables/__init__.py",
    "comparison/tables/speed.py",
    "comparison/trial_figures.py",
    "comparison/task_figures.py",
    "comparison/cost_figures.py",
)


class _Source(NamedTuple):
    """What counts of a Python file or a notebook: its code as text, and the names it imports."""

    code: bytes
    imported: tuple[str, ...]


def sources(entry: str, root: Path = ROOT, without: Collection[str] = DISPLAY) -> list[Path]:
    """List what a notebook's or module's result depends on: itself, what it imports, their data."""
    shown = {root / name for name in without}
    found: set[Path] = set()
    waiting = [root / entry]
    while waiting:
        path = waiting.pop()
        if path.is_file() and path not in found and path not in shown:
            found.add(path)
            waiting.extend(_imported(path, root))
    for module, patterns in DATA_FILES.items():
        if root / module in found:
            found.update(path for pattern in patterns for path in root.glob(pattern))
    return sorted(found)


def audit_sources(root: Path = ROOT) -> list[Path]:
    """List what the clean-room audit reads of this repository."""
    audited = [*(root / "reproduction").rglob("*.py"), root / "CLEANROOM.md"]
    return sorted({*audited, *sources("comparison/audit.py", root)})


def digest(files: list[Path], root: Path = ROOT) -> str:
    """Hash files; layout and comments of Python, and outputs of notebooks, do not count."""
    total = sha256()
    for path in files:
        total.update(str(path.relative_to(root)).encode())
        total.update(_content(path) if path.exists() else b"absent")
    return total.hexdigest()


def _content(path: Path) -> bytes:
    return _read(path).code if path.suffix in (".py", ".ipynb") else path.read_bytes()


@cache
def _read(path: Path) -> _Source:
    """Parse a module, or a notebook's code cells."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
            text = "\n".join("".join(cell["source"]) for cell in cells)
        tree = ast.parse(text)
    except (ValueError, KeyError, TypeError, SyntaxError) as problem:
        raise StudyError(
            f"{path.name} is damaged ({type(problem).__name__}): restore it from version control"
        ) from problem
    return _Source(ast.dump(tree).encode(), tuple(_names(tree)))


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a file imports, wherever a statement may stand."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())


@cache
def _imported(path: Path, root: Path) -> frozenset[Path]:
    """Find the files of this repository that a file's imports run."""
    return frozenset(file for name in _read(path).imported for file in _modules(name, root))


@cache
def _modules(name: str, root: Path) -> tuple[Path, ...]:
    """List the files that importing a dotted name runs: each package's own and the module's."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return ()
    stems = [root.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    files = [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py")]
    return tuple(file for file in files if file.is_file())
