"""What becomes of tensors that flow: kept, compared at once, or compared and replaced."""

from collections.abc import Callable, Iterable, Mapping

import torch

from comparison.engine.rows import Key, Row, measure, missing
from comparison.engine.storage import BUDGET_MIB, MIB, Spilled, Store

Sink = Callable[[Key, torch.Tensor], torch.Tensor | None]


class Recording:
    """A sink that keeps a copy of everything.

    Args:
        store: Where; in memory without.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store or Store(BUDGET_MIB * MIB)
        self._kept: dict[Key, torch.Tensor | Spilled] = {}

    def __call__(self, key: Key, tensor: torch.Tensor) -> None:
        """Keep a copy of a tensor."""
        self._kept[key] = self._store.keep(tensor)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def __getitem__(self, key: Key) -> torch.Tensor:
        return self._store.read(self._kept[key])

    def get(self, key: Key) -> torch.Tensor | None:
        """Return a tensor, or None if it was not recorded."""
        return self[key] if key in self._kept else None

    def shapes(self) -> dict[Key, tuple[int, ...]]:
        """Return the shapes of all tensors, in the order of the run."""
        return {key: tuple(kept.shape) for key, kept in self._kept.items()}


class Checking:
    """A sink that compares with a recording at once and keeps only the result.

    Args:
        recording: What the reference did.
        noise: The noise floor of every key.
        force: Keys for which the reference's tensor replaces the candidate's; True for all.
    """

    def __init__(
        self,
        recording: Recording,
        noise: Mapping[Key, float] | None = None,
        *,
        force: bool | frozenset[Key] = False,
    ) -> None:
        self.recording = recording
        self.rows: dict[Key, Row] = {}
        self.kept: dict[Key, torch.Tensor] = {}
        self._noise = noise or {}
        self._force = force

    def __call__(self, key: Key, tensor: torch.Tensor) -> torch.Tensor | None:
        """Compare a tensor with the recorded one of the same key."""
        if key in self.rows:
            return None
        theirs = self._recorded(key)
        if theirs is None:
            return None
        self.rows[key] = measure(key, theirs, tensor.detach(), self._noise.get(key, 0.0))
        if not self._force or (self._force is not True and key not in self._force):
            return None
        if self._force is not True:
            self.kept[key] = tensor.detach().clone()
        same = theirs.shape == tensor.shape and theirs.dtype == tensor.dtype
        return theirs if same else None

    def _recorded(self, key: Key) -> torch.Tensor | None:
        if key.part.startswith("reads "):
            key = Key(key.mode, key.part.removeprefix("reads "), "output")
        return self.recording.get(key)


def renamed(sink: Sink, names: Mapping[str, str]) -> Sink:
    """Return a sink that takes a candidate's parameters under the reference's names."""

    def hand_on(key: Key, tensor: torch.Tensor) -> torch.Tensor | None:
        if key.part in ("parameter gradient", "buffer"):
            key = key._replace(name=names.get(key.name, f"{key.name} (candidate only)"))
        return sink(key, tensor)

    return hand_on


def flipped(sink: Sink, batch_size: int) -> Sink:
    """Return a sink that puts a batch shown in the opposite order back into its own."""

    def hand_on(key: Key, tensor: torch.Tensor) -> torch.Tensor | None:
        by_image = key.part.startswith(("output", "gradient")) and tensor.dim()
        return sink(key, tensor.flip(0) if by_image and len(tensor) == batch_size else tensor)

    return hand_on


def completed(
    rows: Mapping[Key, Row], expected: Iterable[Key], shapes: Mapping[Key, tuple[int, ...]]
) -> list[Row]:
    """Return a row for every expected key that the reference has, in order, and those beyond.

    Args:
        rows: What was compared.
        expected: The reference's keys that the candidate must report.
        shapes: Of everything that the reference reported.
    """
    keys = [key for key in expected if key in shapes]
    known = set(keys)
    found = [rows.get(key) or missing(key, shapes[key], "candidate") for key in keys]
    return found + [row for key, row in rows.items() if key not in known]
