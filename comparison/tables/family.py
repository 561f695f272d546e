"""Tables of the whole family: sizes and costs of dense networks, kinds of evidence, accuracies."""

from collections.abc import Iterable, Sequence
from typing import Any

from comparison import agreement, evidence, published
from comparison.evidence import Record, Row
from comparison.judges import worst
from comparison.study import ARMS, SMALL, Study
from comparison.tables.table import NOT_RUN, NOTHING, Table, fixed, make_table, scientific
from reproduction import CLASSIFICATION, NETWORKS

SHAPE = ("width", "outputs", "image_size", "upsampling")
NETWORK_COLUMNS = (
    *("network", *SHAPE, "keys", "parameters_reference", "parameters_reproduction"),
    *("gmacs_reference", "gmacs_reproduction", "verdict"),
)
COST_COLUMNS = (
    *("network", "quantity", "image_size", "paper", *ARMS, "manner", "convention"),
    *("verdict", "source"),
)
EVIDENCE_COLUMNS = (
    *("network", "task", "live", "live_verdict", "same_bits", "trace_rows", "anchors"),
    *("largest_error", "trace_verdict", "counted"),
)
ACCURACY_COLUMNS = (
    *("task", "network", "data", "setting", "metric", "paper", *ARMS, "measured_on", "verdict"),
    "source",
)


def dense_networks(study: Study, records: Sequence[Record]) -> Table:
    """List the networks for dense tasks: how they are configured, what both arms have."""
    counted = _dense(records)
    found = {row["network"]: row for row in evidence.rows_of(counted, "dense_networks")}
    rows = [_network(found[name]) for name in NETWORKS if name in found]
    caption = (
        "The networks for dense tasks: names and shapes of all weights (hash), parameters in "
        "millions, and multiply-accumulates in units of 10^9 for one image of the given size."
    )
    ran = evidence.references(_counted_beside(counted))
    return make_table("dense_networks", caption, NETWORK_COLUMNS, rows, ran)


def _network(row: Row) -> dict[str, str]:
    def scaled(name: str, unit: float) -> str:
        return fixed(None if row[name] is None else row[name] / unit, 3)

    return {
        **{name: str(row[name]) for name in ("network", *SHAPE, "verdict")},
        "keys": row["keys_reproduction"],
        **{f"parameters_{arm}": scaled(f"parameters_{arm}", 1e6) for arm in ARMS},
        **{f"gmacs_{arm}": scaled(f"macs_{arm}", 1e9) for arm in ARMS},
    }


def _dense(records: Iterable[Record]) -> list[Record]:
    return [r for r in evidence.of_case(records, "networks") if "dense_cost" in r["tables"]]


def _counted_beside(counted: Iterable[Record]) -> list[Record]:
    """Lay out one record for each official code that was counted."""
    found = [one for record in counted for one in record["inputs"]["references"].values()]
    return [{"inputs": {"reference": one}} for one in found]


def dense_cost(study: Study, records: Sequence[Record]) -> Table:
    """List every printed size and cost of a network for a dense task, and how it comes about."""
    counted = _dense(records)
    found: dict[tuple[str, ...], Row] = {}  # a network may be counted alone and with its family
    for row in evidence.rows_of(counted, "dense_cost"):
        found[row["network"], row["quantity"], row["paper"], row["source"]] = row
    rows = [_printed(row) for row in found.values()]
    caption = (
        "Published sizes (millions of parameters) and costs of networks for dense tasks, and what "
        "is counted by the convention that explains them."
    )
    ran = evidence.references(_counted_beside(counted))
    return make_table("dense_cost", caption, COST_COLUMNS, rows, ran)


def _printed(row: Row) -> dict[str, str]:
    text = {name: str(row[name]) for name in COST_COLUMNS if name not in ARMS}
    return {**text, **{arm: fixed(row[arm], 2) for arm in ARMS}}


def evidence_by_network(study: Study, records: Sequence[Record]) -> Table:
    """Say of every network by what it was held to the official code here: live, or by trace."""
    compared = agreement.with_reference(records)
    replayed = agreement.traces(records)
    planned = {run.network: "not run" for run in study.compared() if run.against == "reference"}
    reasons = {**planned, **_why_not(records)}
    counted, run_beside = _counted(records), _run_beside(records)
    rows = [
        {
            **_evidence(name, compared, replayed, reasons),
            "same_bits": run_beside.get(name, NOTHING if name in CLASSIFICATION else NOT_RUN),
            "counted": counted.get(name, NOT_RUN),
        }
        for name in NETWORKS
    ]
    caption = (
        "By what each network was held to the official code in this study: tensor by tensor beside "
        "it (live), by the bits of one batch beside it, by the numbers that it was recorded to "
        "(traces and anchors), and by names, shapes and counts."
    )
    ran = evidence.references(compared)
    return make_table("family", caption, EVIDENCE_COLUMNS, rows, ran)


