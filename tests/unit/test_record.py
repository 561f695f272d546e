"""Records: what is written is read back, what was touched is refused."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest

from comparison import provenance
from comparison import record as records
from comparison.record import RecordError, measurement, new_record, read_record, write_record
from tests.synthetic_base import seal


def example(**changes: Any) -> dict[str, Any]:
    """Make a small valid record."""
    content: dict[str, Any] = {
        "case": "speed",
        "run_id": "cls_hrnet_w18",
        "claim_ids": ["C10"],
        "subject": {"network": "cls_hrnet_w18"},
        "inputs": {},
        "measurements": [measurement("ratio", 1.5, "ratio", n=3, ci_low=1.25, ci_high=1.75)],
        "tables": {"rounds": [{"round": 1, "ratio": 1.5}]},
        "expectations": [],
        "verdict": {"outcome": "undecided", "reason": "an example"},
        "wall_s": 1.0,
        "parameters": {"network": "cls_hrnet_w18", "seed": 0},
    }
    return new_record(**{**content, **changes})


def content_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return all but the account of the job's time, which goes on until it is written."""
    origin = {name: value for name, value in record["provenance"].items() if name != "job"}
    return {**record, "provenance": origin, "sha256": None}


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    record = example()
    path = write_record(tmp_path, record)
    assert path == tmp_path / "records" / "speed" / "cls_hrnet_w18.json"
    found = read_record(path)
    assert content_of(found) == content_of(record)
    assert records.read_records(tmp_path) == [found]


def test_a_job_ends_when_its_record_is_written(tmp_path: Path) -> None:
    record = example()
    job = read_record(write_record(tmp_path, record))["provenance"]["job"]
    made = record["provenance"]["job"]
    assert job["wall_s"] == pytest.approx(sum(job["phases_s"].values()))
    assert job["phases_s"]["writing"] > made["phases_s"]["writing"]
    assert job["phases_s"]["work"] == made["phases_s"]["work"]


def test_a_record_of_another_job_is_written_as_it_is(tmp_path: Path) -> None:
    record = example()
    del record["provenance"]["job"]  # as before jobs kept account
    old = seal(record)
    assert read_record(write_record(tmp_path, old)) == old


def test_provenance_names_source_software_and_machine() -> None:
    found = example()["provenance"]
    assert len(found["commit"]) == 40
    assert isinstance(found["dirty"], bool)
    for name in ("python", "torch", "numpy", "cpu", "threads", "jobs", "omp_wait_policy"):
        assert found[name]
    assert str(Path.home()) not in json.dumps(found)


@pytest.mark.parametrize("change", [1.5000000001, None, "1.5"])
def test_an_edited_number_is_noticed(tmp_path: Path, change: Any) -> None:
    path = write_record(tmp_path, example())
    content = json.loads(path.read_text())
    content["measurements"][0]["value"] = change
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="was changed after it was written"):
        read_record(path)


@pytest.mark.fault(
    "truncated record",
    how="a record cut off after 100 bytes",
    told="cannot be read as a record",
    kept="the other records; no table is made from damaged ones",
)
def test_a_truncated_record_is_refused(tmp_path: Path, told: str) -> None:
    path = write_record(tmp_path, example())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordError, match=told):
        records.read_records(tmp_path)


@pytest.mark.fault(
    "bit-flipped record",
    how="every 61st bit of a record, one at a time",
    told="was changed after it was written (its SHA-256 does not fit)",
    kept="the other records; the message names the file",
)
def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path, told: str) -> None:
    path = write_record(tmp_path, example())
    content, record = path.read_bytes(), read_record(path)
    refused = []
    for bit in range(0, 8 * len(content), 61):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert read_record(path) == record  # white space between values
        except RecordError as error:
            refused.append(str(error))
    assert len(refused) > 150
    assert any(re.search(told, sentence) for sentence in refused)


@pytest.mark.fault(
    "record of an older schema",
    how="`schema_version` 0",
    told="has schema 0, and this version reads 1: run its notebook again (`make report` does)",
    kept="the old record; the message names the command",
)
def test_a_record_of_another_schema_is_refused_with_the_command(tmp_path: Path, told: str) -> None:
    path = write_record(tmp_path, example())
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 0'))
    with pytest.raises(RecordError, match=told):
        records.read_records(tmp_path)


def test_damaged_and_misplaced_records_get_a_sentence(tmp_path: Path) -> None:
    path = write_record(tmp_path, example())
    other = path.with_name("cls_hrnet_w30.json")
    other.write_bytes(path.read_bytes())
    with pytest.raises(RecordError, match="wrong place: it is speed/cls_hrnet_w18"):
        read_record(other)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordError, match="cannot be read as a record"):
        read_record(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"case": "opinion"},
        {"run_id": "../up"},
        {"claim_ids": ["claim one"]},
        {"verdict": {"outcome": "passed", "reason": ""}},
        {"measurements": [{"name": "ratio", "value": 1.0}]},
        {"tables": {"rounds": [1, 2]}},
    ],
)
def test_an_invalid_record_is_not_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="is no valid record"):
        example(**wrong)


def test_numbers_that_are_not_finite_become_null() -> None:
    assert measurement("loss", float("nan"), "nats")["value"] is None


@pytest.mark.fault(
    "disk full while a record is written",
    how="the write leaves half of it and raises ENOSPC",
    told="could not be written (No space left on device): free some space",
    kept="the record of before; no half-written file",
)
def test_a_full_disk_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    path = write_record(tmp_path, example())
    before = path.read_bytes()

    def full(self: Path, *_: Any, **__: Any) -> None:
        self.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RecordError, match=told):
        write_record(tmp_path, example(wall_s=2.0))
    assert path.read_bytes() == before
    assert [path.name for path in path.parent.iterdir()] == ["cls_hrnet_w18.json"]


def test_a_ledger_that_cannot_be_written_keeps_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, example())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.ledger, "add", full)
    with pytest.raises(RecordError, match="No space left on device"):
        write_record(tmp_path, example(wall_s=2.0))
    assert records.read_records(tmp_path)[0]["provenance"]["wall_s"] == 1.0


def test_the_standard_study_refuses_changed_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"commit": "0" * 40, "dirty": True, "lock_sha256": ""}
    monkeypatch.setattr(provenance, "source_state", lambda: state)
    with pytest.raises(RecordError, match="records of committed source only"):
        write_record(tmp_path / "standard", example())
    assert write_record(tmp_path / "quick", example()).exists()
    monkeypatch.setattr(provenance, "source_state", lambda: {**state, "dirty": False})
    assert write_record(tmp_path / "standard", example()).exists()
