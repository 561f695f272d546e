"""What the policies of other tools say to the same changes: float32, fixed tolerances.

Each looks at the phases that its tool looks at, and flags a candidate if one tensor there
disagrees. All of them are given the pairing that our checker found, which most of these tools
cannot find by themselves, and one run of each side: a training pass and one optimizer step. What
has no counterpart in the forward pass is skipped, as these tools do; a missing gradient is flagged.
Tensors that are equal to the bit agree under every policy and are not shown to it.

PyTorch's own functions are called. Polygraphy's is called where the package is installed. PaDiff
0.2.0 and reprod_log 1.0.1 import PaddlePaddle, msprobe is a tool suite, and TorchLens 2.36 replaces
methods of `torch.Tensor` when it is imported, which would change what is compared: their rules are
one line each and re-implemented.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from comparison.engine.leader import Leader
from comparison.engine.measures import cosine, largest, same_bits
from comparison.engine.passes import Sites
from comparison.engine.recordings import renamed
from comparison.engine.rows import Key
from comparison.engine.sides import Batch, Side
from comparison.engine.steps import Stepper
from comparison.engine.subject import Subject
from comparison.engine.verdict import BACKWARD, LOSS, STATE, TRAIN
from comparison.mutation.scoring import FAULT, Row
from comparison.statistics import clopper_pearson

FORWARD, GRADIENT, WEIGHTS, BUFFERS = "forward", "gradients", "weights after a step", "buffers"
PHASES = (FORWARD, LOSS, GRADIENT, WEIGHTS, BUFFERS)
OURS = "this checker"
Tensor = torch.Tensor
# Takes the reference's tensor, the candidate's, and the reference's in float64.
Agrees = Callable[[Tensor, Tensor, Tensor], bool]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A rule by which a tool decides.

    Attributes:
        name: Of the tool, with its tolerances.
        origin: The package whose function is called, or "re-implemented".
        phases: What the tool looks at.
        agrees: Decides on one tensor.
    """

    name: str
    origin: str
    phases: tuple[str, ...]
    agrees: Agrees


def mean_agrees(theirs: Tensor, ours: Tensor, _exact: Tensor) -> bool:
    """Compare means: PaDiff's default mode, with its least tolerance of 1e-7 and 1e-4 beside."""
    means = theirs.mean().item(), ours.mean().item()
    return abs(means[0] - means[1]) <= 1e-4 + 1e-7 * abs(means[1])


def mean_difference_agrees(theirs: Tensor, ours: Tensor, _exact: Tensor) -> bool:
    """Compare the mean deviation with 1e-6: reprod_log's default."""
    return (theirs - ours).abs().mean().item() <= 1e-6


def either_agrees(theirs: Tensor, ours: Tensor, _exact: Tensor) -> bool:
    """Allow every entry 1e-5, absolute or relative: Polygraphy's rule."""
    deviation = (theirs - ours).abs()
    return bool(((deviation <= 1e-5) | (deviation <= 1e-5 * ours.abs())).all())


def polygraphy_agrees(theirs: Tensor, ours: Tensor, _exact: Tensor) -> bool:
    """Ask Polygraphy itself."""
    compare, result = _polygraphy()
    return all(bool(found) for found in compare(result(theirs), result(ours)).values())


def assert_close_agrees(theirs: Tensor, ours: Tensor, _exact: Tensor) -> bool:
    """Ask `torch.testing.assert_close`, with its defaults."""
    try:
        torch.testing.assert_close(ours, theirs)
    except AssertionError:
        return False
    return True


def cosine_agrees(theirs: Tensor, ours: Tensor, _exact: Tensor) -> bool:
    """Ask for a cosine above 0.99 and a deviation below 1e-3: msprobe's rule."""
    return cosine(theirs, ours) > 0.99 and largest(theirs - ours) < 1e-3


def same_agrees(theirs: Tensor, ours: Tensor, exact: Tensor) -> bool:
    """Ask the function with which PyTorch tests its compilers, given the truth in float64."""
    from torch._dynamo.utils import same

    silent: Any = lambda *_, **__: None  # noqa: E731
    return bool(same(theirs, ours, exact, tol=1e-4, log_error=silent))


def allclose_agrees(theirs: Tensor, ours: Tensor, _exact: Tensor) -> bool:
    """Ask `torch.allclose` with 1e-5 and 1e-8, as TorchLens does."""
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def policies() -> tuple[Policy, ...]:
    """List the policies; which of them are real depends on what is installed."""
    torch_origin = f"torch {torch.__version__}"
    try:
        polygraphy = Policy(
            name="Polygraphy, 1e-5",
            origin=f"polygraphy {version('polygraphy')}",
            phases=(FORWARD,),
            agrees=polygraphy_agrees,
        )
    except PackageNotFoundError:
        polygraphy = _rewritten("Polygraphy, 1e-5", (FORWARD,), either_agrees)
    return (
        _rewritten("PaDiff, means, 1e-4", (FORWARD, GRADIENT, WEIGHTS), mean_agrees),
        _rewritten("reprod_log, 1e-6", (LOSS, GRADIENT), mean_difference_agrees),
        polygraphy,
        Policy(
            name="assert_close, defaults",
            origin=torch_origin,
            phases=PHASES,
            agrees=assert_close_agrees,
        ),
        _rewritten("msprobe, cosine and maximum", (FORWARD, GRADIENT), cosine_agrees),
        Policy(
            name="dynamo same, with float64",
            origin=torch_origin,
            phases=(FORWARD, GRADIENT),
            agrees=same_agrees,
        ),
        _rewritten("TorchLens, 1e-5 and 1e-8", (FORWARD,), allclose_agrees),
    )


