"""The clean-room audit as a record: what it judges, and that a planted copy makes it fail."""

import copy
from typing import Any

import pytest

from comparison import audit
from reference import audit as cleanroom

FOUND: dict[str, Any] = {
    "ngram": 12,
    "limits": {"longest_run": 67, "share": 0.186},
    "own": {"files": 3, "tokens": 900, "sha256": "ab"},
    "files": [
        {
            **{"reference": "HRNet@f760c988", "path": "cls_hrnet.py", "sha256": "cd"},
            **{"tokens": 3000, "longest_run": 40, "where": "a.py: f", "share": 0.08},
            **{"source": "measured", "passes": True},
        }
    ],
    "controls": [
        {"first": "a", "second": "b", "kind": "independent", "longest_run": 67, "share": 0.18}
    ],
    "passes": True,
}


def judged(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> dict[str, Any]:
    """Make the record of an audit that found one source with these figures."""
    found = copy.deepcopy(FOUND)
    found["files"][0].update(changed)
    monkeypatch.setattr(cleanroom, "run", lambda: found)
    return audit.run()


def test_sources_within_the_limits_are_within_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    record = judged(monkeypatch)
    assert record["verdict"]["outcome"] == "within tolerance"
    assert record["tables"]["files"] == FOUND["files"]
    numbers = {entry["name"]: entry["value"] for entry in record["measurements"]}
    assert numbers == {
        "longest_run": 40,
        "share": 0.08,
        "limit_longest_run": 67,
        "limit_share": 0.186,
    }


def test_a_copy_is_not_reproduced_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    record = judged(monkeypatch, longest_run=300, passes=False)
    assert record["verdict"] == {
        "outcome": "not reproduced",
        "reason": "too close to cls_hrnet.py",
    }


def test_absent_sources_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"longest_run": None, "share": None, "tokens": None, "passes": None}
    assert judged(monkeypatch, **absent)["verdict"]["outcome"] == "not run"
