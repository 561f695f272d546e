"""The ledger: what was not written by the program, or not last, is refused."""

import json
import multiprocessing
from pathlib import Path

import pytest

from comparison import freshness, ledger
from comparison import record as records
from comparison.ledger import LedgerError
from comparison.record import read_record, read_records, write_record
from tests.synthetic import training
from tests.unit.test_record import example


def reseal(path: Path) -> None:
    """Change a number in a record and seal it again, as a careful forger would."""
    record = json.loads(path.read_text())
    record["measurements"][0]["value"] = 9.5
    del record["sha256"]
    path.write_text(json.dumps({**record, "sha256": records._digest(record)}))
    assert records.read_record(path)["measurements"][0]["value"] == 9.5


@pytest.mark.fault(
    "record edited by hand and sealed again",
    how="a changed number under a SHA-256 that fits",
    told="is not in the ledger: it was edited and sealed again",
    kept="the ledger knows the digest of the record that was written",
)
def test_a_record_that_was_sealed_again_is_refused(tmp_path: Path, told: str) -> None:
    reseal(write_record(tmp_path, example()))
    with pytest.raises(LedgerError, match=told):
        read_records(tmp_path)


def test_only_the_last_record_of_a_job_counts(tmp_path: Path) -> None:
    path = write_record(tmp_path, example())
    better = path.read_bytes()
    again = read_record(write_record(tmp_path, example(wall_s=2.0)))
    assert read_records(tmp_path) == [again]
    assert again["provenance"]["wall_s"] == 2.0
    assert [entry["run_id"] for entry in ledger.read(tmp_path)] == 2 * ["cls_hrnet_w18"]
    path.write_bytes(better)
    with pytest.raises(LedgerError, match="is not the last record of its job, which was made"):
        read_records(tmp_path)


@pytest.mark.fault(
    "ledger edited by hand",
    how="an entry edited, cut, removed or put elsewhere in the order",
    told="does not follow from the entry before it: the ledger was edited",
    kept="records; the message names the entry",
)
@pytest.mark.parametrize("how", ["edited", "cut", "removed", "swapped"])
def test_an_edited_ledger_is_refused(tmp_path: Path, told: str, how: str) -> None:
    for seed in range(4):
        write_record(tmp_path, example(run_id=f"run{seed}"))
    second, third = (tmp_path / "ledger" / f"00000{number}.json" for number in (2, 3))
    if how == "edited":
        second.write_text(second.read_text().replace("undecided", "reproduced"))
    elif how == "cut":
        second.write_bytes(second.read_bytes()[:50])
    elif how == "removed":
        second.unlink()
    else:
        kept = second.read_bytes()
        second.write_bytes(third.read_bytes())
        third.write_bytes(kept)
    with pytest.raises(LedgerError, match=told):
        read_records(tmp_path)


@pytest.mark.fault(
    "record removed",
    how="the file of a record deleted",
    told="and is gone: restore it or run its notebook again",
    kept="the ledger says when it was written and what came out; the next run makes it again",
)
def test_a_removed_record_is_told(tmp_path: Path, told: str) -> None:
    write_record(tmp_path, example()).unlink()
    assert read_records(tmp_path) == []
    (sentence,) = ledger.missing(tmp_path)
    assert sentence.startswith("records/speed/cls_hrnet_w18.json was written on")
    assert told.replace("\\", "") in sentence


@pytest.mark.fault(
    "results folder of an earlier version",
    how="records without a ledger",
    told="holds records but no ledger, as an earlier version left it: `python -m comparison ledger",
    kept="all records; the command that the message names migrates them",
)
def test_records_without_a_ledger_are_migrated_by_a_command(tmp_path: Path, told: str) -> None:
    write_record(tmp_path, example())
    write_record(tmp_path, example(run_id="other"))
    for path in (tmp_path / "ledger").iterdir():
        path.unlink()
    with pytest.raises(LedgerError, match=told):
        read_records(tmp_path)
    assert ledger.adopt(tmp_path, records.read_sealed(tmp_path)) == 2
    assert len(read_records(tmp_path)) == 2
    with pytest.raises(LedgerError, match="not afterwards"):
        ledger.adopt(tmp_path, records.read_sealed(tmp_path))


def write_many(folder: Path, name: str, count: int) -> None:
    """Write records, as one of several jobs."""
    for number in range(count):
        ledger.add(folder, example(run_id=f"{name}{number}"))


@pytest.mark.fault(
    "jobs that end at once",
    how="three processes that write 20 records each",
    told="",
    kept="every record has its entry, in one chain",
)
def test_writers_at_once_share_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, it, 20)) for it in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    entries = ledger.read(tmp_path)
    assert len({entry["run_id"] for entry in entries}) == len(entries) == 60
    assert {path.suffix for path in (tmp_path / "ledger").iterdir()} == {".json"}


def folder_of_images(folder: Path, size: int) -> None:
    """Lay out a folder of images; only names and sizes are asked for here."""
    for split in ("train", "val"):
        (folder / split / "cat").mkdir(parents=True, exist_ok=True)
        (folder / split / "cat" / "1.jpg").write_bytes(b"x" * size)


@pytest.mark.fault(
    "data set changed under a record",
    how="an image replaced after the record was made",
    told="the data set was changed; put it back, or remove the record and run the study again",
    kept="the record; no table is made from it, and `make report` runs the job again",
)
def test_a_record_of_other_data_is_stale(tmp_path: Path, told: str) -> None:
    data = f"image_folder:{tmp_path}"
    folder_of_images(tmp_path, 10)
    sha256 = freshness.load_dataset(data).sha256
    made = [training("reproduction", 0, 90.0, data={"name": "image_folder", "sha256": sha256})]
    freshness.check_data(made, data)
    folder_of_images(tmp_path, 11)
    with pytest.raises(freshness.StaleError, match=told) as found:
        freshness.check_data(made, data)
    assert "and the folder now has" in str(found.value)
    freshness.check_data(made, "image_folder:/not/on/this/machine")
    freshness.check_data(made, "digits")


def test_dense_tasks_on_two_states_of_the_scenes_are_refused() -> None:
    data = {"name": "composed scenes", "sha256": ["a" * 64, "b" * 64], "train_count": 800}
    made = [
        {"case": "tasks", "run_id": f"pose.seed{seed}", "inputs": {"data": data}} for seed in (0, 1)
    ]
    not_run = {"case": "tasks", "run_id": "pose.seed2", "inputs": {"reference": None}}
    freshness.check_data([not_run, *made])
    made[1]["inputs"] = {"data": {**data, "sha256": ["a" * 64, "c" * 64]}}
    fewer = {**data, "sha256": ["d" * 64, "b" * 64], "train_count": 480}
    freshness.check_data([made[0], {**made[1], "inputs": {"data": fewer}}])
    told = f"pose.seed1.json was made on composed scenes with SHA-256 {'a' * 12} {'c' * 12}, and "
    with pytest.raises(freshness.StaleError, match=told):
        freshness.check_data(made)


def test_records_of_two_states_of_a_data_set_are_refused() -> None:
    made = [
        training("reproduction", seed, 90.0, data={"sha256": f"{seed}" * 64}) for seed in (0, 1)
    ]
    with pytest.raises(freshness.StaleError, match="and another record has 000000000000"):
        freshness.check_data(made)
