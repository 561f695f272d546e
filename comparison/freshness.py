"""Whether training runs were made on the data that there is, and all on the same."""

from collections.abc import Iterable
from typing import Any

from reproduction import UserError
from reproduction.tasks.classification.sources import load_dataset, parse_data

# The other data sets are held to pinned digests whenever they are read.
FREE = "image_folder"
TRAINED = ("training", "tasks")


class StaleError(UserError):
    """A record was made on other data; the message says which, and what makes it again."""


def check_data(records: Iterable[dict[str, Any]], data: str = "") -> None:
    """Refuse training runs whose data differ, or differ from what their folder holds now.

    Args:
        records: Of one study.
        data: What the study trains on, such as ``image_folder:FOLDER``; a folder that is not on
            this machine is not asked for.

    Raises:
        StaleError: The data set was changed after a record was made.
    """
    made_on = _now(data)
    for record in records:
        trained_on = record["inputs"].get("data")
        if record["case"] not in TRAINED or not trained_on:  # what did not run has no data
            continue
        name, sha256 = trained_on["name"], trained_on["sha256"]
        # Scenes are composed anew for each number of them.
        key = (name, trained_on.get("train_count") if record["case"] == "tasks" else None)
        found = sha256 if isinstance(sha256, str) else " ".join(sha256)  # or one for each split
        expected, where = made_on.setdefault(key, (found, "another record"))
        if found != expected:
            raise StaleError(
                f"{record['case']}/{record['run_id']}.json was made on {name} with SHA-256 "
                f"{_short(found)}, and {where} has {_short(expected)}: the data set was "
                "changed; put it back, or remove the record and run the study again"
            )


def _now(data: str) -> dict[tuple[str, int | None], tuple[str, str]]:
    parsed = parse_data(data) if data else None
    if not parsed or parsed.name != FREE or not parsed.folder or not parsed.folder.is_dir():
        return {}
    return {(FREE, None): (load_dataset(data).sha256, "the folder now")}


def _short(sha256: str) -> str:
    return " ".join(digest[:12] for digest in sha256.split())
