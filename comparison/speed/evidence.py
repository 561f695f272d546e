"""What the records of timings say, as plain values, and the verdicts on speed.

Records made before arms had rows of their own are passed over: they read "not run".
"""

import math
from collections.abc import Callable, Iterable, Sequence

from comparison.evidence import Record, Row, of_case, row_where
from comparison.judges import Judge, Verdict, worst
from comparison.speed.statements import Aim, aims
from comparison.study import Study

MAIN = ("cls_hrnet_w18", "inference", 8)  # what the roofline shows if it is there


def timed(records: Iterable[Record]) -> list[Record]:
    """Return the records of timings whose arms have rows."""
    return [
        record
        for record in of_case(records, "speed")
        if all("arm" in row for row in record["tables"]["speed"])
    ]


def rows(records: Iterable[Record]) -> list[Row]:
    """Return the rows of all arms of all timings."""
    return [row for record in timed(records) for row in record["tables"]["speed"]]


def ran(records: Iterable[Record], arm: str) -> list[Row]:
    """Return the rows of one arm in the timings in which it ran."""
    return [row for row in rows(records) if row["arm"] == arm and row["status"] == "ran"]


def row_of(records: Iterable[Record], aim: Aim) -> Row | None:
    """Return the row of the arm that an aim is for, if it was timed."""
    height, width = aim.image_size
    wanted = {
        **{"network": aim.network, "task": aim.task, "image_size": f"{height}x{width}"},
        **{"batch_size": aim.batch_size, "timed_precision": aim.precision, "arm": aim.arm},
    }
    found = (row_where(record, "speed", **wanted) for record in timed(records))
    return next((row for row in found if row), None)


def roof(record: Record, precision: str = "float32") -> float | None:
    """Return the best rate of a dense convolution on the machine of a record, in 10^9 a second."""
    rates = [
        row["gflops"]
        for row in record["tables"].get("limits", ())
        if row["limit"] == "convolution" and row["precision"] == precision
    ]
    return max(rates, default=None)


def bandwidth(record: Record) -> float | None:
    """Return how many 10^9 bytes a second the memory of a record's machine moves."""
    found = row_where(record, "limits", limit="memory")
    return found["gbytes_per_s"] if found else None


def rates(record: Record) -> dict[str, Row]:
    """Return how fast each arm computes, from the roofline's rows, by arm."""
    points = record["tables"].get("roofline", ())
    return {row["arm"]: row for row in points if row["kind"] == "network"}


def shares(record: Record, arm: str) -> dict[str, float]:
    """Return the share of an arm's time by operator; empty if it was not profiled."""
    rows = record["tables"].get("operators", ())
    return {row["operator"]: row["share"] for row in rows if row["arm"] == arm}


def main(records: Iterable[Record]) -> list[Record]:
    """Return the timing that stands for all in the roofline; one record or none."""
    network, task, batch_size = MAIN

    def order(record: Record) -> tuple[bool, ...]:
        about = record["subject"]
        return (
            about["precision"] != "float32",
            about["task"] != task,
            about["network"] != network,
            about["batch_size"] != batch_size,
        )

    return sorted(timed(records), key=order)[:1]


def latencies(records: Iterable[Record]) -> list[Record]:
    """Return the timings of one image of a classification network at the published size."""
    return [
        record
        for record in timed(records)
        if record["subject"]["published_top1_error"] is not None
        and (record["subject"]["task"], record["subject"]["batch_size"]) == ("inference", 1)
        and record["subject"]["image_size"] == [224, 224]
        and record["subject"]["precision"] == "float32"
    ]


