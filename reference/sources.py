"""Places that official files can be taken from: a folder, a git directory, the network.

Each answers `read(repository, file) -> bytes | None` and trusts nothing: `store.py` checks the
hash of what comes back. Git is asked for objects only, with no hook, setting or lazy download.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reference.errors import ReferenceUnavailable
from reference.pins import FilePin, RepositoryPin

RAW_URL = "https://raw.githubusercontent.com/{name}/{commit}/{path}"
WHEEL_LIMIT_S = 120.0  # 25 MB
NETWORK_LIMIT_S = 8.0  # one silence this long ends the try, so an absent network costs under 10 s
LARGEST_FILE_BYTES = 4_000_000
LARGEST_WHEEL_BYTES = 100_000_000
SEARCH_DEPTH = 3  # PATH/<repository>/<its git directory>/… and GitHub's zip folders


class Source(Protocol):
    """Anything that may hold official files."""

    def read(self, repository: RepositoryPin, file: FilePin) -> bytes | None:
        """Return the bytes of one file, or None where this source does not have it."""


@dataclass(frozen=True)
class Tree:
    """A folder that holds one repository's files at their usual paths."""

    folder: Path

    def read(self, repository: RepositoryPin, file: FilePin) -> bytes | None:
        """Return the file at its usual path."""
        place = self.folder / file.path
        is_usual = place.is_file() and place.stat().st_size <= LARGEST_FILE_BYTES
        return place.read_bytes() if is_usual else None


@dataclass(frozen=True)
class GitDirectory:
    """A git directory, bare or of a clone; whatever it has checked out does not matter."""

    folder: Path

    def read(self, repository: RepositoryPin, file: FilePin) -> bytes | None:
        """Return the file of the pinned commit, or, in a shallow clone, the pinned blob."""
        for name in (f"{repository.commit}:{file.path}", file.blob):
            content = self._blob(name)
            if content is not None:
                return content
        return None

    def _blob(self, name: str) -> bytes | None:
        size = self._git("-s", name)
        if size is None or not size.strip().isdigit() or int(size) > LARGEST_FILE_BYTES:
            return None
        return self._git("blob", name)

    def _git(self, what: str, name: str) -> bytes | None:
        """Ask git about an object, from a directory of ours: no setting of theirs is read."""
        with tempfile.TemporaryDirectory() as ours:
            for folder in ("objects", "refs"):
                Path(ours, folder).mkdir()
            Path(ours, "HEAD").write_text("ref: refs/heads/none\n")
            try:
                done = subprocess.run(
                    ["git", "--git-dir", ours, "cat-file", what, name],
                    capture_output=True,
                    env={
                        **_git_environment(),
                        "GIT_OBJECT_DIRECTORY": str(self.folder / "objects"),
                    },
                    timeout=60,
                )
            except FileNotFoundError as error:
                raise ReferenceUnavailable(
                    f"{self.folder} is a git directory, but the program git is not installed; "
                    "install git, or give --from a plain folder of the files"
                ) from error
            except subprocess.TimeoutExpired:
                return None
        return done.stdout if done.returncode == 0 else None


def _git_environment() -> dict[str, str]:
    """The environment without what a surrounding git command would impose on ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {**kept, "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


@dataclass(frozen=True)
class Wheel:
    """A wheel, of which single files are read; it is neither installed nor unpacked."""

    path: Path

    def read(self, repository: RepositoryPin, file: FilePin) -> bytes | None:
        """Return the file at its usual path under the wheel's folder."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                member = archive.getinfo(f"{repository.folder}/{file.path}")
                return archive.read(member) if member.file_size <= LARGEST_FILE_BYTES else None
        except (KeyError, zipfile.BadZipFile):
            return None


def download_wheel(pin: RepositoryPin, folder: Path) -> Path:
    """Download a wheel, without what it depends on, from the index that pip is set up for.

    Raises:
        NetworkSilent: pip did not bring it within the limit.
    """
    what = f"{pin.name}=={pin.commit}"
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--timeout", "8"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    try:
        done = subprocess.run(
            [*command, "--retries", "0", "--dest", str(folder), what],
            capture_output=True,
            timeout=WHEEL_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise NetworkSilent(f"pip brought no {what} within {WHEEL_LIMIT_S:g} s") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise NetworkSilent(f"pip cannot download {what}")
    return wheels[0]


def sources_in(path: Path, depth: int = SEARCH_DEPTH) -> Iterator[Source]:
    """Find every source in a path: itself, then what its folders hold.

    Args:
        path: a plain tree, a clone, a bare git directory, or a folder of several such.
        depth: how many levels of folders are looked into.
    """
    if _is_git_directory(path):
        yield GitDirectory(path)
        return
    if _is_git_directory(path / ".git"):
        yield GitDirectory(path / ".git")
    yield Tree(path)
    if depth > 0:
        for child in _folders_in(path):
            yield from sources_in(child, depth - 1)


def _folders_in(path: Path) -> list[Path]:
    try:
        children = sorted(path.iterdir())
        return [p for p in children if p.is_dir() and not p.is_symlink() and p.name != ".git"]
    except PermissionError:
        return []


def _is_git_directory(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


class NetworkSilent(Exception):
    """The network did not deliver; carries one short reason."""


@dataclass(frozen=True)
class Network:
    """GitHub's raw files at the pinned commit."""

    limit_s: float = NETWORK_LIMIT_S

    def read(self, repository: RepositoryPin, file: FilePin) -> bytes | None:
        """Download one file.

        Raises:
            NetworkSilent: nothing came within the limit, or the server refused.
        """
        url = RAW_URL.format(name=repository.name, commit=repository.commit, path=file.path)
        return within(self.limit_s, lambda: download(url, self.limit_s))


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows a server to other addresses, as long as they are https."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse another kind of address.

        Raises:
            OSError: The server sends us to one.
        """
        _check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_https(url: str) -> None:
    if not url.startswith("https://"):
        raise OSError(f"{url[:80]} is not https")


def download(url: str, limit_s: float) -> bytes:
    """Return the content behind an https address, at most `LARGEST_FILE_BYTES` of it.

    Raises:
        OSError: Another kind of address, here or behind it; too slow, too long, or cut short.
    """
    _check_https(url)
    deadline = time.monotonic() + limit_s
    parts = []
    with urllib.request.build_opener(_OnlyHttps).open(url, timeout=limit_s) as answer:
        while part := answer.read(1 << 16):
            parts.append(part)
            if time.monotonic() > deadline or sum(map(len, parts)) > LARGEST_FILE_BYTES:
                raise OSError("the answer is too slow or too long")
        if answer.length:
            raise OSError("the answer was cut short")
    return b"".join(parts)


def within(limit_s: float, work: Callable[[], bytes]) -> bytes:
    """Run some work and give up on it after a time, name lookups included.

    A thread is used because the operating system's name lookup knows no time limit.

    Raises:
        NetworkSilent: the work failed, or the time was up first.
    """
    answers: queue.Queue[bytes | Exception] = queue.Queue()

    def put_answer() -> None:
        try:
            answers.put(work())
        except Exception as error:  # a thread cannot raise into its caller
            answers.put(error)

    threading.Thread(target=put_answer, daemon=True).start()
    try:
        answer = answers.get(timeout=limit_s)
    except queue.Empty:
        raise NetworkSilent(f"no answer within {limit_s:g} s") from None
    if isinstance(answer, Exception):
        raise NetworkSilent(_reason(answer)) from answer
    return answer


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause) or type(error).__name__
