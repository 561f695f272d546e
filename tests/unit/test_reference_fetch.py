"""Official files are taken from anywhere, and kept only if they are the pinned bytes."""

import hashlib
import json
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from reference import ReferenceUnavailable, fetch, sources, store
from reference.pins import FilePin, Pins, RepositoryPin
from tests.unit.fake_pins import (
    FILES,
    MODEL_FILE,
    fake_pins,
    git,
    make_clone,
    write_tree,
)

ALTERED = {**FILES, MODEL_FILE: FILES[MODEL_FILE] + "# one more line\n"}


def kept(official: Path) -> dict[str, str]:
    """Return the files under the kept repository."""
    folder = official / fake_pins().repositories[0].key
    places = (place for place in folder.rglob("*") if place.is_file())
    return {place.relative_to(folder).as_posix(): place.read_text() for place in places}


class Silent:
    """A network that never answers."""

    tries = 0

    def read(self, repository: RepositoryPin, file: FilePin) -> bytes | None:
        self.tries += 1
        raise sources.NetworkSilent("no answer within 8 s")


class Serving:
    """A network that serves given files."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def read(self, repository: RepositoryPin, file: FilePin) -> bytes | None:
        return self.files[file.path].encode()


def test_a_plain_tree_is_taken(tmp_path: Path) -> None:
    fetched = fetch.fetch_from(write_tree(tmp_path / "tree"), fake_pins(), tmp_path / "official")
    assert kept(tmp_path / "official") == FILES
    assert fetched.line == "verified and kept: Tiny@00000000"


def test_a_clone_gives_the_pinned_commit_whatever_is_checked_out(tmp_path: Path) -> None:
    commit = make_clone(tmp_path / "clone")
    write_tree(tmp_path / "clone", ALTERED)
    git(tmp_path / "clone", "commit", "--quiet", "--all", "--message", "later")
    pins = fake_pins(commit=commit)
    fetch.fetch_from(tmp_path / "clone", pins, tmp_path / "official")
    assert store.presence(pins.repositories[0], tmp_path / "official").state == "verified"


def test_a_bare_git_directory_is_taken_by_blob_where_the_commit_is_missing(tmp_path: Path) -> None:
    make_clone(tmp_path / "clone")
    git(tmp_path, "clone", "--quiet", "--bare", "clone", "bare")
    fetch.fetch_from(tmp_path / "bare", fake_pins(), tmp_path / "official")
    assert kept(tmp_path / "official") == FILES


def test_the_surrounding_git_command_does_not_redirect_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clone(tmp_path / "clone")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "elsewhere"))
    fetch.fetch_from(tmp_path / "clone", fake_pins(), tmp_path / "official")
    assert kept(tmp_path / "official") == FILES


def test_a_folder_of_several_repositories_is_searched(tmp_path: Path) -> None:
    make_clone(tmp_path / "several" / "Somebody+Other", {"README": "nothing of use\n"})
    write_tree(tmp_path / "several" / "Somebody+Tiny" / "repo")
    fetch.fetch_from(tmp_path / "several", fake_pins(), tmp_path / "official")
    assert kept(tmp_path / "official") == FILES


def test_an_altered_file_is_refused_with_both_hashes_and_nothing_is_kept(tmp_path: Path) -> None:
    found, pinned = (hashlib.sha256(files[MODEL_FILE].encode()) for files in (ALTERED, FILES))
    with pytest.raises(ReferenceUnavailable) as refusal:
        fetch.fetch_from(write_tree(tmp_path / "tree", ALTERED), fake_pins(), tmp_path / "official")
    for part in (MODEL_FILE, found.hexdigest(), pinned.hexdigest(), "refused"):
        assert part in str(refusal.value)
    assert not (tmp_path / "official").exists()


def test_an_altered_tree_does_not_spoil_a_good_one_beside_it(tmp_path: Path) -> None:
    write_tree(tmp_path / "several" / "a", ALTERED)
    write_tree(tmp_path / "several" / "b")
    fetch.fetch_from(tmp_path / "several", fake_pins(), tmp_path / "official")
    assert kept(tmp_path / "official") == FILES


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("absent", "is not a folder; give a copy or clone"),
        ("empty", "holds no complete copy of a pinned repository; give .* Somebody/Tiny"),
    ],
)
def test_a_path_without_the_files_is_refused(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReferenceUnavailable, match=message):
        fetch.fetch_from(tmp_path / folder, fake_pins(), tmp_path / "official")


def test_a_git_directory_needs_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clone(tmp_path / "clone")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReferenceUnavailable, match="git is not installed; install git"):
        fetch.fetch_from(tmp_path / "clone", fake_pins(), tmp_path / "official")


def test_the_network_serves_what_is_missing(tmp_path: Path) -> None:
    fetched = fetch.fetch_network(fake_pins(), tmp_path, Serving(FILES))
    assert kept(tmp_path) == FILES
    assert fetched.line == "verified: Tiny@00000000"


def test_a_download_of_other_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceUnavailable, match=f"{MODEL_FILE} has SHA-256"):
        fetch.fetch_network(fake_pins(), tmp_path, Serving(ALTERED))
    assert kept(tmp_path) == {}


def test_an_interrupted_download_is_completed_later(tmp_path: Path) -> None:
    repository = fake_pins().repositories[0]
    write_tree(tmp_path / repository.key, {"LICENSE": FILES["LICENSE"]})
    assert store.presence(repository, tmp_path).state == "incomplete"
    fetch.fetch_network(fake_pins(), tmp_path, Serving(FILES))
    assert kept(tmp_path) == FILES


def test_a_silent_network_is_tried_once_and_the_stand_in_serves(tmp_path: Path) -> None:
    network = Silent()
    first = fetch.fetch_if_absent(fake_pins(), tmp_path, network)
    again = fetch.fetch_if_absent(fake_pins(), tmp_path, network)
    assert network.tries == 1
    assert "\n" not in first.line
    for fetched in (first, again):
        assert "timm 1.0.31 (stand-in) serves" in fetched.line
        assert "try again with `python -m reference fetch`" in fetched.line
    fetch.fetch_network(fake_pins(), tmp_path, network)
    assert network.tries == 2


def test_a_later_success_forgets_the_failure(tmp_path: Path) -> None:
    fetch.fetch_if_absent(fake_pins(), tmp_path, Silent())
    assert "no answer within 8 s" in (fetch.last_failure(tmp_path) or "")
    fetch.fetch_network(fake_pins(), tmp_path, Serving(FILES))
    assert fetch.last_failure(tmp_path) is None


def test_a_damaged_memory_of_a_failure_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "last_failure.json").write_text("{")
    assert fetch.last_failure(tmp_path) is None
    (tmp_path / "last_failure.json").write_text(json.dumps(["tried"]))
    assert fetch.last_failure(tmp_path) is None


def test_files_that_are_there_need_no_network(tmp_path: Path) -> None:
    network = Silent()
    fetch.fetch_network(fake_pins(), tmp_path, Serving(FILES))
    assert fetch.fetch_if_absent(fake_pins(), tmp_path, network).repositories
    assert network.tries == 0


def test_a_name_lookup_that_hangs_costs_no_more_than_the_limit() -> None:
    started = time.monotonic()
    with pytest.raises(sources.NetworkSilent, match=r"no answer within 0\.05 s"):
        sources.within(0.05, lambda: time.sleep(0.5) or b"")
    assert time.monotonic() - started < 0.4


def test_an_unreachable_server_is_a_short_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RAW_URL", "https://127.0.0.1:9/{name}/{commit}/{path}")
    monkeypatch.setenv("no_proxy", "*")
    repository = fake_pins().repositories[0]
    with pytest.raises(sources.NetworkSilent, match="refused"):
        sources.Network(2.0).read(repository, repository.files[0])


def test_the_limit_keeps_an_absent_network_under_ten_seconds() -> None:
    assert sources.NETWORK_LIMIT_S < 10


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "replace", no_room)
    with pytest.raises(ReferenceUnavailable, match="No space left on device; make room"):
        fetch.fetch_network(fake_pins(), tmp_path, Serving(FILES))
    assert not [place for place in tmp_path.rglob("*") if place.is_file()]


def make_wheel(path: Path, files: dict[str, str]) -> Path:
    """Write a wheel that has files under the folder `tiny`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"tiny/{name}", text)
        archive.writestr("tiny/setup.py", "raise SystemExit('nothing of a wheel is run')")
        archive.writestr("../outside.py", "")
    return path


