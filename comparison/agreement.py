"""What the records of comparisons say: modes, layers, traces, trajectory."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from comparison import evidence
from comparison.engine import verdict
from comparison.evidence import Record, Row

MODES = verdict.MODES
STRUCTURE = (verdict.STATIC, verdict.DATA)
COMPUTED = (
    *(verdict.EVAL, verdict.TRAIN, verdict.LOSS, verdict.BACKWARD, verdict.STATE),
    verdict.FORCED,
)
FREE_RUNS = verdict.FREE


def modes(records: Iterable[Record]) -> list[Row]:
    """Return the verdict on every mode of every comparison, with what was compared."""
    return [
        {
            "network": network_of(record),
            "weights": weights_of(record),
            "against": against_of(record),
            **_with_infinity(row),
        }
        for record in evidence.of_case(records, "equivalence")
        for row in record["tables"]["modes"]
    ]


def network_of(record: Record) -> str:
    """Return the network that a record compares."""
    return record["subject"]["network"]


def weights_of(record: Record) -> str:
    """Return which weights a record compares with: random or trained."""
    return record["subject"]["config"]["weights"]


def against_of(record: Record) -> str:
    """Return what a record compares the reproduction with: reference or timm."""
    return record["subject"]["against"]


def with_reference(records: Iterable[Record]) -> list[Record]:
    """Return the comparisons with the reference of the study, those that ran."""
    compared = live(evidence.of_case(records, "equivalence"))
    return [record for record in compared if against_of(record) == "reference"]


def live(records: Iterable[Record]) -> list[Record]:
    """Return the comparisons in which a mode ran, with no recorded traces alone."""
    return [
        record
        for record in records
        if any(row["outcome"] != verdict.NOT_RUN for row in record["tables"]["modes"])
    ]


def closest(rows: Iterable[Row]) -> float | None:
    """Return the largest margin among modes; None if all that was compared has equal bits."""
    margins = [row["worst_margin"] for row in rows if row["worst_margin"] is not None]
    return max(margins) if margins else None


def largest(rows: Iterable[Row], *wanted: str) -> float | None:
    """Return the largest error among modes, or None if none of them ran."""
    ran = (row for row in rows if row["mode"] in wanted and row["outcome"] != verdict.NOT_RUN)
    return max((row["max_error"] for row in ran), default=None)


def noise(rows: Iterable[Row], *wanted: str) -> float | None:
    """Return the largest noise of neutral rewrites among modes, or None if none of them ran."""
    return max((row["noise"] for row in rows if row["mode"] in wanted), default=None)


def unmatched(records: Iterable[Record]) -> int:
    """Count what one side has and the other has not."""
    compared = evidence.of_case(records, "equivalence")
    return sum(evidence.measured(record, "unmatched") or 0 for record in compared)


def _with_infinity(row: Row) -> Row:
    """Read an error that JSON could not hold, and the record left out, as infinite."""
    names = ("max_error", "noise", "largest_error", "worst_relative_error")
    missing = [name for name in names if name in row and row[name] is None]
    return {**row, **dict.fromkeys(missing, math.inf)}


def traces(records: Iterable[Record]) -> list[Row]:
    """Return the replayed traces, a row a network and phase: of several replays the worst."""
    worst: dict[tuple[str, str], Row] = {}
    for row in evidence.rows_of(evidence.of_case(records, "equivalence"), "traces"):
        row, key = _with_infinity(row), (row["network"], row["phase"])
        worst[key] = max(worst.get(key, row), row, key=_badness)
    return list(worst.values())


def _badness(row: Row) -> tuple[int, float]:
    return row["failures"], row["worst_relative_error"]


def trajectories(records: Iterable[Record], precision: str) -> list[list[Row]]:
    """Return each comparison's free-running steps in one precision, where it has them."""
    tables = (r["tables"].get("trajectory", []) for r in evidence.of_case(records, "equivalence"))
    chosen = ([row for row in rows if row["precision"] == precision] for rows in tables)
    return [rows for rows in chosen if rows]


def bit_equal_steps(rows: Sequence[dict[str, Any]]) -> int:
    """Count the steps from the first on in which everything agreed to the bit."""
    same = ("loss_bit_equal", "gradients_bit_equal", "state_bit_equal")
    for number, row in enumerate(rows):
        if not all(row[name] for name in same):
            return number
    return len(rows)


def span(counts: Sequence[int]) -> str:
    """Write the range of some counts.

    >>> span([10, 200, 10]), span([3, 3])
    ('10 to 200', '3')
    """
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
