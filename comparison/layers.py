"""One row for every layer of the reference, in the order in which it runs them."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from comparison.engine.examine import Examined
from comparison.engine.measures import finite, ratio
from comparison.engine.rows import Key, Row
from comparison.engine.trace import Node
from comparison.engine.verdict import BACKWARD, EVAL, TRAIN, ZERO_NOTE

# Column of the table: mode and part of the tensors that it covers; the worst one counts.
COLUMNS = {
    "forward_eval": (EVAL, "output"),
    "forward_train": (TRAIN, "output"),
    "activation_gradient": (BACKWARD, "gradient"),
    "parameter_gradient": (BACKWARD, "parameter gradient"),
}
FORWARD, GRADIENT = ("forward_eval", "forward_train"), ("activation_gradient", "parameter_gradient")


def layer_rows(examined: Examined) -> list[dict[str, Any]]:
    """Make one row for every operation of the reference that reads parameters.

    Sums, interpolations and nonlinearities between layers are compared too; their rows would be
    many, and an error in one of them shows at the next layer.

    Returns:
        Depth from 1, names on both sides, kind, shape of the output without the batch; the largest
        relative error in every column, in float32, and under the neutral rewrites (None where
        there is nothing to compare or no number); the tightest thresholds of its outputs and its
        gradients, relative as well; whether everything agrees.
    """
    subject = examined.subject
    theirs, ours = subject.leader.nodes[True], subject.nodes[True]
    partner = {a: ours[b] for b, a in subject.matches[True].pairs.items()}
    layers = [(i, node) for i, node in enumerate(theirs) if node.reads and not node.derived]
    rows, single = (_by_layer(layers, found) for found in (examined.rows, examined.single))
    return [
        _layer_row(depth, node, partner.get(index), rows[index], single[index])
        for depth, (index, node) in enumerate(layers, start=1)
    ]


def _layer_row(
    depth: int, theirs: Node, ours: Node | None, rows: list[Row], single: list[Row]
) -> dict[str, Any]:
    columns = {name: _covered(rows, name) for name in COLUMNS}
    outputs, gradients = ([r for n in names for r in columns[n]] for names in (FORWARD, GRADIENT))
    return {
        "depth": depth,
        "reference": theirs.place.module or "network",
        "reproduction": (ours.place.module or "network") if ours else "",
        "op": theirs.place.op,
        "shape": "x".join(str(size) for size in theirs.shape[1:]),
        **{name: _worst(row.relative for row in covered) for name, covered in columns.items()},
        "float32": _worst(row.relative for row in _covered(single, "forward_eval")),
        "noise_forward": _worst(ratio(row.noise, row.size) for row in outputs),
        "noise_gradient": _worst(ratio(row.noise, row.size) for row in gradients),
        "threshold_forward": _tightest(outputs),
        "threshold_gradient": _tightest(gradients),
        "agrees": all(row.agrees for row in rows),
    }


def _by_layer(layers: Iterable[tuple[int, Node]], rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Sort rows to layers: outputs by the operation's name, gradients of parameters by theirs."""
    owner: dict[str, int] = {}
    for index, node in layers:
        owner |= {str(node.place): index, **dict.fromkeys(node.reads, index)}
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.key.name in owner and row.key.mode in (EVAL, TRAIN, BACKWARD):
            found[owner[row.key.name]].append(row)
    return found


def _covered(rows: Iterable[Row], column: str) -> list[Row]:
    """Return the rows of a column; what is zero in exact arithmetic has no relative error."""
    return [row for row in rows if _kind(row.key) == COLUMNS[column] and row.note != ZERO_NOTE]


def _kind(key: Key) -> tuple[str, str]:
    return key.mode, key.part


def _worst(errors: Iterable[float]) -> float | None:
    found = list(errors)
    return finite(max(found)) if found else None


def _tightest(rows: Iterable[Row]) -> float | None:
    found = [row.threshold / row.size for row in rows if row.size]
    return finite(min(found)) if found else None
