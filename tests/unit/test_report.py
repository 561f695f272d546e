"""The report: what it refuses, what it prints where nothing ran, and that its bytes are stable."""

import json
import re
import shutil
from pathlib import Path

import pytest
import typst

from comparison import report
from comparison.report import NOT_RUN, ReportError, build, check_text, collect, read_text
from comparison.study import ROOT

FIGURE = """<svg xmlns="http://www.w3.org/2000/svg" width="240pt" height="120pt">
<metadata>run {run}</metadata><rect width="240" height="{height}" fill="#1f63b4"/></svg>"""


def texts_of(root: Path) -> dict[str, str]:
    return read_text(root, "sections/*.typ") | read_text(root, "*.typ")


def keys_of(root: Path) -> set[str]:
    asked = report.names_asked(texts_of(root))
    return {name for _, function, name in asked if function in ("num", "std", "both")}


def write_numbers(root: Path, study: str, numbers: dict[str, str]) -> None:
    path = root / "results" / study / "tables" / "numbers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {key: {"text": text, "source": "records/a/b.json"} for key, text in numbers.items()}
    path.write_text(json.dumps(entries), encoding="utf-8")


def rewrite(root: Path, section: str, old: str, new: str) -> None:
    path = next((root / "reports" / "sections").glob(f"*{section}*.typ"))
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def printed(root: Path, study: str, key: str) -> set[str]:
    """What the typeset document prints for a key."""
    data = collect(study, texts_of(root), root)
    found = typst.query(
        str(root / "reports" / "report.typ"),
        "<number>",
        root=str(root),
        ignore_system_fonts=True,
        sys_inputs={"data": json.dumps(data)},
    )
    values = [entry["value"] for entry in json.loads(found)]
    return {value["text"] for value in values if (value["study"], value["key"]) == (study, key)}


