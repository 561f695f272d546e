"""What the records of dense tasks say: scores by arm and seed, equal bits, the paper's variants."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comparison import statistics
from comparison.evidence import Record, measured, of_case
from comparison.study import ARMS, SMALL, VARIANTS, Study

METRICS = {"ap": "OKS AP (%)", "miou": "mIoU (%)", "nme": "NME (%)", "box_ap": "box AP (%)"}


def planned(study: Study, records: Iterable[Record]) -> list[Record]:
    """Return the runs of dense tasks that the study file asked for, and no other."""
    plan = study.tasks
    if plan is None:
        return []
    asked = set(plan.runs())
    return [
        record
        for record in of_case(records, "tasks")
        if _key(record) in asked
        and record["subject"]["config"].get("epochs") == plan.epochs
        and record["subject"]["config"].get("scenes") == plan.scenes
    ]


def _key(record: Record) -> tuple[str, str, str, int]:
    subject = record["subject"]
    return subject["task"], subject["variant"], subject["arm"], subject["seed"]


def is_run(record: Record) -> bool:
    """Tell whether the arm was there to be trained."""
    return record["verdict"]["outcome"] != "not run"


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """One task, both arms.

    Attributes:
        task: Its name.
        metric: A key of METRICS.
        scores: By arm, in percent, one a seed that was run.
        trivial: The same score of a prediction without a network.
        steps: Optimizer steps of each run.
        pairs: Seeds that both arms were trained with.
        equal: Of them, how many end with the same weights to the bit.
        same_batches: Of them, in how many both arms saw the same batches.
        test: Equality of the means over those seeds within the margin; None if there are none.
        absent: Why an arm was not run; empty if both were.
    """

    task: str
    metric: str
    scores: dict[str, list[float]]
    trivial: float
    steps: int
    pairs: int
    equal: int
    same_batches: int
    test: statistics.Equivalence | None
    absent: str

    @property
    def outcome(self) -> str:
        """Return the verdict: equal bits for all seeds, or equality within the margin."""
        if not self.pairs or self.test is None:
            return "not run"
        if self.same_batches < self.pairs:
            return "not comparable"
        return "reproduced" if self.equal == self.pairs else self.test.outcome


def outcomes(study: Study, records: Iterable[Record]) -> list[TaskOutcome]:
    """Sum up every task of which an arm was run, in the order of the study file."""
    runs = [r for r in planned(study, records) if r["subject"]["variant"] == SMALL]
    names = study.tasks.names if study.tasks else ()
    by_task = ((n, [r for r in runs if r["subject"]["task"] == n]) for n in names)
    margin = study.tasks.margin_points if study.tasks else 0.0
    return [_outcome(name, mine, margin) for name, mine in by_task if any(map(is_run, mine))]


def _outcome(task: str, runs: Sequence[Record], margin: float) -> TaskOutcome:
    trained = sorted(filter(is_run, runs), key=lambda record: record["subject"]["seed"])
    metric = measured(trained[0], "metric")
    scores = {
        arm: [measured(r, metric) for r in trained if r["subject"]["arm"] == arm] for arm in ARMS
    }
    pairs = [
        pair
        for seed in sorted({r["subject"]["seed"] for r in trained})
        if len(pair := [r for r in trained if r["subject"]["seed"] == seed]) == len(ARMS)
    ]
    first, second = (
        [measured(r, metric) for pair in pairs for r in pair if r["subject"]["arm"] == arm]
        for arm in ARMS
    )
    return TaskOutcome(
        task=task,
        metric=metric,
        scores=scores,
        trivial=measured(trained[0], f"trivial_{metric}"),
        steps=measured(trained[0], "steps"),
        pairs=len(pairs),
        equal=sum(len({r["inputs"]["weights"]["final_sha256"] for r in p}) == 1 for p in pairs),
        same_batches=sum(len({measured(r, "batches_sha256") for r in p}) == 1 for p in pairs),
        test=statistics.tost(first, second, margin) if pairs else None,
        absent=next((r["verdict"]["reason"] for r in runs if not is_run(r)), ""),
    )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant of the network on one task, beside full fusion.

    Attributes:
        task: Its name.
        variant: A key of VARIANTS.
        metric: A key of METRICS.
        scores: In percent, one a seed.
        difference: From full fusion, paired by seed; None for full fusion itself.
    """

    task: str
    variant: str
    metric: str
    scores: list[float]
    difference: statistics.Interval | None


def variants(study: Study, records: Iterable[Record]) -> list[Variant]:
    """Set the variants of each task beside its full fusion, over the seeds that have both."""
    runs = [r for r in planned(study, records) if r["subject"]["variant"] != SMALL]
    found = []
    for task in study.tasks.ablation if study.tasks else ():
        by_variant = {name: _by_seed(runs, task, name) for name in VARIANTS}
        full = by_variant["full"]
        for name, scores in by_variant.items():
            common = sorted(scores.keys() & full.keys())
            if not common:
                continue
            pair = [full[seed] for seed in common], [scores[seed] for seed in common]
            metric = next(measured(r, "metric") for r in runs if r["subject"]["task"] == task)
            difference = None if name == "full" else statistics.paired_difference(*pair)
            found.append(
                Variant(
                    task=task,
                    variant=name,
                    metric=metric,
                    scores=list(scores.values()),
                    difference=difference,
                )
            )
    return found


def _by_seed(runs: Iterable[Record], task: str, variant: str) -> dict[int, float]:
    mine = (r for r in runs if (r["subject"]["task"], r["subject"]["variant"]) == (task, variant))
    return {r["subject"]["seed"]: measured(r, measured(r, "metric")) for r in mine}


def pictured(study: Study, records: Iterable[Record]) -> list[Record]:
    """Return the runs that keep predictions and that both arms may show."""
    runs = planned(study, records)
    return [r for r in runs if r["tables"].get("snapshots") and r["subject"]["variant"] == SMALL]
