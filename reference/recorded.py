"""The traces of the official code that are part of this repository, and how close is equal.

A trace is what a network computes in float64 under the recipe of `traces/README.md`: one row of
12 numbers for every layer, output, gradient, buffer and updated parameter. `record.py` makes it.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reference.errors import ReferenceUnavailable

TRACES = Path(__file__).parent / "traces"
LARGEST_TRACE_BYTES = 50_000_000  # unpacked

# Seen between correct implementations: 1e-15 to 1e-14, gradients on two threads up to 5e-13.
# Weakest fault tried: 1e-5. Gradients and the step inherit a longer chain of roundings.
BOUNDS = {
    "forward": 1e-11,
    "output": 1e-11,
    "loss": 1e-11,
    "buffer": 1e-11,
    "grad": 1e-10,
    "step": 1e-10,
}
ANALYTIC_ZERO_BOUND = 1e-12  # of the median gradient magnitude; rounding leaves about 1e-15

COUNT, NORM, MEAN, LARGEST = range(4)  # the first columns of a row; eight samples follow


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One recorded network.

    Attributes:
        repository: the pin of the official code that was recorded.
        input_shape: (B, C, H, W).
        rows: 12 numbers for each row key, such as `forward/conv1` or `grad/conv1.weight`.
        analytic_zeros: parameters whose gradient is zero in exact arithmetic.
    """

    network: str
    repository: str
    input_shape: tuple[int, int, int, int]
    rows: dict[str, np.ndarray]
    analytic_zeros: tuple[str, ...]


def recorded_networks(folder: Path = TRACES) -> dict[str, dict]:
    """Return the index of the recorded traces: source, shapes and counts by network.

    Raises:
        ReferenceUnavailable: the index is absent or damaged.
    """
    try:
        return json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReferenceUnavailable(
            f"the index of traces, index.json, cannot be read ({type(error).__name__}); "
            "restore reference/traces from version control"
        ) from error


def load_trace(network: str, folder: Path = TRACES) -> Trace:
    """Read one recorded trace.

    Args:
        network: official name, such as `cls_hrnet_w18_small_v1`.
        folder: where the index and the traces are.

    Raises:
        ReferenceUnavailable: nothing is recorded under that name, or the file is damaged.
    """
    index = recorded_networks(folder)
    if network not in index:
        raise ReferenceUnavailable(
            f"no trace of {network!r} is recorded here; there are {', '.join(index)}"
        )
    entry = index[network]
    rows = read_rows(folder / f"{network}.npz")
    if len(rows) != entry["rows"]:
        raise ReferenceUnavailable(
            f"the trace of {network} has {len(rows)} rows, but its index says {entry['rows']}; "
            "restore reference/traces from version control"
        )
    return Trace(
        network=network,
        repository=entry["repository"],
        input_shape=tuple(entry["input_shape"]),
        rows=rows,
        analytic_zeros=tuple(entry["analytic_zeros"]),
    )


def read_rows(path: Path) -> dict[str, np.ndarray]:
    """Read the rows of a trace file.

    Raises:
        ReferenceUnavailable: the file is absent or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_TRACE_BYTES:
                raise ValueError("unpacked it is larger than any trace")
        with np.load(path, allow_pickle=False) as file:
            return dict(zip(map(str, file["keys"]), file["values"], strict=True))
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ReferenceUnavailable(
            f"the trace {path.name} cannot be read ({type(error).__name__}); "
            "restore reference/traces from version control"
        ) from error


def write_rows(path: Path, rows: Mapping[str, np.ndarray]) -> None:
    """Write rows as a trace file; the same rows give the same bytes."""
    values = np.stack(list(rows.values()))
    np.savez_compressed(path, keys=np.array(list(rows)), values=values)


def compare(measured: Mapping[str, np.ndarray], recorded: Trace) -> list[dict]:
    """Hold measured rows to a recorded trace, row by row.

    The element counts must agree, the L2 norm is relative to itself, every other number to the
    largest magnitude of the recorded row.

    Args:
        measured: what `record.trace` returned for the network under test.
        recorded: the trace to hold it to.

    Returns:
        A dict for each row of either side: `key`, `phase`, `worst_relative_error`, `bound`,
        `analytic_zero`, `passes`. A row that one side lacks has an infinite error.
    """
    gradients = [row[LARGEST] for key, row in recorded.rows.items() if key.startswith("grad/")]
    typical_gradient = float(np.median(gradients)) if gradients else math.inf
    keys = [*recorded.rows, *(key for key in measured if key not in recorded.rows)]
    return [_compare_row(key, measured.get(key), recorded, typical_gradient) for key in keys]


def _compare_row(
    key: str, measured: np.ndarray | None, recorded: Trace, typical_gradient: float
) -> dict:
    phase, _, name = key.partition("/")
    is_zero = phase == "grad" and name in recorded.analytic_zeros
    row = recorded.rows.get(key)
    if measured is None or row is None:
        error = math.inf
    elif is_zero:
        error = zero_error(measured, row, typical_gradient)
    else:
        error = row_error(measured, row)
    bound = ANALYTIC_ZERO_BOUND if is_zero else BOUNDS.get(phase, 0.0)
    return {
        "key": key,
        "phase": phase,
        "worst_relative_error": error,
        "bound": bound,
        "analytic_zero": is_zero,
        "passes": error <= bound,
    }


def row_error(measured: np.ndarray, recorded: np.ndarray) -> float:
    """Return the worst relative error of a row; infinite if the counts or finiteness differ.

    >>> recorded = np.array([2.0, 5.0, 3.5, 4.0] + [3.0] * 8)
    >>> measured = recorded.copy()
    >>> measured[MEAN] += 0.4
    >>> round(row_error(measured, recorded), 6)
    0.1
    """
    if measured.shape != recorded.shape or measured[COUNT] != recorded[COUNT]:
        return math.inf
    scales = np.full(recorded.shape, recorded[LARGEST])
    scales[NORM] = recorded[NORM]
    differences = np.abs(measured - recorded)[NORM:]
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(differences == 0, 0.0, differences / np.abs(scales[NORM:]))
    worst = float(errors.max())
    return math.inf if math.isnan(worst) else worst


def zero_error(measured: np.ndarray, recorded: np.ndarray, typical_gradient: float) -> float:
    """Return how far from zero either side is, relative to a typical gradient."""
    if measured[COUNT] != recorded[COUNT]:
        return math.inf
    largest = max(abs(float(measured[LARGEST])), abs(float(recorded[LARGEST])))
    return math.inf if math.isnan(largest) else largest / typical_gradient


def summarize(comparison: list[dict]) -> list[dict]:
    """Reduce a comparison to one dict for each phase: rows, failures and the worst error."""
    phases = dict.fromkeys(row["phase"] for row in comparison)
    return [_summarize_phase(phase, comparison) for phase in phases]


def _summarize_phase(phase: str, comparison: list[dict]) -> dict:
    rows = [row for row in comparison if row["phase"] == phase]
    ordinary = [row for row in rows if not row["analytic_zero"]]
    worst = max(ordinary, key=lambda row: row["worst_relative_error"], default=rows[0])
    return {
        "phase": phase,
        "rows": len(rows),
        "failures": sum(not row["passes"] for row in rows),
        "worst_relative_error": worst["worst_relative_error"],
        "worst_key": worst["key"],
        "bound": worst["bound"],
    }