@pytest.fixture(autouse=True)
def clean_source(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"commit": "0123456789abcdef", "dirty": False, "lock_sha256": "absent"}
    monkeypatch.setattr(report, "source_state", lambda: state)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the real text, and two studies whose every number is there."""
    kept = shutil.ignore_patterns("*.pdf")
    shutil.copytree(ROOT / "reports", tmp_path / "reports", ignore=kept)
    for study, value in (("quick", "71.25"), ("standard", "88.50")):
        numbers = dict.fromkeys(keys_of(tmp_path), value) | {"study.failures": "0"}
        write_numbers(tmp_path, study, numbers)
    return tmp_path


def test_report_is_built_into_its_study_and_leaves_nothing_else(root: Path) -> None:
    before = set(root.rglob("*"))
    path = build("quick", root=root)
    assert path == root / "results" / "quick" / "report.pdf"
    assert path.read_bytes().startswith(b"%PDF-")
    assert set(root.rglob("*")) - before == {path}


def test_report_has_the_course_s_sections_in_order(root: Path) -> None:
    data = {"data": json.dumps(collect("quick", texts_of(root), root))}
    source = str(root / "reports" / "report.typ")
    options = {"root": str(root), "ignore_system_fonts": True, "sys_inputs": data}
    found = json.loads(typst.query(source, "heading.where(level: 1)", field="body", **options))
    assert [heading["text"] for heading in found][:8] == [
        "Introduction",
        "Related Works",
        "Problem Definition",
        "Approach",
        "Technique Details",
        "Experiments and Performance",
        "Insights Analysis",
        "Conclusion",
    ]


def test_same_inputs_give_the_same_bytes(root: Path) -> None:
    first = build("quick", root=root).read_bytes()
    second = build("quick", root / "again.pdf", root=root).read_bytes()
    assert first == second


def test_unknown_number_is_named_with_its_section(root: Path) -> None:
    rewrite(root, "conclusion", "= Conclusion", '= Conclusion\n#num("training.bogus")')
    with pytest.raises(ReportError, match=r'8_conclusion\.typ.*"training\.bogus".*not exist'):
        build("quick", root=root)


@pytest.mark.parametrize("name", ['#fig("bogus")', '#tab("bogus")'])
def test_figure_that_no_study_makes_is_refused(root: Path, name: str) -> None:
    rewrite(root, "conclusion", "= Conclusion", f"= Conclusion\n{name}")
    with pytest.raises(ReportError, match=r"8_conclusion\.typ asks for .*bogus.*no study makes"):
        build("quick", root=root)


def test_known_number_without_a_result_is_not_run(root: Path) -> None:
    write_numbers(root, "quick", {})
    assert printed(root, "quick", "training.difference") == {NOT_RUN}
    assert build("quick", root=root).exists()


def test_numbers_of_the_standard_study_stay_apart(root: Path) -> None:
    data = collect("quick", texts_of(root), root)
    assert set(data["numbers"].values()) == {"71.25", "0"}
    assert set(data["standard_numbers"].values()) == {"88.50"}
    assert printed(root, "quick", "training.difference") == {"71.25"}


def test_report_does_without_a_standard_study(root: Path) -> None:
    shutil.rmtree(root / "results" / "standard")
    data = collect("quick", texts_of(root), root)
    assert set(data["standard_numbers"].values()) == {NOT_RUN}
    assert build("quick", root=root).exists()


def test_standard_study_does_not_print_itself_twice(root: Path) -> None:
    assert printed(root, "standard", "training.difference") == {"88.50"}


@pytest.mark.parametrize(
    "line", ["The accuracy is 91.4 %.", "It is equal in 6 runs.", "W180 wins."]
)
def test_planted_digit_is_refused(root: Path, line: str) -> None:
    rewrite(root, "insights", "= Insights Analysis", f"= Insights Analysis\n\n{line}")
    with pytest.raises(ReportError, match=r"7_insights\.typ, line \d+: .* typed by hand"):
        build("quick", root=root)


def test_digits_in_keys_references_and_listed_names_are_no_results() -> None:
    sections = {"a.typ": 'W18 @he2015delving has #num("speed.w18") in float64, @tab-x2.'}
    check_text(sections, ["W18", "float64"])
    with pytest.raises(ReportError, match=r"a\.typ, line 1: 'float64,'"):
        check_text(sections, ["W18"])


def test_digits_in_comments_are_not_printed(root: Path) -> None:
    rewrite(root, "insights", "= Insights Analysis", "= Insights Analysis // 12 of 13")
    assert build("quick", root=root).exists()


def test_bare_number_cannot_be_listed_as_a_name(root: Path) -> None:
    path = root / "reports" / "terms.toml"
    path.write_text('names = ["W18", "91.4 %"]', encoding="utf-8")
    with pytest.raises(ReportError, match=r"'91\.4 %', a bare number"):
        build("quick", root=root)


def test_every_listed_name_is_used() -> None:
    text = "\n".join(read_text(ROOT, "sections/*.typ").values())
    assert [term for term in report.allowed_terms() if term not in text] == []


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"a": 3}', '{"a": {"text": 3}}'])
def test_damaged_numbers_give_one_sentence(root: Path, content: str) -> None:
    path = root / "results" / "quick" / "tables" / "numbers.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        ReportError, match=r"^results/quick/tables/numbers\.json is missing or damaged"
    ) as told:
        build("quick", root=root)
    assert "\n" not in str(told.value)


def test_study_without_results_is_refused(root: Path) -> None:
    with pytest.raises(ReportError, match=r"'bogus' has no folder results/bogus; run `make report"):
        build("bogus", root=root)


def test_table_without_an_expected_column_is_one_message(root: Path) -> None:
    path = root / "results" / "quick" / "tables" / "claims.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ReportError, match=r"does not compile: .*claims\.csv has no column"):
        build("quick", root=root)


def test_changed_source_marks_the_report(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = build("quick", root / "clean.pdf", root=root).read_bytes()
    state = {"commit": "0123456789abcdef", "dirty": True, "lock_sha256": "absent"}
    monkeypatch.setattr(report, "source_state", lambda: state)
    assert marks(root) == ["uncommitted changes"]
    assert build("quick", root / "dirty.pdf", root=root).read_bytes() != clean


def test_failed_jobs_are_told(root: Path) -> None:
    numbers = dict.fromkeys(keys_of(root), "71.25") | {"study.failures": "1"}
    write_numbers(root, "quick", numbers)
    table = root / "results" / "quick" / "tables" / "failures.csv"
    table.write_text("job,sentence,where\ntraining/a,disk full,a.ipynb\n", encoding="utf-8")
    first = build("quick", root=root).read_bytes()
    table.write_text("job,sentence,where\ntraining/a,out of memory,a.ipynb\n", encoding="utf-8")
    assert build("quick", root=root).read_bytes() != first


def marks(root: Path) -> list[str]:
    """The marks on the first page of the typeset document."""
    found = typst.query(
        str(root / "reports" / "report.typ"),
        "<dirty-mark>",
        root=str(root),
        ignore_system_fonts=True,
        sys_inputs={"data": json.dumps(collect("quick", texts_of(root), root))},
    )
    return [re.sub(r"\s+", " ", entry["value"]) for entry in json.loads(found)]


def test_committed_source_leaves_no_mark(root: Path) -> None:
    assert marks(root) == []


def test_authors_come_from_the_metadata(root: Path) -> None:
    path = root / "reports" / "metadata.toml"
    path.write_text(
        'title = "Another Title"\n[[authors]]\nname = "Ada Lovelace"\nemail = "ada@example.org"\n',
        encoding="utf-8",
    )
    author = {"name": "Ada Lovelace", "affiliation": "", "email": "ada@example.org"}
    assert collect("quick", texts_of(root), root)["metadata"]["authors"] == [author]
    pdf = build("quick", root=root).read_bytes()
    assert b"Ada Lovelace" in pdf and b"Another Title" in pdf


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("title = ", "cannot be read"),
        ('title = "A"\n', "at least one"),
        ('title = "A"\n[[authors]]\nemail = "x"\n', "author without a name"),
    ],
)
def test_damaged_metadata_gives_one_sentence(root: Path, content: str, told: str) -> None:
    (root / "reports" / "metadata.toml").write_text(content, encoding="utf-8")
    with pytest.raises(ReportError, match=told):
        build("quick", root=root)


def test_figure_that_differs_only_in_its_metadata_is_identical(root: Path) -> None:
    for study, run, height in (("quick", "a", 90), ("standard", "b", 90)):
        path = root / "results" / study / "figures" / "cost_accuracy.svg"
        path.parent.mkdir(parents=True)
        path.write_text(FIGURE.format(run=run, height=height), encoding="utf-8")
    folders = root / "results" / "quick", root / "results" / "standard"
    assert report.identical_figures(*folders) == ["cost_accuracy"]
    path.write_text(FIGURE.format(run="b", height=40), encoding="utf-8")
    assert report.identical_figures(*folders) == []
    assert build("quick", root=root).exists()
