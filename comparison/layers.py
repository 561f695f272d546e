"""Tables by site: one row for every layer, in the order in which the reference runs them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comparison.modes import backward, forward, step
from comparison.sites import Matching, Site
from comparison.verdict import FORWARD, GRADIENT, Key, Row

# Column of the table and which tensors of a site it covers: the worst one counts.
COLUMNS: dict[str, Callable[[Key], bool]] = {
    "forward_eval": lambda key: key.mode == forward.MODE and key.part.startswith("output"),
    "forward_train": lambda key: key.mode == backward.FORWARD and key.part.startswith("output"),
    "activation_gradient": lambda key: (
        key.mode == backward.BACKWARD and key.part.startswith("gradient")
    ),
    "parameter_gradient": lambda key: key.part == "parameter gradient",
    "buffers": lambda key: key.mode == backward.BUFFERS,
    "step": lambda key: key.mode == step.MODE,
}


def layer_rows(
    matching: Matching, rows: Iterable[Row], beside: Mapping[str, Iterable[Row]] | None = None
) -> list[dict[str, Any]]:
    """Make one row for every matched layer.

    Args:
        matching: The sites.
        rows: All rows of a ladder.
        beside: Further columns, each the error of the outputs in eval mode in another run.

    Returns:
        Depth from 1, names on both sides, kind, shape of the output without the batch, the
        largest error in every column (None where there is nothing to compare or no number), the
        bounds, and whether everything agrees.
    """
    by_site = _by_site(matching.layers(), rows)
    others = {name: _by_site(matching.layers(), more) for name, more in (beside or {}).items()}
    return [
        {
            "depth": depth,
            "reference": site.name,
            "reproduction": site.candidate,
            "op": site.op,
            "shape": "x".join(str(size) for size in site.shapes[0]),
            **{column: _worst(by_site[site.name], test) for column, test in COLUMNS.items()},
            **{name: _worst(others[name][site.name], COLUMNS["forward_eval"]) for name in others},
            "bound_forward": FORWARD.bound,
            "bound_gradient": GRADIENT.bound,
            "agrees": all(row.agrees for row in by_site[site.name]),
        }
        for depth, site in enumerate(matching.layers(), start=1)
    ]


def composite_rows(matching: Matching, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Make one row for every larger module that has a counterpart: units, blocks, stages."""
    composites = [site for site in matching.sites if not site.layer]
    by_site = _by_site(composites, rows)
    columns = ("forward_eval", "forward_train", "activation_gradient")
    return [
        {
            "reference": site.name,
            "reproduction": site.candidate,
            "outputs": len(site.shapes),
            **{column: _worst(by_site[site.name], COLUMNS[column]) for column in columns},
            "agrees": all(row.agrees for row in by_site[site.name]),
        }
        for site in composites
    ]


def _by_site(sites: Iterable[Site], rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sort rows to sites; what is named after a tensor of a layer belongs to the layer."""
    names = {site.name for site in sites}
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        name = row.key.name
        found[name if name in names else name.rpartition(".")[0]].append(row)
    return found


def _worst(rows: Iterable[Row], covers: Callable[[Key], bool]) -> float | None:
    errors = [row.max_error for row in rows if covers(row.key)]
    return finite(max(errors)) if errors else None


def finite(value: float) -> float | None:
    """Return a number for a record, None for one that JSON does not have."""
    return value if math.isfinite(value) else None
