"""How every synthetic record is made; see `tests.synthetic`."""

from typing import Any

from comparison import record as records
from comparison.record import new_record

REFERENCE = {
    "implementation": "HRNet-Image-Classification",
    "version": "f760c988",
    "sha256": "ab" * 32,
    "license": "MIT",
    "label": "official f760c988",
    "official": True,
    "shims": [],
}
Record = dict[str, Any]
# Ten seconds of a job, the same in every record: clocks would give other bytes each time.
ACCOUNT = {
    "started_unix_s": 1.7e9,
    "wall_s": 10.0,
    "cpu_s": 9.0,
    "phases_s": {
        **{"kernel start": 1.0, "imports": 1.5, "preparation": 0.5},
        **{"work": 6.0, "writing": 1.0},
    },
}


def record(case: str, run_id: str, **parts: Any) -> Record:
    """Make a valid record; what is not given is empty."""
    filled: dict[str, Any] = {
        "claim_ids": [],
        "subject": {},
        "measurements": [],
        "tables": {},
        "expectations": [],
        "verdict": {"outcome": "reproduced", "reason": "as expected"},
        "wall_s": 1.5,
        "parameters": {},
        **parts,
    }
    filled["inputs"] = {"reference": REFERENCE, **parts.get("inputs", {})}
    made = new_record(case=case, run_id=run_id, command="synthetic", **filled)
    made["provenance"]["job"] = ACCOUNT
    return seal(made)


def seal(made: Record) -> Record:
    """Give a record that was changed by hand the digest that fits."""
    content = {name: part for name, part in made.items() if name != "sha256"}
    return {**content, "sha256": records._digest(content)}
