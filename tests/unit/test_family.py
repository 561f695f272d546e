"""Dense networks in one record: names, counts, printed figures, traces; faults and absence show."""

from typing import Any

import pytest
import torch
from torch import nn

from comparison import by_trace, complexity, dense_cost, family, judges, published
from comparison.engine.verdict import MODES
from comparison.figures import divergence, error_by_layer, noise_floor
from comparison.parameters import check
from comparison.study import DENSE, Study
from comparison.tables import family as tables
from comparison.tables.table import NOT_RUN
from reference.errors import ReferenceAbsent
from reproduction import CLASSIFICATION, NETWORKS, UserError, build_network
from tests import synthetic
from tests.synthetic import REFERENCE
from tests.synthetic_dense import counted, network_row, printed_row, traced, trained

SMALL = "seg_hrnet_w18_small_v1_cityscapes"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the study that the synthetic records belong to."""
    return synthetic.study(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return complexity.run(check("01_networks", {"network": SMALL}))


def test_the_family_is_every_network_but_those_for_classification() -> None:
    assert len(family.members(DENSE)) == 28
    assert {*family.members(DENSE), *CLASSIFICATION} == set(NETWORKS)
    assert family.members(SMALL) == [SMALL]


def test_one_dense_network_has_the_official_names_counts_and_figures(
    record: dict[str, Any],
) -> None:
    (row,) = record["tables"]["dense_networks"]

    assert (row["parameters_reproduction"], row["macs_reproduction"]) == (1_540_819, 33_390_854_144)
    assert row["keys_reproduction"] == row["keys_pinned"] and row["verdict"] == "reproduced"
    assert [r["manner"] for r in record["tables"]["dense_cost"]] == ["rounded", "rounded"]
    assert (record["run_id"], record["verdict"]["outcome"]) == (SMALL, "reproduced")


@pytest.mark.parametrize(
    "changed",
    [
        {"keys_reproduction": "0" * 16},
        {"keys_reference": "0" * 16},
        {"parameters_reference": 1},
        {"macs_reference": 1},
        {"entries_reference": 1},
        {"live_verdict": "not reproduced"},
    ],
)
def test_a_network_that_differs_from_either_is_not_reproduced(changed: dict[str, Any]) -> None:
    assert family.network_verdict(network_row()) == "reproduced"
    assert family.network_verdict(network_row(**changed)) == "not reproduced"


def test_without_the_reference_the_pinned_names_decide() -> None:
    gone = {f"{q}_reference": None for q in ("keys", "entries", "parameters", "macs")}
    gone["live_verdict"] = "not run"

    assert family.network_verdict(network_row(**gone)) == "reproduced"
    reason = family.judge([network_row(**gone)], [])["reason"]
    assert "0 of them were counted" in reason and "0 give the same bits" in reason


def test_another_name_or_shape_changes_the_hash() -> None:
    first, second, third = nn.Linear(2, 3), nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 3))
    assert len({family.key_hash(model) for model in (first, second, third)}) == 3


def test_an_absent_reference_is_counted_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, settings: object) -> nn.Module:
        raise ReferenceAbsent("gone")

    monkeypatch.setattr(dense_cost.reference, "build", absent)
    dense_cost.build_on_meta.cache_clear()
    assert dense_cost.build_on_meta(SMALL, "reference") is None
    dense_cost.build_on_meta.cache_clear()


@pytest.mark.parametrize(
    ("how", "convention", "reference", "outcome"),
    [
        ("rounded", "own", 1.0, "reproduced"),
        ("rounded", "own", None, "reproduced"),
        ("rounded", "own", 2.0, "not reproduced"),
        ("rounded", "area", 1.0, "explained difference"),
        ("truncated", "own", 1.0, "explained difference"),
        ("within 0.2 %", "detector", 1.0, "within tolerance"),
        ("not reproduced", "own", 1.0, "not reproduced"),
    ],
)
def test_the_verdict_on_a_printed_figure(
    how: str, convention: str, reference: float | None, outcome: str
) -> None:
    figure = published.DenseFigure(
        network=SMALL,
        quantity="gflops",
        printed="1",
        image_size=(1, 1),
        convention=convention,
        by="x",
    )
    values = {"reference": reference, "reproduction": 1.0}
    assert dense_cost.verdict(figure, how, values) == outcome


MISSED = printed_row("9.3", manner="not reproduced", verdict="not reproduced")


def judged(study: Study, **changed: Any) -> judges.Verdict:
    """Judge claim C14 by the record of the family."""
    made = synthetic.record("networks", DENSE, **counted(REFERENCE, **changed))
    return judges.of_dense_cost(study, [made])


def test_the_claim_names_the_first_figure_that_is_missed(study: Study) -> None:
    assert judged(study).outcome == "reproduced"
    found = judged(study, dense_cost=[printed_row(), MISSED])

    assert found.outcome == "not reproduced"
    assert found.reason.startswith("1 of 2") and found.reason.endswith("pose_hrnet_w32 9.3")


def test_the_claim_fails_with_a_network_that_differs(study: Study) -> None:
    found = judged(study, dense_networks=[network_row(verdict="not reproduced")])

    assert found.outcome == "not reproduced" and "pose_hrnet_w32" in found.reason


def test_a_record_of_traces_runs_no_mode_and_is_judged_by_them() -> None:
    found = by_trace.run(check("02_equivalence", {"network": SMALL, "against": "traces"}))

    assert found["run_id"] == f"{SMALL}.traces" and found["verdict"]["outcome"] == "reproduced"
    modes = found["tables"]["modes"]
    assert [row["mode"] for row in modes] == list(MODES)
    assert {row["outcome"] for row in modes} == {"not run"}
    for draw in (error_by_layer, noise_floor, divergence):
        assert "not run" in draw(found).axes[0].texts[0].get_text()


def test_a_network_with_a_fault_fails_its_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(name: str) -> nn.Module:
        model = build_network(name)
        next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eps = 1.1e-5
        return model

    monkeypatch.setattr(by_trace, "build_network", faulty)
    verdict = by_trace.judge(by_trace.replayed(SMALL), by_trace.ASKED)

    assert verdict["outcome"] == "not reproduced" and SMALL in verdict["reason"]


def test_nothing_on_record_is_not_run() -> None:
    assert by_trace.replayed("seg_hrnet_w48_ade20k") == []
    assert by_trace.judge([], "why")["outcome"] == "not run"


def test_an_absent_reference_leaves_the_traces_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from comparison import equivalence

    def absent(settings: Any) -> None:
        raise ReferenceAbsent("that code is not there: fetch it")

    monkeypatch.setattr(equivalence.pairing, "pair_of", absent)
    found = equivalence.run(check("02_equivalence", {"network": SMALL, "steps": 1}))

    assert found["run_id"] == f"{SMALL}.random.reference.steps1"
    assert found["inputs"]["live"] == "that code is not there: fetch it"
    assert {row["reason"] for row in found["tables"]["modes"]} == {found["inputs"]["live"]}
    assert found["verdict"]["outcome"] == "reproduced" and found["tables"]["traces"]
    assert equivalence.layers_table(found).empty and equivalence.calibration_table(found).empty


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": DENSE}, "is a family, which is compared by recorded traces only"),
        (
            {"network": SMALL, "weights": "trained", "weights_file": "a.safetensors"},
            "trained weights are for classification",
        ),
        ({"network": "pose"}, "network 'pose' is unknown"),
    ],
)
def test_what_has_no_meaning_is_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check("02_equivalence", given)


def test_only_some_notebooks_take_the_whole_family() -> None:
    assert check("01_networks", {"network": DENSE}).network == DENSE
    with pytest.raises(UserError, match="unknown"):
        check("03_training", {"network": DENSE})


def evidence(study: Study, *records: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Read the table of evidence by network."""
    table = tables.evidence_by_network(study, list(records))
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_each_network_says_by_what_it_was_held(study: Study) -> None:
    found = evidence(study, *synthetic.all_records())

    live, pose, other = found["cls_hrnet_w18_small_v1"], found["pose_hrnet_w32"], found[SMALL]
    assert (live["live"], live["live_verdict"]) == ("official f760c988", "reproduced")
    assert (pose["live"], pose["trace_rows"], pose["trace_verdict"]) == (
        *("not planned", "600"),
        "reproduced",
    )
    assert pose["counted"] == "reproduced"
    assert {other[name] for name in ("live_verdict", "trace_verdict", "counted")} == {NOT_RUN}


