"""Compare any two PyTorch modules: forward, backward, optimizer steps, whole runs.

    from comparison import compare
    report = compare(reference, candidate, images, targets, loss=F.cross_entropy,
                     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    print(report)

The verdict is drawn in float64 against the noise that neutral rewrites of the reference make; the
first place that is wrong is named. `name_map` is one input, not a condition.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError

from comparison.engine.examine import Examined, examine, match
from comparison.engine.free import run_free
from comparison.engine.inputs import Swept, sweep
from comparison.engine.leader import Leader
from comparison.engine.matching import NameMap
from comparison.engine.modes.accuracy import compare_accuracy
from comparison.engine.modes.data import compare_data
from comparison.engine.modes.fresh import Fresh, Make, compare_fresh
from comparison.engine.rehearsal import Rehearsal, rehearse
from comparison.engine.report import Matched, Report
from comparison.engine.requests import (
    NAMES,
    Options,
    check_devices,
    check_fresh,
    check_map,
    check_optimizer,
    check_pairs,
    checked_options,
    make_sides,
)
from comparison.engine.rewrites import CALIBRATING
from comparison.engine.sides import Batch, Loss, OptimizerFactory, SchedulerFactory, Side, mapped
from comparison.engine.states import load_state, random_state, share_parameters
from comparison.engine.verdict import (
    ACCURACY,
    BACKWARD,
    DATA,
    FORCED,
    FREE,
    LOSS,
    MODES,
    NOT_REPRODUCED,
    STATE,
    STATIC,
    UNDECIDED,
    ModeVerdict,
    conclude,
    joined,
    not_run,
)
from reproduction.errors import UserError

_NEEDS = {
    LOSS: "no loss was given",
    BACKWARD: "no loss was given",
    STATE: "no loss and optimizer were given",
    FREE: "no loss and optimizer were given, or no free steps",
    FORCED: "no loss and optimizer were given, or no steps",
    DATA: "no data was given",
    ACCURACY: "no accuracies were given",
}


def compare(
    reference: nn.Module,
    candidate: nn.Module,
    inputs: Any,
    targets: Any = None,
    *,
    loss: Loss | None = None,
    optimizer: OptimizerFactory | tuple[OptimizerFactory, OptimizerFactory] | None = None,
    scheduler: SchedulerFactory | tuple[SchedulerFactory, SchedulerFactory] | None = None,
    name_map: NameMap | None = None,
    data: tuple[Iterable[Batch], Iterable[Batch]] | None = None,
    accuracy: tuple[Sequence[float], Sequence[float], float] | None = None,
    fresh: tuple[Make, Make] | None = None,
    title: str = "",
    **options: Any,
) -> Report:
    """Compare a candidate with a reference in all modes that the arguments allow.

    Both models stay as they are. With given weights, models in float64 are run themselves where
    nothing changes them; others are copied.

    Args:
        reference: The reference.
        candidate: The model that shall be the same.
        inputs: A tensor (B, ...) that both take, or a tuple of positional arguments.
        targets: What the loss takes beside the output.
        loss: From output and targets to a scalar.
        optimizer: Builds the optimizer of a model; a pair if the sides have different ones.
        scheduler: Builds the schedule of an optimizer; a pair if the sides have different ones.
        name_map: Name of a state tensor in the candidate to its name in the reference.
        data: The batches of both sides, for the data path.
        accuracy: The accuracies of both sides' runs, and the margin of equivalence.
        fresh: Functions that make a fresh reference and a fresh candidate; their initializations
            are compared as distributions.
        title: Names the comparison.
        options: Those of `Options`, such as ``steps=20``.

    Raises:
        UserError: The models cannot be compared; says which, where, and what to do.
    """
    start = time.perf_counter()
    chosen = checked_options(options)
    check_pairs(data, accuracy)
    check_fresh(fresh)
    sides = make_sides((reference, candidate), loss, optimizer, scheduler)
    batch = Batch(inputs, targets)
    check_devices(sides, batch)
    check_map(name_map, reference, candidate)
    title = title or f"{type(candidate).__name__} against {type(reference).__name__}"
    try:
        with _one_thread():
            report = _compared(sides, batch, chosen, name_map, fresh, title)
    except CheckpointError as error:
        raise UserError(
            "a model recomputes what it does not keep (torch.utils.checkpoint), which cannot be "
            "watched: turn that off to compare"
        ) from error
    more = [compare_data(*data)] if data else []
    more += [compare_accuracy(*accuracy)] if accuracy else []
    return complete(report, more, time.perf_counter() - start)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def complete(report: Report, more: Sequence[ModeVerdict], wall_s: float) -> Report:
    """Return a report with further verdicts, all modes in order; those missing are not run."""
    found = {verdict.mode: verdict for verdict in (*report.modes, *more)}
    modes = tuple(found.get(mode) or not_run(mode, _NEEDS.get(mode, "left out")) for mode in MODES)
    return replace(report, modes=modes, wall_s=wall_s)


def _joined(report: Report, more: Sequence[ModeVerdict], said: str) -> Report:
    """Join further verdicts on modes that the report has."""
    of = {verdict.mode: verdict for verdict in more if verdict.compared or verdict.differing}
    modes = tuple(joined(v, of[v.mode], said) if v.mode in of else v for v in report.modes)
    return replace(report, modes=modes)


def with_rehearsal(report: Report, rehearsal: Rehearsal) -> Report:
    """Add what running both sides showed; nothing is held against an unstable reference."""
    if rehearsal.unstable:
        modes = tuple(
            replace(v, outcome=UNDECIDED, reason=f"{rehearsal.unstable}; {v.reason}")
            if v.outcome == NOT_REPRODUCED and v.mode not in (STATIC, DATA, ACCURACY)
            else v
            for v in report.modes
        )
        report = replace(report, modes=modes, notices=(*report.notices, rehearsal.unstable))
    if not rehearsal.findings:
        return report
    report = replace(report, findings=(*report.findings, *rehearsal.findings))
    return _joined(report, [conclude(STATIC, (), rehearsal.findings)], "when run")


def with_fresh(report: Report, fresh: Fresh) -> Report:
    """Add what fresh initializations showed."""
    verdict = conclude(STATIC, (), fresh.findings, facts=fresh.facts)
    report = replace(
        report,
        findings=(*report.findings, *fresh.findings),
        notices=(*report.notices, str(fresh)),
    )
    return _joined(report, [verdict], "fresh initializations")


def with_sweep(report: Report, swept: Swept) -> Report:
    """Add what proposed inputs showed."""
    report = replace(
        report,
        rows=(*report.rows, *swept.rows),
        findings=(*report.findings, *swept.findings),
        notices=(*report.notices, swept.notice),
    )
    return _joined(report, swept.verdicts, "on proposed inputs")


def report_of(
    examined: Examined, title: str, *, trajectory: Sequence[dict[str, Any]] = (), **inputs: Any
) -> Report:
    """Make a report of what was found out about one candidate."""
    subject = examined.subject
    leader, state, nodes = subject.leader, subject.state, subject.matches[False]
    theirs, ours = leader.nodes[False], subject.nodes[False]
    matched = Matched(
        how=state.how,
        tensors=len(state.pairs),
        operations=len(nodes.pairs),
        unmatched_reference=(
            *state.unmatched_reference,
            *(str(theirs[i].place) for i in nodes.unmatched_reference),
        ),
        unmatched_candidate=(
            *state.unmatched_candidate,
            *(str(ours[i].place) for i in nodes.unmatched_candidate),
        ),
        ambiguous=state.ambiguous,
    )
    return Report(
        title=title,
        modes=examined.modes,
        matched=matched,
        origins=examined.origins,
        findings=examined.findings,
        rows=examined.rows,
        calibration=tuple(
            {"rewrite": name, "mode": mode, "changed": changed}
            for (name, mode), changed in leader.calibration.items()
        ),
        steps=examined.steps,
        trajectory=tuple(trajectory),
        inputs=inputs,
        notices=examined.notices,
    )


def _compared(
    given: tuple[Side, Side],
    batch: Batch,
    options: Options,
    name_map: NameMap | None,
    fresh: tuple[Make, Make] | None,
    title: str,
) -> Report:
    keep = options.weights == "given"
    doubled = [
        side if keep and side.dtype == torch.float64 else side.copied(torch.float64)
        for side in given
    ]
    reference, candidate = doubled
    for name, side in zip(NAMES, doubled, strict=True):
        check_optimizer(name, side)
    rehearsal = rehearse(given, (reference, candidate), batch)
    count = max(options.steps, options.free_steps, 1)
    batches = _batches(reference.sees(batch), count, options.seed)
    rewrites = [r for r in CALIBRATING if rehearsal.reorderable or not r.reordered]
    lead = partial(
        Leader,
        reference,
        batches,
        rewrites=rewrites,
        budget_mib=options.budget_mib,
        edge_case=options.edge_case,
    )
    leader = lead()
    found = match(leader, candidate, name_map).state
    if not keep:
        state = random_state(reference.model, options.seed, rehearsal.constants)
        load_state(reference.model, state)
        load_state(candidate.model, state, found.pairs)
        share_parameters(candidate.model, reference.model, found.pairs)
        name_map = found.pairs
        del state
        leader = lead()  # what was seen in another state is not kept
    steps, epochs = options.steps, options.epochs
    examined = examine(leader, candidate, name_map=name_map, steps=steps, epochs=epochs)
    trajectory, free = list[dict[str, Any]](), list[ModeVerdict]()
    if reference.make_optimizer and candidate.make_optimizer and options.free_steps:
        trajectory, verdict = run_free(examined.subject, options.free_steps)
        free = [verdict]
    report = report_of(examined, title, trajectory=trajectory, **asdict(options))
    matched = replace(report.matched, how=found.how, ambiguous=found.ambiguous)
    report = complete(replace(report, matched=matched), free, 0.0)
    report = with_rehearsal(report, rehearsal)
    if fresh:
        report = with_fresh(report, compare_fresh(*fresh, found.pairs, seed=options.seed))
    if options.sweep:
        report = with_sweep(report, sweep(reference, candidate, batch, options.seed))
    return report


def _batches(first: Batch, count: int, seed: int) -> list[Batch]:
    """Return the batch that was given, and others like it: its images, rolled and rescaled."""
    batches = [first]
    for number in range(1, count):
        noise = np.random.default_rng([seed, number])
        shift = int(noise.integers(1, 8))
        inputs = mapped(first.inputs, partial(_shifted, shift=shift))
        batches.append(Batch(inputs, first.targets))
    return batches


def _shifted(tensor: torch.Tensor, shift: int) -> torch.Tensor:
    if not tensor.is_floating_point() or tensor.dim() < 2:
        return tensor
    return tensor.roll(shift, -1) * (1 + 0.05 * shift)
