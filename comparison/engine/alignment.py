"""Which operation of one run is which of the other: from what they read, along the graph."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from comparison.engine.matching import StateMatch, main_tensor, users_of
from comparison.engine.trace import Node

COMMUTATIVE = ("add", "mul", "maximum", "minimum", "stack")
CASTS = ("to", "type", "double", "float", "half", "bfloat16")


@dataclass(frozen=True)
class NodeMatch:
    """Pairs of operations of one run, by index.

    Attributes:
        pairs: Candidate's node to the reference's node.
        unmatched_reference: Nodes that only the reference has.
        unmatched_candidate: Nodes that only the candidate has.
    """

    pairs: dict[int, int]
    unmatched_reference: tuple[int, ...]
    unmatched_candidate: tuple[int, ...]


def match_nodes(theirs: Sequence[Node], ours: Sequence[Node], state: StateMatch) -> NodeMatch:
    """Pair the operations of two runs.

    Args:
        theirs: The reference's nodes.
        ours: The candidate's nodes.
        state: The pairs of state tensors.
    """
    pairing = _Pairing(theirs, ours)
    left, right = _anchors(theirs, str), _anchors(ours, lambda n: state.pairs.get(n, f"?{n}"))
    for key, indices in right.items():
        for a, b in zip(left.get(key, ()), indices, strict=False):
            if theirs[a].resembles(ours[b]):
                pairing.add(b, a)
    pairing.by_value([a for indices in left.values() for a in indices])
    for key, indices in right.items():
        for a, b in zip(left.get(key, ()), indices, strict=False):
            pairing.add(b, a)
    pairing.spread()
    pairing.by_value(range(len(theirs)))
    pairs = dict(sorted(pairing.pairs.items(), key=lambda pair: pair[1]))
    taken = set(pairs.values())
    return NodeMatch(
        pairs=pairs,
        unmatched_reference=tuple(
            i for i, node in enumerate(theirs) if i not in taken and not node.derived
        ),
        unmatched_candidate=tuple(
            i for i, node in enumerate(ours) if i not in pairs and not node.derived
        ),
    )


class _Pairing:
    """Spreads pairs of operations along both graphs until nothing is left to conclude."""

    def __init__(self, theirs: Sequence[Node], ours: Sequence[Node]) -> None:
        self.theirs, self.ours = theirs, ours
        self.pairs: dict[int, int] = {}
        self.taken: set[int] = set()
        self.their_users, self.our_users = users_of(theirs), users_of(ours)

    def add(self, ours: int, theirs: int) -> bool:
        if ours in self.pairs or theirs in self.taken or min(ours, theirs) < 0:
            return False
        if self.ours[ours].shape != self.theirs[theirs].shape:
            return False
        unread = not self.our_users[ours] and not self.ours[ours].reads
        if unread and self.their_users[theirs]:
            return False  # computed, and never looked at
        self.pairs[ours] = theirs
        self.taken.add(theirs)
        return True

    def by_value(self, wanted: Iterable[int]) -> None:
        """Pair what returned the same values: the same operation if there is one, else the first.

        This finds a layer that the candidate computes in several operations, as long as what
        comes before it agrees.
        """
        free: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for b, node in enumerate(self.ours):
            if b not in self.pairs and not node.derived:
                free[node.shape].append(b)
        for a in wanted:
            node = self.theirs[a]
            if a in self.taken or node.derived:
                continue
            alike = [b for b in free[node.shape] if node.resembles(self.ours[b])]
            alike.sort(key=lambda b: self.ours[b].place.op != node.place.op)
            if alike and self.add(alike[0], a):
                free[node.shape].remove(alike[0])

    def spread(self) -> None:
        changed = True
        while changed:
            changed = self._backward() | self._forward()

    def _backward(self) -> bool:
        """Pair what paired operations read, where it is the one thing left to pair."""
        changed = False
        for b, a in reversed(list(self.pairs.items())):
            if self.theirs[a].place.op != self.ours[b].place.op:
                continue  # made in another way, from other things
            left, right = list(self.theirs[a].inputs), list(self.ours[b].inputs)
            for source in list(right):
                other = self.pairs.get(source, source if source < 0 else None)
                if other in left:
                    left.remove(other)
                    right.remove(source)
            if len(left) == len(right) == 1:
                source = self._behind(left[0], right[0])
                if not self._elsewhere(left[0], source):
                    changed |= self.add(source, left[0])
        return changed

    def _behind(self, theirs: int, ours: int) -> int:
        """Look behind operations that hand a tensor on (detach, clone, a cast) for its maker."""
        source = ours
        for _ in range(3):
            if source < 0 or self.ours[source].place.op == self.theirs[theirs].place.op:
                return source
            node = self.ours[source]
            if node.reads or len(node.inputs) != 1 or node.inputs[0] < 0:
                return ours
            loses = node.place.op in CASTS  # what a cast rounds is still its maker's
            if not loses and not self.ours[node.inputs[0]].resembles(node):
                return ours
            source = node.inputs[0]
        return ours

    def _elsewhere(self, theirs: int, ours: int) -> bool:
        """Tell whether another operation of the same kind is a better partner for either."""
        if min(theirs, ours) < 0:
            return True
        a, b = self.theirs[theirs], self.ours[ours]
        if a.reads and b.reads:
            return True
        if a.place.op == b.place.op:
            return False
        return bool(a.reads or b.reads) or self._returned_by_another(theirs, ours)

    def _returned_by_another(self, theirs: int, ours: int) -> bool:
        """Tell whether a free operation of the candidate, but not this one, returned the values."""
        a = self.theirs[theirs]
        if a.resembles(self.ours[ours]):
            return False
        free = (node for b, node in enumerate(self.ours) if b not in self.pairs)
        return any(a.resembles(node) for node in free if not node.derived)

    def _forward(self) -> bool:
        """Pair operations of one kind that read paired tensors."""
        changed = False
        waiting: dict[tuple[str, tuple[int, ...]], list[int]] = defaultdict(list)
        for a, node in enumerate(self.theirs):
            if a not in self.taken and not node.reads and node.inputs:
                waiting[_kind(node, node.inputs)].append(a)
        for b, node in enumerate(self.ours):
            if b in self.pairs or node.reads or not node.inputs:
                continue
            sources = [self.pairs.get(i, i if i < 0 else None) for i in node.inputs]
            if None in sources:
                continue
            found = waiting.get(_kind(node, sources), [])  # type: ignore[arg-type]
            if len(found) == 1 or (found and self._same_users(found[0], b)):
                changed |= self.add(b, found.pop(0))
        return changed

    def _same_users(self, theirs: int, ours: int) -> bool:
        users = {self.pairs.get(user) for user in self.our_users[ours]}
        return bool(users & set(self.their_users[theirs]))


def _kind(node: Node, sources: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    op = node.place.op
    return (op, tuple(sorted(sources) if op in COMMUTATIVE else sources))


def _anchors(nodes: Sequence[Node], named: Callable[[str], str]) -> dict[object, list[int]]:
    """Group the nodes that read state by what they do and read; the rest is left to the graph."""
    anchors: dict[object, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        if node.reads and not node.derived:
            weight = tuple(sorted(named(name) for name in node.reads))
            anchors[weight].append(index)
    # An optional tensor (a bias) may be missing on one side: the first tensor read decides too.
    for index, node in enumerate(nodes):
        if node.reads and not node.derived:
            anchors[node.place.op, named(main_tensor(node))].append(index)
    return anchors
