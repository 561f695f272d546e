"""Tables of the layer-by-layer comparison: modes, layers, injected faults."""

from collections.abc import Sequence

from comparison import agreement, evidence
from comparison.evidence import Record, Row
from comparison.study import Study
from comparison.tables.table import NOT_RUN, NOTHING, Table, make_table, scientific, short

MODE_COLUMNS = {mode: mode.replace(" ", "_") for mode in agreement.COMPUTED}
FAULT_COLUMNS = (
    *("fault", "kind", "expected_mode", "mode", "site", "largest_error", "caught"),
    "verdict",
)


def equivalence(study: Study, records: Sequence[Record]) -> Table:
    """Give the largest error in each mode for every comparison that was planned."""
    compared = {r["run_id"]: r for r in evidence.of_case(records, "equivalence")}
    columns = ("network", "weights", "tensors", "bit_equal", *MODE_COLUMNS.values(), "verdict")
    rows = [
        _comparison(network, weights, compared.get(f"{network}.{weights}"))
        for network, weights in study.compared()
    ]
    caption = "Largest relative error in each mode, float64, equal weights."
    ran = evidence.references(compared.values())
    return make_table("equivalence", caption, columns, rows, ran)


def _comparison(network: str, weights: str, record: Record | None) -> dict[str, str]:
    cells = {"network": network, "weights": weights}
    if record is None:
        rest = ("tensors", "bit_equal", *MODE_COLUMNS.values(), "verdict")
        return {**cells, **dict.fromkeys(rest, NOT_RUN)}
    rows = [row for row in agreement.modes([record]) if row["mode"] in MODE_COLUMNS]
    errors = {row["mode"]: scientific(row["max_error"]) for row in rows}
    return {
        **cells,
        "tensors": str(sum(row["compared"] for row in rows)),
        "bit_equal": str(sum(row["bit_equal"] for row in rows)),
        **{column: errors.get(mode, NOT_RUN) for mode, column in MODE_COLUMNS.items()},
        "verdict": record["verdict"]["outcome"],
    }


def faults(study: Study, records: Sequence[Record]) -> Table:
    """List injected faults and harmless rewrites, and where each was noticed."""
    compared = [r for r in evidence.of_case(records, "equivalence") if r["tables"].get("faults")]
    found = [*agreement.faults(compared, "fault"), *agreement.faults(compared, "harmless")]
    rows = [_fault(row) for row in found]
    caption = "Deliberate faults and harmless rewrites, and where the comparison noticed them."
    return make_table("faults", caption, FAULT_COLUMNS, rows, evidence.references(compared))


def _fault(row: Row) -> dict[str, str]:
    right = row["caught"] == (row["kind"] == "fault")
    return {
        "fault": row["fault"],
        "kind": row["kind"],
        "expected_mode": row["expected_mode"] or NOTHING,
        "mode": row["mode"] or NOTHING,
        "site": row["site"] or NOTHING,
        "largest_error": scientific(row["largest_error"]),
        "caught": short(row["caught"]),
        "verdict": "reproduced" if right else "not reproduced",
    }


ERROR_COLUMNS = (
    *("forward_eval", "forward_train", "activation_gradient", "parameter_gradient"),
    *("buffers", "step"),
)
LAYER_COLUMNS = (
    *("depth", "layer", "reproduction", "kind", "shape", *ERROR_COLUMNS),
    *("bound_forward", "bound_gradient", "verdict"),
)


def layers(network: str, records: Sequence[Record]) -> Table:
    """Give one row a layer of a network, with random weights if those were compared."""
    compared = [
        record
        for record in evidence.of_case(records, "equivalence")
        if agreement.network_of(record) == network
    ]
    shown = sorted(compared, key=lambda record: agreement.weights_of(record) != "random")[:1]
    rows = [_layer(row) for row in evidence.rows_of(shown, "layers")]
    weights = agreement.weights_of(shown[0]) if shown else "random"
    caption = (
        f"Largest relative error at each layer of {network}, {weights} weights, float64; the "
        "layer by its official name."
    )
    ran = evidence.references(shown)
    return make_table(f"layers_{network}", caption, LAYER_COLUMNS, rows, ran)


def _layer(row: Row) -> dict[str, str]:
    errors = {name: row[name] for name in ERROR_COLUMNS}
    return {
        "depth": str(row["depth"]),
        "layer": row["reference"],
        "reproduction": row["reproduction"],
        "kind": row["op"],
        "shape": row["shape"],
        **{name: NOTHING if e is None else scientific(e) for name, e in errors.items()},
        "bound_forward": f"{row['bound_forward']:.0e}",
        "bound_gradient": f"{row['bound_gradient']:.0e}",
        "verdict": "reproduced" if row["agrees"] else "not reproduced",
    }
