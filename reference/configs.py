"""Yaml files of the user's own for the official networks, and those that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reference import shims, store
from reference.errors import ReferenceUnavailable
from reference.pins import NetworkPin, Pins, RepositoryPin
from reference.plain_yaml import NotPlain, read_plain

# Where the official configuration says how many classes or keypoints there are.
OUTPUTS = {"pose": "MODEL.NUM_JOINTS", "seg": "DATASET.NUM_CLASSES", "face": "MODEL.NUM_JOINTS"}


def with_outputs(pin: NetworkPin, outputs: int | None) -> NetworkPin:
    """Return the pin of a network with another number of classes or keypoints.

    Raises:
        ReferenceUnavailable: the official code has a fixed number.
    """
    if outputs is None:
        return pin
    if pin.task not in OUTPUTS:
        raise ReferenceUnavailable(
            f"the official code of {pin.name} has a fixed number of outputs; leave outputs out"
        )
    return replace(pin, settings={**pin.settings, OUTPUTS[pin.task]: outputs})


def with_settings(pin: NetworkPin, settings: Mapping[str, Any]) -> NetworkPin:
    """Return the pin of a network with further values of its yaml overridden, by dotted paths.

    Raises:
        ReferenceUnavailable: the network is built without a yaml file.
    """
    if settings and not pin.config:
        raise ReferenceUnavailable(
            f"{pin.name} is built without a yaml file; leave the argument settings out"
        )
    return replace(pin, settings={**pin.settings, **settings})


def check_own(
    path: Path, pin: NetworkPin, pins: Pins, source: str, outputs: int | None = None
) -> None:
    """Refuse a yaml file that is known to be of another repository, or that nothing reads.

    The bytes of a pinned file tell whose it is. A file that was changed tells by its MODEL.NAME,
    and by settings that the same file of another commit has and the pinned one has not.

    Raises:
        ReferenceUnavailable: no such file; a network that has no yaml file; another repository's,
            or another commit's.
    """
    if source == "timm" or not pin.config:
        raise ReferenceUnavailable(
            f"{pin.name} is built without a yaml file here; leave the argument config out"
        )
    if outputs is not None:
        raise ReferenceUnavailable(
            f"{path.name} decides how many outputs there are; leave the argument outputs out"
        )
    if not path.is_file():
        raise ReferenceUnavailable(f"the configuration {path} does not exist; give a yaml file")
    digest = store.sha256_of(path.read_bytes())
    for repository in pins.repositories:
        mine = repository.key == pin.repository
        if not mine and any(file.sha256 == digest for file in repository.files):
            raise ReferenceUnavailable(
                f"{path.name} is a configuration of {repository.key}, but {pin.name} needs one "
                f"of {pin.repository}, such as {pin.config}"
            )
    _check_said(
        path, pin, pins, pins.repository(pin.repository if source != "wheel" else pin.wheel)
    )


def _check_said(path: Path, pin: NetworkPin, pins: Pins, repository: RepositoryPin) -> None:
    """Refuse a yaml file that says itself that it is for another network or commit."""
    own, mine = _model_of(_read(path)), _pinned_model(pin, repository)
    named, wanted = own.get("NAME"), mine.get("NAME")
    if named != wanted and None not in (named, wanted):
        raise ReferenceUnavailable(
            f"{path.name} has MODEL.NAME {named!r}, but {pin.name} needs {wanted!r}: give a "
            f"configuration of {pin.repository}, such as {pin.config}"
        )
    for other in _of_other_commits(pin, pins):
        known = _pinned_model(other, pins.repository(other.repository))
        if further := sorted(own.keys() & known.keys() - mine.keys()):
            raise ReferenceUnavailable(
                f"{path.name} has MODEL.{further[0]}, which {other.repository} reads and "
                f"{repository.key}, which {pin.name} is from, does not: give a configuration of "
                f"that commit, such as {pin.config}"
            )


def _of_other_commits(pin: NetworkPin, pins: Pins) -> list[NetworkPin]:
    """List networks of the same official file at another commit that is there to be read."""
    name, _, _ = pin.repository.partition("@")
    found = []
    for other in pins.networks.values():
        is_other = other.repository != pin.repository and other.repository.startswith(f"{name}@")
        if is_other and other.config and other.file == pin.file:
            place = pins.repository(other.repository)
            if store.presence(place, store.OFFICIAL).state == "verified":
                found.append(other)
    return found


def _pinned_model(pin: NetworkPin, repository: RepositoryPin) -> Mapping[str, Any]:
    return _model_of(read_plain(store.read_verified(repository, pin.config, store.OFFICIAL)))


def _model_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the section MODEL; none if what stands there is no section."""
    section = content.get("MODEL")
    return section if isinstance(section, Mapping) else {}


def _read(path: Path) -> shims.Settings:
    try:
        settings = shims.settings_of(read_plain(path.read_bytes()))
    except (NotPlain, OSError) as error:
        raise ReferenceUnavailable(
            f"{path.name} cannot be read as yaml ({error}); give another"
        ) from error
    if not isinstance(settings, shims.Settings):
        raise ReferenceUnavailable(f"{path.name} holds no sections; give an official yaml file")
    return settings


def construct(kind: Callable[[shims.Settings], Any], path: Path, pin: NetworkPin) -> Any:
    """Build a network from a yaml file of the user's own.

    Raises:
        ReferenceUnavailable: the file is no mapping, or lacks what the official code reads.
    """
    settings = _read(path)
    try:
        return kind(settings)
    except (KeyError, AttributeError) as error:
        raise ReferenceUnavailable(
            f"{path.name} lacks {error.args[0]}, which {pin.file} of {pin.repository} reads; give "
            f"a yaml file of that repository, such as {pin.config}"
        ) from error
    except Exception as error:  # whatever the official code makes of values of another kind
        told = " ".join(str(error).split())[:200]
        raise ReferenceUnavailable(
            f"{path.name} is not accepted by {pin.file} ({type(error).__name__}: {told}); give "
            f"values as in {pin.config}"
        ) from error
