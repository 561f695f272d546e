"""Many jobs on several workers: the simulation by hand, its check, and the study's cost."""

import doctest
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comparison import scaling
from comparison.study import Study
from comparison.tables import cost
from comparison.tables.table import NOT_RUN
from reproduction import UserError
from tests import synthetic, synthetic_base

Record = dict[str, Any]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the study that the synthetic records belong to."""
    return synthetic.study(tmp_path_factory.mktemp("studies"))


def job(case: str, start: float, wall_s: float, *, jobs: int = 2, **parts: Any) -> Record:
    """Make a record of a job that began and took so long, half of it in imports."""
    made = synthetic_base.record(case, f"{case}{start:g}", **parts)
    half = dict.fromkeys(synthetic_base.ACCOUNT["phases_s"], 0.0)
    half |= {"imports": wall_s / 2, "work": wall_s / 2}
    account = {"started_unix_s": start, "wall_s": wall_s, "cpu_s": wall_s, "phases_s": half}
    made["provenance"] |= {"job": account, "jobs": jobs}
    return synthetic_base.seal(made)


@pytest.mark.parametrize(
    ("durations", "workers", "last"),
    [
        ([3, 1, 2], 1, 6),
        ([3, 1, 2], 2, 3),  # 3 beside 2 and 1
        ([5, 4, 3, 3, 3], 2, 10),  # 5 3 beside 4 3, then the last one: 9 would be possible
        ([7, 1, 1, 1], 4, 7),
        ([2, 2, 2], 5, 2),
        ([9, 9, 9, 9, 9, 1], 3, 18),
    ],
)
def test_free_workers_take_the_longest_job(durations: list[int], workers: int, last: int) -> None:
    assert scaling.makespan([float(d) for d in durations], workers) == last
    assert not doctest.testmod(scaling).failed


def test_two_hundred_jobs_are_the_studys_over_and_over() -> None:
    records = [job("networks", 0, 1.0), job("audit", 1, 3.0)]
    rows = {row["workers"]: row for row in scaling.simulated(records)}
    assert rows[1]["makespan_s"] == 100 * 1 + 100 * 3
    assert rows[2]["makespan_s"] == 200 and rows[2]["speedup"] == 2 and rows[2]["efficiency"] == 1
    assert rows[200]["makespan_s"] == 3  # the longest job
    assert scaling.simulated([]) == []


def test_older_records_count_the_time_of_their_run() -> None:
    record = job("audit", 0, 3.0)
    del record["provenance"]["job"]
    assert scaling.job_wall_s(record) == record["provenance"]["wall_s"] == 1.5


def test_a_study_is_simulated_as_it_ran() -> None:
    # Two workers: 4 beside 3 and 1, then one job with the machine to itself.
    jobs = [job("training", 100, 4.0), job("tasks", 100, 3.0), job("networks", 103, 1.0)]
    ran = scaling.as_it_ran([*jobs, job("speed", 104.5, 2.0, jobs=1)])
    assert ran == {
        **{"workers": 2, "jobs": 4, "job_s": 10.0, "measured_s": 6.5, "simulated_s": 6.0}
    }


def test_a_study_that_was_interrupted_is_not_timed_as_a_whole() -> None:
    assert scaling.as_it_ran([job("tasks", 0, 5.0), job("training", 90, 5.0)]) is None
    old = job("tasks", 5, 5.0)
    del old["provenance"]["job"]
    assert scaling.as_it_ran([job("training", 0, 5.0), old]) is None


def taken(workers: int, *spans: tuple[float, float]) -> list[Record]:
    """Make jobs that began and ended so."""
    return [{"workers": workers, "job": "x", "started_s": a, "ended_s": b} for a, b in spans]


def test_the_simulation_is_held_to_what_was_measured() -> None:
    alone, beside = taken(1, (0, 2), (2, 4)), taken(2, (0, 3), (0, 3))
    rows = [scaling.row(1, alone, alone), scaling.row(2, beside, alone)]
    assert [row["measured_s"] for row in rows] == [4, 3]
    assert rows[1]["simulated_s"] == 2  # beside one another they took a half more
    assert [row["error"] for row in rows] == [0, 2 / 3 - 1]
    assert scaling.judge(rows)["outcome"] == "not reproduced"
    near = scaling.row(2, taken(2, (0, 2), (0, 2.1)), alone)
    assert scaling.judge([rows[0], near])["outcome"] == "within tolerance"


def test_workers_are_half_busy_until_the_longest_job_decides() -> None:
    # 200 jobs: 190 of 1 s and ten of 40 s. None ends before 40 s, in which 590 s of work are done.
    records = [job("audit", 0, 40.0), *(job("networks", at, 1.0) for at in range(1, 20))]
    assert scaling.most_busy(records) == 29  # 590 / 40 / 29 = 0.51, and one more is below a half
    assert scaling.most_busy([]) is None


def test_a_record_holds_both_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second time everything takes twice as long.
    times = {1: taken(1, (0, 2), (2, 4)), 2: taken(2, (0, 2.5), (0, 2.5))}
    again = {1: taken(1, (0, 4), (4, 8)), 2: taken(2, (0, 5), (0, 5))}
    asked: list[tuple[int, int]] = []

    def run_jobs(workers: int, networks: Sequence[str] = scaling.NETWORKS) -> list[Record]:
        asked.append((workers, len(networks)))
        return again[workers] if len(asked) > 3 else times[workers]

    monkeypatch.setattr(scaling, "run_jobs", run_jobs)
    settings = SimpleNamespace(decisive=dict, command=lambda: "papermill")
    record = scaling.run(settings)
    assert asked == [(1, 1), (1, 4), (2, 4), (2, 4), (1, 4)]  # the first one is not timed
    assert [row["measured_s"] for row in record["tables"]["runs"]] == [6, 3.75]
    values = {m["name"]: m["value"] for m in record["measurements"]}
    assert values["speedup"] == 4 / 2.5 and values["slowdown"] == 5 / 4
    assert values["error"] == pytest.approx(0.2)  # 2 s from the times alone, 2.5 on the clock
    assert len(record["tables"]["jobs"]) == 4


def test_a_job_that_fails_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = SimpleNamespace(returncode=1, stderr="Traceback\nUserError: the disk is full\n")
    monkeypatch.setattr(scaling.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(UserError, match=r"for cls_x failed \(UserError: the disk is full\)"):
        scaling._run_notebook("cls_x", tmp_path / "0")


def rows_of(table: Any) -> list[dict[str, str]]:
    """Return a table's rows by column."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_costs_are_summed_by_case(study: Study) -> None:
    trained = [("train_wall_s", 1.0), ("data_share", 0.004)]
    measurements = [{"name": name, "value": value, "unit": "s"} for name, value in trained]
    old = job("networks", 9, 1.0)
    del old["provenance"]["job"]
    records = [
        job("networks", 0, 10.0),
        job("networks", 1, 30.0),
        job("training", 2, 60.0, measurements=measurements),
    ]
    networks, training, total = rows_of(cost.study_cost(study, records))
    assert (networks["jobs"], networks["wall_s"], networks["cpu_s"]) == ("2", "40", "40")
    assert networks["imports_share"] == networks["work_share"] == "50.0 %"
    assert (networks["data_share"], training["data_share"]) == ("–", "0.4 %")
    assert (total["case"], total["jobs"], total["wall_s"]) == ("all", "3", "100")
    (alone, everything) = rows_of(cost.study_cost(study, [old]))
    assert (alone["wall_s"], alone["accounts"], alone["cpu_s"]) == ("2", "0", "not recorded")
    assert alone["imports_share"] == everything["imports_share"] == "not recorded"
    assert cost.study_cost(study, []).rows == ()


def test_measured_and_simulated_times_stand_side_by_side(study: Study) -> None:
    runs = [
        scaling.row(1, taken(1, (0, 2), (2, 4)), taken(1, (0, 2), (2, 4))),
        scaling.row(2, taken(2, (0, 2.5), (0, 2.5)), taken(1, (0, 2), (2, 4))),
    ]
    record = job("scaling", 0, 10.0, tables={"runs": runs})
    one, two, *many = rows_of(cost.scaling_table(study, [record]))
    assert (one["measured_s"], one["simulated_s"], one["speedup"]) == ("4.0", "4.0", "1.00")
    assert (two["speedup"], two["efficiency"], two["difference"]) == ("1.60", "80.0 %", "-20.0 %")
    assert [row["workers"] for row in many] == [str(n) for n in scaling.SIMULATED_WORKERS]
    assert {row["measured_s"] for row in many} == {"–"}
    assert cost.scaling_table(study, []).reference == NOT_RUN
