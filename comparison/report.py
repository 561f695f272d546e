"""Typeset a study's report: the text in `reports/`, the numbers, tables and figures in `results/`.

No result is typed in the text. A section writes ``#num("key")`` for a number of the PDF's own
study and ``#std("key")`` for the committed standard study's; `check_text` refuses digits that are
neither a key nor a listed name. The same inputs give the same bytes: the PDF's date is that of
the study's newest record.

Command line: ``python -m comparison report --study NAME``.
"""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typst

from comparison.products import FIGURES, NUMBERS, TABLES
from comparison.provenance import source_state
from comparison.record import read_records
from comparison.study import ROOT
from reproduction import UserError
from reproduction.durable import write_whole

STANDARD = "standard"
NOT_RUN = "not run"
PROFILES: list[Any] = [
    "a-2a",
    "ua-1",
]  # for archives, and for screen readers: everything has a spoken form
NO_RECORD = "1970-01-01T00:00:00+00:00"

_CALL = re.compile(r'#?\b(num|std|both|fig|tab)\(\s*"([^"]*)"')
_COMMENT = re.compile(r"(?<!:)//[^\n]*")
_REFERENCE = re.compile(r"@[\w:.-]*\w|<[\w:.-]+>")
_IMPORT = re.compile(r'^#import "[^"]+".*$', re.MULTILINE)
_SVG_METADATA = re.compile(rb"<metadata>.*?</metadata>", re.DOTALL)


class ReportError(UserError):
    """The report cannot be built; the message says why and where."""


def build(study: str, out: Path | None = None, *, root: Path = ROOT) -> Path:
    """Build a study's report, whole or not at all.

    Args:
        study: Name of the study, a folder of `results/`.
        out: The PDF to write; `results/<study>/report.pdf` by default.
        root: Folder that holds `reports/` and `results/`.

    Returns:
        Path of the PDF.

    Raises:
        ReportError: The study has no results, a file is damaged, the text types a digit or names
            something that does not exist, or Typst finds an error.
    """
    sections = read_text(root, "sections/*.typ")
    check_text(sections, allowed_terms(root))
    pdf = typeset(collect(study, sections | read_text(root, "*.typ"), root), root)
    target = Path(out) if out else root / "results" / study / "report.pdf"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, pdf)
    except OSError as problem:
        raise ReportError(
            f"{target} could not be written ({problem.strerror}): free some space or name another "
            "file, and build again"
        ) from problem
    return target


def typeset(data: dict[str, Any], root: Path = ROOT) -> bytes:
    """Run Typst on the collected data; a warning is an error (a missing font only warns)."""
    moment = datetime(**data["date"], tzinfo=UTC)
    try:
        pdf, warnings = typst.compile_with_warnings(
            str(root / "reports" / "report.typ"),
            root=str(root),
            format="pdf",
            ignore_system_fonts=True,
            sys_inputs={"data": json.dumps(data, sort_keys=True)},
            pdf_standards=PROFILES,
            timestamp=int(moment.timestamp()),
        )
    except typst.TypstError as problem:
        raise ReportError(f"the report does not compile: {problem.diagnostic}") from None
    if warnings:
        told = "\n".join(warning.diagnostic for warning in warnings)
        raise ReportError(f"the report compiles with warnings, which count as errors: {told}")
    return pdf


def read_text(root: Path, pattern: str) -> dict[str, str]:
    """Return the Typst files of `reports/` by name, comments and imports blanked."""
    texts = {}
    for path in sorted((root / "reports").glob(pattern)):
        texts[path.name] = _IMPORT.sub("", _COMMENT.sub("", path.read_text(encoding="utf-8")))
    return texts


def allowed_terms(root: Path = ROOT) -> list[str]:
    """Return the names and formulas with digits that the text may use, longest first.

    Raises:
        ReportError: `reports/terms.toml` is damaged, or allows a bare number.
    """
    terms = [term for group in _read_toml(root, "terms.toml").values() for term in group]
    for term in terms:
        if re.fullmatch(r"[\s\d.,+−%-]*", term):
            raise ReportError(f"reports/terms.toml allows {term!r}, a bare number; allow names")
    return sorted(terms, key=len, reverse=True)


def check_text(sections: dict[str, str], terms: list[str]) -> None:
    """Refuse digits that are neither part of an allowed term nor of a key.

    >>> check_text({"a.typ": 'W18 has #num("networks.count") siblings.'}, ["W18"])

    Raises:
        ReportError: Naming the section, the line and the digits.
    """
    alternatives = "|".join(re.escape(term) for term in terms) or "$^"
    known = re.compile(rf"(?<![\w.])(?:{alternatives})(?!\w|\.\d)")
    for name, text in sections.items():
        for number, line in enumerate(text.splitlines(), start=1):
            rest = known.sub(" ", _REFERENCE.sub(" ", _CALL.sub(" ", line)))
            if found := re.search(r"\S*\d\S*", rest):
                raise ReportError(
                    f"{name}, line {number}: {found.group()!r} is typed by hand; write a result "
                    'as #num("key"), and list a name with digits in reports/terms.toml'
                )


