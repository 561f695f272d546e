"""The trial of the checker: draw, inject, score, and hold the scores to their gates."""

from collections.abc import Iterator, Sequence
from itertools import islice

import pandas as pd
import torch

from comparison.mutation.benches import make_benches
from comparison.mutation.operators import draw, draw_neutral
from comparison.mutation.suite import (
    FAULT,
    Bench,
    Row,
    harmless,
    scores,
    survivors,
    try_fault,
    try_harmless,
)

DETECTION, EXACT = 0.98, 0.90  # least shares of faults caught, and localized exactly
NEUTRAL = 5  # neutral changes of single operations, beside the rewrites


def trial(
    network: str, *, image_size: int = 64, faults: int = 20, changes: int = 20, seed: int = 0
) -> Iterator[Row]:
    """Try the checker on one network, with its own module tree and with another.

    Args:
        network: Official name.
        image_size: Height and width of the images.
        faults: How many faults; half of them in each tree.
        changes: How many harmless candidates; half of them in each tree.
        seed: Decides weights, images, operators, sites and strengths.

    Returns:
        One row per trial, as it ends.
    """
    torch.set_num_threads(1)
    for number, bench in enumerate(make_benches(network, image_size, seed)):
        yield from _faulty(bench, _half(faults, number), seed + number)
        yield from _harmless(bench, _half(changes, number), seed + number)


def passes(rows: Sequence[Row]) -> bool:
    """Tell whether the checker holds its gates: detection, no alarm, exact localization."""
    by_family = {row["family"]: row for row in scores(rows)}
    injected, alarms = by_family.get("all faults"), by_family.get("harmless")
    caught = injected is None or (injected["share"] >= DETECTION and injected["exact"] >= EXACT)
    return bool(rows) and caught and (alarms is None or not alarms["caught"])


def told(rows: Sequence[Row]) -> str:
    """Return the scoreboard and every survivor as text."""
    columns = ["family", "trials", "caught", "low", "high", "phase_correct", "exact", "mean_hops"]
    table = pd.DataFrame(scores(rows)).reindex(columns=[*columns, "mean_s"])
    lines = [table.to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}")]
    for row in survivors(rows):
        where = f"{row['mode'] or 'nowhere'}, {row.get('site', '')}"
        kind = "missed or misplaced" if row["kind"] == FAULT else "false alarm"
        lines.append(f"{kind}: {row['name']} ({row['bench']}): {where}: {row['said']}")
    return "\n".join(lines)


def _half(count: int, number: int) -> int:
    return (count + 1 - number) // 2


def _faulty(bench: Bench, count: int, seed: int) -> Iterator[Row]:
    if count:
        for fault in draw(bench.candidate, bench.leader.batches, count, seed):
            yield try_fault(bench, fault)


def _harmless(bench: Bench, count: int, seed: int) -> Iterator[Row]:
    neutral = draw_neutral(bench.candidate, bench.leader.batches, NEUTRAL, seed)
    for name, candidate in islice(harmless(bench, neutral), count):
        yield try_harmless(bench, name, candidate)
