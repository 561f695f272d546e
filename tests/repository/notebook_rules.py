"""Rules for notebooks. Each takes a tree and returns its findings, one sentence each."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat

from tests.repository.tree import files

CODE_CELLS = 12
CODE_LINES = 10
PARAMETER_LINES = 14  # one a parameter
COMMON_PARAMETERS = {"network", "data", "seed", "device", "results_dir"}
NAME = re.compile(r"\d\d_[a-z_]+")

Notebook = dict[str, Any]


def _notebooks(root: Path) -> Iterator[tuple[str, Notebook]]:
    for path in files(root, ".ipynb"):
        yield path.relative_to(root).as_posix(), json.loads(path.read_text(encoding="utf-8"))


def _each(root: Path, check: Callable[[Notebook], Iterator[str]]) -> list[str]:
    return [f"{name}: {found}" for name, notebook in _notebooks(root) for found in check(notebook)]


def source_of(cell: dict[str, Any]) -> str:
    """Return a cell's text; the format allows a string or a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _code(notebook: Notebook) -> list[str]:
    return [source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def code_of(path: Path) -> ast.Module:
    """Return the syntax tree of all code cells of a notebook, one after the other."""
    return ast.parse("\n".join(_code(json.loads(path.read_text(encoding="utf-8")))))


def names_tell_order_and_question(root: Path) -> list[str]:
    """Notebooks lie in notebooks/ and are called 01_networks and so on."""
    return [
        f"{name} is not notebooks/NN_question.ipynb"
        for name, _ in _notebooks(root)
        if not (name.startswith("notebooks/") and NAME.fullmatch(Path(name).stem))
    ]


def format_is_valid(root: Path) -> list[str]:
    """Every notebook obeys the notebook format."""

    def check(notebook: Notebook) -> Iterator[str]:
        try:
            nbformat.validate(nbformat.from_dict(notebook))
        except nbformat.ValidationError as error:
            yield f"is not a valid notebook: {error.message}"

    return _each(root, check)


def nothing_executed_is_stored(root: Path) -> list[str]:
    """No outputs, no execution counts, no trace of papermill."""

    def check(notebook: Notebook) -> Iterator[str]:
        for number, cell in enumerate(notebook["cells"], 1):
            if cell.get("outputs") or cell.get("execution_count") is not None:
                yield f"cell {number} is stored with its output"
        if "papermill" in notebook["metadata"]:
            yield "is an executed copy"

    return _each(root, check)


def kernel_is_python3(root: Path) -> list[str]:
    """Every notebook asks for the kernel that every installation has."""

    def check(notebook: Notebook) -> Iterator[str]:
        name = notebook["metadata"].get("kernelspec", {}).get("name")
        if name != "python3":
            yield f"asks for the kernel {name!r}"

    return _each(root, check)


def parameters_come_second(root: Path) -> list[str]:
    """A text cell, then the one cell tagged parameters, which holds plain scalars only."""

    def check(notebook: Notebook) -> Iterator[str]:
        cells = notebook["cells"]
        tagged = [n for n, cell in enumerate(cells, 1) if "parameters" in _tags(cell)]
        if tagged != [2] or cells[0]["cell_type"] != "markdown":
            yield f"has its parameters in cells {tagged}; cell 1 is text and cell 2 has them"
            return
        given = {}
        for node in ast.parse(source_of(cells[1])).body:
            if not _is_scalar_assignment(node):
                yield f"has a parameter that is no plain scalar: {ast.unparse(node)}"
            else:
                given[ast.unparse(node.targets[0])] = node  # type: ignore[attr-defined]
        if missing := COMMON_PARAMETERS - given.keys():
            yield f"lacks the parameters {sorted(missing)}"

    return _each(root, check)


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def _is_scalar_assignment(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    try:
        value = ast.literal_eval(node.value)
    except ValueError:
        return False
    return isinstance(value, str | int | float | bool)


def cells_are_few_and_short(root: Path) -> list[str]:
    """At most CODE_CELLS code cells, of at most CODE_LINES lines each; parameters may have more."""

    def check(notebook: Notebook) -> Iterator[str]:
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        if len(code) > CODE_CELLS:
            yield f"has {len(code)} code cells; the limit is {CODE_CELLS}"
        for number, cell in enumerate(code, 1):
            limit = PARAMETER_LINES if "parameters" in _tags(cell) else CODE_LINES
            if (length := len(source_of(cell).splitlines())) > limit:
                yield f"code cell {number} has {length} lines; the limit is {limit}"

    return _each(root, check)


def code_lives_in_packages(root: Path) -> list[str]:
    """Cells call; they define nothing, loop over nothing and do not touch the import path."""

    def check(notebook: Notebook) -> Iterator[str]:
        for source in _code(notebook):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, DEFINITIONS):
                    yield f"has a {type(node).__name__} in a cell: {ast.unparse(node)[:60]}"
                elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
                    yield "touches sys.path"

    return _each(root, check)


DEFINITIONS = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
    *(ast.For, ast.AsyncFor, ast.While),
)
