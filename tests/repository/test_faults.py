"""docs/faults.md is what the tests say, and the tests look for what it says is told."""

import ast
import re

from tests.fault_table import PAGE, faults, page
from tests.repository.tree import ROOT

# What issue and README promise; each word must be in a row's first column.
TRIED = (
    *("SIGKILL at", "SIGKILL of a study", "disk full", "read-only", "truncated checkpoint"),
    *("bit-flipped checkpoint", "truncated record", "bit-flipped record", "data file", "trace"),
    *("executed notebook", "dies of memory", "kernel that dies", "clock", "earlier version"),
    *("older schema", "data set changed", "NaN loss", "edited by hand", "two launches", "Ctrl-C"),
)
# Writing in these packages goes through `reproduction.durable`, which writes `partial`.
WRITES = re.compile(r"\.(write_text|write_bytes|savefig|save_file)$")


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.fault_table`"


def test_every_promised_fault_is_tried() -> None:
    rows = [fault.what for fault in faults()]
    assert [word for word in TRIED if not any(word in row for row in rows)] == []
    assert len(rows) == len(set(rows))


def test_what_is_told_is_looked_for() -> None:
    for fault in faults():
        path, _, name = fault.test.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        (function,) = (it for it in tree.body if getattr(it, "name", "") == name)
        uses = sum(isinstance(it, ast.Name) and it.id == "told" for it in ast.walk(function))
        assert bool(fault.told) == bool(uses), fault.test


def test_results_are_written_whole_or_not_at_all() -> None:
    written = []
    for package in ("reproduction", "comparison"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and WRITES.search(ast.unparse(node.func)):
                    said = ast.unparse(node)
                    written.append((path.name, said))
    assert len(written) >= 4
    assert [it for it in written if "partial" not in it[1] and it[0] not in FETCHED] == []


# Downloads into a folder that takes its name when it is whole; a switch of the kernel, no file.
FETCHED = ("sources.py", "memory.py")
