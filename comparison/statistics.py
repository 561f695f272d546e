"""Decide from a few runs whether two arms are equally accurate, and say how sure that is.

"Not significantly different" is not "equal". Equality within a margin that was fixed beforehand is
claimed by two one-sided tests (TOST; Schuirmann 1987) in Welch's form, the same as: the interval
of the difference at confidence 1 - 2 alpha lies within the margin. All functions are pure; those
that resample take a seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import scipy  # loads scipy.stats, which takes half a second, when it is used

ALPHA = 0.05
RESAMPLES = 10_000
POWER_DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its confidence interval; without an interval both ends are None."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """What two one-sided tests say.

    Attributes:
        difference: Mean of the second sample minus mean of the first.
        low: Lower end of the interval at confidence 1 - 2 alpha; None below two runs an arm.
        high: Upper end.
        margin: What was allowed.
        p_value: The larger of the two one-sided p-values.
        power: Chance to conclude equality at these spreads and sizes if there is no difference.
        smallest_margin: The smallest margin that would have passed.
        outcome: ``within tolerance``, ``not reproduced`` or ``undecided``.
    """

    difference: float
    low: float | None
    high: float | None
    margin: float
    p_value: float | None
    power: float | None
    smallest_margin: float | None
    outcome: str


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Return difference of means, its standard error, and Welch's degrees of freedom.

    >>> welch([1.0, 3.0], [2.0, 6.0])
    (2.0, 2.23606797749979, 1.4705882352941178)
    """
    difference = float(numpy.mean(second) - numpy.mean(first))
    parts = [float(numpy.var(sample, ddof=1)) / len(sample) for sample in (first, second)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return difference, 0.0, float(len(first) + len(second) - 2)
    spread = sum(part**2 / (len(s) - 1) for part, s in zip(parts, (first, second), strict=True))
    return difference, error, sum(parts) ** 2 / spread


def tost(
    first: Sequence[float], second: Sequence[float], margin: float, alpha: float = ALPHA
) -> Equivalence:
    """Test whether two means differ by less than a margin (Welch's TOST).

    Equality is rejected, not merely left open, if the interval lies wholly outside the margin.

    Args:
        first: Values of one arm, one a run.
        second: Values of the other.
        margin: Largest difference that counts as none, above 0, in the values' unit.
        alpha: Level of each one-sided test.

    Raises:
        ValueError: A sample is empty or the margin is not positive.
    """
    if not len(first) or not len(second) or not margin > 0:
        raise ValueError(f"got {len(first)} and {len(second)} values, margin {margin}")
    if min(len(first), len(second)) < 2:
        return _too_few(first, second, margin)
    difference, error, freedom = welch(first, second)
    reach = float(scipy.stats.t.ppf(1 - alpha, freedom)) * error
    low, high = difference - reach, difference + reach
    return Equivalence(
        difference=difference,
        low=low,
        high=high,
        margin=margin,
        p_value=_p_value(margin - abs(difference), error, freedom),
        power=tost_power(first, second, margin, alpha),
        smallest_margin=abs(difference) + reach,
        outcome=_outcome(low, high, margin),
    )


def _too_few(first: Sequence[float], second: Sequence[float], margin: float) -> Equivalence:
    difference = float(numpy.mean(second) - numpy.mean(first))
    nothing = dict.fromkeys(("low", "high", "p_value", "power", "smallest_margin"))
    return Equivalence(difference=difference, margin=margin, outcome="undecided", **nothing)


def _p_value(distance: float, error: float, freedom: float) -> float:
    """Return the p-value of the nearer margin; without spread the test is a comparison."""
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(scipy.stats.t.sf(distance / error, freedom))


def _outcome(low: float, high: float, margin: float) -> str:
    if -margin < low and high < margin:
        return "within tolerance"
    if low >= margin or high <= -margin:
        return "not reproduced"
    return "undecided"


def tost_power(
    first: Sequence[float],
    second: Sequence[float],
    margin: float,
    alpha: float = ALPHA,
    true_difference: float = 0.0,
    seed: int = 0,
) -> float:
    """Simulate how often TOST concludes equality at the spreads and sizes that were seen.

    Normal samples are drawn through their sufficient statistics: mean and variance.
    """
    rng = numpy.random.default_rng(seed)
    means, parts, sizes = [], [], []
    for sample, centre in ((first, 0.0), (second, true_difference)):
        n, variance = len(sample), float(numpy.var(sample, ddof=1))
        means.append(rng.normal(centre, math.sqrt(variance / n), POWER_DRAWS))
        parts.append(variance * rng.chisquare(n - 1, POWER_DRAWS) / (n - 1) / n)
        sizes.append(n - 1)
    difference, total = means[1] - means[0], parts[0] + parts[1]
    if not total.any():
        return float(abs(true_difference) < margin)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / (parts[0] ** 2 / sizes[0] + parts[1] ** 2 / sizes[1])
    reach = scipy.stats.t.ppf(1 - alpha, freedom) * numpy.sqrt(total)
    return float(numpy.mean(numpy.abs(difference) + reach < margin))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean with Student's interval; one value has none.

    >>> mean_interval([71.0]).low is None
    True
    """
    mean, n = float(numpy.mean(values)), len(values)
    if n < 2:
        return Interval(value=mean, low=None, high=None)
    error = float(numpy.std(values, ddof=1)) / math.sqrt(n)
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; one value has none.

    >>> deviation([1.0, 3.0]), deviation([1.0])
    (1.4142135623730951, None)
    """
    return float(numpy.std(values, ddof=1)) if len(values) > 1 else None


def probability_higher(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate P(second > first) for one run of each, ties counted half, with a bootstrap.

    >>> probability_higher([1.0, 2.0], [2.0, 3.0]).value
    0.875
    """
    a, b = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    rng = numpy.random.default_rng(seed)
    shares = numpy.array(
        [
            _share_higher(rng.choice(a, len(a)), rng.choice(b, len(b)))
            for _ in range(RESAMPLES // 10)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = numpy.quantile(shares, [tail, 1 - tail])
    return Interval(value=_share_higher(a, b), low=float(low), high=float(high))


def _share_higher(first: numpy.ndarray, second: numpy.ndarray) -> float:
    gaps = second[:, None] - first[None, :]
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> Interval:
    """Return the mean of second - first, run by run, with Student's interval.

    Raises:
        ValueError: The samples have different lengths.
    """
    pairs = zip(first, second, strict=True)
    return mean_interval([b - a for a, b in pairs], confidence)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return a share with the exact binomial interval (Clopper and Pearson 1934).

    >>> round(clopper_pearson(0, 10).high, 6)
    0.308497
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no count")
    tail = (1 - confidence) / 2
    low = scipy.stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = (
        scipy.stats.beta.ppf(1 - tail, successes + 1, trials - successes)
        if successes < trials
        else 1.0
    )
    return Interval(value=successes / trials, low=float(low), high=float(high))
