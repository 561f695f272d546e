"""Settings of every test run: quiet threads, and a seeded sample of a tier."""

import os
import random
import re
from collections.abc import Sequence
from typing import TypeVar

import pytest

# Before any test imports torch: one thread gives the same sums on every machine, and waiting
# threads that sleep leave the cores to the studies that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "Agg")

Item = TypeVar("Item")


@pytest.fixture
def told(request: pytest.FixtureRequest) -> str:
    """Return what the test's row in docs/faults.md says is told, as a pattern that finds it."""
    return re.escape(request.node.get_closest_marker("fault").kwargs["told"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", type=int, metavar="N", help="run N of the selected tests")
    parser.addoption("--sample-seed", default="0", metavar="TEXT", help="what decides which N")


def sample(items: Sequence[Item], count: int, seed: str) -> list[Item]:
    """Choose `count` items by the seed alone, in their own order."""
    chosen = random.Random(seed).sample(range(len(items)), min(count, len(items)))
    return [items[index] for index in sorted(chosen)]


@pytest.hookimpl(trylast=True)  # after -m and -k have made their selection
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    count = config.getoption("--sample")
    if count is None:
        return
    if count < 1:
        raise pytest.UsageError(f"--sample is {count}; give a whole number of at least 1")
    chosen = sample(items, count, config.getoption("--sample-seed"))
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
