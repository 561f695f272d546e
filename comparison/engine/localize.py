"""Where differences begin: the forced pass, its mending, and what explains each origin.

In the forced pass every operation of the candidate reads the reference's values and every gradient
is the reference's, so what differs there arises there: each site and the glue between sites is
replayed alone, forward and backward, in one run, and any number of faults shows at once. Then the
origins alone are mended in a free run: if everything downstream agrees, they are confirmed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from comparison.engine.fits import fit_eps, fit_momentum, fit_scale, fit_share
from comparison.engine.matching import users_of
from comparison.engine.recordings import Recording
from comparison.engine.rows import AGREES, Key, Row
from comparison.engine.subject import Subject
from comparison.engine.trace import Node
from comparison.engine.verdict import BACKWARD, LOSS, MODES, STATE, Origin


def find_origins(subject: Subject, train: bool) -> list[Origin]:
    """Find where the differences of a mode begin, and confirm it.

    Args:
        subject: The candidate, which differs in that mode.
        train: Whether in train mode.

    Returns:
        The origins in the order of the reference's run; empty if nothing differs locally.
    """
    rows, _ = subject.force(train)
    roots = _cut_off(subject, rows) if train else {}
    if roots:
        cut = set(roots)
        again, _ = subject.force(train, roots=roots)
        rows = [row for row in again if not (row.key.mode == BACKWARD and row.key.name in cut)] + [
            row for row in rows if row.key.mode == BACKWARD and row.key.name in cut
        ]
    flagged = [row for row in rows if row.state != AGREES]
    wrong = _without_consequences(subject, train, flagged)
    keys = frozenset(row.key for row in flagged)
    mended, kept = subject.force(train, keys, roots) if keys else ([], {})
    left = [row for row in mended if row.state != AGREES and row.key not in keys]
    left = [row for row in _without_consequences(subject, train, left, wrong) if _flows(row)]
    lost = any(row.key.mode == LOSS for row in wrong)  # gradients of another loss cannot be mended
    confirmed = None if lost else not left
    origins = [_origin(subject, train, row, kept.get(row.key), confirmed) for row in wrong]
    return sorted(origins, key=lambda origin: MODES.index(origin.mode))


def _cut_off(subject: Subject, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Find where the candidate's gradient ends: no gradient here, but one at what reads it."""
    nodes = subject.leader.nodes[True]
    dead = {row.key.name for row in rows if row.key.part == "gradient" and _is_missing(row)}
    users = users_of(nodes)
    recording = subject.leader.recording(True)
    roots = {}
    for index, node in enumerate(nodes):
        name = str(node.place)
        alive = any(str(nodes[user].place) not in dead for user in users[index])
        key = Key(BACKWARD, name, "gradient")
        if name in dead and alive and key in recording:
            roots[name] = recording[key]
    return roots


def _flows(row: Row) -> bool:
    return row.key.mode != STATE


def _is_missing(row: Row) -> bool:
    return row.note == "missing in the candidate"


def _without_consequences(
    subject: Subject, train: bool, rows: Sequence[Row], origins: Sequence[Row] = ()
) -> list[Row]:
    """Drop backward rows that a wrong operation next to them explains.

    The backward of an operation that is wrong forward is wrong as well; so are a gradient that
    lacks the part which was cut off behind it, and the loss where the output is wrong.
    """
    nodes = subject.leader.nodes[train]
    users = users_of(nodes)
    by_name = {str(node.place): index for index, node in enumerate(nodes)}
    forward = {by_name[name] for row in (*origins, *rows) for name in _ends(row) if name in by_name}
    dead = {
        by_name[row.key.name]
        for row in (*origins, *rows)
        if row.key.part == "gradient" and _is_missing(row) and row.key.name in by_name
    }
    reading = {name for index in forward for name in nodes[index].reads}
    kept = []
    for row in rows:
        index = by_name.get(row.key.name)
        if row.key.mode == BACKWARD and row.key.part == "gradient" and index is not None:
            behind = set(users[index])
            if index in forward or behind & forward or (behind & dead and not _is_missing(row)):
                continue
        if row.key.part in ("parameter gradient", "buffer") and row.key.name in reading:
            continue
        if row.key.part.startswith("output ") and row.key.name == "network" and forward:
            continue
        kept.append(row)
    if any(row.key.mode == LOSS for row in kept):  # the gradient of another loss is another one
        last = {index for index in range(len(nodes)) if not users[index]}
        kept = [
            r for r in kept if not (r.key.part == "gradient" and by_name.get(r.key.name) in last)
        ]
    return kept


def _ends(row: Row) -> tuple[str, ...]:
    """Return the places that a forward row implicates."""
    if row.key.mode in (BACKWARD, LOSS, STATE):
        return ()
    if row.key.part.startswith("reads "):
        return (row.key.name, row.key.part.removeprefix("reads "))
    return (row.key.name,)