def _rewritten(name: str, phases: tuple[str, ...], agrees: Agrees) -> Policy:
    return Policy(name=name, origin="re-implemented", phases=phases, agrees=agrees)


@cache
def _polygraphy() -> tuple[Callable[..., Any], Callable[[Tensor], Any]]:
    from polygraphy.comparator import IterationResult, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL

    def result(tensor: Tensor) -> Any:
        return IterationResult({"tensor": tensor.detach().numpy()})

    return SimpleCompareFunc(rtol=1e-5, atol=1e-5, check_error_stat="elemwise"), result


@dataclass(frozen=True)
class Shown:
    """A candidate as the policies see it: matched, in float64, with its batches."""

    subject: Subject
    side: Side
    batches: Sequence[Batch]


class Baselines:
    """The policies, and what the reference does in float32 and float64, run once.

    Args:
        leader: The reference.
    """

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._policies = policies()
        self._single = self._reference(leader.side.copied(torch.float32))
        exact = self._reference(leader.side.copied())
        self._exact = {k: tensor for k, tensor in exact.items() if k[0] in (FORWARD, GRADIENT)}

    def flagged(self, shown: Shown) -> list[str]:
        """Return the names of the policies that flag a candidate.

        Args:
            shown: The candidate.
        """
        left = list(self._policies)
        seen: set[tuple[str, str]] = set()

        def look(key: tuple[str, str], ours: Tensor) -> None:
            theirs = self._single.get(key)
            if theirs is None:
                return
            seen.add(key)
            for policy in [p for p in left if key[0] in p.phases]:
                if not _agree(policy, theirs, ours, self._exact.get(key, theirs)):
                    left.remove(policy)

        side = shown.side.copied(torch.float32)
        pairs = shown.subject.state.pairs
        _show(self._leader, side, shown.batches[0], shown.subject.sites(True), pairs, look)
        missing = {phase for phase, _ in self._single.keys() - seen if phase != FORWARD}
        return [
            policy.name
            for policy in self._policies
            if policy not in left or missing & set(policy.phases)
        ]

    def _reference(self, side: Side) -> dict[tuple[str, str], Tensor]:
        found: dict[tuple[str, str], Tensor] = {}

        def keep(key: tuple[str, str], tensor: Tensor) -> None:
            found[key] = tensor.clone()

        sites = Sites.own(self._leader.nodes[True])
        _show(self._leader, side, self._leader.batches[0], sites, None, keep)
        return found


def _agree(policy: Policy, theirs: Tensor, ours: Tensor, exact: Tensor) -> bool:
    if theirs.shape != ours.shape:
        return False
    ours = ours.to(theirs.dtype)  # as these tools do when they write a tensor to disk
    return same_bits(theirs, ours) or policy.agrees(theirs, ours, exact)


def _show(
    leader: Leader,
    side: Side,
    batch: Batch,
    sites: Sites,
    names: Any,
    look: Callable[[tuple[str, str], Tensor], None],
) -> None:
    """Run a training pass and one optimizer step; show every tensor under its phase and name."""

    def sink(key: Key, tensor: Tensor) -> None:
        phase = _phase(key)
        if phase and tensor.is_floating_point():
            look((phase, key.name), tensor.detach())

    shown = side.sees(batch)
    leader.run(True, side, shown, sites, renamed(sink, names) if names else sink)
    if side.make_optimizer:
        stepper = Stepper(side, names)
        stepper.step(shown, 1)
        for (name, kind), tensor in stepper.state().items():
            if kind == "parameter":
                look((WEIGHTS, name), tensor)


def _phase(key: Key) -> str:
    if key.mode == TRAIN and key.part == "output":
        return FORWARD
    if key.mode == BACKWARD and key.part == "parameter gradient":
        return GRADIENT
    return {LOSS: LOSS, STATE: BUFFERS}.get(key.mode, "")


def comparison_rows(rows: Sequence[Row]) -> list[Row]:
    """Set the checker beside the policies: faults flagged and alarms, with their bounds.

    Args:
        rows: From the trials; those without an answer of the policies do not count.
    """
    asked = [row for row in rows if "flagged_by" in row]
    faults = [row for row in asked if row["kind"] == FAULT]
    changes = [row for row in asked if row["kind"] != FAULT]
    if not faults or not changes:
        return []
    ours = Policy(
        name=OURS, origin="float64, noise floor", phases=("all",), agrees=assert_close_agrees
    )
    return [_compared(policy, faults, changes) for policy in (ours, *policies())]


def _compared(policy: Policy, faults: Sequence[Row], changes: Sequence[Row]) -> Row:
    def count(rows: Sequence[Row]) -> int:
        if policy.name == OURS:
            return sum(row["caught"] for row in rows)
        return sum(policy.name in _names(row) for row in rows)

    found, alarms = count(faults), count(changes)
    detection = clopper_pearson(found, len(faults))
    false = clopper_pearson(alarms, len(changes))
    return {
        "policy": policy.name,
        "origin": policy.origin,
        "phases": ", ".join(policy.phases),
        "faults": len(faults),
        "flagged": found,
        "detection": detection.value,
        "detection_low": detection.low,
        "detection_high": detection.high,
        "harmless": len(changes),
        "alarms": alarms,
        "alarm_rate": false.value,
        "alarm_low": false.low,
        "alarm_high": false.high,
    }


def _names(row: Row) -> set[str]:
    return set(row["flagged_by"].split("; "))
