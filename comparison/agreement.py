"""What the records of layer-by-layer comparisons say: modes, layers, traces, faults, trajectory."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from comparison import evidence
from comparison.evidence import Record, Row

STATIC = "static"
COMPUTED = ("forward eval", "forward train", "loss", "backward", "buffers", "step")
FREE_RUNS = "trajectory"


def modes(records: Iterable[Record]) -> list[Row]:
    """Return the verdict on every mode of every comparison, with network and weights."""
    return [
        {"network": network_of(record), "weights": weights_of(record), **_with_infinity(row)}
        for record in evidence.of_case(records, "equivalence")
        for row in record["tables"]["modes"]
    ]


def network_of(record: Record) -> str:
    """Return the network that a record compares."""
    return record["subject"]["network"]


def weights_of(record: Record) -> str:
    """Return which weights a record compares with: random or trained."""
    return record["run_id"].rpartition(".")[2]


def largest(rows: Iterable[Row], *wanted: str) -> float | None:
    """Return the largest error among modes, or None if none of them ran."""
    errors = [row["max_error"] for row in rows if row["mode"] in wanted]
    return max(errors) if errors else None


def faults(records: Iterable[Record], kind: str) -> list[Row]:
    """Return injected faults (`fault`) or rewrites that change nothing (`harmless`)."""
    rows = evidence.rows_of(evidence.of_case(records, "equivalence"), "faults")
    return [_with_infinity(row) for row in rows if row["kind"] == kind]


def unmatched(records: Iterable[Record]) -> int:
    """Count what one side has and the other has not."""
    rows = evidence.rows_of(evidence.of_case(records, "equivalence"), "findings")
    return sum(row["kind"] == "finding" for row in rows)


def _with_infinity(row: Row) -> Row:
    """Read an error that JSON could not hold, and the record left out, as infinite."""
    names = ("max_error", "largest_error", "worst_relative_error")
    missing = [name for name in names if name in row and row[name] is None]
    return {**row, **dict.fromkeys(missing, math.inf)}


def traces(records: Iterable[Record]) -> list[Row]:
    """Return the replayed traces, a row a network and phase."""
    rows = evidence.rows_of(evidence.of_case(records, "equivalence"), "traces")
    return [_with_infinity(row) for row in rows]


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
