"""`make verify`: whatever was changed by hand is found and named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from comparison import __main__ as command_line
from comparison import build, claims, record, report, verify
from comparison.ledger import LedgerError
from comparison.study import Study, StudyError
from tests import synthetic


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """Store a study's records, tables and figures."""
    root = tmp_path_factory.mktemp("repository")
    study = synthetic.study(root)
    with pytest.MonkeyPatch.context() as patch:
        point_at(root, patch)
        for entry in synthetic.all_records():
            record.write_record(study.results_dir, entry)
        build.build(study)
    return study, root


def point_at(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the modules work below another folder."""
    for module in (build, record, verify):
        patch.setattr(module, "ROOT", root)


@pytest.fixture
def results(stored: tuple[Study, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the study's folder."""
    study, root = stored
    point_at(root, monkeypatch)
    return root / study.results_dir


@pytest.fixture
def edit(results: Path) -> object:
    """Offer a way to change a file, and undo it afterwards."""
    kept: dict[Path, bytes] = {}

    def change(name: str, how: Callable[[bytes], bytes] | None) -> None:
        path = results / name
        if path.exists():
            kept[path] = path.read_bytes()
        if how is None:
            path.unlink()
        else:
            path.write_bytes(how(kept.get(path, b"")))
            kept.setdefault(path, b"")

    yield change
    for path, content in kept.items():
        path.write_bytes(content)
        if not content:
            path.unlink()


def test_untouched_results_pass(stored: tuple[Study, Path], results: Path) -> None:
    assert verify.differences(stored[0]) == []


EDITED = "was edited, or is out of date"
EDITS: dict[str, tuple[Callable[[bytes], bytes] | None, str]] = {
    "tables/accuracy.csv": (lambda b: b.replace(b"90.27", b"91.27"), EDITED),
    "tables/cost.tex": (lambda b: b + b" ", EDITED),
    "tables/numbers.json": (lambda b: b.replace(b"2160", b"2161"), EDITED),
    "figures/speed.svg": (lambda b: b.replace(b"#e07b16", b"#1f63b4"), EDITED),
    "figures/network.png": (lambda b: b[:-1], EDITED),
    "tables/trial.csv": (None, "is missing: the records give it"),
    "tables/extra.csv": (lambda b: b"a,b\n", "comes from no record"),
}


def test_every_changed_product_is_named_and_no_other(
    stored: tuple[Study, Path], edit: Callable[..., None]
) -> None:
    for name, (how, _) in EDITS.items():
        edit(name, how)
    told = verify.differences(stored[0])
    assert [sentence.split()[0] for sentence in told] == sorted(EDITS)
    assert all(EDITS[sentence.split()[0]][1] in sentence for sentence in told)


def test_an_edited_record_is_refused(stored: tuple[Study, Path], edit: Callable[..., None]) -> None:
    edit("records/audit/all.json", lambda b: b.replace(b'"value": 67', b'"value": 97'))
    with pytest.raises(record.RecordError, match=r"all\.json was changed after it was written"):
        verify.differences(stored[0])


def test_no_command_takes_a_record_that_was_sealed_again(
    stored: tuple[Study, Path],
    edit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def forge(content: bytes) -> bytes:
        forged = json.loads(content)
        forged["verdict"]["outcome"] = "reproduced"
        forged["verdict"]["reason"] = "I say so"
        del forged["sha256"]
        return json.dumps({**forged, "sha256": record._digest(forged)}).encode()

    monkeypatch.setattr(command_line, "load_study", lambda name: stored[0])
    edit("records/audit/all.json", forge)
    for command in ("build", "verify", "verdicts"):
        assert command_line.main([command, "--study", "synthetic"]) == 2
        told = capsys.readouterr().err
        assert told.startswith("audit/all.json is not in the ledger") and told.count("\n") == 1
    with pytest.raises(LedgerError, match="it was edited and sealed again"):
        report.collect("synthetic", {}, stored[1])


def test_a_deleted_record_leaves_its_products_without_source(
    stored: tuple[Study, Path], edit: Callable[..., None]
) -> None:
    name = "speed/cls_hrnet_w18.inference.224.b1.float32.json"
    edit(f"records/{name}", None)
    told = verify.differences(stored[0])
    assert "figures/latency_accuracy.svg comes from no record" in told
    assert any(sentence.startswith("tables/speed.csv") for sentence in told)
    assert any(
        "speed/cls_hrnet_w18.inference.224.b1.float32.json was written on" in it for it in told
    )


@pytest.mark.fault(
    "truncated or bit-flipped executed notebook",
    how="an executed copy cut off, or with a bit flipped in its structure",
    told="is damaged",
    kept="records and tables, which are not made from it; `make verify` names the file",
)
@pytest.mark.parametrize("how", ["truncated", "bit-flipped"])
def test_a_damaged_executed_notebook_is_told(results: Path, told: str, how: str) -> None:
    folder = results / "notebooks"
    folder.mkdir(exist_ok=True)
    text = nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
    (folder / "whole.ipynb").write_text(text)
    broken = text[:60] if how == "truncated" else text.replace("cells", "cdlls", 1)
    (folder / "speed.x.ipynb").write_text(broken)
    (sentence,) = verify._damaged_notebooks(results)
    assert sentence.startswith("notebooks/speed.x.ipynb") and re.search(told, sentence)
    shutil.rmtree(folder)


def test_a_full_disk_is_one_sentence(
    stored: tuple[Study, Path], results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *arguments: object, **named: object) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StudyError, match=r"could not be written .No space left on device.: free"):
        build.build(stored[0], tmp_path)


README = f"# Title\n{verify.BEGIN}\nold\n{verify.END}\nrest\n"


def test_the_readme_is_held_to_the_records(
    stored: tuple[Study, Path], results: Path, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README)
    (told,) = verify.readme_differences(stored[0], readme)
    assert "verdict table is not what the records give" in told
    records = record.read_records(stored[0].results_dir)
    verify.write_verdicts(claims.verdict_table(stored[0], records), readme)
    assert verify.readme_differences(stored[0], readme) == []
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith(f"{verify.END}\nrest\n")
    assert "| C1: " in text and "old" not in text


@pytest.mark.parametrize("text", ["no markers", README + README])
def test_a_readme_without_one_pair_of_markers_is_told(text: str) -> None:
    with pytest.raises(StudyError, match="put them back"):
        verify.with_verdicts(text, "table")


def test_the_command_names_differences_and_fails(
    stored: tuple[Study, Path],
    edit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "load_study", lambda name: stored[0])
    assert command_line.main(["verify", "--study", "synthetic"]) == 0
    assert "tables and figures are what the records give" in capsys.readouterr().out
    edit("tables/speed.csv", lambda b: b + b"more\n")
    assert command_line.main(["verify", "--study", "synthetic"]) == 1
    assert "synthetic: tables/speed.csv is not what" in capsys.readouterr().err


def test_the_command_tells_of_a_damaged_record_in_one_sentence(
    stored: tuple[Study, Path],
    edit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "load_study", lambda name: stored[0])
    edit("records/differences/all.json", lambda b: b[:100])
    assert command_line.main(["build", "--study", "synthetic"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("all.json cannot be read as a record") and told.count("\n") == 1


def test_the_command_prints_one_verdict(
    stored: tuple[Study, Path],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "load_study", lambda name: stored[0])
    assert command_line.main(["verdicts", "--study", "synthetic", "--claim", "C8"]) == 0
    assert capsys.readouterr().out.startswith("C8: within tolerance: Both reach the same accuracy")


def test_an_unknown_study_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["build", "--study", "nightly"]) == 2
    assert "study 'nightly' is unknown" in capsys.readouterr().err


def test_records_keep_their_numbers_unrounded(results: Path) -> None:
    content = json.loads((results / "records/networks/cls_hrnet_w18.json").read_text())
    assert content["tables"]["cost"][0]["reproduction"] == 21.299004
