"""Where optimizer steps begin to differ, and which option of the optimizer explains it.

Forward and backward agree, so what differs is the optimizer: its options, or gradients that it did
not reset. The teacher-forced steps are replayed and explained by one number.
"""

from collections.abc import Sequence

import torch

from comparison.engine.fits import fit_momentum, fit_scale, fit_sgd
from comparison.engine.measures import largest
from comparison.engine.rows import Row
from comparison.engine.steps import Followed, Stepper, follow
from comparison.engine.subject import Subject
from comparison.engine.verdict import FORCED, STATE, Origin

ENTRIES = 100_000  # of a parameter; enough to fit one number, and quick


def find_step_origins(subject: Subject, wrong: Sequence[Row], steps: int) -> list[Origin]:
    """Find what makes the first step differ at which one differs.

    Args:
        subject: The candidate, whose passes agree.
        wrong: The rows of the first step that differs.
        steps: How many steps were compared.
    """
    followed = _replay(subject, steps)
    buffers = [row for row in wrong if row.key.part.startswith("buffer")]
    origins = [_buffer_origin(followed, row) for row in buffers]
    rest = [row for row in wrong if row not in buffers]
    if not rest:
        return origins
    parameters = [row for row in rest if row.key.part.startswith("parameter")] or rest
    text = _explanation(subject, followed, parameters)
    number = _number(parameters[0])
    share = f"{len(parameters)} parameters, the first is {parameters[0].key.name}"
    return [
        *origins,
        Origin(
            mode=STATE if number == 1 else FORCED,
            site=f"optimizer (step {number})",
            module="optimizer"
            if len(parameters) > 2
            else parameters[0].key.name.rpartition(".")[0],
            candidate="",
            kind="state",
            difference=max(row.relative for row in parameters),
            text=f"{text}; {share}" if text else share,
            near=tuple(row.key.name.rpartition(".")[0] for row in parameters[:2]),
        ),
    ]


def _replay(subject: Subject, steps: int) -> list[Followed]:
    leader = subject.leader
    stepper = Stepper(subject.side.copied(), subject.state.pairs)
    kept = []
    for one in follow(stepper, leader.batches[:steps], leader.leads(steps, keep=True)):
        state = {key: tensor.clone() for key, tensor in one.state.items()}
        gradients = {name: value.clone() for name, value in stepper.gradients().items()}
        kept.append(one._replace(state=state, gradients=gradients))
        if len(kept) == 3:
            break
    return kept


def _buffer_origin(followed: Sequence[Followed], row: Row) -> Origin:
    name = row.key.name
    one = followed[min(_number(row), len(followed)) - 1]
    old, new = one.lead.before.get((name, "buffer")), one.lead.after[name, "buffer"]
    ours = one.state.get((name, "buffer"))
    text = row.note or f"differs by {row.relative:.1e} of what a step adds"
    if old is not None and ours is not None and new.is_floating_point():
        factor = fit_momentum(old, new, ours, 1.0)
        if factor is not None:
            text = f"moves {factor:.6g} times as far as in the reference"
    return Origin(
        mode=STATE,
        site=str(row.key),
        module=name.rpartition(".")[0],
        candidate="",
        kind="state",
        difference=row.relative,
        text=text,
    )


def _explanation(subject: Subject, followed: Sequence[Followed], rows: Sequence[Row]) -> str:
    name = max(rows, key=lambda row: row.relative).key.name
    for number, one in enumerate(followed):
        theirs, ours = one.lead.gradients.get(name), one.gradients.get(name)
        if theirs is None or ours is None or torch.equal(theirs, ours):
            continue
        kept = followed[number - 1].gradients[name] if number else torch.zeros_like(ours)
        if number and largest(ours - kept - theirs) <= 1e-9 * largest(theirs):
            return "gradients are not reset between steps"
        factor = fit_scale(theirs, ours)
        if factor is not None and abs(factor - 1) > 1e-9:
            return f"gradients behave as {factor:.6g} times the reference"
    return _option(subject, followed, name)


def _option(subject: Subject, followed: Sequence[Followed], name: str) -> str:
    side = subject.leader.side
    assert side.make_optimizer is not None
    optimizer = side.make_optimizer(side.model)
    if not isinstance(optimizer, torch.optim.SGD):
        return ""
    parameter = dict(side.model.named_parameters()).get(name)
    group = next(
        (g for g in optimizer.param_groups if any(p is parameter for p in g["params"])), None
    )
    if group is None:
        return ""
    steps: list[dict[str, torch.Tensor]] = []
    for one in followed:
        if (name, "parameter") not in one.state or name not in one.lead.gradients:
            return ""
        step = {
            "weight": one.lead.before[name, "parameter"],
            "gradient": one.lead.gradients[name],
            "candidate": one.state[name, "parameter"],
        }
        if (name, "momentum buffer") in one.lead.before:
            step["buffer"] = one.lead.before[name, "momentum buffer"]
        steps.append({part: tensor.flatten()[:ENTRIES] for part, tensor in step.items()})
    return fit_sgd(group, steps)


def _number(row: Row) -> int:
    return int(row.key.part.rpartition(" ")[2])