def pins_with_wheel(wheel: Path) -> Pins:
    """Pin a wheel beside the repository; the network can be built from either."""
    pins = fake_pins()
    (repository,) = pins.repositories
    pin = replace(
        repository,
        name="tiny-wheel",
        commit="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        folder="tiny",
    )
    network = replace(pins.networks["tiny"], wheel=pin.key, standin="")
    return replace(pins, wheels=(pin,), networks={"tiny": network})


def test_a_silent_network_leaves_the_wheel(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "tiny.whl", FILES)
    pins, official = pins_with_wheel(wheel), tmp_path / "official"
    downloads = []

    def download(pin: RepositoryPin, folder: Path) -> Path:
        downloads.append(pin.key)
        return wheel

    fetched = fetch.fetch_if_absent(pins, official, Silent(), download)
    assert "tiny-wheel 1.0 (stand-in) serves for tiny" in fetched.line
    assert store.presence(pins.wheels[0], official).state == "verified"
    assert not list(tmp_path.rglob("outside.py")) and not list(tmp_path.rglob("setup.py"))
    fetch.fetch_network(pins, official, Silent(), download)
    assert downloads == ["tiny-wheel@1.0"]


def test_without_network_and_wheel_the_traces_serve(tmp_path: Path) -> None:
    pins = pins_with_wheel(make_wheel(tmp_path / "tiny.whl", FILES))

    def fail(pin: RepositoryPin, folder: Path) -> Path:
        raise sources.NetworkSilent("pip cannot download tiny-wheel")

    line = fetch.fetch_network(pins, tmp_path / "official", Silent(), fail).line
    assert "only recorded traces serve for tiny" in line


