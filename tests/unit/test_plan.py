"""The estimate of what the published recipes would cost, as a table."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from comparison.study import ROOT
from workflow import plan


def test_the_committed_table_is_what_the_command_writes(tmp_path: Path) -> None:
    assert plan.main(["--save", str(tmp_path / "hours.csv")]) == 0
    assert (tmp_path / "hours.csv").read_bytes() == (ROOT / "docs" / "gpu_hours.csv").read_bytes()


def test_a_folder_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        plan.main(["--save", str(tmp_path / "none" / "hours.csv")])
    assert ended.value.code == 2
    assert "has no folder: give one that exists" in capsys.readouterr().err.splitlines()[-1]


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def stopped() -> Iterator[dict[str, int]]:
        yield {"jobs": 1}
        raise OSError("the disk is full")

    table = tmp_path / "hours.csv"
    plan.save_rows(table, ["jobs"], [{"jobs": 2}])
    with pytest.raises(OSError, match="full"):
        plan.save_rows(table, ["jobs"], stopped())
    assert table.read_text() == "jobs\n2\n" and list(tmp_path.iterdir()) == [table]
