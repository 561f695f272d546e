"""How large rounding is, how far apart the two sides are, and how much room is left: counts.

A record that kept every compared tensor would be large; counts over decades say what a histogram
shows.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from comparison.engine.measures import ratio
from comparison.engine.rows import Row
from comparison.engine.verdict import MODES, ZERO_NOTE

NOISE, DEVIATION, MARGIN, ZERO = "noise", "deviation", "margin", "zero in exact arithmetic"


def noise_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Count tensors by decade, for every mode.

    Args:
        rows: Compared tensors, judged.

    Returns:
        Rows of mode, quantity, decade and number of tensors. ``noise`` is what neutral rewrites of
        the reference do, ``deviation`` how far the candidate is, both relative to the tensor's
        size; ``margin`` is the deviation over its threshold. The decade is the rounded-down
        logarithm; None stands for nothing at all (equal bits), or for no number. Gradients that
        are zero in exact arithmetic consist of rounding alone and are counted apart.
    """
    counted: Counter[tuple[str, str, int | None]] = Counter()
    for row in rows:
        mode = row.key.mode
        if row.note == ZERO_NOTE:
            counted[mode, ZERO, None] += 1
            continue
        counted[mode, NOISE, decade(ratio(row.noise, row.size))] += 1
        counted[mode, DEVIATION, decade(row.relative)] += 1
        counted[mode, MARGIN, decade(ratio(row.difference, row.threshold))] += 1
    order = sorted(counted, key=lambda k: (MODES.index(k[0]), k[1], k[2] is not None, k[2] or 0))
    return [
        {"mode": mode, "quantity": quantity, "decade": place, "tensors": counted[key]}
        for key in order
        for mode, quantity, place in [key]
    ]


def decade(value: float) -> int | None:
    """Return the decade of a number, rounded down; None for zero and for what is no number.

    >>> decade(3e-15), decade(1.0), decade(0.0), decade(math.inf)
    (-15, 0, None, None)
    """
    if not value or not math.isfinite(value):
        return None
    return math.floor(math.log10(value))