def test_a_pinned_wheel_is_taken_from_a_path(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "tiny.whl", FILES)
    fetched = fetch.fetch_from(wheel, pins_with_wheel(wheel), tmp_path / "official")
    assert fetched.line == "verified and kept: tiny-wheel@1.0"


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    pins = pins_with_wheel(make_wheel(tmp_path / "tiny.whl", FILES))
    other = make_wheel(tmp_path / "other.whl", ALTERED)
    with pytest.raises(ReferenceUnavailable, match=r"other.whl has SHA-256 .* none of the pinned"):
        fetch.fetch_from(other, pins, tmp_path / "official")
    with pytest.raises(ReferenceUnavailable, match="none of the pinned wheels"):
        fetch.fetch_network(pins, tmp_path / "official", Silent(), lambda pin, folder: other)


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "import time; time.sleep(9)"])
def test_pip_that_fails_or_hangs_is_a_silent_network(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "python"
    stub.write_text(f"#!{sys.executable}\n{program}\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sources.sys, "executable", str(stub))
    monkeypatch.setattr(sources, "WHEEL_LIMIT_S", 1.0)
    pin = pins_with_wheel(make_wheel(tmp_path / "tiny.whl", FILES)).wheels[0]
    with pytest.raises(sources.NetworkSilent, match=r"tiny-wheel==1\.0"):
        sources.download_wheel(pin, tmp_path / "empty")
