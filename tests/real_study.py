"""A study of one counted network and one training run, on the real packages and notebooks."""

import shutil
from pathlib import Path

from tests.repository.tree import ROOT

NAME = "real"
STUDY = """
description: one network counted and trained, to compare runs as a whole
networks: [cls_hrnet_w18_small_v1]
training:
  network: cls_hrnet_w18_small_v1
  data: digits
  arms: [reproduction]
  seeds: [0]
  epochs: 1
  batch_size: 128
  margin_pp: 5.0
differences: false
audit: false
"""
PARTS = ("reproduction", "reference", "comparison", "workflow", "notebooks", "reports")
FILES = ("requirements.lock", "pyproject.toml", "CLEANROOM.md", "README.md")


def lay_out(folder: Path) -> Path:
    """Copy what a study needs into a folder, this study and the official code included."""
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "official")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "results" / "standard", folder / "results" / "standard")
    if (ROOT / "reference" / "official").exists():
        (folder / "reference" / "official").symlink_to(ROOT / "reference" / "official")
    (folder / "workflow" / "studies" / f"{NAME}.yaml").write_text(STUDY, encoding="utf-8")
    return folder
