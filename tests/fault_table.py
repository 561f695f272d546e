"""The table of faults tried against outcome, from the marks of the tests that try them.

``python -m tests.fault_table`` writes docs/faults.md. A row is a test's mark ``fault``: what goes
wrong, how it is made to, the sentence that is told (the test looks for it) and what is kept.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from tests.repository.tree import ROOT

PAGE = ROOT / "docs" / "faults.md"
HEAD = """# Faults tried, and what came of them

Every row is a test, and this page is made from the tests' own marks by
`python -m tests.fault_table`; a test fails if it is out of date. What a row says is told is what
its test looks for in the message. Where nothing is told, the run goes on by itself. `make test`
runs the fast ones, `make test-full` the rest; one alone: `.venv/bin/python -m pytest -m "" ID`.

| fault | how it is made | what is told | what is kept | test |
| --- | --- | --- | --- | --- |
"""
TAIL = """
## What keeps it so

- Every file is written beside its place, forced to the disk and moved there in one step
  (`reproduction/durable.py`); what a kill leaves of it is removed by the next launch.
- A checkpoint carries the SHA-256 of its content, and the one before it is kept
  (`reproduction/resume.py`). A run goes on in the middle of an epoch.
- A record carries its SHA-256, and every record ever written has an entry in a hash chain,
  `results/<study>/ledger` (`comparison/ledger.py`): a record that was edited and sealed again, or
  is not the last one of its job, is refused. Whoever writes the whole chain anew is not noticed by
  it; the committed study's chain lies in version control.
- A launch owns its processes (`workflow/processes.py`), and one folder has one launch
  (`workflow/lock.py`). A kernel whose papermill is gone ends within a second; until then it can
  only write what the run would have written.

## What is not covered

- A bit that flips in memory or on the disk between a check and the use of what was checked.
- A flipped bit in the text of an executed notebook's outputs: it is still a notebook, and nothing
  is made from it.
- File systems that neither lock files nor know hard links: the ledger cannot be written there, and
  says so.
"""


class Fault(NamedTuple):
    """A row of the table."""

    what: str
    how: str
    told: str
    kept: str
    test: str
    is_slow: bool


def faults() -> list[Fault]:
    """Collect the marks of all tests, by what goes wrong; nothing is imported for it."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        slow_file = any("mark.full" in ast.unparse(node.value) for node in _pytestmarks(tree))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                marks = [ast.unparse(it) for it in node.decorator_list]
                is_slow = slow_file or "pytest.mark.full" in marks
                test = f"{path.relative_to(ROOT)}::{node.name}"
                found += [Fault(*row, test, is_slow) for row in _rows(node)]
    return sorted(found)


def _pytestmarks(tree: ast.Module) -> Iterator[ast.Assign]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            yield node


def _rows(function: ast.FunctionDef) -> Iterator[tuple[str, str, str, str]]:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
            what = ast.literal_eval(mark.args[0])
            named = {it.arg: ast.literal_eval(it.value) for it in mark.keywords}
            yield what, named["how"], named["told"], named["kept"]


def page() -> str:
    """Return the page as Markdown."""
    lines = []
    for fault in faults():
        told = f"“…{fault.told}…”" if fault.told else "nothing"
        tier = "full" if fault.is_slow else "fast"
        cells = (fault.what, fault.how, told, fault.kept, f"`{fault.test}` ({tier})")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return HEAD + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{len(faults())} faults in {PAGE.relative_to(ROOT)}")
