"""No ratio is stated that its interval does not show; aims can be met, missed and not run."""

from dataclasses import replace
from typing import Any

import pytest

from comparison.claims import claim_named
from comparison.speed import evidence, measure, statements
from comparison.speed.statements import Aim, aims
from comparison.statistics import Interval
from comparison.study import Study
from reproduction import NETWORKS
from tests import synthetic
from tests.synthetic_speed import LATENCY, TRAINING, error, timed, timing, timings

SPREAD = "no statement: the spread"


def interval(low: float | None, value: float, high: float | None) -> Interval:
    return Interval(value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("low", "value", "high", "said"),
    [
        (1.4, 1.5, 1.6, "fast is 1.50 times as fast as the reference"),
        (0.6, 0.7, 0.8, "fast is 0.70 times as fast as the reference"),
        (1.25, 1.5, 1.75, "fast is 1.50 times as fast as the reference"),
        (1.2, 1.5, 1.75, SPREAD),  # surely faster, but by how much is not known
        (0.9, 1.0, 1.1, SPREAD),
        (1.0, 1.0, 1.0, "fast is 1.00 times as fast as the reference"),
        (0.95, 1.1, 1.2, SPREAD),
        (None, 1.5, None, "no statement: too few rounds for an interval of 95%"),
    ],
)
def test_a_ratio_is_stated_only_if_its_spread_is_no_larger_than_its_effect(
    low: float | None, value: float, high: float | None, said: str
) -> None:
    assert statements.statement("fast", interval(low, value, high)).startswith(said)


@pytest.mark.parametrize(
    ("low", "value", "high", "outcome"),
    [
        (0.98, 1.0, 1.02, "within tolerance"),
        (0.92, 1.0, 1.3, "within tolerance"),
        (0.85, 1.0, 1.1, "undecided"),
        (0.7, 0.8, 0.9, "not reproduced"),
        (None, 1.0, None, "undecided"),
    ],
)
def test_equal_speed_is_decided_by_the_interval(
    low: float | None, value: float, high: float | None, outcome: str
) -> None:
    assert statements.judge_equal(interval(low, value, high)) == outcome


def aim(ratio: float, lower: float | None = None, needs: str = "") -> Aim:
    return Aim(
        key="k",
        network="cls_hrnet_w18",
        task="training",
        image_size=(224, 224),
        batch_size=8,
        precision="float32",
        arm="fast",
        threads=2,
        ratio=ratio,
        lower=lower,
        needs=needs,
    )


@pytest.mark.parametrize(
    ("low", "value", "high", "lower", "outcome"),
    [
        (1.6, 1.8, 2.0, 1.5, "reproduced"),
        (1.5, 1.6, 2.0, 1.5, "within tolerance"),  # the bound, not the median
        (1.4, 1.8, 2.0, 1.5, "undecided"),
        (1.1, 1.2, 1.4, 1.5, "not reproduced"),
        (1.7, 1.8, 2.0, None, "reproduced"),
        (1.6, 1.8, 2.0, None, "within tolerance"),
        (1.2, 1.6, 1.8, None, "undecided"),
        (1.2, 1.5, 1.6, None, "not reproduced"),
        (None, 9.0, None, None, "undecided"),
    ],
)
def test_an_aim_is_judged_by_median_and_bound(
    low: float | None, value: float, high: float | None, lower: float | None, outcome: str
) -> None:
    assert statements.judge_aim(interval(low, value, high), aim(1.7, lower)) == outcome


def test_deploy_must_come_near_the_fastest_runtime_of_the_same_run() -> None:
    fast = interval(1.9, 2.0, 2.1)
    near, far = interval(0.97, 0.99, 1.0), interval(0.8, 0.85, 0.9)
    assert statements.judge(fast, aim(1.7), near)["verdict"] == "reproduced"
    found = statements.judge(fast, aim(1.7), far)
    assert found["verdict"] == "not reproduced"
    assert "at 85% of the fastest runtime, 95% wanted" in found["reason"]
    unsure = interval(0.8, 0.9, 1.0)
    assert statements.judge(fast, aim(1.7), unsure)["verdict"] == "undecided"


def test_where_nothing_ran_beside_what_is_deployed_it_is_said() -> None:
    found = statements.judge(interval(1.9, 2.0, 2.1), replace(aim(1.7), arm="deploy"), None)
    assert found["verdict"] == "reproduced" and "no runtime ran beside it" in found["reason"]