def _origin(
    subject: Subject, train: bool, row: Row, ours: torch.Tensor | None, confirmed: bool | None
) -> Origin:
    nodes = subject.leader.nodes[train]
    by_name = {str(node.place): index for index, node in enumerate(nodes)}
    index = by_name.get(row.key.name)
    ends = _ends_of(nodes, row, index, by_name)
    module = nodes[index].place.module if index is not None else row.key.name.rpartition(".")[0]
    kind = "layer" if index is not None and nodes[index].reads else "glue"
    kind = {LOSS: "loss", STATE: "state"}.get(row.key.mode, kind)
    if row.key.part == "parameter gradient":
        kind = "layer"
    return Origin(
        mode=row.key.mode,
        site=str(row.key),
        module=module,
        candidate=_counterpart(subject, train, index),
        kind=kind,
        difference=row.relative,
        text=_text(subject, train, row, index, ours),
        confirmed=confirmed,
        near=tuple(dict.fromkeys(nodes[i].place.module for i in ends[1:])),
        places=tuple(str(nodes[i].place) for i in ends),
    )


def _ends_of(
    nodes: Sequence[Node], row: Row, index: int | None, by_name: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the nodes at both ends of the edge on which a difference arises, its own first."""
    if index is None:
        readers = [i for i, node in enumerate(nodes) if row.key.name in node.reads]
        return tuple(readers)
    if row.key.part == "gradient":
        return (index, *users_of(nodes)[index])
    if row.key.part.startswith("reads "):
        producer = by_name.get(row.key.part.removeprefix("reads "))
        return (index,) if producer is None else (index, producer)
    return (index,)


def _counterpart(subject: Subject, train: bool, index: int | None) -> str:
    ours = {a: b for b, a in subject.matches[train].pairs.items()}
    return str(subject.nodes[train][ours[index]].place) if index in ours else ""


def _text(
    subject: Subject, train: bool, row: Row, index: int | None, ours: torch.Tensor | None
) -> str:
    """Say what is wrong, with the one number that explains it if there is one."""
    if row.note:
        cut = row.key.part == "gradient" and _is_missing(row)
        return "the gradient is cut off behind it" if cut else row.note
    recording = subject.leader.recording(train)
    theirs = recording.get(_read(row.key))
    if ours is None or theirs is None:
        return f"differs by {row.relative:.1e}"
    if row.key.mode == LOSS or row.key.mode == BACKWARD:
        factor = fit_scale(theirs, ours)
        return f"behaves as {factor:.9g} times the reference" if factor else _differs(row)
    if row.key.mode == STATE:
        return _buffer_text(subject, row, theirs, ours)
    if index is None:
        return _differs(row)
    return _forward_text(subject, train, row, subject.leader.nodes[train][index], recording, ours)


def _forward_text(
    subject: Subject,
    train: bool,
    row: Row,
    node: Node,
    recorded: Recording,
    ours: torch.Tensor,
) -> str:
    nodes, mode = subject.leader.nodes[train], row.key.mode
    if row.key.part.startswith("reads "):
        theirs = recorded[_read(row.key)]
        factor = fit_scale(theirs, ours)
        other = "something else" if factor is None else f"{factor:.9g} times that"
        return f"{row.key.part}, {other} in the candidate"
    theirs = recorded[row.key]
    if node.place.op == "batch_norm" and not train:
        state = dict(
            (
                *subject.leader.side.model.named_parameters(),
                *subject.leader.side.model.named_buffers(),
            )
        )
        variance, bias = (
            next((state[n].detach() for n in node.reads if n.endswith(end)), None)
            for end in ("running_var", "bias")
        )
        eps = dict(node.options).get("eps")
        if variance is not None and bias is not None and eps:
            found = fit_eps(theirs, ours, variance, bias, float(eps))
            if found is not None:
                return f"eps behaves as {found:.4g}, reference {eps:g}"
    if (factor := fit_scale(theirs, ours)) is not None:
        return f"behaves as {factor:.9g} times the reference"
    for source in dict.fromkeys(node.inputs):
        part = recorded.get(Key(mode, str(nodes[source].place), "output")) if source >= 0 else None
        if part is not None and part.shape == theirs.shape:
            share = fit_share(part, theirs, ours, at=1.0)
            if share is not None:
                return f"{nodes[source].place} enters with the factor {share:.9g}, reference 1"
    return _differs(row)


def _buffer_text(subject: Subject, row: Row, theirs: torch.Tensor, ours: torch.Tensor) -> str:
    old = dict(subject.leader.side.model.named_buffers()).get(row.key.name)
    momenta = [
        dict(node.options).get("momentum")
        for node in subject.leader.nodes[True]
        if row.key.name in node.reads
    ]
    if old is not None and momenta and momenta[0]:
        found = fit_momentum(old, theirs, ours, float(momenta[0]))
        if found is not None:
            return f"momentum behaves as {found:.4g}, reference {momenta[0]:g}"
    return _differs(row)


def _differs(row: Row) -> str:
    return f"differs by {row.relative:.1e} from the reference's inputs"


def _read(key: Key) -> Key:
    """Return the key of the tensor that is compared: for what is read, its maker's output."""
    if key.part.startswith("reads "):
        return Key(key.mode, key.part.removeprefix("reads "), "output")
    return key


def without_repeats(origins: Sequence[Origin]) -> tuple[Origin, ...]:
    """Keep, of origins at one place, the one of the lowest mode; and a state's only once."""
    found: dict[str, Origin] = {}
    modules: dict[str, str] = {}
    for origin in sorted(origins, key=lambda one: MODES.index(one.mode)):
        first = modules.setdefault(origin.module, origin.mode)
        if origin.mode != first and origin.mode in (BACKWARD, STATE) and origin.kind != "glue":
            continue
        place = origin.site.rpartition(" (")[0]
        if place not in found:
            found[place] = replace(origin)
    return tuple(found.values())
