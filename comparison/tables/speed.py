"""Tables of speed: times, ratios and memory of every arm, and where its time goes."""

from collections.abc import Sequence
from dataclasses import replace

from comparison import evidence
from comparison.evidence import Record, Row, row_where
from comparison.speed import evidence as found
from comparison.speed import statements
from comparison.speed.errors import ARM_OF
from comparison.speed.statements import NO_STATEMENT
from comparison.study import Study
from comparison.tables.table import (
    NOT_RECORDED,
    NOT_RUN,
    NOTHING,
    Table,
    fixed,
    interval,
    make_table,
    scientific,
)

OF_BEST_ENDS = ("of_best_low", "of_best_high")
NOT_PROFILED = "not profiled"  # runtimes that PyTorch's profiler does not see into
SUBJECT = ("network", "task", "image_size", "batch_size", "arm", "precision")
SPEED_COLUMNS = (
    *SUBJECT,
    *("ms", "range", "images_per_s", "ratio", "interval", "aim", "of_best", "verdict"),
    *("peak_mib", "making_s", "rounds", "device", "threads", "load", "statement"),
)
GROUPS = {
    "convolution": "convolution",
    "matrix product": "matrix_product",
    "batch norm": "batch_norm",
    "ReLU": "relu",
    "addition": "addition",
    "upsampling": "upsampling",
    "layout and copies": "copies",
    "optimizer": "optimizer",
    "other": "other",
}
OPERATOR_COLUMNS = (*SUBJECT, *GROUPS.values(), "gflops", "roof_gflops", "of_roof")


def speed(study: Study, records: Sequence[Record]) -> Table:
    """List every arm of every timing; a ratio that cannot be told is not printed."""
    timed = found.timed(records)
    rows = [row for record in timed for row in rows_of(record)]
    caption = (
        "Milliseconds a call (median and range over interleaved rounds), how many times as fast as "
        "the reference with the 95 % interval, what was aimed at beforehand, how fast the deployed "
        "form is beside the fastest runtime (%), and peak memory (MiB) of a process that makes and "
        "runs this arm alone, PyTorch itself included; on a GPU, of its memory."
    )
    return make_table("speed", caption, SPEED_COLUMNS, rows, evidence.references(timed))


def rows_of(record: Record) -> list[dict[str, str]]:
    """Lay out the arms of one timing as the table of all timings does."""
    return [_timed(record, row) for row in record["tables"]["speed"]]


def _subject(row: Row) -> dict[str, str]:
    return {column: str(row[column]) for column in SUBJECT}


def _timed(record: Record, row: Row) -> dict[str, str]:
    about, ran = record["subject"], row["status"] == "ran"
    first = row["arm"] == "reference"
    return {
        **_subject(row),
        "ms": fixed(row["ms"], 1),
        "range": interval(row["ms_low"], row["ms_high"], 1),
        "images_per_s": fixed(row["images_per_s"], 1),
        "ratio": NOTHING if first else ratio_cell(row),
        "interval": NOTHING if first else interval(row["ratio_low"], row["ratio_high"], 2),
        "aim": aim_cell(row),
        "of_best": of_best_cell(row),
        "verdict": row["verdict"] or NOTHING,
        "peak_mib": peak(record, row["arm"]) if ran else NOT_RUN,
        "making_s": fixed(row["making_s"], 1),
        "rounds": str(row["rounds"]) if ran else NOT_RUN,
        "device": about["device"],
        "threads": str(row["threads"]),
        "load": f"{about['load_before']:.1f} to {about['load_after']:.1f}",
        "statement": row["statement"] if ran else row["status"],
    }


def ratio_cell(row: Row) -> str:
    """Write a ratio, or that it cannot be told."""
    if row["ratio"] is None:
        return NOT_RUN
    return NO_STATEMENT if row["statement"].startswith(NO_STATEMENT) else f"×{row['ratio']:.2f}"


def aim_cell(row: Row) -> str:
    """Write what was aimed at: the median, and the lower bound if one was fixed."""
    if row["aim"] is None:
        return NOTHING
    return f"{row['aim']:g}" + ("" if row["aim_lower"] is None else f", ≥ {row['aim_lower']:g}")


def of_best_cell(row: Row) -> str:
    """Write the speed of what is deployed as a share of the fastest runtime's, with interval."""
    if row.get("of_best") is None:
        return NOTHING
    low, high = (None if row[end] is None else 100 * row[end] for end in OF_BEST_ENDS)
    return f"{fixed(100 * row['of_best'], 0)} % {interval(low, high, 0)}"


def peak(record: Record, arm: str) -> str:
    """Write the peak memory of a process that made and ran an arm, in MiB.

    Earlier records hold it only up to where the arm was made, which says nothing.
    """
    row = row_where(record, "memory", arm=arm) or {}
    if row.get("device_mib") is not None:
        return fixed(row["device_mib"], 0)
    return fixed(row["peak_mib"], 0) if "peak_mib" in row else NOT_RECORDED


AIM_COLUMNS = (
    *("network", "task", "image_size", "batch_size", "precision", "arm", "reference_ms", "ms"),
    *("ratio", "interval", "aim", "lower", "verdict", "reason"),
)


