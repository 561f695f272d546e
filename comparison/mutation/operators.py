"""Faults drawn with a seed: every operator once, then more of those with many sites.

Every fault that is drawn has been seen to change something in the mode that is to show it, on the
very inputs at hand. The others are equivalent there, and listed with the reason.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from comparison.engine.sides import Batch, Side
from comparison.mutation.fault import Fault
from comparison.mutation.operators_modules import module_faults
from comparison.mutation.operators_operations import neutral_changes, operation_faults
from comparison.mutation.operators_training import training_faults
from comparison.mutation.witness import Witness

ATTEMPTS = 12  # sites that are tried before an operator counts as without effect


class Sample(NamedTuple):
    """What was drawn.

    Attributes:
        faults: In the order in which they were drawn.
        excluded: Faults that change nothing on these inputs, with the reason.
    """

    faults: list[Fault]
    excluded: list[tuple[Fault, str]]


def all_faults(candidate: Side, batches: Sequence[Batch]) -> Iterator[Fault]:
    """List every fault of every operator at every site.

    Args:
        candidate: A candidate that passes; it stays as it is.
        batches: What it sees.
    """
    yield from module_faults(candidate.model)
    yield from operation_faults(candidate.model, candidate.sees(batches[0]).inputs)
    yield from training_faults(candidate, batches[0])


def sample(
    candidate: Side,
    batches: Sequence[Batch],
    count: int,
    seed: int,
    tried: Counter[str] | None = None,
) -> Sample:
    """Draw faults that can be observed.

    Args:
        candidate: A candidate that passes, in float64; it stays as it is.
        batches: What it sees, at least three.
        count: How many; fewer come back if there are no more sites.
        seed: Decides operators and sites.
        tried: How often each operator was drawn before, on other candidates; the least used come
            first, and what is drawn is added.
    """
    generator = random.Random(seed)
    tried = Counter() if tried is None else tried
    left: dict[str, list[Fault]] = defaultdict(list)
    for fault in all_faults(candidate, batches):
        left[fault.operator].append(fault)
    for faults in left.values():
        generator.shuffle(faults)
    witness, used, failures = Witness(candidate, batches), Counter[str](), Counter[str]()
    drawn = Sample([], [])
    while left and len(drawn.faults) < count:
        mixed = generator.sample(sorted(left), len(left))
        for operator in sorted(mixed, key=lambda one: tried[one]):
            if len(drawn.faults) >= count:
                break
            while left[operator]:
                fault = min(left[operator], key=lambda one: used[one.sites[0]])
                left[operator].remove(fault)
                reason = witness.objection(fault)
                if not reason:
                    used[fault.sites[0]] += 1
                    tried[operator] += 1
                    drawn.faults.append(fault)
                    break
                drawn.excluded.append((fault, reason))
                failures[operator] += 1
                if failures[operator] >= ATTEMPTS:
                    left[operator].clear()
            if not left[operator]:
                del left[operator]
    return drawn


def draw_neutral(candidate: Side, batches: Sequence[Batch], count: int, seed: int) -> list[Fault]:
    """Draw changes of single operations that change no value, which must raise no alarm."""
    changes = list(neutral_changes(candidate.model, candidate.sees(batches[0]).inputs))
    return random.Random(seed).sample(changes, min(count, len(changes)))
