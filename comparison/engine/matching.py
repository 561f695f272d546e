"""Which tensor and which operation of one model is which of the other, whatever their names.

State tensors (parameters and buffers) are paired by a map of names if one is given, by equal
names, by equal values, and last by structure: operations that read parameters are anchors, and the
graph between anchors tells which is which. What structure cannot tell apart is listed, not guessed
in silence. Then operations are paired: anchors by what they read, the rest outward from pairs that
are certain, along the graph, in both directions.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from comparison.engine.trace import Node
from reproduction.errors import UserError

NameMap = Callable[[str], str] | Mapping[str, str]


@dataclass(frozen=True)
class StateMatch:
    """Pairs of state tensors.

    Attributes:
        pairs: Name in the candidate to name in the reference.
        unmatched_reference: State tensors that only the reference has.
        unmatched_candidate: State tensors that only the candidate has.
        ambiguous: Sets of the reference's names that neither values nor structure tell apart;
            they were paired in the order of execution.
        how: ``map``, ``names``, ``values`` or ``structure``: the last step that was needed.
    """

    pairs: dict[str, str]
    unmatched_reference: tuple[str, ...]
    unmatched_candidate: tuple[str, ...]
    ambiguous: tuple[tuple[str, ...], ...]
    how: str


def match_state(
    reference: nn.Module,
    candidate: nn.Module,
    theirs: Sequence[Node],
    ours: Sequence[Node],
    name_map: NameMap | None = None,
) -> StateMatch:
    """Pair the parameters and buffers of two models.

    Args:
        reference: The reference.
        candidate: The candidate.
        theirs: The reference's nodes of one run in eval mode.
        ours: The candidate's nodes.
        name_map: Name in the candidate to name in the reference, as a function (which raises
            `KeyError` or `ValueError` for a name that it does not know) or a mapping.

    Raises:
        UserError: Nothing corresponds, though a side has state.
    """
    left, right = _state(reference), _state(candidate)
    pairs: dict[str, str] = {}
    ambiguous: list[tuple[str, ...]] = []
    how = "map" if name_map is not None else "names"
    for name in right:
        other = _mapped(name_map, name) if name_map is not None else name
        if other in left and other not in pairs.values():
            pairs[name] = other
    if name_map is None and len(pairs) < len(left) and _coincidental(pairs, left, right):
        pairs = {}
    if name_map is None and len(pairs) < min(len(left), len(right)):
        how = "values"
        _pair_by_value(left, right, pairs)
        if any(not _is_counter(left[n]) for n in left if n not in pairs.values()):
            how = "structure"
            ambiguous = _pair_by_structure(theirs, ours, left, right, pairs)
        _pair_siblings(left, right, pairs)
    if not pairs and (left or right):
        raise UserError(
            f"the models cannot be matched: none of the {len(left)} tensors of the reference "
            f"{_some(left)}corresponds to one of the {len(right)} of the candidate "
            f"{_some(right)}by name, value or structure; give name_map, or models that correspond"
        )
    taken = set(pairs.values())
    return StateMatch(
        pairs=pairs,
        unmatched_reference=tuple(name for name in left if name not in taken),
        unmatched_candidate=tuple(name for name in right if name not in pairs),
        ambiguous=tuple(ambiguous),
        how=how,
    )


def users_of(nodes: Sequence[Node]) -> dict[int, list[int]]:
    """Return for every node the nodes that read what it returns."""
    users: dict[int, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        for source in node.inputs:
            users[source].append(index)
    return users


def main_tensor(node: Node) -> str:
    """Return the state tensor that names an anchor: its weight, else the first that it reads."""
    return next((name for name in node.reads if name.endswith("weight")), node.reads[0])


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict((*model.named_parameters(), *model.named_buffers()))


def _mapped(name_map: NameMap, name: str) -> str | None:
    try:
        return name_map[name] if isinstance(name_map, Mapping) else name_map(name)
    except (KeyError, ValueError):
        return None


def _coincidental(
    pairs: Mapping[str, str], left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]
) -> bool:
    """Tell whether names that agree do so by chance: shapes contradict, or few of many agree."""
    wrong = sum(left[a].shape != right[b].shape for b, a in pairs.items())
    return wrong > 0.1 * len(pairs) or len(pairs) < 0.2 * min(len(left), len(right))


def _pair_by_value(
    left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor], pairs: dict[str, str]
) -> None:
    """Pair tensors whose values occur once on each side and are equal."""
    groups: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, (tensors, taken) in enumerate(((left, set(pairs.values())), (right, set(pairs)))):
        for name, tensor in tensors.items():
            if name not in taken and tensor.numel() > 1:
                groups[_fingerprint(tensor)][side].append(name)
    for theirs, ours in groups.values():
        if len(theirs) == len(ours) == 1:
            pairs[ours[0]] = theirs[0]


def _fingerprint(tensor: torch.Tensor) -> str:
    data = tensor.detach().cpu().double().contiguous().numpy().tobytes()
    return hashlib.sha256(f"{tuple(tensor.shape)}".encode() + data).hexdigest()


def _pair_by_structure(
    theirs: Sequence[Node],
    ours: Sequence[Node],
    left: Mapping[str, torch.Tensor],
    right: Mapping[str, torch.Tensor],
    pairs: dict[str, str],
) -> list[tuple[str, ...]]:
    """Pair what anchors read, anchor by anchor; return what could not be told apart."""
    known = {name: f"={other}" for name, other in pairs.items()}
    their_groups = _by_color(theirs, left, {other: f"={other}" for other in pairs.values()})
    our_groups = _by_color(ours, right, known)
    ambiguous: list[tuple[str, ...]] = []
    done: set[int] = set()
    used: set[int] = set()
    for color in range(3):  # both directions of the graph, then one, then the other
        for key, indices in our_groups[color].items():
            mine = [i for i in indices if i not in done]
            other = [i for i in their_groups[color].get(key, ()) if i not in used]
            if len(mine) != len(other) or (color and len(mine) != 1):
                continue
            for b, a in zip(mine, other, strict=True):
                _pair_roles(theirs[a], ours[b], left, right, pairs)
            done.update(mine)
            used.update(other)
            if len(mine) > 1:
                ambiguous.append(tuple(theirs[a].reads[0] for a in other))
    _align_rest(theirs, ours, left, right, pairs, done, used)
    return ambiguous


def _align_rest(
    theirs: Sequence[Node],
    ours: Sequence[Node],
    left: Mapping[str, torch.Tensor],
    right: Mapping[str, torch.Tensor],
    pairs: dict[str, str],
    done: set[int],
    used: set[int],
) -> None:
    """Align the anchors that the graph does not settle in the order of execution."""
    rest = [i for i, n in enumerate(theirs) if n.reads and not n.derived and i not in used]
    mine = [i for i, n in enumerate(ours) if n.reads and not n.derived and i not in done]
    a_kinds = [_anchor_kind(theirs[i], left) for i in rest]
    b_kinds = [_anchor_kind(ours[i], right) for i in mine]
    for a, b in _longest_common(a_kinds, b_kinds):
        _pair_roles(theirs[rest[a]], ours[mine[b]], left, right, pairs)


def _longest_common(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Return the index pairs of a longest common subsequence (Needleman-Wunsch, gap cost 0)."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            equal = table[i + 1][j + 1] + 1 if left[i] == right[j] else 0
            table[i][j] = max(equal, table[i + 1][j], table[i][j + 1])
    found, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j] and table[i][j] == table[i + 1][j + 1] + 1:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def _pair_roles(
    theirs: Node,
    ours: Node,
    left: Mapping[str, torch.Tensor],
    right: Mapping[str, torch.Tensor],
    pairs: dict[str, str],
) -> None:
    if theirs.place.op != ours.place.op:
        return
    roles = dict(theirs.roles)
    taken = set(pairs.values())
    for position, name in ours.roles:
        other = roles.get(position)
        if other is None or other in taken or name in pairs:
            continue
        if left[other].shape == right[name].shape:
            pairs[name] = other


def _pair_siblings(
    left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor], pairs: dict[str, str]
) -> None:
    """Pair what no operation reads (counters of batches) beside tensors of a paired module."""
    modules = {b.rpartition(".")[0]: a.rpartition(".")[0] for b, a in pairs.items()}
    taken = set(pairs.values())
    for name, tensor in right.items():
        module, _, last = name.rpartition(".")
        other = f"{modules.get(module, '?')}.{last}".removeprefix(".")
        free = name not in pairs and other in left and other not in taken
        if free and left[other].shape == tensor.shape:
            pairs[name] = other


def _by_color(
    nodes: Sequence[Node], state: Mapping[str, torch.Tensor], known: Mapping[str, str]
) -> list[dict[str, list[int]]]:
    """Group anchors by what lies before and after them, by the one, and by the other."""
    before, after = _colors(nodes, state, known), _colors_after(nodes, state, known)
    groups: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(3)]
    for index, node in enumerate(nodes):
        if node.reads and not node.derived:
            groups[0][before[index] + after[index]].append(index)
            groups[1][before[index]].append(index)
            groups[2][after[index]].append(index)
    return groups


def _colors(
    nodes: Sequence[Node], state: Mapping[str, torch.Tensor], known: Mapping[str, str]
) -> list[str]:
    """Color every node by the anchors that lead to it; operations between anchors are ignored."""
    colors: list[str] = []
    for node in nodes:
        sources = sorted({colors[i] if i >= 0 else str(i) for i in node.inputs})
        colors.append(_color(node, state, known, sources))
    return colors


def _colors_after(
    nodes: Sequence[Node], state: Mapping[str, torch.Tensor], known: Mapping[str, str]
) -> list[str]:
    users = users_of(nodes)
    colors = [""] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        following = sorted({colors[user] for user in users[index]}) or ["end"]
        colors[index] = _color(nodes[index], state, known, following)
    return colors


def _color(
    node: Node, state: Mapping[str, torch.Tensor], known: Mapping[str, str], around: list[str]
) -> str:
    if not node.reads or node.derived:
        merged = sorted({part for colors in around for part in colors.split("+")})
        return "+".join(merged)
    own = "|".join(known.get(name, "") for name in node.reads)
    text = f"{_anchor_kind(node, state)} {own} {' '.join(around)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _anchor_kind(node: Node, state: Mapping[str, torch.Tensor]) -> str:
    main = main_tensor(node)
    return f"{node.place.op} {tuple(state[main].shape)} {node.shape[1:]}"


def _is_counter(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point()


def _some(names: Mapping[str, torch.Tensor]) -> str:
    shown = ", ".join(list(names)[:3]) + (", ..." if len(names) > 3 else "")
    return f"({shown}) " if names else ""
