"""The clean-room audit finds a copied function under other names, and nothing where none is."""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reference import ReferenceUnavailable, audit, store
from reference.pins import Pins, load_pins
from reference.similarity import longest_run, ngrams, share, tokens_of
from tests.unit.fake_pins import fake_pins

TORCHVISION_FILE = "torchvision/models/googlenet.py"


@pytest.fixture
def no_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Look for official files in an empty folder; return it."""
    monkeypatch.setattr(store, "OFFICIAL", tmp_path / "official")
    return tmp_path / "official"


def longest_function(source: str) -> str:
    """Cut the longest function out of a source text."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    return ast.unparse(max(functions, key=lambda node: len(ast.unparse(node))))


def disguise(source: str) -> str:
    """Rename every identifier, annotate every argument, reformat and comment a function."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = f"renamed_{node.id}"
        elif isinstance(node, ast.Attribute):
            node.attr = f"other_{node.attr}"
        elif isinstance(node, ast.keyword | ast.arg) and node.arg:
            node.arg = f"my_{node.arg}"
        if isinstance(node, ast.arg):
            node.annotation = ast.Name("object", ast.Load())
    lines = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
    return "\n".join(f"{line}  # our own work" for line in lines) + "\n"


def plant(folder: Path, source: str) -> Path:
    """Copy our package and hide the longest function of a source in a new file of it."""
    shutil.copytree(audit.REPRODUCTION, folder / "reproduction")
    text = disguise(longest_function(source))
    (folder / "reproduction" / "planted.py").write_text(text)
    return folder / "reproduction"


def installed(path: str) -> str:
    """Read a file of an installed package."""
    import torchvision

    return (Path(torchvision.__file__).parent.parent / path).read_text()


def verdict(result: dict[str, Any], path: str) -> bool | None:
    """Return whether the rows of a source pass."""
    return next(row["passes"] for row in result["files"] if row["path"] == path)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """Return the audit of this repository."""
    return audit.run()


def test_the_reproduction_passes(result: dict[str, Any]) -> None:
    assert [row for row in result["files"] if row["passes"] is False] == []
    assert result["passes"] is True


def test_every_pinned_program_and_the_stand_in_have_a_row(result: dict[str, Any]) -> None:
    pinned = {f.sha256 for r in load_pins().repositories for f in r.files if ".py" in f.path}
    assert {row["sha256"] for row in result["files"]} == {*pinned, load_pins().standin.sha256}
    assert result["files"][-1]["source"] == "measured"


def test_the_result_can_be_recorded(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result


def test_the_limits_are_the_largest_figures_of_the_independent_pairs(result: dict) -> None:
    assert audit.read_limits() == audit.limits_of(result["controls"])
    assert result["limits"] == vars(audit.read_limits())


def test_every_declared_copy_lies_above_both_limits(result: dict[str, Any]) -> None:
    copies = [row for row in result["controls"] if row["kind"] == "copy"]
    assert len(copies) >= 3
    for row in copies:
        assert row["longest_run"] > result["limits"]["longest_run"]
        assert row["share"] > result["limits"]["share"]


def test_clean_room_page_quotes_the_figures_of_the_copies(result: dict[str, Any]) -> None:
    if len([row for row in result["controls"] if row["kind"] == "copy"]) < 4:
        pytest.skip("the official code is not there: python -m reference fetch --from PATH")
    copies = [row for row in result["controls"] if row["kind"] == "copy"]
    runs, shares = ([row[name] for row in copies] for name in ("longest_run", "share"))
    page = " ".join(audit.CLEANROOM.read_text().split())
    assert f"runs of {min(runs)} to {max(runs)} tokens" in page
    assert f"shares of {min(shares):.3f} to {max(shares):.3f}" in page


def test_a_copied_function_fails_under_other_names(no_official: Path, tmp_path: Path) -> None:
    pins = fake_pins({"net.py": installed(TORCHVISION_FILE)})
    place = no_official / pins.repositories[0].key / "net.py"
    place.parent.mkdir(parents=True)
    place.write_text(installed(TORCHVISION_FILE))

    clean = audit.measure(audit.REPRODUCTION, pins=pins)
    planted = audit.measure(plant(tmp_path, installed(TORCHVISION_FILE)), pins=pins)

    assert verdict(clean, "net.py") is True
    assert verdict(planted, "net.py") is False
    assert planted["passes"] is False
    assert planted["files"][0]["where"].startswith("reproduction/planted.py: ")


def test_a_function_copied_from_the_stand_in_fails(no_official: Path, tmp_path: Path) -> None:
    source = store.standin_file(load_pins().standin).read_text()
    result = audit.measure(plant(tmp_path, source))
    assert result["passes"] is False
    assert [row["path"] for row in result["files"] if row["passes"] is False] == ["models/hrnet.py"]


def test_many_short_copies_fail_by_their_share(no_official: Path, tmp_path: Path) -> None:
    row = {"longest_run": 10, "share": 0.5}
    limits = audit.Limits(longest_run=67, share=0.186)
    source = audit.Source(reference="x", path="x.py", sha256="0", content=None)
    assert audit.source_row(source, {}, {"0": row}, limits)["passes"] is False


def test_absent_files_take_their_figures_from_the_record(no_official: Path, tmp_path: Path) -> None:
    pins = fake_pins({"net.py": "x = 1\n"})
    pin = pins.repositories[0].files[0]
    figures = {"tokens": 3, "longest_run": 5, "where": "reproduction/a.py: f", "share": 0.01}
    row = {"sha256": pin.sha256, **figures, "source": "measured", "passes": True}
    record = tmp_path / "all.json"
    record.write_text(json.dumps({"tables": {"files": [row]}}))
    found = audit.measure(audit.REPRODUCTION, record, pins=pins)["files"][0]
    assert found == {
        **row,
        "reference": pins.repositories[0].key,
        "path": "net.py",
        "source": "recorded",
    }


def test_absent_files_without_a_record_are_not_run(no_official: Path, tmp_path: Path) -> None:
    result = audit.measure(audit.REPRODUCTION, tmp_path / "none.json", pins=small_pins())
    assert result["files"][0]["source"] == "not run"
    assert result["files"][0]["longest_run"] is None
    assert result["passes"] is True
    assert any("not run" in line for line in audit.lines_of(result))


def small_pins() -> Pins:
    """Return pins of one small program that is not there."""
    return fake_pins({"net.py": "x = 1\n"})


def test_a_damaged_record_is_one_sentence(no_official: Path, tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text('{"tables": {}}')
    with pytest.raises(ReferenceUnavailable, match=r"all\.json is damaged \(KeyError\)"):
        audit.measure(audit.REPRODUCTION, tmp_path / "all.json", pins=small_pins())


def test_an_altered_source_is_not_measured(no_official: Path) -> None:
    pins = small_pins()
    place = no_official / pins.repositories[0].key / "net.py"
    place.parent.mkdir(parents=True)
    place.write_text("x = 2\n")
    with pytest.raises(ReferenceUnavailable, match=r"net\.py has SHA-256"):
        audit.measure(audit.REPRODUCTION, pins=pins)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceUnavailable, match="nothing to audit"):
        audit.measure(tmp_path)


def test_missing_limits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceUnavailable, match=r"CLEANROOM\.md has no line"):
        audit.read_limits(tmp_path / "CLEANROOM.md")


def test_a_missing_control_package_is_named() -> None:
    with pytest.raises(ReferenceUnavailable, match="control pairs need no_such_package"):
        audit.installed_tokens("no_such_package/models/x.py")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("import a\nx = 1", "y = 2"),
        ('"""Say."""\nx = 1', "x = 1  # said"),
        ("def f(a: int) -> str: return a", "def g(b):\n    return b"),
        ("x: list[int] = [1, 2]", "y = (3, 4, 5)"),
        ("x = f'{a} and {b + 1}'", "x = 'text'"),
        ("try:\n    import a\nexcept E:\n    x = 1", "try:\n    pass\nexcept F:\n    y = 3"),
    ],
)
def test_what_is_not_program_text_makes_no_difference(first: str, second: str) -> None:
    assert tokens_of(first).codes == tokens_of(second).codes


@pytest.mark.parametrize(
    ("first", "second"),
    [("a + b", "a - b"), ("f(a)", "f[a]"), ("x = [a, b]", "x = [1, 2]"), ("x = 1", "x = 'a'")],
)
def test_what_is_program_text_does(first: str, second: str) -> None:
    assert tokens_of(first).codes != tokens_of(second).codes


def test_similarity_by_hand() -> None:
    first, second = b"abcdefgh", b"xxcdefyy"
    assert longest_run(first, second) == (4, 2)
    assert longest_run(b"ab", b"cd") == (0, 0)
    assert share(ngrams(first, 3), ngrams(second, 3)) == pytest.approx(2 / 6)
    assert share(ngrams(b"a", 3), ngrams(second, 3)) == 0.0


def test_tokens_know_their_function() -> None:
    tokens = tokens_of("class A:\n    def f(self):\n        return 1\nx = 1\n")
    assert tokens.owners[0] == "A"
    assert "f" in tokens.owners
    assert tokens.owners[-1] == "module"


def test_the_pins_of_a_test_do_not_change_the_committed_ones() -> None:
    assert replace(load_pins()) == load_pins()
