"""Records as tables, CSV and LaTeX. This is the only place where results are rounded."""

from comparison.tables.build import build_tables
from comparison.tables.table import Table

__all__ = ["Table", "build_tables"]
