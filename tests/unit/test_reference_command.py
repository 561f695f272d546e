"""The command line: what it prints, and how it ends."""

from pathlib import Path

import pytest

from reference import __main__ as command
from reference import audit, fetch, loader, recorded, sources, store
from tests.unit.fake_pins import FILES, MODEL_FILE, fake_pins, write_tree

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def fake_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line work on a fake repository in an empty folder."""
    for module in (command, loader):
        monkeypatch.setattr(module, "load_pins", fake_pins)
    monkeypatch.setattr(store, "OFFICIAL", tmp_path / "official")


def silence(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cut the network off; return the addresses that were asked for."""
    asked: list[str] = []

    def refuse(url: str, limit_s: float) -> bytes:
        asked.append(url)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(sources, "download", refuse)
    return asked


def test_fetch_from_a_path_and_status(tmp_path: Path, capsys: Output) -> None:
    write_tree(tmp_path / "tree")
    assert command.main(["fetch", "--from", str(tmp_path / "tree")]) == 0
    assert command.main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "verified and kept: Tiny@00000000" in printed
    assert "verified   Tiny@00000000  (MIT, 3 files)" in printed
    assert "reference for tiny: official 00000000, MIT" in printed


def test_status_without_files_names_the_stand_in(capsys: Output) -> None:
    assert command.main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "absent     Tiny@00000000" in printed
    assert "reference for tiny: timm 1.0.31 (stand-in), Apache-2.0" in printed


def test_an_unreachable_network_is_one_line_and_no_error(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = silence(monkeypatch)
    assert command.main(["fetch", "--if-absent"]) == 0
    first = capsys.readouterr().out
    assert command.main(["fetch", "--if-absent"]) == 0
    assert len(asked) == 1
    assert first.count("\n") == 1
    assert "Network is unreachable" in first
    assert command.main(["status"]) == 0
    assert "last download failed: tried" in capsys.readouterr().out
    assert command.main(["fetch"]) == 0
    assert len(asked) == 2


def test_downloads_come_from_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = silence(monkeypatch)
    command.main(["fetch"])
    commit = "0" * 40
    assert asked == [f"https://raw.githubusercontent.com/Somebody/Tiny/{commit}/LICENSE"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "--from", "no/such/folder"], "--from no/such/folder is not a folder"),
        (["record", "w18"], "no trace of 'w18' is recorded here"),
        (["record", "w18", "--out", "x.npz"], "the reference has no network 'w18'"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    arguments: list[str], message: str, capsys: Output
) -> None:
    assert command.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"reference: {message}")
    assert captured.err.count("\n") == 1


def test_an_altered_file_stops_every_command(tmp_path: Path, capsys: Output) -> None:
    write_tree(store.OFFICIAL / fake_pins().repositories[0].key)
    (store.OFFICIAL / fake_pins().repositories[0].key / MODEL_FILE).write_text("x = 1\n")
    assert command.main(["status"]) == 2
    captured = capsys.readouterr()
    assert "altered    Tiny@00000000" in captured.out
    assert f"{MODEL_FILE} has SHA-256" in captured.err
    write_tree(tmp_path / "tree", FILES)
    assert command.main(["fetch", "--from", str(tmp_path / "tree")]) == 0
    assert command.main(["status"]) == 0


def test_record_writes_a_trace_or_compares_it(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_traces(tmp_path)
    monkeypatch.setattr(recorded, "load_trace", lambda name: load_from(name, folder))
    monkeypatch.setattr(command, "shape_of", lambda name: (4, 3))
    write_tree(store.OFFICIAL / fake_pins().repositories[0].key)

    out = folder / "tiny.npz"
    assert command.main(["record", "tiny", "--source", "official", "--out", str(out)]) == 0
    assert "tiny by official 00000000: 7 rows" in capsys.readouterr().out
    assert command.main(["record", "tiny", "--source", "official"]) == 0
    assert "forward      1 rows  0 fail  worst 0.0e+00  bound 1e-11" in capsys.readouterr().out

    rows = recorded.read_rows(out)
    rows["loss"] = rows["loss"] * 1.001
    recorded.write_rows(out, rows)
    assert command.main(["record", "tiny", "--source", "official"]) == 1
    assert "loss         1 rows  1 fail" in capsys.readouterr().out


def write_traces(folder: Path) -> Path:
    """Make a folder with the index of a trace of the fake network."""
    (folder / "index.json").write_text(
        '{"tiny": {"repository": "", "input_shape": [4, 3], "rows": 7, "analytic_zeros": []}}'
    )
    return folder


LOAD_TRACE = recorded.load_trace


def load_from(network: str, folder: Path) -> recorded.Trace:
    """Load a trace from a folder of the test."""
    return LOAD_TRACE(network, folder)


@pytest.mark.parametrize(("passes", "status"), [(True, 0), (False, 1)])
def test_audit_ends_with_its_verdict(
    passes: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(audit, "run", lambda: {"passes": passes})
    monkeypatch.setattr(audit, "lines_of", lambda result: ["the figures"])
    assert command.main(["audit"]) == status
    assert capsys.readouterr().out == "the figures\n"


def test_the_stand_in_line_says_how_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    silence(monkeypatch)
    line = fetch.fetch_network(fake_pins(), store.OFFICIAL).line
    assert line.endswith("or give the files with `python -m reference fetch --from PATH`")
