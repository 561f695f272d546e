"""What becomes of tensors that flow: kept, compared at once, or compared and replaced."""

from collections.abc import Callable, Iterable, Mapping

import torch

from comparison.engine.rows import Key, Row, measure, missing

Sink = Callable[[Key, torch.Tensor], torch.Tensor | None]


class Recording:
    """A sink that keeps a copy of everything, or of the keys of a window.

    Args:
        window: Keys to keep; all of them without.
    """

    def __init__(self, window: frozenset[Key] | None = None) -> None:
        self.tensors: dict[Key, torch.Tensor] = {}
        self._window = window

    def __call__(self, key: Key, tensor: torch.Tensor) -> None:
        """Keep a copy of a tensor."""
        if self._window is None or key in self._window:
            self.tensors[key] = tensor.detach().clone(memory_format=torch.contiguous_format)

    def covers(self, key: Key) -> bool:
        """Tell whether a key belongs to what this recording keeps."""
        return self._window is None or key in self._window


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
        if not self.recording.covers(key) or key in self.rows:
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
        return self.recording.tensors.get(key)

    def complete(self, expected: Iterable[Key]) -> list[Row]:
        """Return a row for every expected key that was recorded, in order, and those beyond."""
        keys = [key for key in expected if key in self.recording.tensors]
        rows = [
            self.rows.get(key)
            or missing(key, tuple(self.recording.tensors[key].shape), "candidate")
            for key in keys
        ]
        known = set(keys)
        return rows + [row for key, row in self.rows.items() if key not in known]


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
