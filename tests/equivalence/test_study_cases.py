"""The hard cases E19 to E21: statistics of accuracy, stale results, published rows."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from comparison import __main__ as command_line
from comparison import build, complexity, parameters, record, report, statistics, verify
from comparison.engine.modes.accuracy import compare_accuracy
from comparison.published import figures
from comparison.study import ROOT, Study
from reproduction import CLASSIFICATION, UserError
from tests import synthetic

MARGIN, SPREAD, RUNS, DRAWS = 1.0, 0.4, 4, 1000  # planned for a power of 80 %


def share_called_equal(true_difference: float) -> float:
    """Let both arms draw accuracies, and count how often the mode calls them equal."""
    rng = np.random.default_rng(19)
    called = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "POWER_DRAWS", 10)  # what is printed is not asked for here
        for _ in range(DRAWS):
            arms = [rng.normal(90 + shift, SPREAD, RUNS).tolist() for shift in (0, true_difference)]
            called += compare_accuracy(*arms, MARGIN).outcome == "within tolerance"
    return called / DRAWS


def test_e19_at_the_margin_at_most_one_in_twenty_is_called_equal() -> None:
    most = stats.binom.ppf(0.999, DRAWS, 0.05) / DRAWS
    for sign in (1, -1):
        assert share_called_equal(sign * MARGIN) <= most


def test_e19_without_a_difference_the_stated_power_is_reached() -> None:
    at_zero, at_half = share_called_equal(0.0), share_called_equal(MARGIN / 2)
    assert 0.75 < at_zero < 0.95
    assert 0.05 < at_half < at_zero - 0.2
    values = np.array([-1.0, -1 / 3, 1 / 3, 1.0])
    values *= SPREAD / values.std(ddof=1)
    stated = statistics.tost_power(values.tolist(), values.tolist(), MARGIN)
    assert abs(stated - at_zero) < 0.1


def test_e19_the_power_is_printed() -> None:
    verdict = compare_accuracy([90.0, 90.4, 90.2], [90.1, 90.3, 90.2], 1.0)
    assert "power" in verdict.reason and "smallest margin that would have passed" in verdict.reason


def test_e19_a_single_seed_is_refused_on_either_side() -> None:
    for arms in (([90.0], [90.0]), ([90.0], [90.0, 90.1]), ([90.0, 90.1], [90.0])):
        verdict = compare_accuracy(*arms, 5.0)
        assert verdict.outcome == "undecided"
        assert "give at least 2 per side" in verdict.reason


def test_e19_accuracies_per_epoch_are_refused() -> None:
    curves: Any = [[80.0, 90.0, 85.0], [81.0, 91.0, 84.0]]
    with pytest.raises(UserError, match="one a run, at an epoch fixed beforehand"):
        compare_accuracy(curves, curves, 1.0)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Store a study with all its products below a folder of its own."""
    made = synthetic.study(tmp_path)
    for module in (build, record, verify):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(command_line, "load_study", lambda name: made)
    for entry in synthetic.all_records():
        record.write_record(made.results_dir, entry)
    build.build(made)
    return made


def changed_digit(text: str) -> str:
    """Change the last printed digit of the first number with decimals by one."""
    at = next(i for i in range(1, len(text)) if text[i - 1] == "." and text[i].isdigit())
    while text[at + 1].isdigit():
        at += 1
    digit = int(text[at])
    return text[:at] + str(digit + 1 if digit < 9 else digit - 1) + text[at + 1 :]


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = command_line.main(["verify", "--study", "synthetic"])
    return status, capsys.readouterr().err


def test_e20_one_printed_digit_is_noticed(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / study.results_dir
    assert verified(capsys)[0] == 0
    numbers = folder / "tables" / "numbers.json"
    kept = numbers.read_text(encoding="utf-8")
    numbers.write_text(changed_digit(kept), encoding="utf-8")
    assert verified(capsys) == (
        1,
        "synthetic: tables/numbers.json is not what the records give: "
        "it was edited, or is out of date\n",
    )
    numbers.write_text(kept, encoding="utf-8")
    stored = next((folder / "records" / "training").glob("*.json"))
    stored.write_text(changed_digit(stored.read_text(encoding="utf-8")), encoding="utf-8")
    status, said = verified(capsys)
    assert status == 2
    assert stored.name in said and "was changed after it was written" in said


def test_e20_a_deleted_record_leaves_its_products_without_source(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stored in (tmp_path / study.results_dir / "records" / "speed").glob("*.json"):
        stored.unlink()
    status, said = verified(capsys)
    assert status == 1
    assert "figures/speed.svg comes from no record" in said


def test_e20_the_report_has_the_same_bytes_twice(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("*.pdf"))
    shutil.copytree(ROOT / "results" / "standard" / "tables", tmp_path / "results/standard/tables")
    shutil.copytree(
        ROOT / "results" / "standard" / "figures", tmp_path / "results/standard/figures"
    )
    made = [
        report.build("standard", tmp_path / f"{i}.pdf", root=tmp_path).read_bytes()
        for i in range(2)
    ]
    assert made[0] == made[1] and made[0].startswith(b"%PDF")


SMALLEST = "cls_hrnet_w18_small_v1"


@pytest.mark.parametrize(
    "network",
    [n if n == SMALLEST else pytest.param(n, marks=pytest.mark.full) for n in CLASSIFICATION],
)
def test_e21_every_published_row_is_met_to_the_printed_digit(network: str) -> None:
    made = complexity.run(parameters.check("01_networks", {"network": network}))
    measured = {entry["name"]: entry["value"] for entry in made["measurements"]}
    readme = figures(network, "readme")
    for arm in ("reference", "reproduction"):
        gflops = measured[f"total_macs.{arm}"] / 1024**3  # the convention behind the published ones
        assert readme["gflops"].is_met_by(gflops) and not readme["gflops"].is_met_by(1.01 * gflops)
        assert readme["parameters_m"].is_met_by(measured[f"total_parameters.{arm}"] / 1e6)
    assert made["verdict"]["outcome"] == "reproduced", made["verdict"]["reason"]
    elsewhere = made["tables"]["elsewhere"]
    assert {row["by"] for row in elsewhere} >= {"timm"}
    met = ("reproduced", "explained difference")  # a stand-in may pool in another form
    assert all(row["verdict"] in met and row["formula"] for row in elsewhere)
