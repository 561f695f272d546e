"""Every number that the report's text quotes, as text, with the record it comes from.

`collect` always returns every key below; one without a record reads "not run". Percentages and
accuracies come without a unit unless "%" is said; `<claim>` is C1, C2, …; `<network>` is an
official name, of the study's networks; `<arm>` is reference or reproduction; `<mode>` is one of
forward_eval, forward_train, loss, backward, state_after_step, teacher_forced_trajectory.

study.name, study.description, study.records, study.failures, study.commit,
study.torch, study.python, study.cpu, study.cores, study.commands
reference.label, reference.version, reference.sha256
claims.count, claims.met, claims.<claim>.outcome, claims.<claim>.reason
networks.count, networks.reproduced, networks.<network>.parameters_m, networks.<network>.gmacs,
networks.<network>.published_gflops, networks.<network>.fvcore_gflops
network.drawn, network.small_v1.width
parts.network, parts.head_parameters (%), parts.head_macs (%), parts.stage4_parameters (%),
parts.stage4_macs (%)
family.networks, family.counted_beside, family.figures, family.figures_missed,
family.same_bits, family.live, family.traced
traces.networks, traces.rows, traces.max_error
equivalence.networks, equivalence.runs, equivalence.layers, equivalence.tensors,
equivalence.bit_equal_tensors, equivalence.unmatched, equivalence.facts, equivalence.output_max,
equivalence.gradient_max, equivalence.<mode>_max, equivalence.steps, equivalence.noise_output,
equivalence.noise_gradient
thresholds.relative, thresholds.noise_factor, thresholds.gap, thresholds.counting
rewrites.count, rewrites.fewest, free.horizon, free.steps
timm.networks, timm.output_max, timm.gradient_max
trial.faults, trial.caught, trial.detection (%), trial.detection_low (%), trial.harmless,
trial.alarms, trial.alarms_high (%), trial.exact (%), trial.first_end (%), trial.inside,
trial.inside_exact (%), trial.phase_correct (%), trial.mean_hops, trial.mean_s, trial.max_s,
trial.benches, trial.networks, trial.other_tree, trial.excluded, trial.survivors, trial.mutants,
trial.noticed, trial.fault_margin, trial.harmless_margin, trial.policies, trial.policy,
trial.policy_flagged, trial.policy_alarms, trial.quietest, trial.quietest_flagged,
trial.quietest_alarms
steps.runs, steps.whole, steps.span
training.network, training.data, training.image_size, training.train_images,
training.test_images, training.epochs, training.batch_size, training.seeds, training.runs,
training.margin, training.alpha, training.<arm>.top1_mean, training.<arm>.top1_sd,
training.<arm>.top1_low, training.<arm>.top1_high, training.difference, training.ci_low,
training.ci_high, training.p_value, training.power (%), training.smallest_margin,
training.outcome, training.probability_higher, training.paired_difference, training.same_batches,
training.bit_equal_seeds
tasks.count, tasks.runs, tasks.seeds, tasks.scenes, tasks.epochs, tasks.margin, tasks.pairs,
tasks.bit_equal
exchange.images, exchange.flips_float64, exchange.flips_float32
speed.timings, speed.threads, speed.cpu, speed.features, speed.reproduction_timings,
speed.reproduction_low, speed.reproduction_high, speed.aims, speed.aims_timed, speed.aims_met,
speed.output_factor, speed.gradient_factor, speed.slower, speed.margin, speed.reproduction_slower
roof.network, roof.batch_size, roof.gflops, roof.gbytes_per_s, roof.<arm> (%), roof.deploy (%),
roof.convolution_share (%), roof.batch_norm_share (%)
differences.count, differences.measured
audit.longest_run, audit.limit, audit.control_longest_run, audit.share (%),
audit.share_limit (%), audit.files, audit.measured
cost.hours, cost.cpu_hours, cost.start_share (%), cost.start_aim (%), cost.data_share (%),
cost.data_aim (%), cost.data_runs, cost.data_over, scaling.speedup, scaling.slowdown,
scaling.error (%), scaling.tolerance (%), scaling.many, scaling.half_efficient
"""

import json
from collections.abc import Sequence

from comparison import evidence, statistics, trials
from comparison.claims import CLAIMS
from comparison.evidence import Record, measured
from comparison.quotes import Put, compared_networks, cost, dense_tasks, listed, networks, paths
from comparison.speed.quotes import speed
from comparison.study import ROOT, Study
from comparison.tables.table import NOT_RUN, fixed, scientific, short
from reproduction import CLASSIFICATION

