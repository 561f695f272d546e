"""How the verdict on a claim is taken from a study's records."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from comparison import agreement, dense_evidence, evidence, published
from comparison.evidence import Record, Row
from comparison.study import REFERENCE, Study

# Worst first: one bad record decides, whatever the others say.
SEVERITY = (
    "not reproduced",
    "undecided",
    "not comparable",
    "explained difference",
    "within tolerance",
    "reproduced",
    "not run",
)
IMAGENET_TEST_IMAGES = 50_000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Outcome, why, and how many records it rests on."""

    outcome: str
    reason: str
    records: int = 0


Judge = Callable[[Study, Sequence[Record]], Verdict]


def worst(outcomes: Iterable[str]) -> str:
    """Return the outcome that decides a list of them.

    >>> worst(["reproduced", "undecided", "reproduced"])
    'undecided'
    """
    found = set(outcomes)
    return next((outcome for outcome in SEVERITY if outcome in found), "not run")


def _judge_rows(rows: Sequence[Row], what: str, records: Sequence[Record]) -> Verdict:
    """Sum up rows that carry a verdict of their own."""
    judged = [row for row in rows if row["verdict"] != "not run"]
    outcome = worst(row["verdict"] for row in judged)
    good = sum(row["verdict"] in ("reproduced", "within tolerance") for row in judged)
    reason = f"{good} of {len(judged)} {what}" if judged else f"no {what} measured"
    return Verdict(outcome=outcome, reason=reason, records=len(records))


def of_cost(quantity: str, what: str) -> Judge:
    """Judge a counted quantity of all networks by the published digits."""

    def judge(study: Study, records: Sequence[Record]) -> Verdict:
        records = [record for record in records if "cost" in record["tables"]]
        rows = [evidence.row_where(record, "cost", quantity=quantity) for record in records]
        verdict = _judge_rows([row for row in rows if row], what, records)
        return _with_missing(verdict, len(records), len(study.classifiers), "networks")

    return judge