@pytest.mark.parametrize("ratio", [interval(None, 1.69, None), interval(1.2, 1.5, 1.75)])
def test_no_ratio_without_statement_is_in_the_reason(ratio: Interval) -> None:
    told = statements.judge(ratio, aim(1.7, 1.5), None)["reason"]
    assert told.startswith("no statement ") and f"x{ratio.value}" not in told


def test_an_aim_for_processors_says_nothing_about_a_gpu() -> None:
    told = statements.why_not_judged(aim(1.7), 2, [], "cuda")
    assert told == "the aim is for a CPU, and the device was cuda"


def test_an_aim_for_another_machine_is_neither_met_nor_missed() -> None:
    wants = aim(2.5, needs="amx_bf16")
    assert "needs" not in statements.why_not_judged(wants, 2, ["amx_bf16"])
    assert statements.why_not_judged(wants, 2, ["amx_bf16"]) == ""
    told = statements.why_not_judged(wants, 2, ["avx512f"])
    assert told == "the aim is for a CPU with amx_bf16, which this one lacks"
    told = statements.why_not_judged(aim(1.7), 4, [])
    assert told == "the aim is for 2 threads, and 4 were used"


def test_aims_name_known_networks_once_and_ask_no_bound_above_themselves() -> None:
    assert len({aim.key for aim in aims()}) == len({aim.name for aim in aims()}) == len(aims())
    for known in aims():
        assert known.network in NETWORKS
        assert known.lower is None or 1 < known.lower <= known.ratio


def test_an_arm_that_did_not_run_says_why_in_every_place() -> None:
    found = timed(TRAINING, {"reproduction": 1.0}, absent={"fast": "no such form"})
    row = measure.speed_rows(found)[-1]
    assert (row["arm"], row["status"]) == ("fast", "not run: no such form")
    assert (row["verdict"], row["reason"]) == ("not run", "no such form")
    assert row["ms"] is None and row["ratio"] is None


def test_the_speed_of_deploy_is_compared_with_the_fastest_of_the_runtimes() -> None:
    found = timed(LATENCY, {"deploy": 2.0, "openvino": 2.5, "onnxruntime": 1.9}, spread=0.0)
    row = next(row for row in measure.speed_rows(found) if row["arm"] == "deploy")
    assert row["of_best"] == pytest.approx(0.8)
    assert row["verdict"] == "not reproduced"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return synthetic.study(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize(
    ("ratio", "spread", "outcome"),
    [
        (1.0, 0.02, "within tolerance"),
        (0.8, 0.02, "not reproduced"),
        (1.0, 0.3, "undecided"),
    ],
)
def test_c10_follows_the_reproductions_rows(
    study: Study, ratio: float, spread: float, outcome: str
) -> None:
    record = timing(LATENCY, {"reproduction": ratio}, spread=spread)
    assert evidence.of_equal_speed(study, [record]).outcome == outcome


def test_records_of_the_old_layout_read_not_run(study: Study) -> None:
    old = timings()[0]
    old["tables"] = {"speed": [{"task": "latency", "ratio": 1.0}], "rounds": []}
    assert evidence.timed([old]) == []
    assert evidence.of_equal_speed(study, [old]).outcome == "not run"


def test_only_faster_forms_are_counted_and_the_worst_is_named(study: Study) -> None:
    def row(form: str, value: float, verdict: str) -> dict[str, Any]:
        made = {**error("training"), "form": form, "value": value, "verdict": verdict}
        return {**made, "reason": f"{form} said so"}

    rows = [
        row("eager", 1e-6, "within tolerance"),
        row("channels last", 1.2e-6, "explained difference"),
        row("products", 1.8e-6, "explained difference"),
        row("small products", 1e-6, "within tolerance"),
        row("bfloat16", 8e-5, "not comparable"),
        {**row("products", 97.0, "within tolerance"), "quantity": "accuracy after training, %"},
    ]
    told = claim_named("C16").verdict(study, timings(errors=rows)[:1])
    assert told.outcome == "explained difference"
    assert "1 of 3 gradients, 1 of 1 accuracies within tolerance" in told.reason
    assert told.reason.endswith("the worst: products: products said so")

    broken = {**row("openvino", 0.0, "not reproduced"), "value": None}  # its output was not finite
    outputs = [{**entry, "quantity": "output, largest error"} for entry in (rows[1], broken)]
    told = claim_named("C17").verdict(study, timings(errors=outputs)[1:])
    assert told.outcome == "not reproduced" and told.reason.endswith("openvino said so")
