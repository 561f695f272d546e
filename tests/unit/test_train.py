"""The training loop: schedule, resuming, and what stops it."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reproduction import TrainConfig, UserError, resume
from reproduction import train as loop
from reproduction.evaluate import evaluate
from reproduction.tasks.classification.data import ArraySplit, Dataset
from reproduction.tasks.classification.metrics import top_k_correct
from reproduction.tasks.classification.task import Classification, classification_loss
from reproduction.tasks.task import Batch

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=2, batch_size=8)


def toy_dataset() -> Dataset:
    """Make 40 images of two brightnesses, four classes of label noise left out."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    images = (labels[:, None, None, None] * 120 + rng.integers(0, 80, (40, 1, 8, 8))).astype(
        np.uint8
    )
    return Dataset("toy", ArraySplit(images, labels), ArraySplit(images, labels), 2, 8, "0", "", "")


def toy_task() -> Classification:
    """Classify them."""
    return Classification(toy_dataset())


def toy_model() -> nn.Module:
    """Build a small network with batch normalization, so that buffers matter."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    )


def run(out_dir: Path, config: TrainConfig = CONFIG, seed: int = 0) -> tuple[nn.Module, Any]:
    """Train the toy network."""
    model = toy_model()
    result = loop.train(
        model, toy_task(), config, seed=seed, out_dir=out_dir, device=CPU, show_progress=False
    )
    return model, result


def test_the_published_schedule_falls_at_30_60_90_of_100_epochs() -> None:
    config = TrainConfig()
    steps = 10_009  # of ImageNet at batch 128
    rates = [loop.learning_rate(config, epoch * steps, 100 * steps) for epoch in range(100)]
    changes = [epoch for epoch in range(1, 100) if rates[epoch] != rates[epoch - 1]]
    assert changes == [30, 60, 90]
    assert [rates[epoch] for epoch in (0, 30, 60, 90)] == [0.05, 0.005, 0.0005, 0.00005]
    assert loop.learning_rate(config, 30 * steps - 1, 100 * steps) == 0.05


def test_a_step_updates_as_nesterov_sgd_with_weight_decay_does() -> None:
    layer = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0] = 1.0
    optimizer = loop.make_optimizer(layer, TrainConfig())
    batch = Batch(torch.ones(1, 1), torch.tensor([0]), "")
    result = loop.train_step(layer, batch, optimizer, classification_loss)
    p = 1 / (1 + np.exp(-1.0))
    gradient = (p - 1) + 1e-4 * 1.0
    assert layer.weight[0].item() == pytest.approx(1 - 0.05 * (gradient + 0.9 * gradient), rel=1e-6)
    assert result.loss == pytest.approx(-np.log(p), rel=1e-6)
    assert (result.counts, result.images) == ({"top1": 1}, 1)


def test_training_learns_and_logs_a_line_an_epoch(tmp_path: Path) -> None:
    _, result = run(tmp_path, TrainConfig(epochs=6, batch_size=8))
    assert result.final.top1 == 100
    rows = [json.loads(line) for line in (tmp_path / resume.LOG).read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows == result.history
    assert len(result.losses) == 3  # 30 steps in windows of ten


def test_the_share_of_data_is_what_steps_wait_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked for the first batch at 0, given at 1, done at 4; the second takes 2 and 4.
    clock = iter([0.0, 1.0, 4.0, 4.0, 6.0, 10.0, 10.0])
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(clock))
    times = loop.StepTimes()
    assert times.data_share is None
    batches = [Batch(torch.zeros(1), torch.zeros(1), digest) for digest in "ab"]
    assert [batch.digest for batch in times.watch(iter(batches))] == ["a", "b"]
    assert times.data_share == pytest.approx((1 + 2) / 10)


@pytest.mark.parametrize("stops", [(1,), (3,), (5,), (7, 1), (2, 2, 2)])
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    expected, straight = run(tmp_path / "straight")
    step: Callable[..., loop.StepResult] = loop.train_step
    for stop in stops:
        left = iter(range(stop))

        def interrupted(*arguments: Any, left: Any = left) -> loop.StepResult:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return step(*arguments)

        monkeypatch.setattr(loop, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    monkeypatch.setattr(loop, "train_step", step)
    model, resumed = run(tmp_path / "killed")
    for a, b in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert resumed.batches_sha256 == straight.batches_sha256
    assert resumed.losses == straight.losses
    untimed = [[{**row, "wall_s": 0} for row in r.history] for r in (resumed, straight)]
    assert untimed[0] == untimed[1]


def test_a_finished_run_is_read_back_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, first = run(tmp_path)
    monkeypatch.setattr(loop, "train_step", None)
    model, again = run(tmp_path)
    assert again.history == first.history
    assert again.final.top1 == first.final.top1
    assert torch.equal(model[0].weight, expected[0].weight)


@pytest.mark.parametrize("other", [{"seed": 1}, {"config": TrainConfig(epochs=3, batch_size=8)}])
def test_a_folder_of_another_run_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    run(tmp_path)
    with pytest.raises(UserError, match="holds another run"):
        run(tmp_path, **other)


@pytest.mark.fault(
    "disk full while a checkpoint is written",
    how="the write leaves half of it and raises ENOSPC",
    told="No space left on device",
    kept="the last good checkpoint; the same command goes on once there is room",
)
def test_a_full_disk_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    save, calls = torch.save, iter(range(10))

    def full_at_the_third(content: Any, path: Path) -> None:
        if next(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path)

    monkeypatch.setattr(torch, "save", full_at_the_third)
    with pytest.raises(UserError, match=f"{told}.*last good checkpoint is kept"):
        run(tmp_path)
    assert [path.name for path in tmp_path.glob("*.partial*")] == []
    assert resume.read(tmp_path / resume.CHECKPOINT)["progress"]["step"] == 4
    monkeypatch.setattr(torch, "save", save)
    assert run(tmp_path)[1].resumed


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    layer = nn.Linear(1, 2)
    nn.init.constant_(layer.weight, float("nan"))
    batch = Batch(torch.ones(1, 1), torch.tensor([0]), "")
    with pytest.raises(UserError, match="the loss became nan"):
        loop.train_step(
            layer, batch, loop.make_optimizer(layer, TrainConfig()), classification_loss
        )


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": -1}, {"learning_rate": -0.1}, {"epochs": 1.5}]
)
def test_a_wrong_recipe_gets_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(wrong))} is"):
        TrainConfig(**wrong)


def test_evaluation_counts_by_hand() -> None:
    class Brightness(nn.Module):
        """Logit of class 1 is the mean pixel."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            mean = images.mean(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(mean), mean], dim=1)

    images = np.stack([np.full((1, 2, 2), value, np.uint8) for value in (0, 255, 255, 0)])
    split = ArraySplit(images, np.array([0, 1, 0, 1]))
    model = Brightness().train()
    result = evaluate(model, Dataset("", split, split, 2, 2, "", "", ""), batch_size=3)
    assert (result.top1, result.top5, result.count) == (50, 100, 4)
    assert result.predictions.tolist() == [0, 1, 1, 0]
    assert model.training


def test_top_k_counts_by_hand() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    labels = torch.tensor([1, 0])
    assert top_k_correct(logits, labels, 1).tolist() == [False, False]
    assert top_k_correct(logits, labels, 2).tolist() == [True, False]
    assert top_k_correct(logits, labels, 9).tolist() == [True, True]
