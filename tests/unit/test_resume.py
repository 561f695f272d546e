"""Checkpoints: what is damaged is noticed, and the one before it is gone on from."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reproduction import TrainConfig, UserError, durable, resume
from reproduction import train as loop
from reproduction.divergence import first_not_finite
from reproduction.tasks.classification.task import classification_loss
from reproduction.tasks.task import Batch
from tests.unit.test_train import CONFIG, run


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave a run after the second of its two epochs of five steps."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    run(tmp_path / "run")
    return tmp_path / "run"


def flip(path: Path, place: float = 0.5) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def same_bits(folder: Path) -> bool:
    """Go on with a run, and tell whether it ends as one that was left alone."""
    model, resumed = run(folder)
    expected, straight = run(folder.with_name("straight"))
    states = zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
    equal = all(torch.equal(a, b) for a, b in states)
    return equal and resumed.batches_sha256 == straight.batches_sha256


@pytest.mark.fault(
    "truncated checkpoint",
    how="`last.pt` cut in half",
    told="was put aside as damaged.pt: going on from the checkpoint before it",
    kept="at most 100 steps are repeated; the run ends with the same bits",
)
def test_a_truncated_checkpoint_is_put_aside(
    stopped: Path, capsys: pytest.CaptureFixture[str], told: str
) -> None:
    truncate(stopped / resume.CHECKPOINT)
    assert same_bits(stopped)
    assert re.search(told, capsys.readouterr().out)
    assert (stopped / resume.DAMAGED).exists()


@pytest.mark.fault(
    "bit-flipped checkpoint",
    how="one bit of a weight in `last.pt`, which PyTorch reads without complaint",
    told="its SHA-256 does not fit) and was put aside as damaged.pt: going on from the checkpoint",
    kept="at most 100 steps are repeated; the run ends with the same bits",
)
def test_a_flipped_bit_is_noticed(
    stopped: Path, capsys: pytest.CaptureFixture[str], told: str
) -> None:
    path = stopped / resume.CHECKPOINT
    weight = resume.read(path)["model"]["4.weight"].numpy().tobytes()
    flip(path, path.read_bytes().index(weight) / path.stat().st_size)
    torch.load(path, weights_only=True)
    assert same_bits(stopped)
    assert re.search(told, capsys.readouterr().out)
    assert (stopped / resume.DAMAGED).exists()


@pytest.mark.fault(
    "both checkpoints damaged",
    how="`last.pt` and `previous.pt` cut in half",
    told="remove the folder to start this run again",
    kept="records and other runs; this run starts again",
)
def test_two_damaged_checkpoints_are_refused(stopped: Path, told: str) -> None:
    for name in (resume.CHECKPOINT, resume.PREVIOUS):
        truncate(stopped / name)
    with pytest.raises(UserError, match=told):
        run(stopped)
    assert (stopped / resume.CHECKPOINT).exists()


def test_the_checkpoint_before_the_last_is_kept(stopped: Path) -> None:
    last, previous = (
        resume.read(stopped / name)["progress"] for name in (resume.CHECKPOINT, resume.PREVIOUS)
    )
    assert (last["epoch"], last["step"]) == (2, 0)
    assert (previous["epoch"], previous["step"]) == (1, 4)


def test_a_checkpoint_without_a_digest_is_no_checkpoint(stopped: Path) -> None:
    path = stopped / resume.CHECKPOINT
    torch.save(resume.read(path), path)
    with pytest.raises(ValueError, match="an earlier version wrote it"):
        resume.read(path)


def test_a_digest_depends_on_every_part() -> None:
    content = {"a": [torch.zeros(2), 1.0], "b": {"c": None}}
    others = [
        {"a": [torch.zeros(2, 1), 1.0], "b": {"c": None}},
        {"a": [torch.tensor([0.0, -0.0]), 1.0], "b": {"c": None}},
        {"a": [torch.zeros(2, dtype=torch.bfloat16), 1.0], "b": {"c": None}},
        {"a": [torch.zeros(2), 1], "b": {"c": None}},
        {"a": [torch.zeros(2)], "b": {"c": None}},
        {"a": [torch.zeros(2), 1.0], "c": {"c": None}},
    ]
    digests = {resume.content_digest(entry) for entry in (content, *others)}
    assert len(digests) == len(others) + 1


@pytest.mark.fault(
    "NaN loss",
    how="a learning rate of 1e30",
    told="lower the learning rate; the last good checkpoint is kept in",
    kept="the last checkpoint whose weights are all finite; step, epoch and first layer are named",
)
def test_a_loss_that_diverges_keeps_the_last_good_state(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    config = TrainConfig(epochs=3, batch_size=8)
    monkeypatch.setattr(loop, "learning_rate", lambda _, step, __: 0.05 if step < 7 else 1e30)
    with pytest.raises(UserError, match=told) as found:
        run(stopped.with_name("steep"), config)
    assert "the loss became" in str(found.value) and "of epoch 2" in str(found.value)
    assert "first of all the" in str(found.value)
    kept = resume.read(stopped.with_name("steep") / resume.CHECKPOINT)
    assert all(torch.isfinite(value).all() for value in kept["model"].values())
    assert (kept["progress"]["epoch"], kept["progress"]["step"]) == (1, 2)


def test_weights_that_are_not_finite_never_enter_a_checkpoint(stopped: Path) -> None:
    before = (stopped / resume.CHECKPOINT).read_bytes()
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, float("inf"))
    optimizer = loop.make_optimizer(layer, CONFIG)
    progress = resume.Progress(3, 7, 0.0, {}, 0, "", 0.0, [], [], [])
    with pytest.raises(
        UserError, match=r"weight is not finite after step 7 of epoch 4.* is kept in"
    ):
        resume.save(stopped / resume.CHECKPOINT, "", layer, optimizer, progress)
    assert (stopped / resume.CHECKPOINT).read_bytes() == before
    with pytest.raises(UserError, match="lower the learning rate; there is no checkpoint yet"):
        resume.save(stopped.with_name("new.pt"), "", layer, optimizer, progress)


def test_a_kill_behind_the_last_checkpoint_leaves_a_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run is not gone through again: what its log lacks then, it lacks for ever."""
    save = resume.save

    def killed(path: Path, *rest: Any) -> None:
        save(path, *rest)
        if rest[-1].epoch == CONFIG.epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(resume, "save", killed)
        run(tmp_path / "run")
    run(tmp_path / "run")
    assert (tmp_path / "run" / resume.LOG).read_text().count("\n") == CONFIG.epochs


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda net, images: images.fill_(float("nan")), "the images"),
        (lambda net, images: net[2].bias.data.fill_(float("inf")), "the weights 2.bias"),
        (lambda net, images: images.fill_(3e38), "the output of 0"),
        (lambda net, images: None, "the loss itself"),
    ],
)
def test_what_is_first_not_finite_is_named(damage: object, named: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(network[0].weight, 1e20)
    images = torch.zeros(2, 4)
    with torch.no_grad():
        damage(network, images)  # type: ignore[operator]
    batch = Batch(images, torch.tensor([0, 1]), "")
    assert first_not_finite(network, batch, classification_loss) == named


def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    durable.write_whole(path, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    for name in (".last.pt.0123.partial", ".x.json.ab.partial", "kept.pt"):
        (tmp_path / name).write_text("half")
    durable.drop_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.pt"]