def aims(study: Study, records: Sequence[Record]) -> Table:
    """List what was aimed at beforehand, and what was measured."""
    timed = found.timed(records)
    rows = [_aim(aim, timed) for aim in statements.aims()]
    caption = (
        "What was aimed at beforehand, as a ratio to the reference in eager float32, and what was "
        "measured; lower: what the lower end of the 95 % interval was to reach."
    )
    return make_table("aims", caption, AIM_COLUMNS, rows, evidence.references(timed))


def _aim(aim: statements.Aim, timed: Sequence[Record]) -> dict[str, str]:
    height, width = aim.image_size
    row = found.row_of(timed, aim) or {}
    beside = found.row_of(timed, replace(aim, arm="reference")) or {}
    return {
        **{"network": aim.network, "task": aim.task, "image_size": f"{height}x{width}"},
        **{"batch_size": str(aim.batch_size), "precision": aim.precision, "arm": aim.arm},
        "reference_ms": fixed(beside.get("ms"), 1),
        "ms": fixed(row.get("ms"), 1),
        "ratio": ratio_cell(row) if row else NOT_RUN,
        "interval": interval(row.get("ratio_low"), row.get("ratio_high"), 2),
        "aim": f"×{aim.ratio:g}",
        "lower": NOTHING if aim.lower is None else f"×{aim.lower:g}",
        "verdict": row.get("verdict") or NOT_RUN,
        "reason": row.get("reason") or NOT_RUN,
    }


def operators(study: Study, records: Sequence[Record]) -> Table:
    """List where the time of each arm goes, and its rate below the machine's."""
    timed = found.timed(records)
    rows = [
        _operators(record, row)
        for record in timed
        for row in record["tables"]["speed"]
        if row["status"] == "ran"
    ]
    caption = (
        "Share of the time by operator (%; PyTorch's profiler sees eager arms only), rate of "
        "computation, and its share of the fastest dense convolution measured in the same run."
    )
    return make_table("operators", caption, OPERATOR_COLUMNS, rows, evidence.references(timed))


def _operators(record: Record, row: Row) -> dict[str, str]:
    spent = {
        entry["operator"]: 100 * entry["share"]
        for entry in record["tables"]["operators"]
        if entry["arm"] == row["arm"]
    }
    rate = found.rates(record)[row["arm"]]["gflops"]
    roof = found.roof(record, row["precision"])
    return {
        **_subject(row),
        **{
            column: fixed(spent.get(group, 0.0), 1) if spent else NOT_PROFILED
            for group, column in GROUPS.items()
        },
        "gflops": fixed(rate, 0),
        "roof_gflops": fixed(roof, 0),
        "of_roof": fixed(None if roof is None else 100 * rate / roof, 0),
    }


ERROR_COLUMNS = (
    *("network", "task", "image_size", "batch_size", "form", "precision", "quantity", "n"),
    *("reference", "value", "verdict", "speed", "reason"),
)


def errors(study: Study, records: Sequence[Record]) -> Table:
    """List what faster forms compute: errors of gradients and outputs, accuracy before and after.

    Timings of the same form on several inputs may repeat a row; it is listed once.
    """
    timed = found.timed(records)
    rows = [_error(record, row) for record in timed for row in record["tables"]["errors"]]
    once = list({tuple(row.values()): row for row in rows}.values())
    caption = (
        "Errors of the faster forms: of gradients against float64, with the reference's own beside "
        "them, and of outputs against the original network; accuracy before and after; speed: how "
        "many times as fast as the reference a form of training is, or was when forms were chosen."
    )
    return make_table("errors", caption, ERROR_COLUMNS, once, evidence.references(timed))


def _error(record: Record, row: Row) -> dict[str, str]:
    about = record["subject"]
    exact = row["quantity"].startswith("accuracy")
    write = (lambda value: fixed(value, 2)) if exact else scientific
    return {
        "network": about["network"],
        "task": about["task"],
        "image_size": "x".join(map(str, about["image_size"])),
        "batch_size": str(about["batch_size"]),
        "form": _form(about, row),
        **{name: str(row[name]) for name in ("precision", "quantity", "n")},
        "reference": NOTHING if row["reference"] is None else write(row["reference"]),
        "value": write(row["value"]),
        "verdict": row["verdict"] or NOTHING,
        "speed": _speed_of(record, row) if row["quantity"].startswith("gradient") else NOTHING,
        "reason": row["reason"] or NOTHING,
    }


def _form(about: Row, row: Row) -> str:
    """Name a form as its arm is named; earlier records have the runtime's name."""
    form = str(row["form"])
    return ARM_OF.get(form, form) if about["task"] == "inference" else form


def _speed_of(record: Record, row: Row) -> str:
    """Write how fast a form of training is: as timed in the same run, else when it was tuned."""
    for timed in record["tables"]["speed"]:
        is_eager = timed["arm"] == "reproduction" and row["form"] == "eager"
        if is_eager or (timed["arm"] == "fast" and timed["how"] == row["form"]):
            return f"{ratio_cell(timed)} {interval(timed['ratio_low'], timed['ratio_high'], 2)}"
    if row.get("tuned") is not None:
        return f"×{row['tuned']:.2f} {interval(row['tuned_low'], row['tuned_high'], 2)}"
    return NOT_RECORDED