def collect(study: str, texts: dict[str, str], root: Path = ROOT) -> dict[str, Any]:
    """Assemble what the template reads: numbers by key, the files that exist, where from."""
    own, standard = root / "results" / study, root / "results" / STANDARD
    if not own.is_dir():
        raise ReportError(
            f"study {study!r} has no folder results/{study}; run `make report STUDY={study}`"
        )
    check_names(texts)
    numbers = {folder: read_numbers(folder) for folder in (own, standard)}
    known = numbers[own].keys() | numbers[standard].keys()
    records = read_records(own)
    newest = max((record["created_utc"] for record in records), default=NO_RECORD)
    day = datetime.fromisoformat(newest).astimezone(UTC)
    return {
        "study": study,
        "metadata": read_metadata(root),
        "commit": source_state()["commit"][:12],
        "dirty": _is_dirty(records, root),
        "date": {"year": day.year, "month": day.month, "day": day.day},
        "command": f"make report STUDY={study}",
        "numbers": used_numbers(texts, ("num", "both"), numbers[own], known),
        "standard_numbers": used_numbers(texts, ("std", "both"), numbers[standard], known),
        "own": _side(own, root),
        "standard": _side(standard, root),
        "identical_figures": identical_figures(own, standard),
    }


def names_asked(texts: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield (section, function, name) for every number, figure and table the text asks for."""
    for section, text in texts.items():
        for function, name in _CALL.findall(text):
            yield section, function, name


def check_names(texts: dict[str, str]) -> None:
    """Refuse figures and tables that no study makes; one that did not run is another matter."""
    for section, function, name in names_asked(texts):
        made = {"fig": FIGURES, "tab": TABLES}.get(function)
        if made and name not in made:
            raise ReportError(
                f'{section} asks for #{function}("{name}"), which no study makes; '
                f"there are {', '.join(made)}"
            )


def used_numbers(
    texts: dict[str, str],
    functions: tuple[str, ...],
    numbers: dict[str, str],
    known: set[str],
) -> dict[str, str]:
    """Resolve the keys that the text asks for; a known one without a result reads "not run".

    Raises:
        ReportError: No study knows the key; the message names it and the section.
    """
    used = {}
    for section, function, key in names_asked(texts):
        if function in functions:
            if key not in known:
                raise ReportError(
                    f'{section} asks for the number "{key}", which does not exist; '
                    "comparison/numbers.py lists those that do"
                )
            used[key] = numbers.get(key, NOT_RUN)
    return used


def read_numbers(folder: Path) -> dict[str, str]:
    """Read a study's numbers as printed, by key; the standard study may have none.

    Raises:
        ReportError: The file is damaged.
    """
    path = folder / "tables" / NUMBERS
    if not path.exists() and folder.name == STANDARD:
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        texts = {key: entry["text"] for key, entry in entries.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as problem:
        raise ReportError(_damaged(path, problem)) from problem
    wrong = next((key for key, text in texts.items() if not isinstance(text, str)), None)
    if wrong:
        raise ReportError(_damaged(path, f"{wrong} has no text"))
    return texts


def _damaged(path: Path, problem: Exception | str) -> str:
    told = f"{type(problem).__name__}: {problem}" if isinstance(problem, Exception) else problem
    study = path.parent.parent.name
    return (
        f"results/{study}/tables/{path.name} is missing or damaged ({told}): run "
        f"`python -m comparison build --study {study}`, which makes it from the records"
    )


def read_metadata(root: Path = ROOT) -> dict[str, Any]:
    """Read title, keywords and authors.

    Raises:
        ReportError: The file is damaged or an author has no name.
    """
    metadata = _read_toml(root, "metadata.toml")
    authors = metadata.get("authors")
    if not (isinstance(authors, list) and authors and isinstance(metadata.get("title"), str)):
        raise ReportError("reports/metadata.toml needs a title and at least one [[authors]] entry")
    complete = [
        {field: str(author.get(field, "")).strip() for field in ("name", "affiliation", "email")}
        for author in authors
    ]
    if not all(author["name"] for author in complete):
        raise ReportError("reports/metadata.toml has an author without a name; give one")
    return {**metadata, "keywords": metadata.get("keywords", []), "authors": complete}


def _read_toml(root: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads((root / "reports" / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ReportError(f"reports/{name} cannot be read ({problem}): correct it") from problem


def _is_dirty(records: list[dict[str, Any]], root: Path) -> bool:
    """Tell whether a record or this text comes from changed source; author names may change."""
    text = ("reports", ":(exclude)reports/metadata.toml", ":(exclude)reports/*.pdf")
    command = ["git", "-C", str(root), "status", "--porcelain", "--", *text]
    try:
        changed = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        changed = ""  # no git: source_state() has said so already
    from_records = any(record["provenance"]["dirty"] for record in records)
    return bool(source_state()["dirty"] or from_records or changed.strip())


def _side(folder: Path, root: Path) -> dict[str, Any]:
    """Name the figures and tables that a study has, and its folder as Typst sees it."""
    return {
        "folder": "/" + folder.relative_to(root).as_posix(),
        "figures": [n for n in FIGURES if (folder / "figures" / f"{n}.svg").exists()],
        "tables": [n for n in TABLES if (folder / "tables" / f"{n}.csv").exists()],
    }


def identical_figures(own: Path, standard: Path) -> list[str]:
    """List the figures that two studies have in common, to the byte but for run ids inside."""
    same = []
    for name in FIGURES:
        files = [folder / "figures" / f"{name}.svg" for folder in (own, standard)]
        if all(file.exists() for file in files):
            first, second = (_SVG_METADATA.sub(b"", file.read_bytes()) for file in files)
            if first == second:
                same.append(name)
    return same
