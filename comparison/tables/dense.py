"""Tables of dense tasks on composed scenes: both arms, and the paper's variants of fusion."""

from collections.abc import Sequence

from comparison import dense_evidence, evidence, published, statistics
from comparison.dense_evidence import METRICS, TaskOutcome, Variant
from comparison.evidence import Record
from comparison.study import Study
from comparison.tables.table import CONTRACT, NOT_RUN, NOTHING, Table, fixed, interval, make_table

TASK_COLUMNS = ("task", "metric", "steps", "trivial", *CONTRACT, "bit_equal", "note")
ABLATION_COLUMNS = (
    *("task", "variant", "metric", "seeds", "reproduction", "difference", "interval"),
    *("published", "published_difference", "direction", "source"),
)
NAMES = {
    "full": "full fusion, strided",
    "across": "fusion across stages and at the end",
    "final": "fusion at the end only",
    "bilinear": "full fusion, bilinear downsampling",
}


def tasks(study: Study, records: Sequence[Record]) -> Table:
    """Set both arms side by side on every dense task that was trained."""
    runs = dense_evidence.planned(study, records)
    rows = [_task(outcome) for outcome in dense_evidence.outcomes(study, records)]
    caption = (
        "Dense tasks on composed scenes after the last epoch: mean ± standard deviation over "
        "seeds, reproduction minus reference with its 90 % interval, and for how many seeds the "
        "final weights are equal to the bit."
    )
    return make_table("tasks", caption, TASK_COLUMNS, rows, evidence.references(runs))


def _task(outcome: TaskOutcome) -> dict[str, str]:
    test = outcome.test
    bounds = "" if test is None else interval(test.low, test.high, 2, sign=True)
    delta = NOT_RUN if test is None else f"{fixed(test.difference, 2, sign=True)} {bounds}"
    return {
        "task": outcome.task,
        "metric": METRICS[outcome.metric],
        "steps": str(outcome.steps),
        "trivial": fixed(outcome.trivial, 1),
        "paper": "not comparable",
        **{arm: _spread(values) for arm, values in outcome.scores.items()},
        "delta": delta,
        "tolerance": NOT_RUN if test is None else f"±{test.margin:g}",
        "verdict": outcome.outcome,
        "bit_equal": f"{outcome.equal} of {outcome.pairs}" if outcome.pairs else NOT_RUN,
        "note": outcome.absent or NOTHING,
    }


def _spread(values: list[float]) -> str:
    if not values:
        return NOT_RUN
    spread = "" if len(values) < 2 else f" ± {fixed(statistics.deviation(values), 2)}"
    return f"{fixed(sum(values) / len(values), 2)}{spread}"


def ablation(study: Study, records: Sequence[Record]) -> Table:
    """Set the paper's variants of fusion side by side, measured and published."""
    runs = dense_evidence.planned(study, records)
    rows = [_variant(variant) for variant in dense_evidence.variants(study, records)]
    caption = (
        "The paper's variants of fusion and downsampling, trained by the reproduction on composed "
        "scenes: difference from full fusion, paired by seed, with its 95 % interval, beside the "
        "published one."
    )
    return make_table("ablation", caption, ABLATION_COLUMNS, rows, evidence.references(runs))


def _variant(variant: Variant) -> dict[str, str]:
    printed = published.ablation(variant.task)
    value = printed.figures[variant.variant]
    measured = variant.difference
    moved = float(value) - float(printed.figures["full"])
    return {
        "task": variant.task,
        "variant": NAMES[variant.variant],
        "metric": METRICS[variant.metric],
        "seeds": str(len(variant.scores)),
        "reproduction": _spread(variant.scores),
        "difference": NOTHING if measured is None else fixed(measured.value, 2, sign=True),
        "interval": NOTHING if measured is None else interval(measured.low, measured.high, 2, True),
        "published": value,
        "published_difference": NOTHING if measured is None else fixed(moved, 1, sign=True),
        "direction": _direction(measured, moved),
        "source": printed.source,
    }


def _direction(measured: statistics.Interval | None, moved: float) -> str:
    """Say whether a difference has the published sign, if its interval leaves no doubt."""
    if measured is None:
        return NOTHING
    if measured.low is None or measured.high is None or measured.low <= 0 <= measured.high:
        return "undecided"
    return "as published" if (measured.value < 0) == (moved < 0) else "opposite"
