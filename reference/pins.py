"""What the reference is, as data: `pins.toml` read into frozen dataclasses.

Nothing here opens an official file; `store.py` does that, and only to hash it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from reference.errors import ReferenceUnavailable

FILE_NAME = re.compile(r"\w[\w.@/+-]*")
DIGEST = re.compile(r"[0-9a-f]{64}")
PINS_PATH = Path(__file__).parent / "pins.toml"


@dataclass(frozen=True, kw_only=True)
class FilePin:
    """One official file: its path in the repository and the only bytes accepted for it.

    Attributes:
        blob: first digits of the git blob id, by which git finds the file without the commit.
        shims: what is put around the file so that it runs today, one sentence each.
    """

    path: str
    sha256: str
    blob: str
    shims: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RepositoryPin:
    """One official repository at one commit, with the files that are used of it.

    A wheel of the package index that carries the same files is described likewise.

    Attributes:
        commit: the commit; a wheel's version.
        sha256: of the wheel itself; empty for a repository.
        folder: where a wheel has the repository's root.
    """

    name: str
    commit: str
    license: str
    files: tuple[FilePin, ...]
    sha256: str = ""
    folder: str = ""

    @property
    def key(self) -> str:
        """The folder name of this pin, such as `HRNet-Image-Classification@f760c988`."""
        return f"{self.short_name}@{self.commit[:8]}"

    @property
    def short_name(self) -> str:
        """The repository's name without its owner."""
        return self.name.rpartition("/")[2]

    def file(self, path: str) -> FilePin:
        """Return the pin of one file.

        Raises:
            KeyError: the repository pins no file of that path.
        """
        for pin in self.files:
            if pin.path == path:
                return pin
        raise KeyError(f"{self.key} pins no file {path}")


@dataclass(frozen=True, kw_only=True)
class StandInPin:
    """The PyPI release that serves where the official repositories cannot be reached."""

    package: str
    version: str
    license: str
    file: str
    sha256: str
    shims: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How tables name it."""
        return f"{self.package} {self.version} (stand-in)"


@dataclass(frozen=True, kw_only=True)
class NetworkPin:
    """How one network is built from the official files, and what the stand-ins call it.

    Attributes:
        config: its yaml file; empty for detection, which has none.
        settings: values of the yaml that are overridden, by their dotted paths.
        standin: what the stand-in calls it; empty where that has no such network.
        wheel: the key of the wheel that carries the same file, or empty.
        neck: the file of a detector's feature pyramid.
        width: channels of a detector's first stream.
        keys: first 16 digits of the SHA-256 over the state dict's names and shapes, in order.
    """

    name: str
    repository: str
    file: str
    class_name: str
    keys: str
    config: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    standin: str = ""
    wheel: str = ""
    neck: str = ""
    width: int = 0

    @property
    def task(self) -> str:
        """The part of the name that networks of one official repository share, such as `cls`."""
        return self.name.partition("_")[0]


@dataclass(frozen=True, kw_only=True)
class Pins:
    """Everything that `pins.toml` says."""

    repositories: tuple[RepositoryPin, ...]
    standin: StandInPin
    networks: dict[str, NetworkPin]
    wheels: tuple[RepositoryPin, ...] = ()

    def repository(self, key: str) -> RepositoryPin:
        """Return a repository or a wheel by its key, such as `aja-pose@0.0.1`."""
        return {pin.key: pin for pin in (*self.repositories, *self.wheels)}[key]

    def network(self, name: str) -> NetworkPin:
        """Return a network by its official name.

        Raises:
            ReferenceUnavailable: the name is none of the networks that the reference offers.
        """
        if name not in self.networks:
            known = ", ".join(self.networks)
            raise ReferenceUnavailable(
                f"the reference has no network {name!r}; choose one of {known}"
            )
        return self.networks[name]

    def used(self) -> tuple[RepositoryPin, ...]:
        """Return the repositories that some network is built from."""
        keys = {network.repository for network in self.networks.values()}
        return tuple(pin for pin in self.repositories if pin.key in keys)


@cache
def load_pins(path: Path = PINS_PATH) -> Pins:
    """Read the pins.

    Args:
        path: the TOML file; the committed one unless a test brings its own.

    Raises:
        ReferenceUnavailable: it is damaged, lacks an entry, or names a file that lies elsewhere.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return Pins(
            repositories=tuple(_repository(entry) for entry in table["repository"]),
            standin=StandInPin(**_with_tuple_of_shims(table["standin"])),
            networks={name: _network(name, entry) for name, entry in table["network"].items()},
            wheels=tuple(_repository(entry) for entry in table["wheel"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise ReferenceUnavailable(
            f"{path.name} holds no pins ({type(error).__name__}: {told}); restore it from version "
            "control"
        ) from error


def _repository(entry: dict) -> RepositoryPin:
    files = tuple(FilePin(**_with_tuple_of_shims(file)) for file in entry["file"])
    pin = RepositoryPin(files=files, **{k: v for k, v in entry.items() if k != "file"})
    for name in (pin.key, *(file.path for file in files)):
        if not FILE_NAME.fullmatch(name) or ".." in name.split("/"):
            raise ValueError(f"{name!r} is no path inside of a repository")
    if not all(DIGEST.fullmatch(file.sha256) for file in files):
        raise ValueError(f"{pin.key} has a file without SHA-256")
    return pin


def _network(name: str, entry: dict) -> NetworkPin:
    values = {key: value for key, value in entry.items() if key != "class"}
    return NetworkPin(name=name, class_name=entry["class"], **values)


def _with_tuple_of_shims(entry: dict) -> dict:
    return {**entry, "shims": tuple(entry.get("shims", ()))}
