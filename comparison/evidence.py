"""What the records of a study say, as plain values: the one reading that claims, tables, numbers
and figures share. Nothing is rounded here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from comparison import statistics
from comparison.study import ARMS, Study

Record = dict[str, Any]
Row = dict[str, Any]


def of_case(records: Iterable[Record], case: str) -> list[Record]:
    """Return the records of one case, in their order."""
    return [record for record in records if record["case"] == case]


def name_of(record: Record) -> str:
    """Return the record's path below the study's folder."""
    return f"records/{record['case']}/{record['run_id']}.json"


def measured(record: Record, name: str) -> Any:
    """Return a measurement's value, or None if the record has none of that name."""
    return next((m["value"] for m in record["measurements"] if m["name"] == name), None)


def rows_of(records: Iterable[Record], table: str) -> list[Row]:
    """Return the rows of one table over several records; each row keeps its own columns."""
    return [row for record in records for row in record["tables"].get(table, ())]


def row_where(record: Record, table: str, **wanted: Any) -> Row | None:
    """Return the first row of a table with the wanted entries, or None."""
    rows = record["tables"].get(table, ())
    return next((r for r in rows if all(r.get(k) == v for k, v in wanted.items())), None)


def references(records: Iterable[Record]) -> list[str]:
    """List which references ran, each as label and hash."""
    ran = (record["inputs"].get("reference") for record in records)
    named = {f"{it['label']}, SHA-256 {it['sha256'][:12]}" for it in ran if it and "label" in it}
    return sorted(named)


def planned_runs(records: Iterable[Record], study: Study) -> list[Record]:
    """Return the training runs that the study file asked for, and no other.

    A run by hand into the study's folder, with further seeds or other epochs, is shown but does
    not enter the test: else one could add runs until it passes.
    """
    plan = study.training
    if plan is None:
        return []
    wanted = {
        "network": plan.network,
        "data": plan.data.partition(":")[0],
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
    }
    return [
        record
        for record in of_case(records, "training")
        if record["subject"]["arm"] in plan.arms
        and record["subject"]["seed"] in plan.seeds
        and all(record["subject"]["config"].get(name) == value for name, value in wanted.items())
    ]


def accuracies(runs: Iterable[Record]) -> dict[str, list[float]]:
    """Return top-1 after the last epoch for each arm, by seed."""
    ordered = sorted(runs, key=lambda record: record["subject"]["seed"])
    return {
        arm: [measured(r, "top1") for r in ordered if r["subject"]["arm"] == arm] for arm in ARMS
    }


def margins(runs: Iterable[Record]) -> set[float]:
    """Return the margins that the runs were made under; one, unless the plan was changed."""
    expected = (e for record in runs for e in record["expectations"])
    return {float(e["tolerance"]) for e in expected if e["name"] == "top1_difference"}


def accuracy_test(runs: Sequence[Record]) -> statistics.Equivalence | None:
    """Test both arms' accuracies against the recorded margin; None where that cannot be done."""
    samples, allowed = accuracies(runs), margins(runs)
    if len(allowed) != 1 or not all(samples.values()):
        return None
    return statistics.tost(samples["reference"], samples["reproduction"], allowed.pop())


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """A network's cost as printed and as counted in the reproduction, and printed accuracy."""

    name: str
    printed: float
    counted: float
    accuracy: float


def costs_and_accuracies(records: Iterable[Record]) -> list[CostPoint]:
    """Return cost and published top-1 accuracy of every network that was counted."""
    points = []
    for record in of_case(records, "networks"):
        cost = row_where(record, "cost", quantity="published_gflops")
        error = row_where(record, "cost", quantity="top1_error")
        if cost and error:
            points.append(
                CostPoint(
                    name=short_name(record["subject"]["network"]),
                    printed=float(cost["paper"]),
                    counted=cost["reproduction"],
                    accuracy=float(100 - Decimal(error["paper"])),
                )
            )
    return points


def short_name(network: str) -> str:
    """Write an official name as the papers do.

    >>> short_name("cls_hrnet_w18_small_v1"), short_name("cls_hrnet_w48")
    ('W18-Small-v1', 'W48')
    """
    parts = network.removeprefix("cls_hrnet_").split("_")
    return "-".join([parts[0].upper(), *(part.replace("small", "Small") for part in parts[1:])])


def bit_equal_seeds(runs: Sequence[Record]) -> int:
    """Count the seeds after which both arms ended with the same weights, to the bit."""
    weights = ({r["inputs"]["weights"]["final_sha256"] for r in pair} for pair in pairs(runs))
    return sum(len(digests) == 1 for digests in weights)


def flips(runs: Iterable[Record], precision: str) -> tuple[int, int]:
    """Return how many decisions differed after exchanging weights, and of how many."""
    rows = [row for row in rows_of(runs, "exchange") if row["precision"] == precision]
    return sum(row["flips"] for row in rows), sum(row["images"] for row in rows)


def main_network(study: Study) -> str:
    """Return the network that figures and examples show: W18 if the study has it."""
    chosen = "cls_hrnet_w18"
    known = study.classifiers
    return chosen if chosen in known or not known else known[0]


def compared_by_layer(study: Study, records: Iterable[Record]) -> list[Record]:
    """Return the equivalence record that the figures by layer show, with random weights if there.

    One record or none.
    """
    preferred = f"{main_network(study)}.random.reference."
    compared = [r for r in of_case(records, "equivalence") if r["tables"]["layers"]]
    ordered = sorted(compared, key=lambda r: (not r["run_id"].startswith(preferred), r["run_id"]))
    return ordered[:1]


def followed_longest(study: Study, records: Iterable[Record]) -> list[Record]:
    """Return the equivalence record with the most optimizer steps; one record or none."""
    compared = [r for r in of_case(records, "equivalence") if r["tables"]["steps"]]
    return sorted(compared, key=lambda r: (-len(r["tables"]["steps"]), r["run_id"]))[:1]


def pairs(runs: Iterable[Record]) -> list[tuple[Record, Record]]:
    """Return reference and reproduction of every seed that has both."""
    by_seed: dict[int, dict[str, Record]] = {}
    for run in runs:
        by_seed.setdefault(run["subject"]["seed"], {})[run["subject"]["arm"]] = run
    complete = (arms for _, arms in sorted(by_seed.items()) if len(arms) == len(ARMS))
    return [(arms["reference"], arms["reproduction"]) for arms in complete]
