"""What the record of a trial of the checker says: the reading that tables and numbers share."""

from collections.abc import Iterable, Sequence
from typing import Any

from comparison import evidence
from comparison.evidence import Record, Row, measured
from comparison.mutation.baselines import OURS
from comparison.mutation.scoring import ALL, HARMLESS, INSIDE
from comparison.quotes import Put, paths
from comparison.study import Study
from comparison.tables.table import NOT_RUN, fixed


def planned(study: Study, records: Iterable[Record]) -> list[Record]:
    """Return the trial that the study planned: one record or none."""
    of_case = evidence.of_case(records, "trial")
    return [record for record in of_case if record["subject"]["plan"] == study.trial][:1]


def group(record: Record, name: str) -> Row:
    """Return the scores of one group of trials; empty if nothing of it was tried."""
    return evidence.row_where(record, "scores", group=name) or {}


def others(record: Record) -> list[Row]:
    """Return the policies of other tools, as they did on the same trials."""
    return [row for row in record["tables"]["baselines"] if row["policy"] != OURS]


def quote(study: Study, records: Sequence[Record], put: Put) -> None:
    """Quote the trial of the checker."""
    found = planned(study, records)
    values = _values(found[0]) if found else dict.fromkeys(KEYS)
    for key in KEYS:
        put(f"trial.{key}", _text(key, values[key]), paths(found, "tables"))


_SHARES = ("detection", "detection_low", "exact", "first_end", "inside_exact", "phase_correct")
SHARES = (*_SHARES, "alarms_high")
DECIMALS = {"mean_hops": 2, "mean_s": 1, "max_s": 1, "fault_margin": 1, "harmless_margin": 1}
KEYS = (
    *("faults", "caught", "harmless", "alarms", "inside", "benches", "networks", "other_tree"),
    *("excluded", "survivors", "mutants", "noticed"),
    *("policies", "policy", "policy_flagged", "policy_alarms"),
    *("quietest", "quietest_flagged", "quietest_alarms"),
    *SHARES,
    *DECIMALS,
)


def _text(key: str, value: Any) -> str:
    if value is None:
        return NOT_RUN
    if key in SHARES:
        return f"{fixed(100 * value, 1)} %"
    return fixed(value, DECIMALS[key]) if key in DECIMALS else str(value)


def _values(record: Record) -> dict[str, Any]:
    faults, inside, changes = (group(record, name) for name in (ALL, INSIDE, HARMLESS))
    tables = record["tables"]
    trials = tables["trials"]
    injected = [row for row in trials if row["kind"] == "fault"]
    margins = {
        kind: [r["margin"] for r in trials if r["kind"] == kind and r["margin"] is not None]
        for kind in ("fault", HARMLESS)
    }
    benches = {row["bench"] for row in trials}
    return {
        "faults": faults.get("trials"),
        "caught": faults.get("caught"),
        "detection": faults.get("share"),
        "detection_low": faults.get("low"),
        "harmless": changes.get("trials"),
        "alarms": changes.get("caught"),
        "alarms_high": changes.get("high"),
        "inside": inside.get("trials"),
        "inside_exact": inside.get("exact"),
        **{key: faults.get(key) for key in ("exact", "first_end", "phase_correct")},
        **{key: faults.get(key) for key in ("mean_hops", "mean_s", "max_s")},
        "benches": len(benches),
        "networks": len({bench.partition(",")[0] for bench in benches}),
        "other_tree": sum(row["bench"].endswith("other tree") for row in injected),
        "excluded": len(tables["excluded"]),
        "survivors": len(tables["survivors"]),
        "mutants": len(tables["checkers"]),
        "noticed": measured(record, "mutants_noticed"),
        "fault_margin": min((m for m in margins["fault"] if m > 0), default=None),
        "harmless_margin": max(margins[HARMLESS], default=None),
        **_policies(others(record)),
    }


def _policies(found: Sequence[Row]) -> dict[str, Any]:
    """Choose the policy that flags most faults, and the one with the fewest alarms."""
    if not found:
        keys = (key for key in KEYS if key.startswith(("polic", "quiet")))
        return dict.fromkeys(keys)
    most = max(found, key=lambda row: row["flagged"])
    quietest = min(found, key=lambda row: (row["alarms"], -row["flagged"]))
    return {
        "policies": len(found),
        "policy": most["policy"],
        "policy_flagged": most["flagged"],
        "policy_alarms": most["alarms"],
        "quietest": quietest["policy"],
        "quietest_flagged": quietest["flagged"],
        "quietest_alarms": quietest["alarms"],
    }
