"""Tables of what training gave: runs, accuracy, exchanged weights."""

from collections.abc import Sequence
from typing import Any

from comparison import evidence, statistics
from comparison.evidence import Record, measured
from comparison.study import ARMS, Study
from comparison.tables.table import (
    CONTRACT,
    NOT_RUN,
    NOTHING,
    Table,
    fixed,
    interval,
    make_table,
)

RUN_COLUMNS = (
    *("network", "data", "arm", "seed", "epochs", "top1", "top5", "test_loss", "train_loss"),
    *("train_wall_s", "batches", "in_plan"),
)
EXCHANGE_COLUMNS = (
    *("trained_by", "seed", "precision", "images", "flips", "reference", "reproduction"),
    *("tolerance", "verdict"),
)


def training(study: Study, records: Sequence[Record]) -> Table:
    """List every training run."""
    runs = evidence.of_case(records, "training")
    planned = {record["run_id"] for record in evidence.planned_runs(runs, study)}
    rows = [_run(record, record["run_id"] in planned) for record in runs]
    caption = "Training runs; accuracies in percent after the last epoch."
    return make_table("training", caption, RUN_COLUMNS, rows, evidence.references(runs))


def _run(record: Record, planned: bool) -> dict[str, str]:
    subject = record["subject"]
    return {
        "network": subject["network"],
        "data": record["inputs"]["data"]["name"],
        "arm": subject["arm"],
        "seed": str(subject["seed"]),
        "epochs": str(subject["config"]["epochs"]),
        "top1": fixed(measured(record, "top1"), 2),
        "top5": fixed(measured(record, "top5"), 2),
        "test_loss": fixed(measured(record, "test_loss"), 4),
        "train_loss": fixed(measured(record, "train_loss"), 4),
        "train_wall_s": fixed(measured(record, "train_wall_s"), 0),
        "batches": str(measured(record, "batches_sha256"))[:12],
        "in_plan": "yes" if planned else "no",
    }


def accuracy(study: Study, records: Sequence[Record]) -> Table:
    """Set both arms' accuracies side by side, with the test's verdict in the first row."""
    runs = evidence.planned_runs(records, study)
    columns = ("quantity", "runs", *CONTRACT)
    rows = [_tested(runs), *(_described(name, runs) for name in DESCRIBED)] if runs else []
    data = f" on {study.training.data.partition(':')[0]}" if study.training else ""
    caption = (
        f"Accuracy after the last epoch{data}, reproduction minus reference; equality is decided "
        "by two one-sided Welch tests."
    )
    return make_table("accuracy", caption, columns, rows, evidence.references(runs))


def _tested(runs: Sequence[Record]) -> dict[str, str]:
    samples, test = evidence.accuracies(runs), evidence.accuracy_test(runs)
    cells = dict.fromkeys(ARMS, NOT_RUN)
    for arm, values in samples.items():
        if values:
            mean = statistics.mean_interval(values)
            cells[arm] = f"{fixed(mean.value, 2)} {_bounds(mean)}".strip()
    return {
        "quantity": "top-1, mean and 95 % interval (%)",
        "runs": _counts(runs),
        "paper": "not comparable",
        **cells,
        "delta": _delta(test),
        "tolerance": f"±{test.margin:g}" if test else NOT_RUN,
        "verdict": test.outcome if test else NOT_RUN,
    }


def _bounds(estimate: statistics.Interval) -> str:
    return "" if estimate.low is None else interval(estimate.low, estimate.high, 2)


def _delta(test: statistics.Equivalence | None) -> str:
    if test is None:
        return NOT_RUN
    bounds = "" if test.low is None else " " + interval(test.low, test.high, 2, sign=True)
    return fixed(test.difference, 2, sign=True) + bounds


def _counts(runs: Sequence[Record]) -> str:
    return " + ".join(str(len(values)) for values in evidence.accuracies(runs).values())


DESCRIBED: dict[str, tuple[str, Any, int]] = {
    "top-1, standard deviation": ("top1", statistics.deviation, 2),
    "top-1, lowest run (%)": ("top1", min, 2),
    "top-1, highest run (%)": ("top1", max, 2),
    "top-5, mean (%)": ("top5", lambda values: sum(values) / len(values), 2),
    "test loss, mean (nats)": ("test_loss", lambda values: sum(values) / len(values), 4),
}


def _described(name: str, runs: Sequence[Record]) -> dict[str, str]:
    """Make a row that describes and decides nothing."""
    what, summarize, digits = DESCRIBED[name]
    values: dict[str, float | None] = {}
    for arm in ARMS:
        taken = [measured(r, what) for r in runs if r["subject"]["arm"] == arm]
        values[arm] = summarize(taken) if taken else None
    first, second = values["reference"], values["reproduction"]
    delta = None if first is None or second is None else second - first
    return {
        "quantity": name,
        "runs": _counts(runs),
        "paper": "not comparable",
        **{arm: fixed(value, digits) for arm, value in values.items()},
        "delta": fixed(delta, digits, sign=True),
        "tolerance": NOTHING,
        "verdict": NOTHING,
    }


def exchange(study: Study, records: Sequence[Record]) -> Table:
    """List how many decisions differ when the other arm runs the trained weights."""
    runs = evidence.of_case(records, "training")
    rows = [_exchanged(record, row) for record in runs for row in record["tables"]["exchange"]]
    caption = "Decisions that differ when the other implementation runs the same trained weights."
    return make_table("exchange", caption, EXCHANGE_COLUMNS, rows, evidence.references(runs))


def _exchanged(record: Record, row: dict[str, Any]) -> dict[str, str]:
    exact = row["precision"] == "float64"
    return {
        "trained_by": row["trained_by"],
        "seed": str(record["subject"]["seed"]),
        "precision": row["precision"],
        "images": str(row["images"]),
        "flips": str(row["flips"]),
        "reference": fixed(row["top1_reference"], 2),
        "reproduction": fixed(row["top1_reproduction"], 2),
        "tolerance": "0" if exact else NOTHING,
        "verdict": ("not reproduced" if row["flips"] else "reproduced") if exact else NOTHING,
    }
