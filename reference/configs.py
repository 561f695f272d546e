"""Yaml files of the user's own for the official networks, and those that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reference import shims, store
from reference.errors import ReferenceUnavailable
from reference.pins import NetworkPin, Pins
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

    Raises:
        ReferenceUnavailable: no such file; a network that has no yaml file; another repository's.
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
                f"{path.name} is a configuration of {repository.name}, but {pin.name} needs one "
                f"of {pin.repository}, such as {pin.config}"
            )


def construct(kind: Callable[[shims.Settings], Any], path: Path, pin: NetworkPin) -> Any:
    """Build a network from a yaml file of the user's own.

    Raises:
        ReferenceUnavailable: the file is no mapping, or lacks what the official code reads.
    """
    try:
        settings = shims.settings_of(read_plain(path.read_bytes()))
    except (NotPlain, OSError) as error:
        raise ReferenceUnavailable(
            f"{path.name} cannot be read as yaml ({error}); give another"
        ) from error
    if not isinstance(settings, shims.Settings):
        raise ReferenceUnavailable(f"{path.name} holds no sections; give an official yaml file")
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
