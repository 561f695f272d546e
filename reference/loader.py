"""Build the reference network as a plain `nn.Module`: the official code, or its stand-in.

An official file is hashed before every import and executed in a module object of its own, which
never enters `sys.modules`. Each network gets a fresh one, so a setting that the file keeps as a
module global belongs to one network alone. What is needed around a file is in its `shims`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reference import configs, shims, store
from reference.errors import ReferenceAbsent, ReferenceUnavailable
from reference.pins import NetworkPin, Pins, RepositoryPin, load_pins
from reference.plain_yaml import read_plain

if TYPE_CHECKING:  # the official files import torch when they are executed, not before
    from torch import nn

    from reference.detection import Shape

SOURCES = ("auto", "official", "timm", "wheel")
DEFAULT_NETWORK = "cls_hrnet_w18_small_v1"
PYRAMID = "det_hrnetv2p_w18"  # the files are the same at every width


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
    found = resolve(source, pin, pins)
    if found == "timm":
        return _standin_identity(pins)
    official = found == "official"
    repository = pins.repository(pin.repository if official else pin.wheel)
    file = repository.file(pin.file)
    commit = repository.commit[:8]
    return {
        "implementation": repository.short_name,
        "version": repository.commit,
        "sha256": file.sha256,
        "license": repository.license,
        "label": f"official {commit}" if official else f"{repository.name} {commit} (stand-in)",
        "official": official,
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
    """Decide which source runs; an altered official file stops rather than yields.

    Returns:
        `official`, `timm` or `wheel`.

    Raises:
        ReferenceAbsent: what was asked for is not there.
        ReferenceUnavailable: unknown source; altered files.
    """
    if source not in SOURCES:
        choices = ", ".join(SOURCES)
        raise ReferenceUnavailable(f"unknown reference source {source!r}; choose one of {choices}")
    offered = {"official": True, "timm": bool(pin.standin), "wheel": bool(pin.wheel)}
    wanted = [name for name in offered if source in (name, "auto")]
    for name in wanted:
        if offered[name] and _is_there(name, pin, pins):
            return name
    raise ReferenceAbsent(_why_not(wanted, offered, pin, pins))


def _is_there(name: str, pin: NetworkPin, pins: Pins) -> bool:
    """Tell whether a source has its files; timm is checked when it is used."""
    if name == "timm":
        return True
    key = pin.repository if name == "official" else pin.wheel
    found = store.presence(pins.repository(key), store.OFFICIAL)
    if found.state == "altered":
        raise ReferenceUnavailable(found.detail)
    return found.state == "verified"


def _why_not(wanted: list[str], offered: dict[str, bool], pin: NetworkPin, pins: Pins) -> str:
    if not any(offered[name] for name in wanted):
        return f"{wanted[0]} has no network {pin.name}; use the source official"
    key = pin.wheel if wanted == ["wheel"] else pin.repository
    state = store.presence(pins.repository(key), store.OFFICIAL).state
    return (
        f"the official files {key} are {state}; get them with `{store.FETCH}` "
        f"or `{store.FETCH} --from PATH`"
    )


def build(
    network: str,
    *,
    source: str = "auto",
    outputs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Path | None = None,
) -> nn.Module:
    """Build one reference network: official outputs, 3 channels, float32 on the CPU.

    Its initial weights come from the constructor and torch's global random state.

    Args:
        network: official name, such as `cls_hrnet_w18_small_v1`.
        source: `auto`, `official`, `timm` or `wheel`.
        outputs: classes or keypoints, where the official configuration decides; as pinned unless
            given.
        settings: further values of the official yaml that are overridden, by their dotted paths.
        config: a yaml file of the user's own, which then decides about everything.

    Returns:
        A module whose state dict has the official names, shapes and order.

    Raises:
        ReferenceUnavailable: unknown network or source, absent or altered files; a yaml file of
            another repository; a number of outputs for a network that has a fixed one.
    """
    pins = load_pins()
    pin = pins.network(network)
    found = resolve(source, pin, pins)
    if config is not None:
        configs.check_own(config, pin, pins, found, outputs)
    pin = configs.with_settings(configs.with_outputs(pin, outputs), settings or {})
    if found == "timm":
        if settings:
            raise ReferenceUnavailable(
                f"timm's network has no yaml file, and settings were given for {network}: "
                f"{', '.join(settings)}; fetch the official files (python -m reference fetch)"
            )
        return _build_standin(pin, pins)
    key = pin.repository if found == "official" else pin.wheel
    return _build_official(pin, pins.repository(key), config)


def build_together(network: str, overrides: Sequence[Mapping[str, Any]]) -> list[nn.Module]:
    """Build an official network several times from one execution of its file, as a script would.

    What the file keeps as a module global is shared then, by the last setting; `build` gives each
    network a module of its own.

    Args:
        network: official name, of a network that has a yaml file.
        overrides: for each one, values of the yaml file by their dotted paths.

    Raises:
        ReferenceUnavailable: unknown network; absent or altered files.
    """
    pins = load_pins()
    pin = pins.network(network)
    resolve("official", pin, pins)
    repository = pins.repository(pin.repository)
    module = import_official(repository, pin.file, store.OFFICIAL)
    content = read_plain(store.read_verified(repository, pin.config, store.OFFICIAL))
    models = []
    for override in overrides:
        settings = shims.settings_of(content)
        shims.override(settings, {**pin.settings, **override})
        models.append(getattr(module, pin.class_name)(settings))
    return models


def training_settings(network: str, *, source: str = "auto") -> dict[str, Any] | None:
    """Return the section TRAIN of a network's official yaml file; None where there is no file.

    Raises:
        ReferenceUnavailable: unknown network or source, absent or altered files.
    """
    pins = load_pins()
    pin = pins.network(network)
    found = resolve(source, pin, pins)
    if found == "timm" or not pin.config:
        return None
    repository = pins.repository(pin.repository if found == "official" else pin.wheel)
    content = store.read_verified(repository, pin.config, store.OFFICIAL)
    return dict(read_plain(content)["TRAIN"])


def build_pyramid(shape: Shape) -> nn.Module:
    """Build the official body and pyramid of detection in any width and depth that they take.

    Raises:
        ReferenceUnavailable: the files are absent or altered.
    """
    pins = load_pins()
    pin = pins.network(PYRAMID)
    resolve("official", pin, pins)
    return _build_official(pin, pins.repository(pin.repository), None, shape)


def _build_official(
    pin: NetworkPin, repository: RepositoryPin, config: Path | None, shape: Shape | None = None
) -> nn.Module:
    module = import_official(repository, pin.file, store.OFFICIAL)
    if pin.neck:
        from reference import detection  # imports torch

        neck = import_official(repository, pin.neck, store.OFFICIAL)
        return detection.build(module, neck, shape or detection.Shape(width=pin.width))
    if config is not None:
        return configs.construct(getattr(module, pin.class_name), config, pin)
    content = read_plain(store.read_verified(repository, pin.config, store.OFFICIAL))
    settings = shims.settings_of(content)
    shims.override(settings, pin.settings)
    return getattr(module, pin.class_name)(settings)


def _build_standin(pin: NetworkPin, pins: Pins) -> nn.Module:
    store.standin_file(pins.standin)
    with warnings.catch_warnings():  # that a progress bar of no use here lacks ipywidgets
        warnings.filterwarnings("ignore", message="IProgress not found")
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
    names = shims.names_of(repository.file(path).shims)
    module = ModuleType(f"official_{Path(path).stem}_{repository.commit[:8]}")
    module.__file__ = str(official / repository.key / path)
    module.__dict__["__builtins__"] = shims.builtins_for(names)
    with unchanged_import_state(), shims.quiet(names):
        # No file has this name, so that neither warnings nor tracebacks quote the official text.
        exec(compile(content, f"<{repository.key}/{path}>", "exec"), module.__dict__)
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
