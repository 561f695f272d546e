"""Yaml files of others: plain values only, in a file of a sensible size.

PyYAML's safe loader makes no objects of Python. Beyond that aliases are refused: a few lines of
them stand for more values than any memory holds. The official files have none.
"""

from __future__ import annotations

from typing import Any

import yaml

LARGEST_BYTES = 100_000  # official files have under 8 kB


class NotPlain(ValueError):
    """A file is no plain yaml; the message says why, in half a sentence."""


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse an alias, else do as always."""
        if self.check_event(yaml.AliasEvent):
            raise NotPlain(f"it has an alias ({self.peek_event().anchor}), write the values out")
        return super().compose_node(parent, index)


def read_plain(content: bytes) -> Any:
    """Return what a yaml file holds.

    Raises:
        NotPlain: It is no yaml, too large or too deep, or holds aliases or objects.
    """
    if len(content) > LARGEST_BYTES:
        raise NotPlain(f"it has {len(content)} bytes, more than {LARGEST_BYTES}")
    try:
        return yaml.load(content, Loader=_PlainLoader)
    except RecursionError:
        raise NotPlain("it is nested too deeply") from None
    except NotPlain:
        raise
    except (
        Exception
    ) as error:  # beside its own errors PyYAML lets those of int and datetime through
        raise NotPlain(" ".join(str(error).split()) or type(error).__name__) from error
