"""Compare any two PyTorch modules: forward, backward, optimizer steps, whole runs.

    from comparison import compare
    report = compare(reference, candidate, images, targets, loss=F.cross_entropy,
                     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    print(report)

The verdict is drawn in float64 against the noise that neutral rewrites of the reference make; the
first place that is wrong is named. `name_map` is one input, not a condition.
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from comparison.engine.examine import Examined, examine, match
from comparison.engine.free import run_free
from comparison.engine.leader import BUDGET_MIB, Leader
from comparison.engine.matching import NameMap
from comparison.engine.modes.accuracy import compare_accuracy
from comparison.engine.modes.data import compare_data
from comparison.engine.passes import scalar_loss
from comparison.engine.report import Matched, Report
from comparison.engine.sides import Batch, Loss, OptimizerFactory, SchedulerFactory, Side
from comparison.engine.states import load_state, random_state, share_parameters
from comparison.engine.trace import call, restored, tensors_in
from comparison.engine.verdict import (
    ACCURACY,
    BACKWARD,
    DATA,
    FORCED,
    FREE,
    LOSS,
    MODES,
    STATE,
    ModeVerdict,
    not_run,
)
from reproduction.errors import UserError

WEIGHTS = ("random", "given")
_NEEDS = {
    LOSS: "no loss was given",
    BACKWARD: "no loss was given",
    STATE: "no loss and optimizer were given",
    FREE: "no loss and optimizer were given",
    FORCED: "no loss and optimizer were given",
    DATA: "no data was given",
    ACCURACY: "no accuracies were given",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How thoroughly two models are compared.

    Attributes:
        weights: ``random`` draws a state in which no tensor is trivial and gives it to both
            sides; ``given`` compares the models with the weights that they have.
        steps: Teacher-forced optimizer steps.
        free_steps: Free optimizer steps; 0 leaves the mode out.
        epochs: How many epochs of the schedules are compared.
        seed: Of the random state and of further batches.
        budget_mib: Memory that the recorded tensors may take.
        edge_case: Names the edge case if fewer than 8 values per channel of batch statistics are
            meant.
    """

    weights: str = "random"
    steps: int = 2
    free_steps: int = 5
    epochs: int = 100
    seed: int = 0
    budget_mib: float = BUDGET_MIB
    edge_case: str = ""


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
        title: Names the comparison.
        options: Those of `Options`, such as ``steps=20``.

    Raises:
        UserError: The models cannot be compared; says which, where, and what to do.
    """
    start = time.perf_counter()
    chosen = _options(options)
    sides = _sides(reference, candidate, loss, optimizer, scheduler)
    _check(sides, inputs, targets)
    title = title or f"{type(candidate).__name__} against {type(reference).__name__}"
    with _one_thread():
        report = _compared(sides, Batch(inputs, targets), chosen, name_map, title)
    more = [compare_data(*data)] if data else []
    more += [compare_accuracy(*accuracy)] if accuracy else []
    return complete(report, more, time.perf_counter() - start)


def _options(given: dict[str, Any]) -> Options:
    known = [item.name for item in fields(Options)]
    for name in given:
        if name not in known:
            raise UserError(f"option {name!r} is unknown; use {', '.join(known)}")
    options = Options(**given)
    if options.weights not in WEIGHTS:
        raise UserError(f"weights is {options.weights!r}: use {' or '.join(WEIGHTS)}")
    return options


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
    sides: tuple[Side, Side], batch: Batch, options: Options, name_map: NameMap | None, title: str
) -> Report:
    given = options.weights == "given"
    reference, candidate = (_double(side, in_place=given) for side in sides)
    count = max(options.steps, options.free_steps, 1)
    batches = _batches(reference.sees(batch), count, options.seed)
    leader = Leader(reference, batches, budget_mib=options.budget_mib, edge_case=options.edge_case)
    found = match(leader, candidate, name_map).state
    if not given:
        state = random_state(reference.model, options.seed)
        load_state(reference.model, state)
        load_state(candidate.model, state, found.pairs)
        share_parameters(candidate.model, reference.model, found.pairs)
        name_map = found.pairs
        del state
    steps, epochs = options.steps, options.epochs
    examined = examine(leader, candidate, name_map=name_map, steps=steps, epochs=epochs)
    trajectory, free = list[dict[str, Any]](), list[ModeVerdict]()
    if reference.make_optimizer and candidate.make_optimizer and options.free_steps:
        trajectory, verdict = run_free(examined.subject, options.free_steps)
        free = [verdict]
    report = report_of(examined, title, trajectory=trajectory, **asdict(options))
    matched = replace(report.matched, how=found.how, ambiguous=found.ambiguous)
    return complete(replace(report, matched=matched), free, 0.0)


def _sides(
    reference: nn.Module,
    candidate: nn.Module,
    loss: Loss | None,
    optimizer: Any,
    scheduler: Any,
) -> tuple[Side, Side]:
    for name, model in (("reference", reference), ("candidate", candidate)):
        if not isinstance(model, nn.Module):
            raise UserError(f"the {name} is {type(model).__name__}: give a torch.nn.Module")
    optimizers = optimizer if isinstance(optimizer, tuple) else (optimizer, optimizer)
    schedulers = scheduler if isinstance(scheduler, tuple) else (scheduler, scheduler)
    first, second = (
        Side(
            model=model,
            loss=loss,
            make_optimizer=optimizers[i] if loss else None,
            make_scheduler=schedulers[i],
        )
        for i, model in enumerate((reference, candidate))
    )
    return first, second


def _check(sides: tuple[Side, Side], inputs: Any, targets: Any) -> None:
    """Refuse what cannot be compared, in a sentence."""
    names = ("reference", "candidate")
    devices = {
        name: sorted({str(t.device) for t in side.model.state_dict().values()})
        for name, side in zip(names, sides, strict=True)
    }
    devices["inputs"] = sorted({str(t.device) for t in tensors_in((inputs, targets))})
    if len({device for found in devices.values() for device in found}) > 1:
        said = "; ".join(f"{name} on {', '.join(found)}" for name, found in devices.items())
        raise UserError(f"models and inputs lie on different devices ({said}): move all to one")
    if not tensors_in(inputs):
        raise UserError("inputs hold no tensor: give one tensor, or a tuple of arguments")
    for name, side in zip(names, sides, strict=True):
        _check_runs(name, side, Batch(inputs, targets))


def _check_runs(name: str, side: Side, batch: Batch) -> None:
    batch = side.sees(batch)
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(batch.inputs))
    for train in (False, True):
        with restored(side.model), torch.no_grad():
            side.model.train(train)
            try:
                output = call(side.model, batch.inputs)
            except Exception as error:
                said = str(error).strip().partition("\n")[0]
                mode = "train" if train else "eval"
                raise UserError(
                    f"the {name} rejects inputs of shape {shapes} in {mode} mode "
                    f"({type(error).__name__}: {said}): give inputs that both models take"
                ) from error
            if not tensors_in(output):
                raise UserError(f"the {name} returns no tensor but {type(output).__name__}")
            if side.loss is not None:
                scalar_loss(side, output, batch.targets)


def _double(side: Side, *, in_place: bool) -> Side:
    if in_place and side.dtype == torch.float64:
        return side
    try:
        return side.copied(torch.float64)
    except RuntimeError:  # tensors that carry a graph cannot be copied
        detached = copy.copy(side.model)
        return Side(model=detached.double(), loss=side.loss, make_optimizer=side.make_optimizer)


def _batches(first: Batch, count: int, seed: int) -> list[Batch]:
    """Return the batch that was given, and others like it: its images, rolled and rescaled."""
    batches = [first]
    for number in range(1, count):
        noise = np.random.default_rng([seed, number])
        shift = int(noise.integers(1, 8))
        inputs = _mapped(first.inputs, partial(_shifted, shift=shift))
        batches.append(Batch(inputs, first.targets))
    return batches


def _shifted(tensor: torch.Tensor, shift: int) -> torch.Tensor:
    if not tensor.is_floating_point() or tensor.dim() < 2:
        return tensor
    return tensor.roll(shift, -1) * (1 + 0.05 * shift)


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return tuple(change(t) for t in value) if isinstance(value, tuple) else change(value)
