"""The notebooks obey their rules, and each rule catches its violation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat.v4 as v4
import pytest

from tests.repository import notebook_rules as rules
from tests.repository.tree import ROOT, plant

Rule = Callable[[Path], list[str]]
Change = Callable[[dict[str, Any]], Any]
PARAMETERS = 'network = "n"\ndata = "digits"\nseed = 0\ndevice = "cpu"\nresults_dir = "r"'


def good_notebook() -> dict[str, Any]:
    """Make a notebook that obeys every rule."""
    cells = [
        v4.new_markdown_cell("# What is it?"),
        v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        v4.new_code_cell("from comparison import complexity"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    return json.loads(json.dumps(notebook))


def run(source: str) -> Change:
    """Give the last cell this source."""
    return lambda notebook: notebook["cells"][2].update(source=source)


def declare(source: str) -> Change:
    """Give the parameters cell this source."""
    return lambda notebook: notebook["cells"][1].update(source=source)


OUTPUT = {"output_type": "stream", "name": "stdout", "text": "1"}
PLANTED: list[tuple[Rule, Change, str]] = [
    (rules.format_is_valid, lambda n: n["cells"][0].pop("source"), "not a valid notebook"),
    (rules.nothing_executed_is_stored, lambda n: n["cells"][2].update(outputs=[OUTPUT]), "cell 3"),
    (rules.nothing_executed_is_stored, lambda n: n["cells"][2].update(execution_count=1), "cell 3"),
    (rules.nothing_executed_is_stored, lambda n: n["metadata"].update(papermill={}), "executed"),
    (rules.kernel_is_python3, lambda n: n["metadata"]["kernelspec"].update(name="py"), "'py'"),
    (rules.kernel_is_python3, lambda n: n["metadata"].clear(), "None"),
    (rules.parameters_come_second, lambda n: n["cells"].reverse(), "parameters in cells [2]"),
    (rules.parameters_come_second, lambda n: n["cells"][1]["metadata"].clear(), "cells []"),
    (rules.parameters_come_second, declare(f"{PARAMETERS}\nx = [1]"), "no plain scalar: x = [1]"),
    (rules.parameters_come_second, declare(f"{PARAMETERS}\nx = f()"), "no plain scalar: x = f()"),
    (rules.parameters_come_second, declare(PARAMETERS.replace("seed", "sead")), "['seed']"),
    (rules.cells_are_few_and_short, run("x = 1\n" * 11), "has 11 lines"),
    (rules.cells_are_few_and_short, lambda n: n["cells"].extend(n["cells"][2:] * 11), "13 code"),
    (rules.code_lives_in_packages, run("def f():\n    pass"), "FunctionDef"),
    (rules.code_lives_in_packages, run("class C:\n    pass"), "ClassDef"),
    (rules.code_lives_in_packages, run("f = lambda x: x"), "Lambda"),
    (rules.code_lives_in_packages, run("for x in y:\n    print(x)"), "For"),
    (rules.code_lives_in_packages, run("import sys\nsys.path.append('..')"), "sys.path"),
]
RULES = [*dict.fromkeys(row[0] for row in PLANTED), rules.names_tell_order_and_question]


def name_of(value: object) -> str | None:
    """Show a rule by its name and a finding by itself."""
    return value if isinstance(value, str) else getattr(value, "__name__", None)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_the_notebooks_obey(rule: Rule) -> None:
    assert rule(ROOT) == []


def test_there_are_notebooks_to_look_at() -> None:
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))

    known = ["01_networks", "02_equivalence", "03_training", "04_speed", "05_differences"]
    assert names == [*known, "06_trial", "07_tasks", "08_scaling"]


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_good_notebook_is_let_through(tmp_path: Path, rule: Rule) -> None:
    text = json.dumps(good_notebook())

    assert rule(plant(tmp_path, "notebooks/01_networks.ipynb", text)) == []


@pytest.mark.parametrize(("rule", "change", "finding"), PLANTED, ids=name_of)
def test_a_planted_violation_is_found(
    tmp_path: Path, rule: Rule, change: Change, finding: str
) -> None:
    notebook = good_notebook()
    change(notebook)
    findings = rule(plant(tmp_path, "notebooks/01_networks.ipynb", json.dumps(notebook)))

    assert any(finding in found for found in findings), findings


@pytest.mark.parametrize("name", ["notebooks/networks.ipynb", "reports/01_networks.ipynb"])
def test_a_notebook_without_order_or_out_of_place_is_found(tmp_path: Path, name: str) -> None:
    root = plant(tmp_path, name, json.dumps(good_notebook()))

    assert rules.names_tell_order_and_question(root) == [
        f"{name} is not notebooks/NN_question.ipynb"
    ]
