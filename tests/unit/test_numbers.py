"""Numbers for the report's text: every key is announced, always there, and has a source."""

import re

import pytest

from comparison import claims, numbers
from comparison.study import ARMS, Study
from tests import synthetic, synthetic_base
from tests.synthetic_speed import LATENCY, timing

PLACEHOLDERS = {
    "<claim>": [claim.id for claim in claims.CLAIMS],
    "<network>": list(synthetic.PUBLISHED),
    "<arm>": list(ARMS),
    "<mode>": [
        *("forward_eval", "forward_train", "loss", "backward", "state_after_step"),
        "teacher_forced_trajectory",
    ],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the study that the synthetic records belong to."""
    return synthetic.study(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def found(study: Study) -> numbers.Numbers:
    """Resolve all keys from good records."""
    return numbers.collect(study, synthetic.all_records())


def announced() -> set[str]:
    """Read the keys from the module's documentation."""
    text = (numbers.__doc__ or "").split("\n\n", 2)[2]
    keys: set[str] = set()
    for pattern in re.findall(r"[a-z]\w*(?:\.[\w<>]+)+", text):
        stems = [pattern]
        for placeholder, values in PLACEHOLDERS.items():
            stems = [stem.replace(placeholder, value) for stem in stems for value in values]
        keys.update(stems)
    return keys


def test_the_keys_are_those_that_are_documented(study: Study, found: numbers.Numbers) -> None:
    assert set(found) == announced()
    assert set(numbers.collect(study, [])) == announced()


def test_every_number_names_its_source(found: numbers.Numbers) -> None:
    missing = [key for key, entry in found.items() if not entry["source"]]
    assert missing == []
    assert found["audit.limit"]["source"] == "records/audit/all.json#tables.files"


def test_without_records_results_read_not_run(study: Study) -> None:
    empty = numbers.collect(study, [])
    told = {key for key, entry in empty.items() if entry["text"] == "not run"}
    known_beforehand = {
        *("study.name", "study.description", "study.records", "study.failures", "study.commands"),
        *("training.margin", "training.alpha", "claims.count", "claims.met", "network.drawn"),
        *("network.small_v1.width", "scaling.many", "scaling.tolerance", "speed.aims"),
        *("speed.gradient_factor", "speed.output_factor", "cost.start_aim", "cost.data_aim"),
        "speed.margin",
    }
    reasons = {key for key in empty if re.fullmatch(r"claims\.C\d+\.reason", key)}
    assert set(empty) - told == {*known_beforehand, *reasons}
    assert all(empty[key]["source"] == "" for key in told)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("networks.count", "2"),
        ("networks.cls_hrnet_w18.published_gflops", "3.9894"),
        ("parts.head_parameters", "55 %"),
        ("traces.rows", "690"),
        ("family.figures", "1"),
        ("family.live", "0"),
        ("family.same_bits", "1"),
        ("family.traced", "1"),
        ("equivalence.output_max", "2.0e-15"),
        ("equivalence.noise_gradient", "1.0e-15"),
        ("equivalence.teacher_forced_trajectory_max", "2.0e-15"),
        ("thresholds.relative", "1e-12"),
        ("rewrites.count", "8"),
        ("rewrites.fewest", "7"),
        ("free.horizon", "2"),
        ("timm.networks", "1"),
        ("trial.caught", "11"),
        ("trial.exact", "90.9 %"),
        ("trial.other_tree", "1"),
        ("trial.fault_margin", "1.5"),
        ("trial.harmless_margin", "-1.2"),
        ("trial.policy", "assert_close, defaults"),
        ("trial.policy_alarms", "1"),
        ("steps.whole", "1"),
        ("steps.span", "3"),
        ("training.reference.top1_mean", "90.27"),
        ("training.difference", "+0.03"),
        ("training.margin", "1.0"),
        ("training.seeds", "3"),
        ("training.bit_equal_seeds", "3"),
        ("training.outcome", "within tolerance"),
        ("exchange.images", "2160"),
        ("exchange.flips_float32", "6"),
        ("speed.reproduction_low", "0.98"),
        ("speed.reproduction_timings", "2"),
        ("speed.slower", "none"),
        ("cost.data_over", "0"),
        ("scaling.error", "0.0 %"),
        ("speed.aims_met", "2"),
        ("roof.reference", "30 %"),
        ("audit.longest_run", "30"),
        ("cost.start_share", "25.0 %"),
        ("cost.data_share", "0.4 %"),
        ("scaling.speedup", "1.60"),
        ("audit.share_limit", "18.6 %"),
        ("claims.C8.outcome", "within tolerance"),
        ("reference.label", "official f760c988"),
    ],
)
def test_numbers_are_what_the_records_say(found: numbers.Numbers, key: str, text: str) -> None:
    assert found[key]["text"] == text


def test_where_deployment_is_slower_is_quoted(study: Study) -> None:
    found = numbers.collect(study, [timing(LATENCY, {"deploy": 0.8})])
    assert found["speed.slower"]["text"] == "cls_hrnet_w18, inference, 224x224, batch 1"


def test_comparisons_with_timm_are_quoted_apart(study: Study) -> None:
    records = [synthetic.equivalence(), synthetic.equivalence(against="timm", error=1e-3)]
    found = numbers.collect(study, records)
    assert found["equivalence.output_max"]["text"] == "2.0e-15"
    assert found["timm.output_max"]["text"] == "1.0e-03"
    records[1]["inputs"]["reference"] = {**synthetic_base.REFERENCE, "label": "timm"}
    assert numbers.collect(study, records)["reference.label"]["text"] == "official f760c988"


def test_other_bits_after_training_are_counted(study: Study) -> None:
    runs = synthetic.training_runs()
    runs[0]["inputs"]["weights"]["final_sha256"] = "other"
    assert numbers.collect(study, runs)["training.bit_equal_seeds"]["text"] == "2"


def test_the_same_records_give_the_same_bytes(study: Study, found: numbers.Numbers) -> None:
    again = numbers.collect(study, synthetic.all_records())
    assert list(again) == list(found)
    text = numbers.to_json(found)
    assert text.endswith("}\n") and text == numbers.to_json(dict(reversed(found.items())))
