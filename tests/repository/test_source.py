"""The packages and tests obey the rules for Python files, and each rule catches its violation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repository import source_rules as rules
from tests.repository.tree import ROOT, plant

Rule = Callable[[Path], list[str]]


def name_of(value: object) -> str:
    """Show a rule by its name and a text by its first line."""
    return value.__name__ if callable(value) else str(value).split("\n")[0][:40]


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * rules.FUNCTION_LINES
HOME = "/ho" + "me/ada/data"
# rule, file, what is wrong in it, the finding
PLANTED = [
    (rules.imports_point_one_way, "reproduction/a.py", "import comparison.record", "comparison"),
    (rules.imports_point_one_way, "reference/a.py", "from reproduction import x", "reproduction"),
    (rules.imports_point_one_way, "comparison/a.py", "def f():\n    import workflow", "workflow"),
    (rules.imports_point_one_way, "workflow/a.py", "import tests.conftest", "tests"),
    (rules.files_are_short, "a.py", "\n" * rules.FILE_LINES, "has 351 lines"),
    (rules.functions_are_short, "a.py", LONG_FUNCTION, "f has 61 lines"),
    (rules.public_names_are_documented, "reference/a.py", '"""A."""\ndef f(): ...', "f has no"),
    (rules.public_names_are_documented, "reference/a.py", '"""A."""\nclass C: ...', "C has no"),
    (rules.public_names_are_documented, "workflow/a.py", "X = 1", "the module has no"),
    (rules.public_signatures_are_typed, "workflow/a.py", "def f(x) -> int: ...", "type for x"),
    (rules.public_signatures_are_typed, "workflow/a.py", "def f(x: int): ...", "returns"),
    (rules.public_signatures_are_typed, "workflow/a.py", "class C:\n def m(self): ...", "m lacks"),
    (rules.modules_are_named_for_what_they_do, "comparison/utils.py", "", "says nothing"),
    (rules.modules_are_named_for_what_they_do, "comparison/common/a.py", "", "says nothing"),
    (rules.nothing_is_unfinished, "a.py", "# TODO later", "unfinished"),
    (rules.nothing_is_unfinished, "a.py", "raise NotImplementedError", "unfinished"),
    (rules.loading_runs_no_foreign_code, "workflow/a.py", "import pickle", "imports pickle"),
    (
        rules.loading_runs_no_foreign_code,
        "workflow/a.py",
        "from joblib import load",
        "imports joblib",
    ),
    (rules.loading_runs_no_foreign_code, "workflow/a.py", "torch.load(f)", "without weights_only"),
    (
        rules.loading_runs_no_foreign_code,
        "workflow/a.py",
        "torch.load(f, weights_only=False)",
        "torch.load",
    ),
    (
        rules.loading_runs_no_foreign_code,
        "workflow/a.py",
        "np.load(f, allow_pickle=True)",
        "allow_pickle",
    ),
    (rules.loading_runs_no_foreign_code, "workflow/a.py", "pd.read_pickle(f)", "read_pickle"),
    *(
        (rules.loading_runs_no_foreign_code, f"{folder}/a.py", text, finding)
        for folder, text, finding in (
            ("workflow", "np.load(f)", "without allow_pickle=False"),
            ("comparison", "import yaml\nyaml.load(f, Loader=yaml.Loader)", "plain loader"),
            ("comparison", "yaml.unsafe_load(f)", "yaml.unsafe_load"),
            ("reproduction", "from torch import load", "imports load"),
            ("reproduction", "import marshal", "imports marshal"),
            ("reproduction", "exec(text)", "calls exec"),
            ("comparison", "x = eval(text)", "calls eval"),
            ("reference", "exec(compile(text, '', 'exec'))", "calls compile"),
            ("workflow", "os.system(line)", "calls os.system"),
            ("workflow", "subprocess.run(line, shell=True)", "with a shell"),
            ("reference", "archive.extractall(folder)", "archive.extractall"),
        )
    ),
    (rules.tests_assert_something, "tests/a.py", "def test_a():\n    run()", "asserts nothing"),
    (
        rules.tests_assert_something,
        "tests/a.py",
        "def test_a():\n    assert True",
        "asserts nothing",
    ),
    (rules.nothing_is_copied, "reproduction/a.py", "# Copyright (c) Microsoft", "third-party"),
    (rules.nothing_is_copied, "comparison/a.py", "# Written by Bin Xiao (b@x)", "third-party"),
    (rules.no_path_of_one_machine, "a.yaml", f"data: {HOME}", "a.yaml:1"),
    (rules.no_path_of_one_machine, "Makefile", f"all:\n\tcd {HOME}", "Makefile:2"),
    (rules.no_path_of_one_machine, "results/standard/records/a.json", f'"{HOME}"', "a.json:1"),
    (rules.no_path_of_one_machine, "a.ipynb", f'"{HOME}"', "a.ipynb:1"),
]
# What the rules must let through.
HARMLESS = [
    (rules.imports_point_one_way, "comparison/a.py", "import reference, reproduction.config"),
    (rules.imports_point_one_way, "workflow/a.py", "from comparison.record import read_record"),
    (rules.functions_are_short, "a.py", LONG_FUNCTION.removesuffix("    x = 1\n")),
    (rules.public_names_are_documented, "reference/a.py", '"""A."""\ndef _f(): ...'),
    (rules.public_signatures_are_typed, "workflow/a.py", "class C:\n def m(self) -> None: ..."),
    (rules.loading_runs_no_foreign_code, "workflow/a.py", "torch.load(f, weights_only=True)"),
    (rules.loading_runs_no_foreign_code, "workflow/a.py", "np.load(f, allow_pickle=False)"),
    (rules.loading_runs_no_foreign_code, "tests/a.py", "import pickle  # makes a bad file"),
    (rules.loading_runs_no_foreign_code, "reference/loader.py", "exec(compile(x, '', 'exec'))"),
    (rules.loading_runs_no_foreign_code, "reference/a.py", "yaml.load(f, Loader=_PlainLoader)"),
    (rules.loading_runs_no_foreign_code, "comparison/a.py", "model.eval(); re.compile(x)"),
    (rules.tests_assert_something, "tests/a.py", "def test_a():\n    assert f() == 1"),
    (rules.tests_assert_something, "tests/a.py", "def test_a():\n    with raises(E):\n        f()"),
    (rules.no_path_of_one_machine, "README.md", "see tests/home/a.py and https://site/home/page"),
]


@pytest.mark.parametrize("rule", dict.fromkeys(row[0] for row in PLANTED), ids=name_of)
def test_the_repository_obeys(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "name", "text", "finding"), PLANTED, ids=name_of)
def test_a_planted_violation_is_found(
    tmp_path: Path, rule: Rule, name: str, text: str, finding: str
) -> None:
    findings = rule(plant(tmp_path, name, text + "\n"))

    assert any(finding in found for found in findings), findings


@pytest.mark.parametrize(("rule", "name", "text"), HARMLESS, ids=name_of)
def test_what_is_allowed_is_let_through(tmp_path: Path, rule: Rule, name: str, text: str) -> None:
    assert rule(plant(tmp_path, name, text + "\n")) == []
