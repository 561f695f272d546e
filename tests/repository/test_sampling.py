"""The seeded sample of a tier, as .ci/run takes it."""

import re

import pytest

from tests.conftest import sample
from tests.repository.tree import ROOT

pytest_plugins = ["pytester"]

SUITE = """
import pytest

@pytest.mark.full
@pytest.mark.parametrize("number", range(9))
def test_slow(number):
    assert number >= 0

def test_fast():
    assert False
"""


def test_the_seed_alone_decides_the_sample() -> None:
    items = list(range(100))

    assert sample(items, 5, "commit") == sample(items, 5, "commit")
    assert sample(items, 5, "commit") != sample(items, 5, "another")


def test_a_sample_keeps_the_order_and_is_never_larger_than_the_tier() -> None:
    chosen = sample(list(range(100)), 20, "s")

    assert chosen == sorted(set(chosen))
    assert len(chosen) == 20
    assert sample([3, 1, 2], 10, "s") == [3, 1, 2]


def test_a_sampled_run_takes_only_tests_of_the_selected_tier(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nmarkers = ['full']")
    pytester.makepyfile(SUITE)

    result = pytester.runpytest(
        "-p", "no:hypothesispytest", "-m", "full", "--sample", "4", "--sample-seed", "a", "-v"
    )

    result.assert_outcomes(passed=4, deselected=6)
    chosen = re.findall(r"test_slow\[(\d)\] PASSED", result.stdout.str())
    assert [int(number) for number in chosen] == sample(range(9), 4, "a")


def test_a_sample_of_nothing_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile("def test_a(): assert True is not None")

    result = pytester.runpytest("-p", "no:hypothesispytest", "--sample", "0")

    assert "--sample is 0; give a whole number of at least 1" in result.stderr.str()
