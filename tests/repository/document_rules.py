"""Rules for README.md and what else is read. Each takes a tree and returns its findings."""

import re
from pathlib import Path

import yaml

from tests.repository.source_rules import RULES
from tests.repository.tree import files

README_LINES = 150
CLAIM = re.compile(r"\bid=\"(C\d+)\"")
DEVIATION = re.compile(r"\bD[1-9]\d?\b")
LOCAL_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
VERDICT_MARKERS = ("<!-- verdicts:begin -->", "<!-- verdicts:end -->")
CITATION_KEYS = {"cff-version", "message", "title", "authors", "license", "version", "references"}


def _text(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def readme_is_short(root: Path) -> list[str]:
    """README.md has at most README_LINES lines."""
    length = len(_text(root, "README.md").splitlines())
    return [f"README.md has {length} lines"] if length > README_LINES else []


def readme_has_room_for_verdicts(root: Path) -> list[str]:
    """The markers of the generated table stand there once, in order."""
    readme = _text(root, "README.md")
    parts = [readme.count(marker) for marker in VERDICT_MARKERS]
    ordered = readme.find(VERDICT_MARKERS[0]) < readme.find(VERDICT_MARKERS[1])
    return [] if parts == [1, 1] and ordered else ["README.md lacks the markers of its verdicts"]


def claims_are_in_the_readme(root: Path) -> list[str]:
    """README.md has the command of every claim, and of no other."""
    known = set(CLAIM.findall(_text(root, "comparison/claims.py")))
    shown = set(re.findall(r"make claim ID=(C\d+)", _text(root, "README.md")))
    return [
        *(f"README.md has no command for claim {claim}" for claim in sorted(known - shown)),
        *(f"README.md has a command for {claim}, no claim" for claim in sorted(shown - known)),
    ]


def commands_exist(root: Path) -> list[str]:
    """Every `make` target that a document names is in the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", _text(root, "Makefile"), re.MULTILINE))
    return [
        f"{path.name} names `make {target}`, which does not exist"
        for path in files(root, ".md", ".yml")
        for target in re.findall(r"`make ([a-z][a-z-]*)", path.read_text(encoding="utf-8"))
        + re.findall(r"^ *(?:\$ )?make ([a-z][a-z-]*)", path.read_text("utf-8"), re.MULTILINE)
        if target not in targets
    ]


def links_lead_somewhere(root: Path) -> list[str]:
    """Every link of a document to a file of the repository finds it."""
    return [
        f"{path.relative_to(root)} links to {link}, which does not exist"
        for path in files(root, ".md")
        for link in LOCAL_LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / link).exists()
    ]


def deviations_are_numbered(root: Path) -> list[str]:
    """Every D-number that is cited exists in DEVIATIONS.md, and every one there is cited."""
    listed = set(re.findall(r"^#+ (D\d+)\b", _text(root, "DEVIATIONS.md"), re.MULTILINE))
    cited = {
        number: path.relative_to(root).as_posix()
        for path in files(root, ".py", ".typ", ".ipynb", ".toml")
        if not path.is_relative_to(root / RULES)
        for number in DEVIATION.findall(path.read_text(encoding="utf-8"))
    }
    return [
        *(f"{cited[number]} cites {number}, unknown" for number in sorted(cited.keys() - listed)),
        *(f"{number} is cited nowhere" for number in sorted(listed - cited.keys())),
    ]


def citation_is_complete(root: Path) -> list[str]:
    """CITATION.cff has what the format demands, and cites the paper."""
    citation = yaml.safe_load(_text(root, "CITATION.cff"))
    findings = [f"CITATION.cff lacks {key}" for key in sorted(CITATION_KEYS - citation.keys())]
    for entry in (citation, *citation.get("references", [])):
        for author in entry.get("authors", []):
            if not {"family-names", "given-names"} <= author.keys():
                findings.append(f"CITATION.cff has an author without a full name: {author}")
    return findings


def license_names_the_authors(root: Path) -> list[str]:
    """LICENSE is MIT's and names the authors that CITATION.cff has."""
    license_text = _text(root, "LICENSE")
    authors = yaml.safe_load(_text(root, "CITATION.cff"))["authors"]
    names = [f"{author['given-names']} {author['family-names']}" for author in authors]
    missing = [name for name in ("MIT License", *names) if name not in license_text]
    return [f"LICENSE does not say {name}" for name in missing]
