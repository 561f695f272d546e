"""Make a study's tables and figures again from its records and compare them with what is stored.

A table, figure or number that was edited, is out of date or is missing is a difference; a record
that was edited does not even get that far. Nothing is written to the study's folder.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from comparison import claims, ledger
from comparison.build import build
from comparison.record import read_records
from comparison.study import ROOT, Study, StudyError
from reproduction.durable import write_whole

PARTS = ("tables", "figures")
COMMITTED = "standard"  # the study whose verdicts README.md shows
README = ROOT / "README.md"
BEGIN, END = "<!-- verdicts:begin -->", "<!-- verdicts:end -->"


def differences(study: Study, folder: Path | None = None) -> list[str]:
    """Return one sentence for every stored file that its records do not give, or that is gone.

    Args:
        study: Whose records.
        folder: Where the stored files are; the study's folder by default.

    Raises:
        RecordError: A record is damaged or was edited.
        StudyError: There is no room to make the files again.
    """
    stored = folder or ROOT / study.results_dir
    with TemporaryDirectory() as fresh:
        build(study, Path(fresh))
        gone = ledger.missing(ROOT / study.results_dir)
        return [*gone, *_compare(stored, Path(fresh)), *_damaged_notebooks(stored)]


def _compare(stored: Path, fresh: Path) -> Iterator[str]:
    there, made = _files(stored), _files(fresh)
    for name in sorted(there | made):
        if name not in there:
            yield f"{name} is missing: the records give it"
        elif name not in made:
            yield f"{name} comes from no record"
        elif (stored / name).read_bytes() != (fresh / name).read_bytes():
            yield f"{name} is not what the records give: it was edited, or is out of date"


def _damaged_notebooks(stored: Path) -> Iterator[str]:
    for path in sorted((stored / "notebooks").glob("*.ipynb")):
        try:
            nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
        except Exception as problem:  # what is no notebook raises many types
            yield (
                f"notebooks/{path.name} is damaged ({type(problem).__name__}): restore it or run "
                "its job again"
            )


def _files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for part in PARTS
        for path in (folder / part).rglob("*")
        if path.is_file()
    }


def readme_differences(study: Study, readme: Path = README) -> list[str]:
    """Return a sentence if the verdict table in the README is not what the records give."""
    text = readme.read_text(encoding="utf-8")
    table = claims.verdict_table(study, read_records(study.results_dir))
    if with_verdicts(text, table) == text:
        return []
    return [
        f"{readme.name}: the verdict table is not what the records give; "
        "`python -m comparison verdicts --write` makes it"
    ]


def write_verdicts(table: str, readme: Path = README) -> None:
    """Put a verdict table between the markers of the README."""
    text = readme.read_text(encoding="utf-8")
    write_whole(readme, with_verdicts(text, table))


def with_verdicts(text: str, table: str) -> str:
    """Return a text with what stands between the markers replaced.

    Raises:
        StudyError: There is not just one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise StudyError(f"README.md needs one line {BEGIN} and one line {END}; put them back")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
