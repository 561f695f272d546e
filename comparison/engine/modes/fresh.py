"""Fresh initializations: do both sides draw every tensor from the same distribution?

Models of several seeds are made on both sides. What is the same for every seed (scales of 1,
biases of 0) must be the same on both sides; what is drawn is tested by the two-sample
Kolmogorov-Smirnov test, all seeds pooled, at a level divided by the number of tensors
(Bonferroni). Both sides draw from different seeds, so that the samples are independent.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import nn

from comparison.engine.verdict import Finding
from reproduction.errors import UserError

Make = Callable[[], nn.Module]
LEVEL = 0.001  # chance of any alarm between equal initializations; 0.05 would be one in twenty
SEEDS = 4  # models a side; small tensors are pooled over them
VALUES = 20_000  # of a tensor enter its test, drawn at random where it has more


@dataclass(frozen=True)
class Fresh:
    """What was found out about fresh initializations.

    Attributes:
        findings: Tensors that are initialized differently.
        drawn: How many drawn tensors were tested.
        fixed: How many tensors are the same for every seed.
        small: Drawn tensors that have too few values to show any difference.
    """

    findings: tuple[Finding, ...]
    drawn: int
    fixed: int
    small: tuple[str, ...]

    @property
    def facts(self) -> int:
        """Return how many tensors were compared."""
        return self.drawn + self.fixed

    def __str__(self) -> str:
        said = f"fresh initializations: {self.drawn} drawn and {self.fixed} fixed tensors compared"
        if self.small:
            shown = ", ".join(self.small[:3]) + (", ..." if len(self.small) > 3 else "")
            said += f"; {len(self.small)} have too few values to tell, raise seeds: {shown}"
        return said


def compare_fresh(
    make_reference: Make,
    make_candidate: Make,
    pairs: Mapping[str, str],
    *,
    seed: int = 0,
    seeds: int = SEEDS,
    level: float = LEVEL,
) -> Fresh:
    """Compare the distributions from which two sides draw their initial tensors.

    Args:
        make_reference: Makes a fresh reference; it draws from PyTorch's random numbers.
        make_candidate: Makes a fresh candidate.
        pairs: Name of a state tensor in the candidate to its name in the reference.
        seed: Decides all draws.
        seeds: Models made of each side, at least 2.
        level: Chance of any alarm if all initializations are equal.

    Raises:
        UserError: What a side makes is no module, or lacks a tensor.
    """
    theirs = _samples("reference", make_reference, set(pairs.values()), 2 * seed, seeds)
    ours = _samples("candidate", make_candidate, set(pairs), 2 * seed + 1, seeds)
    findings, small, tested = list[Finding](), list[str](), list[tuple[str, str]]()
    for own, name in pairs.items():
        drawn = [_is_drawn(samples) for samples in (theirs[name], ours[own])]
        if all(drawn):
            tested.append((own, name))
        elif text := _fixed_difference(theirs[name], ours[own], drawn):
            findings.append(Finding(name, text))
    for own, name in tested:
        their_values, our_values = _pooled(theirs[name], seed), _pooled(ours[own], seed)
        if _least_p(len(their_values), len(our_values)) > level / len(tested):
            small.append(name)
        elif text := _drawn_difference(their_values, our_values, level / len(tested)):
            findings.append(Finding(name, text))
    return Fresh(
        findings=tuple(findings),
        drawn=len(tested) - len(small),
        fixed=len(pairs) - len(tested),
        small=tuple(small),
    )


def _samples(
    side: str, make: Make, names: set[str], seed: int, seeds: int
) -> dict[str, list[torch.Tensor]]:
    """Return every named tensor of all models of a side."""
    samples: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    with torch.random.fork_rng(devices=[]):
        for number in range(seeds):
            torch.manual_seed(1_000_003 * seed + number)
            model = make()
            if not isinstance(model, nn.Module):
                raise UserError(
                    f"the fresh {side} is {type(model).__name__}: give functions that make modules"
                )
            state = dict((*model.named_parameters(), *model.named_buffers()))
            for name in names:
                if name not in state:
                    raise UserError(
                        f"the fresh {side} has no {name}: make what is compared, with equal names"
                    )
                samples[name].append(state[name].detach())
    return samples


def _is_drawn(samples: list[torch.Tensor]) -> bool:
    return any(not torch.equal(sample, samples[0]) for sample in samples[1:])


def _fixed_difference(
    theirs: list[torch.Tensor], ours: list[torch.Tensor], drawn: list[bool]
) -> str:
    if any(drawn):
        own, other = (
            "is drawn" if is_drawn else f"is always {_value(samples[0])}"
            for is_drawn, samples in ((drawn[1], ours), (drawn[0], theirs))
        )
        return f"{own} when fresh, in the reference it {other}"
    a, b = theirs[0].double(), ours[0].double()
    if a.shape == b.shape and not torch.equal(a, b):
        return f"is {_value(b)} when fresh, in the reference {_value(a)}"
    return ""


def _value(tensor: torch.Tensor) -> str:
    flat = tensor.flatten()
    if len(flat) and bool((flat == flat[0]).all()):
        return f"{flat[0].item():g}"
    return f"a table of mean {flat.double().mean().item():.3g}"


def _pooled(samples: list[torch.Tensor], seed: int) -> np.ndarray:
    values = torch.cat([sample.double().flatten() for sample in samples]).numpy()
    if len(values) <= VALUES:
        return values
    return np.random.default_rng(seed).choice(values, VALUES, replace=False)


def _least_p(n: int, m: int) -> float:
    """Return the p-value of two samples that do not overlap.

    >>> _least_p(2, 2) == 2 / 6
    True
    """
    return 2 / math.comb(n + m, n) if n + m < 1000 else 0.0


def _drawn_difference(theirs: np.ndarray, ours: np.ndarray, level: float) -> str:
    test = scipy.stats.ks_2samp(theirs, ours, method="auto" if len(ours) < 1000 else "asymp")
    if test.pvalue >= level:
        return ""
    return (
        f"is drawn from another distribution: standard deviation {ours.std():.4g}, in the "
        f"reference {theirs.std():.4g} (Kolmogorov-Smirnov statistic {test.statistic:.3f}, "
        f"p {test.pvalue:.1e})"
    )
