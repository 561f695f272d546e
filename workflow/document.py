"""What the PDF depends on: its text, the standard study's tables and figures, and the source."""

import subprocess
from pathlib import Path

from comparison.study import ROOT
from workflow.sources import SOURCES


def report_files(root: Path = ROOT) -> list[str]:
    """List what the report is made from, beside the study's own tables and figures."""
    text = ("*.typ", "sections/*.typ", "*.bib", "*.toml")
    files = [path for pattern in text for path in (root / "reports").glob(pattern)]
    standard = root / "results" / "standard"
    for pattern in ("tables/*.csv", "tables/*.json", "figures/*.svg"):
        files += standard.glob(pattern)
    return sorted(str(path.relative_to(root)) for path in files)


def source_state(root: Path = ROOT) -> str:
    """Return the commit, and whether source differs from it: the report prints both."""
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", *SOURCES))
        )
    except (OSError, subprocess.CalledProcessError):
        return "no version control"
    return f"{commit} with uncommitted changes" if changed else commit
