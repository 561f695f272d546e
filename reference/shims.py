"""What is put around an official file so that it runs on today's PyTorch and NumPy.

No file is edited and no installed package is changed: a file that needs a shim gets an import
function of its own, which hands it a stand-in where it would import what is gone. Which file gets
which shim stands in `pins.toml`; one that is not listed there is not applied.
"""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

QUIET = "quiet-import"

StandIns = dict[str, ModuleType]


class Settings(dict):
    """An official configuration: items can be read as attributes, too, as yacs has it."""

    def __getattr__(self, name: str) -> Any:
        """Return an item.

        Raises:
            AttributeError: there is none of that name.
        """
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


def settings_of(content: Any) -> Any:
    """Turn nested dictionaries into `Settings`."""
    if isinstance(content, Mapping):
        return Settings({key: settings_of(value) for key, value in content.items()})
    return content


def override(settings: Settings, values: Mapping[str, Any]) -> None:
    """Set single values in place, each by its dotted path, such as `DATASET.NUM_CLASSES`."""
    for path, value in values.items():
        *sections, name = path.split(".")
        section = settings
        for key in sections:
            section = section.setdefault(key, Settings())
        section[name] = value


def _module(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(attributes)
    return module


def bn_helper() -> StandIns:
    """Offer plain BatchNorm2d where the official helper chooses a synchronized one."""
    from torch import nn

    norm = nn.BatchNorm2d
    names = {"BatchNorm2d": norm, "BatchNorm2d_class": norm, "relu_inplace": True}
    return {"bn_helper": _module("bn_helper", **names)}


def numpy_int() -> StandIns:
    """Offer a NumPy that still has the alias `int`."""
    import numpy

    alias = _module("numpy")
    alias.__dict__.update({**vars(numpy), "int": int})
    return {"numpy": alias}


class Registry:
    """A registry that registers nothing."""

    def register_module(self, registered: type) -> type:
        """Return the class as it is."""
        return registered


def _not_here(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("a stand-in for mmcv was called; networks are built without it")


def mmcv() -> StandIns:
    """Offer the names of mmcv and mmdet that detection files import, but never use here."""
    return {
        "mmcv.cnn": _module("mmcv.cnn", constant_init=_not_here, kaiming_init=_not_here),
        "mmcv.runner": _module("mmcv.runner", load_checkpoint=_not_here),
        "registry": _module("registry", BACKBONES=Registry(), NECKS=Registry()),
    }


STANDINS: dict[str, Callable[[], StandIns]] = {
    "bn-helper": bn_helper,
    "numpy-int": numpy_int,
    "mmcv": mmcv,
}


def names_of(sentences: Sequence[str]) -> list[str]:
    """Return the names of shims from their sentences in `pins.toml`.

    >>> names_of(["mmcv: stand-ins for mmcv"])
    ['mmcv']
    """
    return [sentence.partition(":")[0] for sentence in sentences]


def builtins_for(names: Iterable[str]) -> dict[str, Any]:
    """Return the built-in names that a file with these shims shall see."""
    standins: StandIns = {}
    for name in names:
        if name != QUIET:
            standins |= STANDINS[name]()

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if name in standins:
            return standins[name]
        return builtins.__import__(name, globals, locals, fromlist or (), level)

    return {**vars(builtins), "__import__": import_} if standins else vars(builtins)


@contextmanager
def quiet(names: Iterable[str]) -> Iterator[None]:
    """Hide the warning about a string compared by identity, where the shim is listed."""
    with warnings.catch_warnings():
        if QUIET in names:
            warnings.simplefilter("ignore", SyntaxWarning)
        yield
