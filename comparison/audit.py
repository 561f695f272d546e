"""The clean-room audit as a record of the study."""

import time
from typing import Any

import reference
from comparison import clock
from comparison.record import measurement, new_record
from reference import audit as cleanroom

RUN_ID = "all"


def run() -> dict[str, Any]:
    """Measure the text that `reproduction/` shares with each source, and judge it by CLEANROOM.md.

    Figures for sources that are not there come from the committed record, and are labeled so.
    """
    started = time.perf_counter()
    clock.enter("work")
    found = cleanroom.run()
    limits = found["limits"]
    source = "CLEANROOM.md, from pairs of independently written networks"
    reason = "more common text than independent programs have would need another explanation"
    return new_record(
        case="audit",
        run_id=RUN_ID,
        claim_ids=["C12"],
        subject={"audited": "reproduction", **found["own"]},
        inputs={"reference": reference.identity()},
        measurements=[
            measurement("longest_run", _largest(found, "longest_run"), "tokens"),
            measurement("share", _largest(found, "share"), "share"),
            measurement("limit_longest_run", limits["longest_run"], "tokens"),
            measurement("limit_share", limits["share"], "share"),
        ],
        tables={"files": found["files"], "controls": found["controls"]},
        expectations=[
            {"name": name, "value": 0, "source": source, "tolerance": limit, "reason": reason}
            for name, limit in limits.items()
        ],
        verdict=_judge(found),
        wall_s=time.perf_counter() - started,
        parameters={"ngram": found["ngram"], "limits": limits},
        command="python -m comparison audit",
    )


def _largest(found: dict[str, Any], name: str) -> float | None:
    values = [row[name] for row in found["files"] if row[name] is not None]
    return max(values) if values else None


def _judge(found: dict[str, Any]) -> dict[str, str]:
    close = [row["path"] for row in found["files"] if row["passes"] is False]
    known = [row for row in found["files"] if row["passes"] is not None]
    if close:
        return {"outcome": "not reproduced", "reason": f"too close to {', '.join(close)}"}
    if not known:
        return {"outcome": "not run", "reason": "no source was there"}
    reason = f"all {len(known)} of {len(found['files'])} sources with figures are within the limits"
    return {"outcome": "within tolerance", "reason": reason}
