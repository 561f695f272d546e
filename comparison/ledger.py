"""The ledger of a results folder: every record ever written there, in order, a small file each.

An entry holds the SHA-256 of a record and that of the entry before it, so that one which was edited
or removed breaks the chain, and a record that was edited and sealed again is not in it. A record
that was made again has two entries; only the last one counts, so nobody can choose between them.
One file an entry, because only one process can take a name, on a file system that machines share
as well: two jobs that end at once get two numbers. Whoever writes the whole chain anew is not
noticed here; the committed study's chain lies in version control.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reproduction import UserError
from reproduction.durable import PARTIAL, write_whole

FOLDER = "ledger"
FIELDS = ("previous", "case", "run_id", "record_sha256", "created_utc", "commit", "outcome")
Entry = dict[str, str]
Record = dict[str, Any]


class LedgerError(UserError):
    """The ledger was edited, or does not know a record; the message says what to do."""


def add(results: Path, record: Record) -> Path:
    """Write the entry of a record; two writers at once get two numbers.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = results / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{secrets.token_hex(8)}{PARTIAL}"
    try:
        while True:
            last = max(_files(folder), default=None)
            write_whole(partial, json.dumps(_entry(record, last), indent=1) + "\n")
            path = folder / f"{int(last.stem) + 1 if last else 1:06d}.json"
            try:
                os.link(partial, path)  # fails if another process took the number
            except FileExistsError:
                continue
            return path
    finally:
        partial.unlink(missing_ok=True)


def _entry(record: Record, last: Path | None) -> Entry:
    return {
        "previous": hashlib.sha256(last.read_bytes()).hexdigest() if last else "",
        "case": record["case"],
        "run_id": record["run_id"],
        "record_sha256": record["sha256"],
        "created_utc": record["created_utc"],
        "commit": record["provenance"]["commit"],
        "outcome": record["verdict"]["outcome"],
    }


def read(results: Path) -> list[Entry]:
    """Read all entries in order.

    Raises:
        LedgerError: One is damaged, was edited, or is missing.
    """
    entries: list[Entry] = []
    previous = ""
    for number, path in enumerate(sorted(_files(results / FOLDER)), start=1):
        content = path.read_bytes()
        try:
            entry = json.loads(content)
            fits = tuple(entry) == FIELDS and all(isinstance(it, str) for it in entry.values())
        except (ValueError, TypeError):
            fits = False
        if not fits or entry["previous"] != previous or int(path.stem) != number:
            raise LedgerError(
                f"{_shown(path)} does not follow from the entry before it: the ledger was edited "
                "or is damaged; restore the folder from version control or a copy"
            )
        entries.append(entry)
        previous = hashlib.sha256(content).hexdigest()
    return entries


def check(results: Path, records: Iterable[Record]) -> None:
    """Refuse records that the ledger does not know as the last of their job.

    Raises:
        LedgerError: The ledger is damaged or missing, or a record is not its job's last.
    """
    entries = read(results)
    known = {(entry["case"], entry["run_id"], entry["record_sha256"]) for entry in entries}
    last = _last(entries)
    for record in records:
        job, name = (record["case"], record["run_id"]), f"{record['case']}/{record['run_id']}.json"
        if not entries:
            raise LedgerError(
                f"{results.name} holds records but no {FOLDER}, as an earlier version left it: "
                f"`python -m comparison ledger --study {results.name}` makes it from them"
            )
        if last.get(job, {}).get("record_sha256") == record["sha256"]:
            continue
        if (*job, record["sha256"]) in known:
            raise LedgerError(
                f"{name} is not the last record of its job, which was made again on "
                f"{last[job]['created_utc']}: restore that one or run its notebook again"
            )
        raise LedgerError(
            f"{name} is not in the ledger: it was edited and sealed again, or its writing was cut "
            "short; restore it or run its notebook again"
        )


def missing(results: Path) -> list[str]:
    """Return a sentence for every job whose record was written and is gone."""
    return [
        f"records/{case}/{run_id}.json was written on {entry['created_utc']} "
        f"({entry['outcome']}) and is gone: restore it or run its notebook again"
        for (case, run_id), entry in _last(read(results)).items()
        if not (results / "records" / case / f"{run_id}.json").exists()
    ]


def adopt(results: Path, records: Iterable[Record]) -> int:
    """Make the ledger of a folder whose records were written before there were ledgers.

    Returns:
        The number of entries.

    Raises:
        LedgerError: There is a ledger: what it does not know is not let in this way.
    """
    if any(_files(results / FOLDER)):
        raise LedgerError(
            f"{results.name} has a ledger; records enter it when they are written, not afterwards"
        )
    paths = [add(results, it) for it in sorted(records, key=_order)]
    return len(paths)


def _order(record: Record) -> tuple[str, str, str]:
    return record["created_utc"], record["case"], record["run_id"]


def _last(entries: Iterable[Entry]) -> dict[tuple[str, str], Entry]:
    return {(entry["case"], entry["run_id"]): entry for entry in entries}


def _files(folder: Path) -> Iterable[Path]:
    return folder.glob("[0-9]*.json")


def _shown(path: Path) -> str:
    return "/".join(path.parts[-3:])
