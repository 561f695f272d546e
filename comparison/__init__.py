"""The only place that imports both: what the two implementations share, and where they differ."""

from importlib import import_module
from typing import Any

from comparison import clock as clock  # first of all: from here on it tells imports from the rest


def __getattr__(name: str) -> Any:
    """Import `compare` when it is asked for: nothing else here depends on the engine."""
    if name == "compare":
        return import_module("comparison.engine.compare").compare
    raise AttributeError(f"module 'comparison' has no attribute {name!r}")
