"""Tables of the trial of the checker: scores, other tools' policies, mutants, what went wrong."""

from collections.abc import Sequence

from comparison import evidence, trials
from comparison.evidence import Record, Row
from comparison.study import Study
from comparison.tables.table import NOTHING, Table, fixed, interval, make_table

SCORE_COLUMNS = (
    *("family", "faults", "caught", "detection", "interval", "phase_correct", "exact"),
    *("first_end", "mean_hops", "mean_s", "max_s"),
)
POLICY_COLUMNS = (
    *("policy", "origin", "phases", "flagged", "faults", "detection", "detection_interval"),
    *("alarms", "harmless", "alarm_rate", "alarm_interval"),
)


def scores(study: Study, records: Sequence[Record]) -> Table:
    """Give one row a family of faults, and one for the harmless candidates."""
    found = trials.planned(study, records)
    rows = [_score(row) for row in evidence.rows_of(found, "scores")]
    caption = (
        "The trial of the comparison: injected faults by family, and harmless candidates; shares "
        "in percent with 95 % intervals."
    )
    return make_table("trial", caption, SCORE_COLUMNS, rows, evidence.references(found))


def _score(row: Row) -> dict[str, str]:
    shares = {name: _percent(row[name]) for name in ("phase_correct", "exact", "first_end")}
    return {
        "family": row["group"],
        "faults": str(row["trials"]),
        "caught": str(row["caught"]),
        "detection": _percent(row["share"]),
        "interval": interval(100 * row["low"], 100 * row["high"], 1),
        **shares,
        "mean_hops": NOTHING if row["mean_hops"] is None else fixed(row["mean_hops"], 2),
        "mean_s": fixed(row["mean_s"], 1),
        "max_s": fixed(row["max_s"], 1),
    }


def policies(study: Study, records: Sequence[Record]) -> Table:
    """Set the comparison beside the policies of other tools, on the same trials."""
    found = trials.planned(study, records)
    rows = [_policy(row) for row in evidence.rows_of(found, "baselines")]
    caption = "Faults flagged and false alarms, by the policies of other tools on the same changes."
    return make_table("policies", caption, POLICY_COLUMNS, rows, evidence.references(found))


def _policy(row: Row) -> dict[str, str]:
    counts = {name: str(row[name]) for name in ("flagged", "faults", "alarms", "harmless")}
    return {
        **{name: row[name] for name in ("policy", "origin", "phases")},
        **counts,
        "detection": _percent(row["detection"]),
        "detection_interval": interval(100 * row["detection_low"], 100 * row["detection_high"], 1),
        "alarm_rate": _percent(row["alarm_rate"]),
        "alarm_interval": interval(100 * row["alarm_low"], 100 * row["alarm_high"], 1),
    }


def checkers(study: Study, records: Sequence[Record]) -> Table:
    """List the mutants of the comparison itself, and what noticed each."""
    found = trials.planned(study, records)
    rows = [
        {
            "mutant": row["mutant"],
            "by": row["by"] or NOTHING,
            "said": row["said"] or NOTHING,
            "verdict": "reproduced" if row["noticed"] else "not reproduced",
        }
        for row in evidence.rows_of(found, "checkers")
    ]
    caption = "Mutants of the comparison itself, and the first trial that noticed each."
    columns = ("mutant", "by", "said", "verdict")
    return make_table("checkers", caption, columns, rows, evidence.references(found))


def survivors(study: Study, records: Sequence[Record]) -> Table:
    """List what went wrong: faults missed or misplaced, false alarms, faults without effect."""
    found = trials.planned(study, records)
    wrong = evidence.rows_of(found, "survivors")
    rows = [{column: row[column] for column in SURVIVOR_COLUMNS} for row in wrong]
    rows += [
        {
            "bench": row["bench"],
            "kind": "excluded",
            "name": row["name"],
            "reason": row["reason"],
        }
        for row in evidence.rows_of(found, "excluded")
    ]
    caption = "What the trial lists: faults missed or misplaced, alarms, faults without effect."
    return make_table("survivors", caption, SURVIVOR_COLUMNS, rows, evidence.references(found))


SURVIVOR_COLUMNS = ("bench", "kind", "name", "reason")


def _percent(share: float | None) -> str:
    return NOTHING if share is None else fixed(100 * share, 1)