def of_equal_speed(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge whether the reproduction in eager float32 is as fast as the reference, everywhere."""
    judged = [row for row in rows(records) if row["arm"] == "reproduction" and row["verdict"]]
    judged = [row for row in judged if row["verdict"] != "not run"]
    if not judged:
        return Verdict(outcome="not run", reason="the two were not timed beside one another")
    good = sum(row["verdict"] == "within tolerance" for row in judged)
    reason = f"{good} of {len(judged)} timings within the margin"
    if known := [row for row in judged if row["ratio_low"] is not None]:
        lowest = min(known, key=lambda row: row["ratio_low"])
        where = f"{lowest['ratio_low']:.2f} ({named(lowest)})"
        reason += f"; no interval of the ratio begins below {where}"
    outcome = worst(row["verdict"] for row in judged)
    return Verdict(outcome=outcome, reason=reason, records=len(judged))


def named(row: Row) -> str:
    """Name the input of a row."""
    small = ", bfloat16" if row["timed_precision"] == "bfloat16" else ""
    what = f"{row['network']}, {row['task']}, {row['image_size']}"
    return f"{what}, batch {row['batch_size']}{small}"


def slower(records: Iterable[Record], arm: str) -> list[str]:
    """Name the inputs on which the whole interval of an arm's ratio to the reference is below 1."""
    known = (row for row in ran(records, arm) if row["ratio_high"] is not None)
    return [named(row) for row in known if row["ratio_high"] < 1]


def of_errors(task: str) -> Callable[[Sequence[Record]], Verdict]:
    """Judge what the faster forms compute, by the rows of all timings of a task.

    Not judged are eager training, which is no faster form, and gradients and accuracies in
    bfloat16, which is other arithmetic: their rows are in the table.
    """

    def judge(records: Sequence[Record]) -> Verdict:
        mine = [record for record in records if record["subject"]["task"] == task]
        judged = [
            row
            for record in mine
            for row in record["tables"]["errors"]
            if row["verdict"] not in UNJUDGED and (task, row["form"]) != ("training", "eager")
        ]
        if not judged:
            return Verdict(outcome="not run", reason="what faster forms compute was not compared")
        outcome = worst(row["verdict"] for row in judged)
        parts = [
            f"{sum(row['verdict'] in GOOD for row in rows)} of {len(rows)} {what}"
            for kind, what in QUANTITIES.items()
            if (rows := [row for row in judged if row["quantity"].startswith(kind)])
        ]
        reason = f"{', '.join(parts)} within tolerance"
        if bad := [row for row in judged if row["verdict"] == outcome and outcome not in GOOD]:
            row = max(bad, key=_how_bad)
            reason += f"; the worst: {row['form']}: {row['reason']}"
        return Verdict(outcome=outcome, reason=reason, records=len(mine))

    return judge


def _how_bad(row: Row) -> float:
    """Order errors by their multiple of the reference's own, and accuracies by what is lost."""
    value, beside = row["value"], row["reference"]
    if value is None or not beside:  # no number at all, or one that nothing may stand beside
        return math.inf
    return float(beside - value if row["quantity"].startswith("accuracy") else value / beside)


def of_aims(task: str, proven: Callable[[Sequence[Record]], Verdict]) -> Judge:
    """Judge the aims for training or inference, and that the faster form computes the same.

    Args:
        task: ``inference`` or ``training``.
        proven: Judges the numerical errors of the faster forms.
    """

    def judge(study: Study, records: Sequence[Record]) -> Verdict:
        found = [(aim, row_of(records, aim)) for aim in aims() if aim.task == task]
        run = [row for _, row in found if row and row["verdict"] != "not run"]
        absent = [
            f"{aim.key}: {row['reason']}"
            for aim, row in found
            if row and row["verdict"] == "not run"
        ]
        if not run:
            return Verdict(outcome="not run", reason="; ".join(absent) or "no aim was timed")
        good = sum(row["verdict"] in GOOD for row in run)
        same = proven(timed(records))
        missed = [row for row in run if row["verdict"] not in GOOD]
        below = sum((row["ratio_high"] or math.inf) < row["aim"] for row in missed)
        parts = [f"{good} of {len(run)} aims met"]
        parts += [f"in {below} the whole interval lies below the factor"] if below else []
        parts += [f"{named(row)}: {row['reason']}" for row in run if row["verdict"] in BAD][:1]
        parts += [f"slower than the reference: {it}" for it in slower(records, FASTER[task])]
        parts += [same.reason]
        parts += [f"not run: {told}" for told in absent]
        outcome = worst([*(row["verdict"] for row in run), same.outcome])
        return Verdict(outcome=outcome, reason="; ".join(parts), records=len(run))

    return judge


FASTER = {"training": "fast", "inference": "deploy"}  # the arm that the aims are for
BAD = ("not reproduced", "undecided")
GOOD = ("reproduced", "within tolerance")
UNJUDGED = (None, "not run", "not comparable")
QUANTITIES = {  # how a row's quantity begins, and what several of it are called
    "gradient": "gradients",
    "output": "outputs",
    "all layers": "folded networks",
    "accuracy": "accuracies",
}
