"""Results on disk: one JSON file per case and run, checked when written and when read.

This is the only module that writes records. A record holds unrounded numbers, where its inputs
came from, and on what it was made; its own SHA-256 shows if it was edited afterwards, and
`comparison.ledger` if it was also sealed again.
"""

import hashlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema

from comparison import clock, ledger
from comparison.provenance import provenance
from comparison.study import ROOT
from reproduction import UserError
from reproduction.durable import whole

SCHEMA_VERSION = 1
LARGEST_BYTES = 50_000_000
OUTCOMES = (
    "reproduced",
    "within tolerance",
    "explained difference",
    "not reproduced",
    "undecided",
    "not comparable",
    "not run",
)
CASES = (
    *("networks", "equivalence", "trial", "training", "tasks", "speed", "differences", "audit"),
    "scaling",
)

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_MEASUREMENT: dict[str, Any] = {
    "type": "object",
    "required": ["name", "value", "unit"],
    "properties": {
        "name": _TEXT,
        "value": {"type": ["number", "string", "boolean", "null"]},
        "unit": _TEXT,
        "n": {"type": "integer"},
        "ci_low": _NUMBER,
        "ci_high": _NUMBER,
    },
    "additionalProperties": False,
}
_JOB: dict[str, Any] = {  # `comparison.clock`; records made before it lack it
    "type": "object",
    "required": ["started_unix_s", "wall_s", "cpu_s", "phases_s"],
    "properties": {
        "phases_s": {
            "type": "object",
            "required": list(clock.PHASES),
            "additionalProperties": {"type": "number", "minimum": 0},
        },
    },
    "additionalProperties": {"type": "number", "minimum": 0},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [
        *("schema_version", "case", "run_id", "claim_ids", "created_utc", "subject", "inputs"),
        *("measurements", "tables", "expectations", "verdict", "provenance", "sha256"),
    ],
    "properties": {
        "schema_version": {"const": SCHEMA_VERSION},
        "case": {"enum": list(CASES)},
        "run_id": {"type": "string", "pattern": r"^[A-Za-z0-9_.-]+\Z"},
        "claim_ids": {"type": "array", "items": {"type": "string", "pattern": "^C[0-9]+$"}},
        "created_utc": _TEXT,
        "subject": {"type": "object", "required": ["config", "config_sha256"]},
        "inputs": {"type": "object"},
        "measurements": {"type": "array", "items": _MEASUREMENT},
        "tables": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "object"}},
        },
        "expectations": {
            "type": "array",
            "items": {"type": "object", "required": ["name", "value", "source"]},
        },
        "verdict": {
            "type": "object",
            "required": ["outcome", "reason"],
            "properties": {"outcome": {"enum": list(OUTCOMES)}, "reason": _TEXT},
        },
        "provenance": {
            "type": "object",
            "required": ["commit", "dirty", "command", "wall_s"],
            "properties": {"job": _JOB},
        },
        "sha256": _TEXT,
    },
    "additionalProperties": False,
}


class RecordError(UserError):
    """A record is damaged, edited, foreign or of another schema."""


def measurement(
    name: str,
    value: float | int | str | bool | None,
    unit: str,
    *,
    n: int | None = None,
    ci_low: float | None = None,
    ci_high: float | None = None,
) -> dict[str, Any]:
    """Make one measurement; a value that is not finite becomes null.

    >>> measurement("top1", 71.25, "percent", n=360)
    {'name': 'top1', 'value': 71.25, 'unit': 'percent', 'n': 360}
    """
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    optional = {"n": n, "ci_low": ci_low, "ci_high": ci_high}
    given = {key: entry for key, entry in optional.items() if entry is not None}
    return {"name": name, "value": value, "unit": unit, **given}


