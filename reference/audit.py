"""The clean-room audit: how much program text `reproduction/` shares with each HRNet source.

For every pinned official Python file and the stand-in's: the longest common run of tokens with
any file of ours, and the share of common n-grams with all of ours together. The limits stand in
CLEANROOM.md; they are the largest figures of the control pairs below. No text of the sources is
printed or stored, so whoever writes `reproduction/` may run the audit and read what it says.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

from reference import store
from reference.errors import ReferenceUnavailable
from reference.pins import Pins, load_pins
from reference.similarity import NGRAM, Tokens, longest_run, ngrams, share, tokens_of

REPOSITORY_ROOT = Path(__file__).parent.parent
REPRODUCTION = REPOSITORY_ROOT / "reproduction"
CLEANROOM = REPOSITORY_ROOT / "CLEANROOM.md"
RECORD = REPOSITORY_ROOT / "results/standard/records/audit/all.json"

# Networks written by different teams: each of torchvision's with each of timm's.
TORCHVISION_CONTROLS = (
    "convnext",
    "densenet",
    "efficientnet",
    "googlenet",
    "maxvit",
    "mnasnet",
    "mobilenetv2",
    "mobilenetv3",
    "regnet",
    "shufflenetv2",
    "squeezenet",
    "vision_transformer",
)
TIMM_CONTROLS = (
    "byobnet",
    "cspnet",
    "efficientnet",
    "maxxvit",
    "mobilenetv3",
    "nfnet",
    "vision_transformer",
    "vovnet",
)
# Files of timm that say in their own headers that they come from this file of torchvision.
COPIES = {"densenet": "densenet", "vgg": "vgg", "inception": "inception_v3"}
# timm's HRNet, which says the same of the official classification network.
OFFICIAL_FILE, STANDIN_FILE = "lib/models/cls_hrnet.py", "models/hrnet.py"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One HRNet source; `content` is None where it was not fetched."""

    reference: str
    path: str
    sha256: str
    content: bytes | None


@dataclass(frozen=True)
class Limits:
    """What the audit tolerates; more than either fails."""

    longest_run: int
    share: float


def read_limits(cleanroom: Path = CLEANROOM) -> Limits:
    """Read the limits from the table in CLEANROOM.md, the one place where they stand.

    Raises:
        ReferenceUnavailable: the file or one of its two lines is missing.
    """
    text = cleanroom.read_text(encoding="utf-8") if cleanroom.is_file() else ""
    run = re.search(r"^\| longest common run \| (\d+) tokens \|", text, re.MULTILINE)
    common = re.search(r"^\| share of common n-grams \| ([\d.]+) \|", text, re.MULTILINE)
    if run is None or common is None:
        raise ReferenceUnavailable(
            f"{cleanroom.name} has no line for the longest common run or the share of common "
            "n-grams; restore it from version control"
        )
    return Limits(longest_run=int(run[1]), share=float(common[1]))


def measure(
    reproduction_dir: Path = REPRODUCTION,
    recorded: Path | None = None,
    *,
    pins: Pins | None = None,
) -> dict[str, Any]:
    """Measure our files against every HRNet source that is there.

    Args:
        reproduction_dir: the folder under audit.
        recorded: an earlier record of the audit; it supplies figures for absent files.
        pins: the sources; the committed ones unless a test brings its own.

    Returns:
        `ngram`, `limits`, `own` (files, tokens, sha256), `files` (one dict for each source:
        `reference`, `path`, `sha256`, `tokens`, `longest_run`, `where`, `share`, `source` of the
        figures, `passes`), `controls` (see `measure_controls`), `passes`.

    Raises:
        ReferenceUnavailable: nothing to audit; an altered source; no limits.
    """
    pins, limits = pins or load_pins(), read_limits()
    own = read_own(Path(reproduction_dir))
    earlier = recorded_rows(recorded)
    found = list(sources(pins))
    files = [source_row(source, own, earlier, limits) for source in found]
    return {
        "ngram": NGRAM,
        "limits": {"longest_run": limits.longest_run, "share": limits.share},
        "own": describe(own),
        "files": files,
        "controls": [*measure_controls(), *known_copy(found)],
        "passes": all(row["passes"] is not False for row in files),
    }


