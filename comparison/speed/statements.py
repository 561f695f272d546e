"""What may be said about a ratio of times, and whether it is what was aimed at beforehand.

A ratio says how many times as fast as the reference an arm is: above one, the arm is faster. It is
said only if its interval is narrower than what it shows; what is decided rests on the interval.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from comparison.speed.timing import CONFIDENCE
from comparison.statistics import Interval

AIMS = Path(__file__).with_name("aims.toml")
SLOWDOWN_MARGIN = 1.10  # in eager execution the reproduction may take so much longer
SHARE_OF_BEST = 0.95  # of the fastest runtime timed in the same run, which `deploy` must reach
NO_STATEMENT = "no statement"


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A ratio that was aimed at before the measurement.

    Attributes:
        key: Names it where the report quotes it.
        network: Official name.
        task: ``inference`` or ``training``.
        image_size: Height and width.
        batch_size: Images a call.
        precision: Of the arm's arithmetic; the reference always computes in float32.
        arm: Which arm.
        threads: Of the machine's cores, for this aim.
        ratio: What the median is to reach.
        lower: What the lower end of the interval must reach, if that was fixed beforehand.
        needs: A feature of the CPU without which the aim does not hold.
    """

    key: str
    network: str
    task: str
    image_size: tuple[int, int]
    batch_size: int
    precision: str
    arm: str
    threads: int
    ratio: float
    lower: float | None = None
    needs: str = ""

    @property
    def name(self) -> str:
        """What is aimed at, in words."""
        height, width = self.image_size
        return (
            f"{self.network}, {self.task}, {height} x {width}, batch {self.batch_size}, "
            f"{self.precision}: {self.arm} against the reference"
        )


@cache
def aims() -> tuple[Aim, ...]:
    """Return all aims, as they were fixed."""
    entries = tomllib.loads(AIMS.read_text(encoding="utf-8"))["aim"]
    return tuple(Aim(**{**entry, "image_size": tuple(entry["image_size"])}) for entry in entries)


def aim_of(**wanted: Any) -> Aim | None:
    """Return the aim for an arm on an input, if there is one."""
    return next(
        (aim for aim in aims() if all(getattr(aim, key) == value for key, value in wanted.items())),
        None,
    )


def spread_exceeds_effect(ratio: Interval) -> bool:
    """Whether a ratio's interval is wider than its distance from one: then it is not printed."""
    if ratio.low is None or ratio.high is None:
        return True
    return ratio.high - ratio.low > abs(ratio.value - 1)


def statement(arm: str, ratio: Interval) -> str:
    """Say how fast an arm is, or that it cannot be said.

    >>> statement("fast", Interval(value=1.5, low=1.4, high=1.6))
    'fast is 1.50 times as fast as the reference'
    >>> statement("fast", Interval(value=1.1, low=0.95, high=1.2))
    'no statement: the spread, 0.25, is larger than the effect, 0.10'
    """
    if ratio.low is None or ratio.high is None:
        return f"{NO_STATEMENT}: too few rounds for an interval of {CONFIDENCE:.0%}"
    if spread_exceeds_effect(ratio):
        spread, effect = ratio.high - ratio.low, abs(ratio.value - 1)
        return f"{NO_STATEMENT}: the spread, {spread:.2f}, is larger than the effect, {effect:.2f}"
    return f"{arm} is {ratio.value:.2f} times as fast as the reference"


def judge_equal(ratio: Interval) -> str:
    """Decide whether an arm is slower than the reference by more than the margin."""
    if ratio.low is None or ratio.high is None:
        return "undecided"
    if ratio.low >= 1 / SLOWDOWN_MARGIN:
        return "within tolerance"
    return "not reproduced" if ratio.high < 1 / SLOWDOWN_MARGIN else "undecided"


def judge_aim(ratio: Interval, aim: Aim) -> str:
    """Decide whether an aim was met.

    Returns:
        ``reproduced`` if median and interval meet it; ``within tolerance`` if one of them does:
        the lower bound where one was fixed, else the median; ``not reproduced`` if no part of
        the interval does; else ``undecided``.
    """
    if ratio.low is None or ratio.high is None:
        return "undecided"
    floor = aim.ratio if aim.lower is None else aim.lower
    if ratio.low >= floor:
        return "reproduced" if ratio.value >= aim.ratio else "within tolerance"
    if aim.lower is None and ratio.value >= aim.ratio:
        return "within tolerance"
    return "not reproduced" if ratio.high < floor else "undecided"


def judge(ratio: Interval, aim: Aim, of_best: Interval | None) -> dict[str, str]:
    """Judge an arm by its aim and, where runtimes ran beside it, by the fastest of them.

    Returns:
        `verdict`, and the `reason` for it.
    """
    outcome = judge_aim(ratio, aim)
    bound = "" if aim.lower is None else f", lower bound {aim.lower:g}"
    found = NO_STATEMENT if spread_exceeds_effect(ratio) else f"x{ratio.value:.2f}"
    reason = f"{found} {_within(ratio)} against x{aim.ratio:g}{bound}"
    if of_best is None and aim.arm == "deploy":
        reason += "; no runtime ran beside it, so that it may not be the fastest"
    if of_best is not None:
        reason += f"; at {of_best.value:.0%} of the fastest runtime"
    if of_best is not None and of_best.value < SHARE_OF_BEST:
        reason += f", {SHARE_OF_BEST:.0%} wanted"
        reaches = of_best.high is None or of_best.high >= SHARE_OF_BEST
        outcome = outcome if outcome == "not reproduced" else "undecided"
        outcome = outcome if reaches else "not reproduced"
    return {"verdict": outcome, "reason": reason}


def _within(ratio: Interval) -> str:
    if ratio.low is None or ratio.high is None:
        return "without an interval"
    return f"[{ratio.low:.2f}, {ratio.high:.2f}]"


def why_not_judged(aim: Aim, threads: int, features: Sequence[str], device: str = "cpu") -> str:
    """Say why this machine or run cannot meet or miss an aim; empty if it can."""
    if device != "cpu":
        return f"the aim is for a CPU, and the device was {device}"
    if aim.needs and aim.needs not in features:
        return f"the aim is for a CPU with {aim.needs}, which this one lacks"
    if aim.threads != threads:
        return f"the aim is for {aim.threads} threads, and {threads} were used"
    return ""


def expectation(aim: Aim) -> dict[str, Any]:
    """Lay an aim out as an expectation of the record."""
    bound = "" if aim.lower is None else f"; lower 95 % bound at least {aim.lower:g}"
    return {
        "name": aim.name,
        "value": aim.ratio,
        "source": "comparison/speed/aims.toml, fixed before the measurement",
        "tolerance": f"median at least {aim.ratio:g}{bound}",
        "reason": "what a prototype reached on the machine it was tried on",
        "aim": {**asdict(aim), "image_size": list(aim.image_size)},
    }