def _counted(records: Sequence[Record]) -> dict[str, str]:
    """Return the verdict on parameters and operations, by network."""
    rows = evidence.rows_of(_dense(records), "dense_networks")
    counted = [r for r in evidence.of_case(records, "networks") if "cost" in r["tables"]]
    return {
        **{row["network"]: row["verdict"] for row in rows},
        **{record["subject"]["network"]: record["verdict"]["outcome"] for record in counted},
    }


def _run_beside(records: Sequence[Record]) -> dict[str, str]:
    """Return the verdict on equal bits over one batch, by network; not in earlier records."""
    rows = evidence.rows_of(_dense(records), "dense_networks")
    return {row["network"]: row["live_verdict"] for row in rows if "live_verdict" in row}


def _why_not(records: Iterable[Record]) -> dict[str, str]:
    """Say why networks whose comparison was planned did not run live."""
    compared = evidence.of_case(records, "equivalence")
    return {
        agreement.network_of(r): r["inputs"]["live"]
        for r in compared
        if agreement.against_of(r) == "reference" and "live" in r["inputs"]
    }


def _evidence(
    name: str, compared: Sequence[Record], replayed: Sequence[Row], reasons: dict[str, str]
) -> dict[str, str]:
    live = [record for record in compared if agreement.network_of(record) == name]
    traced = [row for row in replayed if row["network"] == name]
    anchors = [row for row in traced if row["phase"].startswith("anchor")]
    numbers = sum(row["rows"] for row in traced if row not in anchors)
    failed = any(row["failures"] for row in traced)
    ran = ", ".join(sorted({record["inputs"]["reference"]["label"] for record in live}))
    return {
        "network": name,
        "task": NETWORKS[name].task,
        "live": ran or reasons.get(name, "not planned"),
        "live_verdict": worst(record["verdict"]["outcome"] for record in live),
        "trace_rows": str(numbers) if numbers else NOTHING,
        "anchors": str(len(anchors)) if anchors else NOTHING,
        "largest_error": scientific(max((r["worst_relative_error"] for r in traced), default=None)),
        "trace_verdict": NOT_RUN if not traced else "not reproduced" if failed else "reproduced",
    }


def task_accuracy(study: Study, records: Sequence[Record]) -> Table:
    """List published accuracies of dense tasks beside those measured here, on other data."""
    measured = _measured(records)
    rows = [_accuracy(figure, measured) for figure in published.accuracies()]
    caption = (
        "Published accuracies of dense tasks, and what both implementations reached here on "
        "composed scenes with networks of other sizes: the same metric, not comparable values."
    )
    ran = evidence.references(evidence.of_case(records, "tasks"))
    return make_table("task_accuracy", caption, ACCURACY_COLUMNS, rows, ran)


def _measured(records: Iterable[Record]) -> dict[tuple[str, str, str], tuple[list[float], str]]:
    """Collect measured accuracies by task, metric and arm, with the data's name."""
    found: dict[tuple[str, str, str], tuple[list[float], str]] = {}
    for record in evidence.of_case(records, "tasks"):
        subject = record["subject"]
        if subject["variant"] != SMALL:
            continue  # an ablation: another network than the published ones
        task = subject["task"]
        data = str((record["inputs"].get("data") or {}).get("name", "composed scenes"))
        for entry in record["measurements"]:
            key = (task, _metric(entry["name"]), str(subject.get("arm")))
            if isinstance(entry["value"], int | float):
                found.setdefault(key, ([], data))[0].append(float(entry["value"]))
    return found


def _metric(name: str) -> str:
    """Write a metric's name as published figures have it.

    >>> _metric("mIoU"), _metric("AP"), _metric("box_ap")
    ('miou', 'ap', 'ap')
    """
    plain = name.lower()
    return "ap" if plain == "box_ap" else plain


def _accuracy(
    figure: published.Accuracy, measured: dict[tuple[str, str, str], tuple[list[float], str]]
) -> dict[str, str]:
    here = {arm: measured.get((figure.task, _metric(figure.metric), arm)) for arm in ARMS}
    values: dict[str, Any] = {
        arm: None if found is None else sum(found[0]) / len(found[0]) for arm, found in here.items()
    }
    data = sorted({found[1] for found in here.values() if found})
    return {
        "task": figure.task,
        "network": figure.network,
        "data": figure.data,
        "setting": figure.setting,
        "metric": figure.metric,
        "paper": figure.printed,
        **{arm: fixed(value, 1) for arm, value in values.items()},
        "measured_on": ", ".join(data) or NOT_RUN,
        "verdict": "not comparable" if data else NOT_RUN,
        "source": figure.by,
    }
