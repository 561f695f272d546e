"""The one error that this package lets a user see."""

from __future__ import annotations


class ReferenceUnavailable(ValueError):
    """The reference cannot be obtained, trusted or built; the message says what to do.

    Notebooks show the sentence alone, without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Give IPython the one line that it prints in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ReferenceAbsent(ReferenceUnavailable):
    """No source of a network is there; nothing is wrong with what is."""