Numbers = dict[str, dict[str, str]]


def collect(study: Study, records: Sequence[Record]) -> Numbers:
    """Resolve every key, as text and source.

    Args:
        study: Whose numbers.
        records: All its records.

    Returns:
        For each key ``text`` and ``source``: the record's path and the measurement or table.
    """
    found: Numbers = {}

    def put(key: str, text: str, source: str) -> None:
        found[key] = {"text": text, "source": source if text != NOT_RUN else ""}

    for part in PARTS:
        part(study, records, put)
    return found


def to_json(numbers: Numbers) -> str:
    """Write numbers as the report reads them, sorted by key."""
    return json.dumps(numbers, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _study(study: Study, records: Sequence[Record], put: Put) -> None:
    source = f"workflow/studies/{study.name}.yaml"
    failed = ROOT / study.results_dir / "failures.json"
    count = len(json.loads(failed.read_text(encoding="utf-8"))) if failed.exists() else 0
    origins = [record["provenance"] for record in records]
    put("study.name", study.name, source)
    put("study.description", study.description, source)
    put("study.records", str(len(records)), f"{study.results_dir}/records")
    put("study.failures", str(count), f"{study.results_dir}/failures.json")
    put("study.commands", f"make report STUDY={study.name}", source)
    for key in ("commit", "torch", "python", "cpu", "cores"):
        values = (str(origin[key])[:60] for origin in origins)
        put(f"study.{key}", listed(values), paths(records, f"provenance.{key}"))


MAIN = "cls_hrnet_w18"


def _reference(study: Study, records: Sequence[Record], put: Put) -> None:
    ran = [
        record
        for record in records
        if "label" in (record["inputs"].get("reference") or {})
        and record["subject"].get("against") != "timm"  # a second comparison, not the reference
        and record["case"] != "tasks"  # each task has official code of its own
        # Other tasks have official code of their own, which the table `family` names.
        and record["subject"].get("task", "classification") == "classification"
        and record["subject"].get("network", MAIN) in CLASSIFICATION
    ]
    for key in ("label", "version", "sha256"):
        values = (record["inputs"]["reference"][key] for record in ran)
        put(f"reference.{key}", listed(values), paths(ran, f"inputs.reference.{key}"))


def _claims(study: Study, records: Sequence[Record], put: Put) -> None:
    verdicts = {claim.id: claim.verdict(study, records) for claim in CLAIMS}
    good = ("reproduced", "within tolerance", "explained difference")
    put("claims.count", str(len(verdicts)), "tables/claims.csv")
    met = sum(verdict.outcome in good for verdict in verdicts.values())
    put("claims.met", str(met), "tables/claims.csv")
    for name, verdict in verdicts.items():
        put(f"claims.{name}.outcome", verdict.outcome, "tables/claims.csv")
        put(f"claims.{name}.reason", verdict.reason, "tables/claims.csv")


def _training(study: Study, records: Sequence[Record], put: Put) -> None:
    runs = evidence.planned_runs(records, study)
    data = runs[0]["inputs"]["data"] if runs else {}
    config = runs[0]["subject"]["config"] if runs else {}
    described = {
        "network": evidence.short_name(config["network"]) if runs else None,
        "data": DATA_NAMES.get(data["name"], data["name"]) if runs else None,
        "image_size": data.get("image_size"),
        "train_images": data.get("train_count"),
        "test_images": data.get("test_count"),
        "epochs": config.get("epochs"),
        "batch_size": config.get("batch_size"),
        "seeds": len({run["subject"]["seed"] for run in runs}) or None,
        "runs": len(runs) or None,
    }
    for key, value in described.items():
        put(f"training.{key}", short(value), paths(runs, "inputs.data, subject.config"))
    margin = study.training.margin_pp if study.training else None
    put(
        "training.margin",
        NOT_RUN if margin is None else str(margin),
        f"workflow/studies/{study.name}.yaml#training.margin_pp",
    )
    put("training.alpha", short(statistics.ALPHA), "comparison/statistics.py")
    _arms(runs, put)
    _test(runs, put)
    _pairs(runs, put)


DATA_NAMES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST", "image_folder": "ImageNet"}


def _arms(runs: Sequence[Record], put: Put) -> None:
    for arm, values in evidence.accuracies(runs).items():
        mean = statistics.mean_interval(values) if values else None
        source = paths((r for r in runs if r["subject"]["arm"] == arm), "top1")
        spread = statistics.deviation(values) if values else None
        put(f"training.{arm}.top1_mean", fixed(mean.value if mean else None, 2), source)
        put(f"training.{arm}.top1_sd", fixed(spread, 2), source)
        put(f"training.{arm}.top1_low", fixed(mean.low if mean else None, 2), source)
        put(f"training.{arm}.top1_high", fixed(mean.high if mean else None, 2), source)


def _test(runs: Sequence[Record], put: Put) -> None:
    test, source = evidence.accuracy_test(runs), paths(runs, "top1")
    signed = {"difference": test and test.difference, "ci_low": test and test.low}
    signed["ci_high"] = test and test.high
    for key, value in signed.items():
        put(f"training.{key}", fixed(value, 2, sign=True), source)
    put("training.smallest_margin", fixed(test and test.smallest_margin, 2), source)
    put("training.p_value", scientific(test and test.p_value), source)
    power = None if test is None or test.power is None else 100 * test.power
    put("training.power", NOT_RUN if power is None else f"{fixed(power, 0)} %", source)
    put("training.outcome", test.outcome if test else NOT_RUN, source)


def _pairs(runs: Sequence[Record], put: Put) -> None:
    """Compare the arms seed by seed: same batches, same bits, paired difference."""
    pairs = evidence.pairs(runs)
    source = paths(runs, "top1")
    same = sum(len({measured(r, "batches_sha256") for r in pair}) == 1 for pair in pairs)
    put("training.same_batches", str(same) if pairs else NOT_RUN, paths(runs, "batches_sha256"))
    equal = str(evidence.bit_equal_seeds(runs))
    put("training.bit_equal_seeds", equal if pairs else NOT_RUN, paths(runs, "weights"))
    samples = evidence.accuracies(r for pair in pairs for r in pair)
    first, second = samples["reference"], samples["reproduction"]
    paired = statistics.paired_difference(first, second) if pairs else None
    put("training.paired_difference", fixed(paired and paired.value, 2, sign=True), source)
    higher = statistics.probability_higher(first, second) if pairs else None
    put("training.probability_higher", fixed(higher and higher.value, 2), source)


def _exchange(study: Study, records: Sequence[Record], put: Put) -> None:
    runs = evidence.of_case(records, "training")
    source = paths(runs, "tables.exchange")
    for precision in ("float64", "float32"):
        flips, images = evidence.flips(runs, precision)
        put(f"exchange.flips_{precision}", str(flips) if images else NOT_RUN, source)
    put("exchange.images", str(images) if images else NOT_RUN, source)


def _differences(study: Study, records: Sequence[Record], put: Put) -> None:
    known = evidence.of_case(records, "differences")
    rows = evidence.rows_of(known, "differences")
    source = paths(known, "tables.differences")
    checked = sum(row["verdict"] != "not comparable" for row in rows)
    put("differences.count", str(len(rows)) if rows else NOT_RUN, source)
    put("differences.measured", str(checked) if rows else NOT_RUN, source)


def _audit(study: Study, records: Sequence[Record], put: Put) -> None:
    audited = evidence.of_case(records, "audit")[:1]
    source = paths(audited, "tables.files")
    files = evidence.rows_of(audited, "files")
    controls = [r for r in evidence.rows_of(audited, "controls") if r["kind"] == "independent"]
    longest = max((r["longest_run"] for r in files if r["longest_run"] is not None), default=None)
    share = max((r["share"] for r in files if r["share"] is not None), default=None)
    limit = measured(audited[0], "limit_longest_run") if audited else None
    share_limit = measured(audited[0], "limit_share") if audited else None
    control = max((row["longest_run"] for row in controls), default=None)
    put("audit.longest_run", short(longest), source)
    put("audit.limit", short(limit), source)
    put("audit.control_longest_run", short(control), source)
    for key, value in (("share", share), ("share_limit", share_limit)):
        put(f"audit.{key}", NOT_RUN if value is None else f"{fixed(100 * value, 1)} %", source)
    put("audit.files", str(len(files)) if files else NOT_RUN, source)
    there = sum(row["source"] == "measured" for row in files)
    put("audit.measured", str(there) if files else NOT_RUN, source)


PARTS = (
    _study,
    _reference,
    _claims,
    networks,
    compared_networks,
    trials.quote,
    _training,
    _exchange,
    dense_tasks,
    speed,
    _differences,
    _audit,
    cost,
)
