"""Time several arms in turns, so that a drifting machine does not decide between them.

Clock times on a shared machine drift. So the arms take turns within every round, there and back
(A B C C B A), the next round starts with the next arm, one ratio an arm is taken a round, and what
is stated is the median ratio with an interval that needs no assumption on how ratios scatter.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import mean, median
from typing import Any

import torch

from comparison.statistics import Interval

CONFIDENCE = 0.95
REFERENCE = "reference"
WARM_UPS = 2
# A timing shorter than this repeats its work: the clock and the scheduler tick in milliseconds.
SHORTEST_TIMING_S = 0.05


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Bound the median of the distribution by order statistics (the sign test's interval).

    The k-th smallest and k-th largest of n values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k), whatever the distribution; the largest k that keeps this above
    the confidence is taken. Fewer than six values have no 95 % interval.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Interval(value=3.5, low=1.0, high=6.0)
    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0]).low is None
    True
    """
    ordered, n = sorted(values), len(values)
    tail, k = 0.0, 0
    while k < n // 2 and 2 * (tail + math.comb(n, k) / 2**n) <= 1 - confidence:
        tail += math.comb(n, k) / 2**n
        k += 1
    low, high = (ordered[k - 1], ordered[n - k]) if k else (None, None)
    return Interval(value=median(ordered), low=low, high=high)


def order_of(arms: Sequence[str], number: int) -> list[str]:
    """List the turns of a round counted from 0: rotated by one arm a round, there and back.

    >>> order_of(["a", "b", "c"], 1)
    ['b', 'c', 'a', 'a', 'c', 'b']
    """
    turn = number % len(arms)
    there = [*arms[turn:], *arms[:turn]]
    return [*there, *reversed(there)]


def interleave(timings: dict[str, Callable[[], float]], rounds: int) -> Iterator[dict[str, Any]]:
    """Time all arms in turns.

    Args:
        timings: For each arm, what runs it and returns the seconds of one call.
        rounds: How many rounds.

    Yields:
        The round, counted from 1; seconds of each arm (mean of its two turns); and the ratio of
        the reference's second turn to its first, which is what the machine does to equal work.
    """
    for number in range(rounds):
        turns: dict[str, list[float]] = {arm: [] for arm in timings}
        for arm in order_of(list(timings), number):
            turns[arm].append(timings[arm]())
        row = {"round": number + 1, **{f"{arm}_s": mean(taken) for arm, taken in turns.items()}}
        if first := turns.get(REFERENCE):
            row["reference_ratio"] = first[1] / first[0]
        yield row


def ratio_of(arm: str, rounds: Sequence[dict[str, Any]]) -> Interval | None:
    """Return how many times as fast as the reference an arm is; None without the reference."""
    if not rounds or f"{REFERENCE}_s" not in rounds[0]:
        return None
    return median_interval([entry[f"{REFERENCE}_s"] / entry[f"{arm}_s"] for entry in rounds])


def timer(
    work: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """Warm `work` up and return what times it: the mean over enough calls to be measurable.

    Args:
        work: Runs one arm once.
        device: Where; an accelerator is waited for.
        clock: Seconds, for tests.
    """

    def timed(calls: int) -> float:
        wait_for(device)
        start = clock()
        for _ in range(calls):
            work()
        wait_for(device)
        return (clock() - start) / calls

    for _ in range(WARM_UPS):
        single = timed(1)
    calls = max(1, math.ceil(SHORTEST_TIMING_S / max(single, 1e-6)))
    return lambda: timed(calls)


def wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