def new_record(
    *,
    case: str,
    run_id: str,
    claim_ids: list[str],
    subject: dict[str, Any],
    inputs: dict[str, Any],
    measurements: list[dict[str, Any]],
    tables: dict[str, list[dict[str, Any]]],
    expectations: list[dict[str, Any]],
    verdict: dict[str, str],
    wall_s: float,
    parameters: dict[str, Any],
    command: str = "",
) -> dict[str, Any]:
    """Assemble a record, adding when, where and from which source it was made.

    Args:
        case: One of `CASES`.
        run_id: Names the run within its case; also the file's name.
        claim_ids: Claims of the report that rest on it.
        subject: What was measured: network, arm, seed, whatever applies.
        inputs: Identity of the reference, data and weights.
        measurements: Made by `measurement`.
        tables: Named lists of rows.
        expectations: What was expected: name, value, source, tolerance, reason.
        verdict: ``outcome`` (one of `OUTCOMES`) and ``reason``.
        wall_s: Seconds the run took.
        parameters: Everything that decides the outcome; hashed as the configuration.
        command: What makes this record again; by default how this process was started.

    Raises:
        RecordError: The parts do not make a valid record.
    """
    clock.enter("writing")
    config = json.loads(json.dumps(parameters, sort_keys=True))
    record = {
        "schema_version": SCHEMA_VERSION,
        "case": case,
        "run_id": run_id,
        "claim_ids": claim_ids,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "subject": {**subject, "config": config, "config_sha256": _digest(config)},
        "inputs": inputs,
        "measurements": measurements,
        "tables": tables,
        "expectations": expectations,
        "verdict": verdict,
        "provenance": provenance(wall_s, command),
    }
    sealed = {**record, "sha256": _digest(record)}
    _validate(sealed, f"the record {case}/{run_id}")
    return sealed


def write_record(results_dir: str | Path, record: dict[str, Any]) -> Path:
    """Write ``records/<case>/<run_id>.json`` below a results folder, and enter it in the ledger.

    Raises:
        RecordError: The record is invalid, of changed source where only committed source is
            taken (the standard study), or cannot be written.
    """
    _validate(record, f"the record {record.get('case')}/{record.get('run_id')}")
    record = _closed(record)
    folder = ROOT / results_dir / "records" / record["case"]
    if Path(results_dir).name == "standard" and record["provenance"]["dirty"]:
        raise RecordError(
            "the standard study takes records of committed source only, and source was changed: "
            "commit first, or write to another results_dir"
        )
    path = folder / f"{record['run_id']}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", "utf-8")
            ledger.add(ROOT / results_dir, record)
    except OSError as error:
        raise RecordError(
            f"{path} could not be written ({error.strerror}): free some space, make the folder "
            "writable or choose another results_dir, and run again"
        ) from error
    return path


def _closed(record: dict[str, Any]) -> dict[str, Any]:
    """Charge the time since a record was made, in which its tables were shown, to its job."""
    job = clock.summary()
    if record["provenance"].get("job", {}).get("started_unix_s") != job["started_unix_s"]:
        return record  # of another job, or made before jobs kept account
    content = {key: entry for key, entry in record.items() if key != "sha256"}
    content["provenance"] = {**record["provenance"], "job": job}
    return {**content, "sha256": _digest(content)}


def read_record(path: str | Path) -> dict[str, Any]:
    """Read and check one record.

    Raises:
        RecordError: The file is missing, no JSON, of another schema, or was edited.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, more than any record")
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{path.name} cannot be read as a record ({error}): run its notebook again"
        ) from error
    _validate(record, path.name)
    if record["sha256"] != _digest({k: v for k, v in record.items() if k != "sha256"}):
        raise RecordError(
            f"{path.name} was changed after it was written (its SHA-256 does not fit): restore it "
            "or run its notebook again"
        )
    if (record["case"], record["run_id"]) != (path.parent.name, path.stem):
        raise RecordError(
            f"{path.name} lies in the wrong place: it is {record['case']}/{record['run_id']}"
        )
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of a record")


def read_records(results_dir: str | Path) -> list[dict[str, Any]]:
    """Read all records below a results folder, by case and run, as the ledger knows them.

    Raises:
        RecordError: One of them is damaged, edited or foreign.
        LedgerError: One of them is not the last of its job, or the ledger was edited.
    """
    records = read_sealed(results_dir)
    ledger.check(ROOT / results_dir, records)
    return records


def read_sealed(results_dir: str | Path) -> list[dict[str, Any]]:
    """Read all records below a results folder without asking the ledger."""
    paths = (ROOT / results_dir / "records").glob("*/*.json")
    return [read_record(path) for path in sorted(paths)]


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _validate(record: Any, name: str) -> None:
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version is not None and version != SCHEMA_VERSION:
        raise RecordError(
            f"{name} has schema {version}, and this version reads {SCHEMA_VERSION}: run its "
            "notebook again (`make report` does), or read it with the commit that wrote it"
        )
    try:
        jsonschema.validate(record, SCHEMA)
    except jsonschema.ValidationError as error:
        place = ".".join(str(step) for step in error.absolute_path) or "the record"
        raise RecordError(f"{name} is no valid record: {place}: {error.message[:200]}") from error