def run() -> dict[str, Any]:
    """Audit this repository, with the committed record for absent files."""
    return measure(REPRODUCTION, RECORD)


def read_own(folder: Path) -> dict[str, Tokens]:
    """Normalize every Python file under a folder, by its path from the folder's parent.

    Raises:
        ReferenceUnavailable: there is none.
    """
    places = sorted(folder.rglob("*.py"))
    if not places:
        raise ReferenceUnavailable(f"nothing to audit: no Python file under {folder.name}")
    return {
        place.relative_to(folder.parent).as_posix(): tokens_of(place.read_text(encoding="utf-8"))
        for place in places
    }


def describe(own: dict[str, Tokens]) -> dict[str, Any]:
    """Say what was audited; the hash changes with any token of it."""
    digest = hashlib.sha256()
    for name, tokens in own.items():
        digest.update(f"{name}\0{tokens.codes.hex()}\0".encode())
    count = sum(len(tokens.codes) for tokens in own.values())
    return {"files": len(own), "tokens": count, "sha256": digest.hexdigest()}


def sources(pins: Pins) -> Iterator[Source]:
    """Yield every pinned Python file and the stand-in's, those that are there verified."""
    for repository in pins.repositories:
        for pin in repository.files:
            if pin.path.endswith(".py"):
                content = None
                if (store.OFFICIAL / repository.key / pin.path).is_file():
                    content = store.read_verified(repository, pin.path, store.OFFICIAL)
                yield Source(
                    reference=repository.key, path=pin.path, sha256=pin.sha256, content=content
                )
    standin = pins.standin
    yield Source(
        reference=f"{standin.package} {standin.version}",
        path=standin.file,
        sha256=standin.sha256,
        content=store.standin_file(standin).read_bytes(),
    )


def recorded_rows(record: Path | None) -> dict[str, dict]:
    """Return the file rows of an earlier record by the SHA-256 of the source, if there is one.

    Raises:
        ReferenceUnavailable: the record is there but cannot be read.
    """
    if record is None or not record.is_file():
        return {}
    try:
        rows = json.loads(record.read_text(encoding="utf-8"))["tables"]["files"]
        return {row["sha256"]: row for row in rows if row["source"] != "not run"}
    except (ValueError, KeyError, TypeError) as error:
        raise ReferenceUnavailable(
            f"the audit record {record.name} is damaged ({type(error).__name__}); "
            "restore it from version control"
        ) from error


def source_row(
    source: Source, own: dict[str, Tokens], earlier: dict[str, dict], limits: Limits
) -> dict[str, Any]:
    """Make the row of one source: measured, or recorded, or not run."""
    row: dict[str, Any] = {
        "reference": source.reference,
        "path": source.path,
        "sha256": source.sha256,
    }
    if source.content is not None:
        row |= {**measure_source(tokens_of(source.content.decode()), own), "source": "measured"}
    elif source.sha256 in earlier:
        row |= {**earlier[source.sha256], "source": "recorded"}
    else:
        empty = dict.fromkeys(("tokens", "longest_run", "where", "share"))
        return {**row, **empty, "source": "not run", "passes": None}
    within = row["longest_run"] <= limits.longest_run and row["share"] <= limits.share
    return {**row, "passes": within}


def measure_source(theirs: Tokens, own: dict[str, Tokens]) -> dict[str, Any]:
    """Compare one source with all files of ours."""
    length, where = 0, ""
    for name, tokens in own.items():
        found, start = longest_run(tokens.codes, theirs.codes)
        if found > length:
            length, where = found, f"{name}: {tokens.owners[start + found // 2]}"
    ours = frozenset().union(*(ngrams(tokens.codes) for tokens in own.values()))
    return {
        "tokens": len(theirs.codes),
        "longest_run": length,
        "where": where,
        "share": round(share(ours, ngrams(theirs.codes)), 4),
    }