def of_dense_cost(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge what is printed about networks for dense tasks, by the rows of all their records."""
    counted = [record for record in records if "dense_cost" in record["tables"]]
    rows = evidence.rows_of(counted, "dense_cost")
    if not rows:
        return Verdict(outcome="not run", reason="no network for a dense task was counted")
    differing = [
        row["network"]
        for row in evidence.rows_of(counted, "dense_networks")
        if row["verdict"] != "reproduced"
    ]
    if differing:
        reason = f"{differing[0]}: names, shapes or counts are not those of the reference"
        return Verdict(outcome="not reproduced", reason=reason, records=len(counted))
    outcome = worst(row["verdict"] for row in rows)
    good = sum(row["verdict"] != "not reproduced" for row in rows)
    reason = f"{good} of {len(rows)} printed figures met or explained"
    if missed := [f"{row['network']} {row['paper']}" for row in rows if row["verdict"] == outcome]:
        reason += f", first missed: {missed[0]}" if outcome == "not reproduced" else ""
    return Verdict(outcome=outcome, reason=reason, records=len(counted))


def _with_missing(verdict: Verdict, there: int, planned: int, what: str) -> Verdict:
    if there >= planned:
        return verdict
    reason = f"{verdict.reason}; {planned - there} of {planned} {what} not run"
    return Verdict(outcome=verdict.outcome, reason=reason, records=verdict.records)


def of_accuracy(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge equal accuracy by two one-sided tests against the margin of the study file."""
    runs = evidence.planned_runs(records, study)
    allowed = evidence.margins(runs)
    plan = study.training
    if plan is None or not runs:
        return Verdict(outcome="not run", reason="no training run of the study's plan")
    if allowed != {plan.margin_pp}:
        made = ", ".join(f"{margin:g}" for margin in sorted(allowed)) or "none"
        reason = f"the study file's margin is {plan.margin_pp:g}, the runs were made under {made}"
        return Verdict(outcome="not comparable", reason=reason, records=len(runs))
    test = evidence.accuracy_test(runs)
    if test is None or test.low is None:
        return Verdict(outcome="undecided", reason="too few runs for a test", records=len(runs))
    reason = (
        f"difference {test.difference:+.2f} points, 90 % interval [{test.low:+.2f}, "
        f"{test.high:+.2f}], margin {test.margin:g}, power {test.power:.0%}"
    )
    verdict = Verdict(outcome=test.outcome, reason=reason, records=len(runs))
    return _with_missing(verdict, len(runs), len(plan.arms) * len(plan.seeds), "runs")


def of_exchange(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge exchanged weights: in float64 no decision may differ."""
    exact, images = evidence.flips(records, "float64")
    rounded, _ = evidence.flips(records, "float32")
    if not images:
        return Verdict(outcome="not run", reason="no weights were exchanged")
    reason = f"{exact} of {images} decisions differ in float64, {rounded} in float32"
    if same := evidence.bit_equal_seeds(evidence.planned_runs(records, study)):
        reason += f"; both end with the same weights for {same} seeds, whose decisions count twice"
    outcome = "not reproduced" if exact else "reproduced"
    return Verdict(outcome=outcome, reason=reason, records=len(records))


def of_tasks(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge dense tasks: equal bits, or equal means within the margin, and no other decision."""
    found = dense_evidence.outcomes(study, records)
    runs = dense_evidence.planned(study, records)
    both = [outcome for outcome in found if outcome.outcome != "not run"]
    absent = [outcome.task for outcome in found if outcome.outcome == "not run"]
    if not both:
        reason = "; ".join(f"{it.task}: {it.absent or 'one arm only'}" for it in found)
        return Verdict(outcome="not run", reason=reason or "no run of the study's plan")
    swapped = [r for r in runs if r["verdict"]["outcome"] == "not reproduced"]
    outcome = "not reproduced" if swapped else worst(it.outcome for it in both)
    pairs, equal = sum(it.pairs for it in both), sum(it.equal for it in both)
    reason = (
        f"{len(both)} tasks, {equal} of {pairs} pairs of runs end with equal bits; after exchange "
        f"of weights {len(swapped)} runs decide otherwise in float64"
    )
    if absent:
        reason += f"; not run in both arms: {', '.join(absent)}"
    verdict = Verdict(outcome=outcome, reason=reason, records=len(runs))
    planned = len(study.tasks.runs()) if study.tasks else 0
    return _with_missing(verdict, len(runs), planned, "runs")


def of_imagenet(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge the published accuracy, which only full ImageNet training can."""
    runs = [record for record in records if _is_imagenet(record)]
    if not runs:
        data = sorted({record["inputs"]["data"]["name"] for record in records})
        reason = f"trained on {', '.join(data)}; published accuracies are for ImageNet"
        return Verdict(outcome="not comparable", reason=reason, records=len(records))
    return _published_accuracy(study, runs)


def _is_imagenet(record: Record) -> bool:
    data = record["inputs"]["data"]
    return data["num_classes"] == 1000 and data["test_count"] == IMAGENET_TEST_IMAGES


def _published_accuracy(study: Study, runs: Sequence[Record]) -> Verdict:
    network = runs[0]["subject"]["network"]
    printed = 100 - float(published.figures(network, "readme")["top1_error"].printed)
    values = evidence.accuracies(runs)["reproduction"]
    if not values or study.training is None:
        return Verdict(outcome="not run", reason="the reproduction was not trained")
    mean, margin = sum(values) / len(values), study.training.margin_pp
    outcome = "within tolerance" if abs(mean - printed) <= margin else "not reproduced"
    reason = f"mean top-1 {mean:.2f} %, published {printed:.1f} %, margin {margin:g}"
    return Verdict(outcome=outcome, reason=reason, records=len(runs))


def of_records(study: Study, records: Sequence[Record]) -> Verdict:
    """Take over the records' own verdicts; the worst one gives the reason."""
    outcome = worst(record["verdict"]["outcome"] for record in records)
    telling = next(r for r in records if r["verdict"]["outcome"] == outcome)
    reason = telling["verdict"]["reason"]
    return Verdict(outcome=outcome, reason=reason, records=len(records))


def of_modes(*wanted: str) -> Judge:
    """Judge modes of the comparison over all networks and weights."""

    def judge(study: Study, records: Sequence[Record]) -> Verdict:
        records = agreement.with_reference(records)
        if not records:
            return Verdict(outcome="not run", reason="nothing was compared with the reference")
        rows = [row for row in agreement.modes(records) if row["mode"] in wanted]
        outcome = worst(row["outcome"] for row in rows)
        margin = agreement.closest(rows)
        compared = sum(row["compared"] for row in rows)
        plural = "runs" if len(records) > 1 else "run"
        inside = "no difference" if margin is None else f"the closest {-margin:.1f} decades inside"
        reason = f"{compared} comparisons in {len(records)} {plural}, {inside}"
        bad = [row for row in rows if row["outcome"] == outcome != "reproduced"]
        if bad:
            reason = f"{bad[0]['network']}, {bad[0]['mode']}: {bad[0]['reason']}"
        verdict = Verdict(outcome=outcome, reason=reason, records=len(records))
        planned = [compared for compared in study.compared() if compared.against == REFERENCE]
        return _with_missing(verdict, len(records), len(planned), "comparisons")

    return judge


def of_traces(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge the replay of the recorded numbers of the official code."""
    replayed = [record for record in records if record["tables"].get("traces")]
    rows = agreement.traces(replayed)
    if not rows:
        return Verdict(outcome="not run", reason="none of the networks has a recorded trace")
    count = sum(row["rows"] for row in rows)
    largest = max(row["worst_relative_error"] for row in rows)
    networks = {row["network"] for row in rows}
    failed = sum(row["failures"] for row in rows)
    reason = f"{count} rows of {len(networks)} networks replayed, largest error {largest:.1e}"
    if failed:
        reason = f"{failed} of {reason}"
    outcome = "not reproduced" if failed else "reproduced"
    return Verdict(outcome=outcome, reason=reason, records=len(replayed))


def of_trial(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge the checker by the trial that the study planned; one by hand decides nothing."""
    planned = [record for record in records if record["subject"]["plan"] == study.trial]
    if not planned:
        return Verdict(outcome="not run", reason="the trial that the study plans was not run")
    return of_records(study, planned)


def of_bits(study: Study, records: Sequence[Record]) -> Verdict:
    """Judge free runs in float32: equal to the bit, or within rounding where that ends."""
    records = agreement.with_reference(records)
    followed = agreement.trajectories(records, "float32")
    if not followed:
        return Verdict(outcome="not run", reason="no steps in float32")
    equal = [agreement.bit_equal_steps(rows) for rows in followed]
    steps = [len(rows) for rows in followed]
    whole = sum(e == s for e, s in zip(equal, steps, strict=True))
    reason = f"{whole} of {len(followed)} comparisons equal to the bit over all their steps"
    reason += f" ({agreement.span(steps)})"
    outcome = "reproduced"
    if whole < len(followed):
        judged = (row for row in agreement.modes(records) if row["mode"] == agreement.FREE_RUNS)
        outcome = worst(["within tolerance", *(row["outcome"] for row in judged)])
        parted = min(e for e, s in zip(equal, steps, strict=True) if e < s)
        reason += f"; bits differ after {parted} steps at the earliest"
    return Verdict(outcome=outcome, reason=reason, records=len(followed))
