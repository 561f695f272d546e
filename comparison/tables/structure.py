"""Tables of what the networks are, cost and compute: both arms and the published figures."""

from collections.abc import Sequence
from typing import Any

from comparison import evidence
from comparison.evidence import Record
from comparison.study import ARMS, Study
from comparison.tables.table import (
    CONTRACT,
    NOT_RUN,
    Table,
    fixed,
    make_table,
    short,
)
from reproduction import CLASSIFICATION

SHAPE_COLUMNS = ("width", "stage1", "exchange_blocks", "residual_units")
COST_DIGITS = {"top1_error": 1, "top5_error": 1}
USUAL_DIGITS = 4


def networks(study: Study, records: Sequence[Record]) -> Table:
    """List the planned networks: their shape, their parameters, and whether the cost is met."""
    counted = {r["subject"]["network"]: r for r in evidence.of_case(records, "networks")}
    columns = ("network", *SHAPE_COLUMNS, *CONTRACT, "published_gflops")
    rows = [_network(name, counted.get(name)) for name in study.classifiers]
    caption = (
        "The networks as configured, their parameters in millions, and whether the published "
        "GFLOPs are met to the printed digit."
    )
    return make_table("networks", caption, columns, rows, evidence.references(counted.values()))


def _network(name: str, record: Record | None) -> dict[str, str]:
    config = CLASSIFICATION[name]
    shape = {
        "network": name,
        "width": str(config.width),
        "stage1": f"{config.stage1_blocks} × {config.stage1_width}",
        "exchange_blocks": ", ".join(map(str, config.exchange_blocks)),
        "residual_units": str(config.residual_units),
    }
    size = evidence.row_where(record, "cost", quantity="parameters_m") if record else None
    cost = evidence.row_where(record, "cost", quantity="published_gflops") if record else None
    if size is None:
        return {**shape, **dict.fromkeys((*CONTRACT, "published_gflops"), NOT_RUN)}
    return {**shape, **_contract(size), "published_gflops": cost["verdict"] if cost else NOT_RUN}


def _contract(row: dict[str, Any]) -> dict[str, str]:
    """Round a row that the record laid out in the order of the contract."""
    digits = COST_DIGITS.get(row["quantity"], USUAL_DIGITS)
    cells = {name: row[name] for name in CONTRACT}
    for name in (*ARMS, "delta"):
        if not isinstance(row[name], str):
            cells[name] = fixed(row[name], digits, sign=name == "delta") if row[name] else "0"
    return cells


def cost(study: Study, records: Sequence[Record]) -> Table:
    """List every counted quantity beside what the official README prints."""
    order = list(CLASSIFICATION)
    counted = [r for r in evidence.of_case(records, "networks") if "cost" in r["tables"]]
    counted.sort(key=lambda record: order.index(record["subject"]["network"]))
    columns = ("network", "quantity", "unit", *CONTRACT, "source")
    rows = [
        {
            "network": record["subject"]["network"],
            "quantity": row["quantity"],
            "unit": row["unit"],
            **_contract(row),
            "source": short(row["source"]),
        }
        for record in counted
        for row in record["tables"]["cost"]
    ]
    caption = "Parameters and cost at 224 pixels in three conventions, and published errors."
    return make_table("cost", caption, columns, rows, evidence.references(counted))


DIFFERENCE_COLUMNS = (
    *("id", "title", "paper", "reference", "reproduction"),
    *("effect", "value", "unit", "verdict", "source"),
)
FIRST_OF_OTHER_TASKS = 18  # differences of dense tasks follow those of classification


def differences(study: Study, records: Sequence[Record]) -> Table:
    """List where paper, official code and reproduction differ, with the measured effect."""
    caption = "Where the paper, the official code and the reproduction differ."
    return _differences("differences", caption, records, first=1)


def traps(study: Study, records: Sequence[Record]) -> Table:
    """List the differences of dense tasks alone."""
    caption = "Where they differ in tasks other than classification, and what that does."
    return _differences("traps", caption, records, first=FIRST_OF_OTHER_TASKS)


def _differences(name: str, caption: str, records: Sequence[Record], first: int) -> Table:
    known = evidence.of_case(records, "differences")
    rows = [
        {column: short(row[column]) for column in DIFFERENCE_COLUMNS}
        for row in evidence.rows_of(known, "differences")
        if int(row["id"][1:]) >= first
    ]
    return make_table(name, caption, DIFFERENCE_COLUMNS, rows, evidence.references(known))


def audit(study: Study, records: Sequence[Record]) -> Table:
    """List how much text the reproduction shares with each source, beside the control pairs."""
    audited = evidence.of_case(records, "audit")
    columns = (
        *("source", "file", "tokens", "longest_run", "run_limit", "share", "share_limit"),
        *("figures", "verdict"),
    )
    rows = [row for record in audited for row in _audit_rows(record)]
    caption = (
        "Common program text, identifiers made equal: the longest common run of tokens and the "
        "share of common n-grams; control pairs are networks written independently."
    )
    return make_table("audit", caption, columns, rows, evidence.references(audited))


def _audit_rows(record: Record) -> list[dict[str, str]]:
    limits = {
        "run_limit": short(evidence.measured(record, "limit_longest_run")),
        "share_limit": fixed(evidence.measured(record, "limit_share"), 3),
    }
    outcomes = {True: "within tolerance", False: "not reproduced", None: NOT_RUN}
    sources = [
        {
            "source": row["reference"],
            "file": row["path"],
            "tokens": short(row["tokens"]),
            "longest_run": short(row["longest_run"]),
            "share": fixed(row["share"], 3),
            **limits,
            "figures": row["source"],
            "verdict": outcomes[row["passes"]],
        }
        for row in record["tables"]["files"]
    ]
    kinds = dict.fromkeys(row["kind"] for row in record["tables"]["controls"])
    return [*sources, *(_controls(record, kind, limits) for kind in kinds)]


def _controls(record: Record, kind: str, limits: dict[str, str]) -> dict[str, str]:
    """Sum up the control pairs of a kind by their largest figures."""
    pairs = [row for row in record["tables"]["controls"] if row["kind"] == kind]
    return {
        "source": f"control: {kind}",
        "file": f"{len(pairs)} pairs, largest",
        "tokens": "–",
        "longest_run": str(max(row["longest_run"] for row in pairs)),
        "share": fixed(max(row["share"] for row in pairs), 3),
        **limits,
        "figures": "measured",
        "verdict": "–",
    }