@cache
def measure_controls() -> list[dict[str, Any]]:
    """Measure the control pairs: networks of different teams, and declared copies.

    Returns:
        A dict for each pair: `first`, `second`, `kind` (`independent` or `copy`), `longest_run`,
        `share`.
    """
    pairs = [
        ("independent", f"torchvision/models/{first}.py", f"timm/models/{second}.py")
        for first in TORCHVISION_CONTROLS
        for second in TIMM_CONTROLS
    ]
    pairs += [
        ("copy", f"torchvision/models/{first}.py", f"timm/models/{second}.py")
        for first, second in COPIES.items()
    ]
    return [control_row(*pair) for pair in pairs]


def control_row(kind: str, first: str, second: str) -> dict[str, Any]:
    """Measure one pair of installed files."""
    return compare_pair(kind, first, installed_tokens(first), second, installed_tokens(second))


def known_copy(found: Iterable[Source]) -> Iterator[dict[str, Any]]:
    """Measure the copy that matters most: the stand-in comes from the official file."""
    there = {source.path: source.content for source in found if source.content is not None}
    if OFFICIAL_FILE in there and STANDIN_FILE in there:
        first, second = (tokens_of(there[path].decode()) for path in (OFFICIAL_FILE, STANDIN_FILE))
        yield compare_pair("copy", OFFICIAL_FILE, first, f"timm/{STANDIN_FILE}", second)


def compare_pair(kind: str, first: str, one: Tokens, second: str, two: Tokens) -> dict[str, Any]:
    """Make the row of one control pair."""
    return {
        "first": first,
        "second": second,
        "kind": kind,
        "longest_run": longest_run(one.codes, two.codes)[0],
        "share": round(share(ngrams(one.codes), ngrams(two.codes)), 4),
    }


@cache
def installed_tokens(path: str) -> Tokens:
    """Normalize a file of an installed package, such as `timm/models/vovnet.py`.

    Raises:
        ReferenceUnavailable: the package is not installed.
    """
    package, _, inside = path.partition("/")
    spec = util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ReferenceUnavailable(
            f"the control pairs need {package}; install the locked environment"
        )
    return tokens_of((Path(spec.origin).parent / inside).read_text(encoding="utf-8"))


def limits_of(controls: Iterable[dict[str, Any]]) -> Limits:
    """Derive the limits: the largest figures of the independent pairs, the share rounded up."""
    independent = [row for row in controls if row["kind"] == "independent"]
    return Limits(
        longest_run=max(row["longest_run"] for row in independent),
        share=math.ceil(max(row["share"] for row in independent) * 1000) / 1000,
    )


def lines_of(result: dict[str, Any]) -> Iterator[str]:
    """Yield what the command line prints about an audit."""
    own, limits = result["own"], result["limits"]
    yield f"reproduction: {own['files']} files, {own['tokens']} tokens"
    yield f"limits: run {limits['longest_run']} tokens, share {limits['share']}"
    for row in result["files"]:
        title = f"{row['reference']} {row['path']}"
        if row["source"] == "not run":
            yield f"  not run   {title} (absent, and no record has it)"
            continue
        verdict = "ok" if row["passes"] else "TOO CLOSE"
        yield (
            f"  {verdict:<9} {title}: run {row['longest_run']} ({row['where']}), "
            f"share {row['share']:.3f}, {row['source']}"
        )
    for kind in ("independent", "copy"):
        rows = [row for row in result["controls"] if row["kind"] == kind]
        runs, shares = ([row[name] for row in rows] for name in ("longest_run", "share"))
        yield (
            f"controls, {kind}: {len(rows)} pairs, run {min(runs)} to {max(runs)}, "
            f"share {min(shares):.3f} to {max(shares):.3f}"
        )
