"""Build the reference network as a plain `nn.Module`: the official code, or its stand-in.

An official file is hashed before every import and executed in a module object of its own, which
never enters `sys.modules`. Each network gets a fresh one, so a setting that the file keeps as a
module global belongs to one network alone. What is needed around a file is in its `shims`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from reference import store
from reference.errors import ReferenceUnavailable
from reference.pins import NetworkPin, Pins, RepositoryPin, load_pins

if TYPE_CHECKING:  # the official files import torch when they are executed, not before
    from torch import nn

SOURCES = ("auto", "official", "timm")
DEFAULT_NETWORK = "cls_hrnet_w18_small_v1"


def identity(source: str = "auto", network: str = DEFAULT_NETWORK) -> dict[str, Any]:
    """Say which reference `build` would run, for records and tables.

    Args:
        source: `auto` prefers the official files and falls back on the stand-in.
        network: official name; networks of one task share their reference.

    Returns:
        `implementation`, `version`, `sha256` (of the file that defines the network), `license`,
        `label`, `official`, `shims`.

    Raises:
        ReferenceUnavailable: the source is not there, or its bytes are not the pinned ones.
    """
    pins = load_pins()
    pin = pins.network(network)
    if resolve(source, pin, pins) == "timm":
        return _standin_identity(pins)
    repository = pins.repository(pin.repository)
    file = repository.file(pin.file)
    return {
        "implementation": repository.short_name,
        "version": repository.commit,
        "sha256": file.sha256,
        "license": repository.license,
        "label": f"official {repository.commit[:8]}",
        "official": True,
        "shims": list(file.shims),
    }


def _standin_identity(pins: Pins) -> dict[str, Any]:
    pin = pins.standin
    store.standin_file(pin)
    return {
        "implementation": pin.package,
        "version": pin.version,
        "sha256": pin.sha256,
        "license": pin.license,
        "label": pin.label,
        "official": False,
        "shims": list(pin.shims),
    }


def resolve(source: str, pin: NetworkPin, pins: Pins) -> str:
    """Decide between `official` and `timm`; an altered official file stops rather than yields.

    Raises:
        ReferenceUnavailable: unknown source; altered files; `official` asked for but not there.
    """
    if source not in SOURCES:
        choices = ", ".join(SOURCES)
        raise ReferenceUnavailable(f"unknown reference source {source!r}; choose one of {choices}")
    if source == "timm":
        return "timm"
    found = store.presence(pins.repository(pin.repository), store.OFFICIAL)
    if found.state == "altered":
        raise ReferenceUnavailable(found.detail)
    if found.state == "verified":
        return "official"
    if source == "auto":
        return "timm"
    raise ReferenceUnavailable(
        f"the official files {pin.repository} are {found.state}; get them with `{store.FETCH}` "
        f"or `{store.FETCH} --from PATH`"
    )


def build(network: str, *, source: str = "auto") -> nn.Module:
    """Build one reference network: 1000 classes, 3 channels, float32 on the CPU.

    Its initial weights come from the constructor and torch's global random state.

    Args:
        network: official name, such as `cls_hrnet_w18_small_v1`.
        source: `auto`, `official` or `timm`.

    Returns:
        A module whose state dict has the official names, shapes and order.

    Raises:
        ReferenceUnavailable: unknown network or source, absent or altered files.
    """
    pins = load_pins()
    pin = pins.network(network)
    if resolve(source, pin, pins) == "timm":
        return _build_standin(pin, pins)
    return _build_official(pin, pins.repository(pin.repository))


def training_settings(network: str, *, source: str = "auto") -> dict[str, Any] | None:
    """Return the section TRAIN of a network's official yaml file; the stand-in has none: None.

    Raises:
        ReferenceUnavailable: unknown network or source, absent or altered files.
    """
    pins = load_pins()
    pin = pins.network(network)
    if resolve(source, pin, pins) == "timm":
        return None
    content = store.read_verified(pins.repository(pin.repository), pin.config, store.OFFICIAL)
    return dict(yaml.safe_load(content)["TRAIN"])


def _build_official(pin: NetworkPin, repository: RepositoryPin) -> nn.Module:
    config = yaml.safe_load(store.read_verified(repository, pin.config, store.OFFICIAL))
    module = import_official(repository, pin.file, store.OFFICIAL)
    return getattr(module, pin.class_name)(config)


def _build_standin(pin: NetworkPin, pins: Pins) -> nn.Module:
    store.standin_file(pins.standin)
    import timm  # takes seconds to import, and only the stand-in needs it

    return timm.create_model(pin.standin, pretrained=False)


def import_official(repository: RepositoryPin, path: str, official: Path) -> ModuleType:
    """Execute one official file, hash-checked, in a module that nothing else can reach.

    Args:
        official: the folder that holds the fetched repositories.

    Raises:
        ReferenceUnavailable: the file is absent or its hash differs.
    """
    content = store.read_verified(repository, path, official)
    module = ModuleType(f"official_{Path(path).stem}_{repository.commit[:8]}")
    module.__file__ = str(official / repository.key / path)
    with unchanged_import_state():
        exec(compile(content, module.__file__, "exec"), module.__dict__)
    return module


@contextmanager
def unchanged_import_state() -> Iterator[None]:
    """Put `sys.path` and `sys.dont_write_bytecode` back, whatever the code inside did.

    Modules that the code inside imported from installed packages stay; one that it took from
    the folder of official files would not be the installed package of that name, and goes.
    """
    path, bytecode, known = list(sys.path), sys.dont_write_bytecode, set(sys.modules)
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in set(sys.modules) - known:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if Path(origin).is_relative_to(store.OFFICIAL):
                del sys.modules[name]
