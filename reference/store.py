"""The folder that holds the official files, and the check that they are the pinned bytes.

`reference/official/<repository>@<commit>/<path>` is outside version control. Every reading
goes through `read_verified`, so no byte of another hash is ever run or measured.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reference.errors import ReferenceUnavailable
from reference.pins import FilePin, RepositoryPin, StandInPin

OFFICIAL = Path(__file__).parent / "official"
FETCH = "python -m reference fetch"


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def check_content(content: bytes, pin: FilePin, where: str) -> bytes:
    """Return the content if it is the pinned one.

    Args:
        where: what the message calls the place that the bytes came from.

    Raises:
        ReferenceUnavailable: the hash differs; the message gives file and both hashes.
    """
    found = sha256_of(content)
    if found != pin.sha256:
        raise ReferenceUnavailable(
            f"{where}: {pin.path} has SHA-256 {found}, but the pinned file has {pin.sha256}; "
            f"it was refused: get the pinned version with `{FETCH}` (or `{FETCH} --from PATH`)"
        )
    return content


def read_verified(repository: RepositoryPin, path: str, official: Path) -> bytes:
    """Return the bytes of one official file, after checking them against its pin.

    Raises:
        ReferenceUnavailable: the file is absent, or its hash differs.
    """
    place = official / repository.key / path
    if not place.is_file():
        raise ReferenceUnavailable(
            f"{repository.key}/{path} is not there; get it with `{FETCH}` or `{FETCH} --from PATH`"
        )
    return check_content(place.read_bytes(), repository.file(path), str(place.parent))


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What is there of one pinned repository.

    Attributes:
        state: `verified`, `absent`, `incomplete` or `altered`.
        detail: what is missing, or the sentence about the altered file; else empty.
    """

    repository: RepositoryPin
    state: str
    detail: str = ""


def presence(repository: RepositoryPin, official: Path) -> Presence:
    """Hash all files of one repository and say what is there."""
    folder = official / repository.key
    missing = [pin.path for pin in repository.files if not (folder / pin.path).is_file()]
    try:
        for pin in repository.files:
            if pin.path not in missing:
                read_verified(repository, pin.path, official)
    except ReferenceUnavailable as error:
        return Presence(repository=repository, state="altered", detail=str(error))
    if not missing:
        return Presence(repository=repository, state="verified")
    if len(missing) == len(repository.files):
        return Presence(repository=repository, state="absent")
    return Presence(
        repository=repository, state="incomplete", detail=f"{len(missing)} files are missing"
    )


def keep(repository: RepositoryPin, contents: dict[str, bytes], official: Path) -> None:
    """Write the files of one repository, each in one step; all are checked before the first.

    Raises:
        ReferenceUnavailable: a hash differs, or the files cannot be written.
    """
    for path, content in contents.items():
        check_content(content, repository.file(path), repository.key)
    try:
        for path, content in contents.items():
            write_atomically(official / repository.key / path, content)
    except OSError as error:
        raise ReferenceUnavailable(
            f"cannot write under {official}: {error.strerror or error}; make room or give "
            "write permission, then fetch again"
        ) from error


def write_atomically(place: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, never a part."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=place.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        os.replace(partial, place)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise


def standin_file(pin: StandInPin) -> Path:
    """Return where the stand-in's defining file is installed, checked but not imported.

    Raises:
        ReferenceUnavailable: the package is missing, of another version, or altered.
    """
    from importlib import metadata, util

    reinstall = f"install the pinned release: pip install {pin.package}=={pin.version}"
    spec = util.find_spec(pin.package)
    if spec is None or spec.origin is None:
        raise ReferenceUnavailable(f"the stand-in {pin.package} is not installed; {reinstall}")
    version = metadata.version(pin.package)
    if version != pin.version:
        raise ReferenceUnavailable(
            f"{pin.package} {version} is installed, but {pin.version} is pinned; {reinstall}"
        )
    place = Path(spec.origin).parent / pin.file
    found = sha256_of(place.read_bytes())
    if found != pin.sha256:
        raise ReferenceUnavailable(
            f"{pin.package}/{pin.file} has SHA-256 {found}, but the pinned release has "
            f"{pin.sha256}; {reinstall} --force-reinstall"
        )
    return place
