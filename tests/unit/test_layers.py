"""Tables by site have one row for every layer and hold the worst of what belongs to it."""

import math

from comparison.ladder import climb
from comparison.layers import COLUMNS, composite_rows, finite, layer_rows
from comparison.verdict import FORWARD, Key, Row
from tests.unit.toys import Ours, toy_batches, toy_sides


def test_every_layer_has_a_row_in_the_order_of_execution() -> None:
    theirs, ours = toy_sides()
    ladder = climb(theirs, ours, toy_batches(1))

    rows = layer_rows(ladder.matching, ladder.rows)

    assert [row["reference"] for row in rows] == [
        *("conv1", "bn1", "conv2", "bn2", "fuse.0", "fuse.1", "classifier")
    ]
    assert [row["depth"] for row in rows] == list(range(1, 8))
    assert rows[0]["reproduction"] == "first.conv" and rows[0]["shape"] == "4x6x6"
    assert all(row["agrees"] and row["bound_forward"] == FORWARD.bound for row in rows)
    assert all(0 <= row[name] < 1e-11 for row in rows for name in COLUMNS if row[name] is not None)


def test_only_normalization_has_buffers_and_all_layers_have_the_rest() -> None:
    theirs, ours = toy_sides()
    ladder = climb(theirs, ours, toy_batches(1))

    for row in layer_rows(ladder.matching, ladder.rows):
        assert (row["buffers"] is not None) is (row["op"] == "BatchNorm2d")
        assert all(row[name] is not None for name in COLUMNS if name != "buffers")


def test_a_fault_stands_in_its_row_and_column() -> None:
    theirs, ours = toy_sides()
    assert isinstance(ours.model, Ours)
    ours.model.second.norm.momentum = 0.11
    ladder = climb(theirs, ours, toy_batches(1))

    rows = {row["reference"]: row for row in layer_rows(ladder.matching, ladder.rows)}

    assert [name for name, row in rows.items() if not row["agrees"]] == ["bn2"]
    assert rows["bn2"]["buffers"] > 1e-3 and rows["bn2"]["forward_train"] < 1e-11


def test_further_columns_are_the_error_of_another_run() -> None:
    theirs, ours = toy_sides()
    ladder = climb(theirs, ours, toy_batches(1))
    key = Key("forward eval", "conv2", "output")
    other = [Row(key, (1,), error, 0.0, 1.0, (1.0, 1.0), 1.0, agrees=True) for error in (0.5, 0.25)]

    rows = layer_rows(ladder.matching, ladder.rows, {"noise": other})

    assert {row["reference"]: row["noise"] for row in rows}["conv2"] == 0.5
    assert rows[0]["noise"] is None


def test_larger_modules_have_rows_of_their_own() -> None:
    theirs, _ = toy_sides()
    ladder = climb(theirs, theirs, toy_batches(1))

    (row,) = composite_rows(ladder.matching, ladder.rows)

    assert (row["reference"], row["outputs"], row["forward_eval"]) == ("fuse", 2, 0.0)


def test_what_json_does_not_have_becomes_none() -> None:
    assert finite(math.inf) is None and finite(math.nan) is None and finite(0.5) == 0.5
