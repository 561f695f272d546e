"""Tables of the comparisons: networks, modes, layers."""

from collections.abc import Sequence

from comparison import agreement, evidence
from comparison.evidence import Record, Row
from comparison.judges import worst
from comparison.study import Comparison, Study
from comparison.tables.table import NOT_RUN, NOTHING, Table, fixed, make_table, scientific, short

MODE_COLUMNS = {mode: mode.replace(" ", "_").replace("-", "_") for mode in agreement.COMPUTED}
COMPARED = ("network", "against", "weights", "steps")


def equivalence(study: Study, records: Sequence[Record]) -> Table:
    """Give the largest error in each mode for every comparison that was planned."""
    compared = {r["run_id"]: r for r in evidence.of_case(records, "equivalence")}
    columns = (*COMPARED, "tensors", "bit_equal", *MODE_COLUMNS.values(), "horizon", "verdict")
    rows = [_comparison(planned, compared.get(planned.run_id)) for planned in study.compared()]
    caption = "Largest relative error in each mode, float64, equal weights."
    ran = evidence.references(compared.values())
    return make_table("equivalence", caption, columns, rows, ran)


def _comparison(planned: Comparison, record: Record | None) -> dict[str, str]:
    cells = {name: str(getattr(planned, name)) for name in COMPARED}
    if record is None or not agreement.live([record]):
        rest = ("tensors", "bit_equal", *MODE_COLUMNS.values(), "horizon", "verdict")
        by_trace = {"verdict": f"{record['verdict']['outcome']} (traces)"} if record else {}
        return {**cells, **dict.fromkeys(rest, NOT_RUN), **by_trace}
    rows = [row for row in agreement.modes([record]) if row["mode"] in MODE_COLUMNS]
    errors = {row["mode"]: scientific(row["max_error"]) for row in rows}
    ends, steps = (evidence.measured(record, name) for name in ("horizon", "free_steps"))
    return {
        **cells,
        "tensors": str(sum(row["compared"] for row in rows)),
        "bit_equal": str(sum(row["bit_equal"] for row in rows)),
        **{column: errors.get(mode, NOT_RUN) for mode, column in MODE_COLUMNS.items()},
        "horizon": short(ends) if ends != steps else f"over {steps}",
        "verdict": record["verdict"]["outcome"],
    }


def modes(study: Study, records: Sequence[Record]) -> Table:
    """Give the verdict by mode, over all comparisons with the reference and with timm."""
    compared = evidence.of_case(records, "equivalence")
    columns = ("mode", "compared", "bit_equal", "margin", "noise", "verdict", "timm")
    rows = [_mode(number, mode, compared) for number, mode in enumerate(agreement.MODES)]
    caption = (
        "The verdict by mode over all comparisons with the reference, and with timm: what was "
        "compared, what is equal to the bit, decades between the largest deviation and its "
        "threshold, and the largest relative noise of neutral rewrites."
    )
    return make_table("modes", caption, columns, rows, evidence.references(compared))


def _mode(number: int, mode: str, compared: Sequence[Record]) -> dict[str, str]:
    rows = [row for row in agreement.modes(compared) if row["mode"] == mode]
    ran = [row for row in rows if row["outcome"] != NOT_RUN]
    margin, noise = agreement.closest(ran), agreement.noise(ran, mode)
    counted, equal = (str(sum(row[name] for row in ran)) for name in ("compared", "bit_equal"))
    if mode in agreement.STRUCTURE:
        equal = NOTHING  # facts, not tensors
    return {
        "mode": f"M{number} {mode}",
        "compared": counted if ran else NOT_RUN,
        "bit_equal": equal if ran else NOT_RUN,
        "margin": NOTHING if margin is None else fixed(margin, 1, sign=True),
        "noise": scientific(noise) if noise else NOTHING,
        "verdict": worst(row["outcome"] for row in rows if row["against"] == "reference"),
        "timm": worst(row["outcome"] for row in rows if row["against"] == "timm"),
    }


ERROR_COLUMNS = (
    *("forward_eval", "forward_train", "activation_gradient", "parameter_gradient", "float32"),
    *("noise_forward", "noise_gradient", "threshold_forward", "threshold_gradient"),
)
LAYER_COLUMNS = ("depth", "layer", "reproduction", "kind", "shape", *ERROR_COLUMNS, "verdict")


def layers(network: str, records: Sequence[Record]) -> Table:
    """Give one row a layer of a network, with random weights if those were compared."""
    compared = [r for r in agreement.with_reference(records) if agreement.network_of(r) == network]
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
        "reproduction": row["reproduction"] or NOTHING,
        "kind": row["op"],
        "shape": row["shape"],
        **{name: NOTHING if e is None else scientific(e) for name, e in errors.items()},
        "verdict": "reproduced" if row["agrees"] else "not reproduced",
    }
