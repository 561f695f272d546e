"""Time the arms of a setup in turns, and lay out what came of it: a row an arm."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from comparison.speed import machine, statements, timing
from comparison.speed.contenders import BESIDE_DEPLOY, CannotRun, Made, Setup, check, make
from comparison.statistics import Interval

Row = dict[str, Any]
NUMBERS = ("ms", "ms_low", "ms_high", "images_per_s", "ratio", "ratio_low", "ratio_high")
OF_BEST = ("of_best", "of_best_low", "of_best_high")


@dataclass
class Timed:
    """What came of timing the arms of a setup.

    Attributes:
        setup: What was timed.
        made: The arms that ran.
        absent: Why each of the others did not.
        making_s: Seconds that each arm took to be made and warmed up, compilation included.
        rounds: Every round.
        load: Of the machine, before and after.
    """

    setup: Setup
    made: dict[str, Made] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    making_s: dict[str, float] = field(default_factory=dict)
    rounds: list[Row] = field(default_factory=list)
    load: tuple[float, float] = (0.0, 0.0)


def measure(
    setup: Setup, arms: Sequence[str], rounds: int, tell: Callable[[str], None] = lambda text: None
) -> Timed:
    """Make all arms, warm them up and time them in turns.

    Args:
        setup: What is timed.
        arms: Which arms.
        rounds: How many rounds.
        tell: Is told what happens.

    Raises:
        UserError: An arm is unknown, or the input has no meaning.
    """
    check(setup, arms)
    torch.set_num_threads(setup.threads)
    timed, device = Timed(setup), torch.device(setup.device)
    before = machine.load()
    timings = {}
    for arm in arms:
        tell(f"making {arm}")
        started = time.perf_counter()
        try:
            timed.made[arm] = make(arm, setup)
            timings[arm] = timing.timer(timed.made[arm].work, device)
        except CannotRun as reason:
            timed.absent[arm] = " ".join(str(reason).split())
        timed.making_s[arm] = time.perf_counter() - started
    if timings:
        tell(f"timing {', '.join(timings)} over {rounds} rounds")
        timed.rounds = list(timing.interleave(timings, rounds))
    timed.load = (before, machine.load())
    return timed


def speed_rows(timed: Timed) -> list[Row]:
    """Lay out a row an arm: times, ratio, what may be said, and whether it meets its aim."""
    return [
        _ran(timed, arm) if arm in timed.made else _absent(timed, arm) for arm in timed.making_s
    ]


def _subject(timed: Timed, arm: str) -> Row:
    setup = timed.setup
    height, width = setup.image_size
    aim = _aim(setup, arm)
    return {
        "network": setup.network,
        "task": setup.task,
        "image_size": f"{height}x{width}",
        "batch_size": setup.batch_size,
        "timed_precision": setup.precision,
        "arm": arm,
        "aim": aim.ratio if aim else None,
        "aim_lower": aim.lower if aim else None,
        "rounds": len(timed.rounds),
        "threads": setup.threads,
    }


def _aim(setup: Setup, arm: str) -> statements.Aim | None:
    return statements.aim_of(
        network=setup.network,
        task=setup.task,
        image_size=setup.image_size,
        batch_size=setup.batch_size,
        precision=setup.precision,
        arm=arm,
    )


def aims_of(timed: Timed) -> list[statements.Aim]:
    """List the aims that were fixed for the arms of a setup."""
    found = (_aim(timed.setup, arm) for arm in timed.making_s)
    return [aim for aim in found if aim is not None]


def _absent(timed: Timed, arm: str) -> Row:
    aim = _aim(timed.setup, arm)
    return {
        **_subject(timed, arm),
        "precision": timed.setup.precision,
        "how": "",
        "status": f"not run: {timed.absent[arm]}",
        **dict.fromkeys((*NUMBERS, *OF_BEST)),
        "making_s": None,
        "statement": f"{statements.NO_STATEMENT}: not run",
        "verdict": "not run" if aim else None,
        "reason": timed.absent[arm],
    }


def _ran(timed: Timed, arm: str) -> Row:
    made = timed.made[arm]
    seconds = [entry[f"{arm}_s"] for entry in timed.rounds]
    ratio = timing.ratio_of(arm, timed.rounds) if arm != timing.REFERENCE else None
    of_best = _of_best(timed) if arm == "deploy" else None
    row = {
        **_subject(timed, arm),
        "precision": made.precision,
        "how": made.how,
        "status": "ran",
        "ms": 1e3 * median(seconds),
        "ms_low": 1e3 * min(seconds),
        "ms_high": 1e3 * max(seconds),
        "images_per_s": timed.setup.batch_size / median(seconds),
        **_interval("ratio", ratio),
        **_interval("of_best", of_best),
        "making_s": timed.making_s[arm],
    }
    return {**row, **_judged(timed, arm, ratio, of_best)}


def _interval(name: str, value: Interval | None) -> Row:
    low, high = (value.low, value.high) if value else (None, None)
    return {name: value and value.value, f"{name}_low": low, f"{name}_high": high}


def _of_best(timed: Timed) -> Interval | None:
    """Return the speed of `deploy` as a share of the fastest runtime's, round by round."""
    there = [arm for arm in BESIDE_DEPLOY if arm in timed.made]
    if not there:
        return None
    best = min(there, key=lambda arm: median(entry[f"{arm}_s"] for entry in timed.rounds))
    return timing.median_interval([e[f"{best}_s"] / e["deploy_s"] for e in timed.rounds])


def _judged(timed: Timed, arm: str, ratio: Interval | None, of_best: Interval | None) -> Row:
    """Say what may be said of a ratio, and judge it by its aim; arms without one are not judged."""
    if arm == timing.REFERENCE:
        return {"statement": "the others are compared with it", "verdict": None, "reason": ""}
    if ratio is None:
        told = f"{statements.NO_STATEMENT}: the reference did not run"
        verdict = "not run" if _aim(timed.setup, arm) else None
        return {"statement": told, "verdict": verdict, "reason": "the reference did not run"}
    said = statements.statement(arm, ratio)
    aim = _aim(timed.setup, arm)
    if aim is None:
        verdict = statements.judge_equal(ratio) if arm == "reproduction" else None
        return {"statement": said, "verdict": verdict, "reason": ""}
    threads, device = timed.setup.threads, timed.setup.device
    if why := statements.why_not_judged(aim, threads, machine.features(), device):
        return {"statement": said, "verdict": "not run", "reason": why}
    return {"statement": said, **statements.judge(ratio, aim, of_best)}