def test_a_failed_trace_shows_in_the_table(study: Study) -> None:
    found = evidence(study, synthetic.record("equivalence", **traced(failures=2)))

    assert found["pose_hrnet_w32"]["trace_verdict"] == "not reproduced"


def accuracies(study: Study, records: list[dict[str, Any]]) -> list[dict[str, str]]:
    table = tables.task_accuracy(study, records)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_published_accuracies_stand_beside_measured_ones_without_a_verdict(
    study: Study,
) -> None:
    made = [
        {"case": "tasks", **trained(arm, ap=value)}
        for arm, value in (("reference", 40.0), ("reproduction", 41.0), ("reproduction", 43.0))
    ]
    made.append({"case": "tasks", **trained("reproduction", "an ablation", ap=0.0)})
    rows = accuracies(study, made)
    ap = next(r for r in rows if r["metric"] == "AP" and r["task"] == "pose")
    other = next(r for r in rows if r["metric"] == "mIoU")

    assert (ap["paper"], ap["reference"], ap["reproduction"]) == ("74.4", "40.0", "42.0")
    assert (ap["measured_on"], ap["verdict"]) == ("composed scenes", "not comparable")
    assert (other["reproduction"], other["verdict"]) == (NOT_RUN, NOT_RUN)


def test_every_published_accuracy_is_complete_and_about_a_network() -> None:
    figures = published.accuracies()
    known = {*NETWORKS, *dense_cost.UNCONFIGURED}

    assert len(figures) == len({(f.network, f.data, f.setting, f.metric, f.by) for f in figures})
    for figure in figures:
        assert figure.network in known and figure.by and figure.setting
        assert 0 < float(figure.printed) < 100
        config = NETWORKS.get(figure.network)
        assert config is None or config.task == figure.task


def test_ignored_dropout_is_off() -> None:
    from comparison.pairing import quiet

    model = nn.Sequential(nn.Dropout2d(0.05))
    quiet([model])
    images = torch.ones(2, 8, 2, 2)
    assert torch.equal(model.train()(images), images)
