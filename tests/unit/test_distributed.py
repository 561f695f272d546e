"""Training by two processes, against one process that does the same sums."""

import copy
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from reproduction import UserError, distributed, resume
from reproduction import train as loop
from reproduction.command import DEFAULTS, WEIGHTS, main, make_parser
from reproduction.distributed import ALONE, Group, Share, share_of
from reproduction.published_recipes import published_recipes
from reproduction.tasks.task import Batch
from tests.repository.tree import ROOT
from tests.two_processes import CPU, SEED, WAYS, model_of, recipe_of, task_of
from tests.unit.test_train import toy_model, toy_task

RANKS = 2
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SMALL = "cls_hrnet_w18_small_v1"
# Float64 rounds at 1e-16; the sums of a step have thousands of terms, and steps carry errors on.
ROUNDING = 1e-12


def launch(*arguments: object, ranks: int = RANKS, restarts: int = 0) -> list[str]:
    """Return torchrun's call of a module."""
    return [
        *TORCHRUN,
        *("--nproc-per-node", str(ranks), "--max-restarts", str(restarts)),
        *("-m", *map(str, arguments)),
    ]


def run(*arguments: object, ranks: int = RANKS) -> None:
    """Run a module in some processes."""
    done = subprocess.run(
        launch(*arguments, ranks=ranks), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def run_both(*arguments: object, status: int = 0) -> list[str]:
    """Run a module in two processes as torchrun does, which itself takes seconds to start.

    Returns:
        What each said on stderr.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    members = [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            env={**ENVIRONMENT, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    told = [member.communicate(timeout=120)[1] for member in members]
    assert [member.returncode for member in members] == [status] * RANKS, told
    return told


def state_in(folder: Path) -> Mapping[str, torch.Tensor]:
    """Return the weights of a run's last checkpoint."""
    return torch.load(folder / resume.CHECKPOINT, weights_only=True)["model"]


def train_by_shares(network: str) -> nn.Module:
    """Do in one process what a group does whose processes normalize their own shares."""
    model, task, recipe = model_of(network), task_of(network), recipe_of(network, False)
    optimizer = loop.make_optimizer(model, recipe)
    for epoch in range(recipe.epochs):
        for batch in task.batches("train", seed=SEED, epoch=epoch, batch_size=recipe.batch_size):
            optimizer.zero_grad()
            # Process 0 comes last: its running statistics are the ones that stay.
            before = copy.deepcopy(dict(model.named_buffers()))
            for rank in reversed(range(RANKS)):
                model.load_state_dict(before, strict=False)
                loss = task.loss(model, share_of(batch, rank, RANKS)).value
                (loss / RANKS).backward()
            optimizer.step()
    return model


def train_alone(network: str, folder: Path, backwards: bool = False) -> nn.Module:
    """Train in one process, as always: it sees and normalizes the whole batch."""
    model, task = model_of(network), task_of(network, backwards)
    recipe = recipe_of(network, True)
    loop.train(model, task, recipe, seed=SEED, out_dir=folder, device=CPU, show_progress=False)
    return model


def distance(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference of a tensor, relative to its largest entry."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-3))
        for name, tensor in expected.items()
    )


def check_equality(network: str, folder: Path) -> dict[str, float]:
    """Hold two processes to one; return how far apart they end."""
    run_both("tests.two_processes", folder, network)
    own, synchronized, fast, fast_synchronized = (
        state_in(folder / f"{network}.{way}") for way in WAYS
    )
    by_shares = train_by_shares(network).state_dict()
    whole = train_alone(network, folder / "alone").state_dict()
    backwards = train_alone(network, folder / "backwards", backwards=True).state_dict()
    found = {
        "own": distance(own, by_shares),
        "synchronized": distance(synchronized, whole),
        "own, fast": distance(fast, by_shares),
        "synchronized, fast": distance(fast_synchronized, whole),
        # What float64 makes of the same sums in another order, grown over the steps.
        "rounding": distance(backwards, whole),
        "own against whole": distance(own, whole),
    }
    assert found["own"] < ROUNDING, found
    for way in ("synchronized", "own, fast", "synchronized, fast"):
        assert found[way] < max(ROUNDING, 30 * found["rounding"]), found
    assert found["rounding"] < 1e-9, found
    # The comparison can fail: the two ways of normalizing are far apart.
    assert found["own against whole"] > 1e6 * ROUNDING, found
    return found


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    found = check_equality("toy", tmp_path)
    assert max(found["own"], found["synchronized"]) < ROUNDING, found
    rows = [
        (tmp_path / name / resume.LOG).read_text().partition('"wall_s"')[0]
        for name in ("toy.synchronized", "alone")
    ]
    assert rows[0][:60] == rows[1][:60]
    digests = {
        torch.load(tmp_path / name / resume.CHECKPOINT, weights_only=True)["progress"]["digest"]
        for name in ("toy.own", "toy.synchronized", "alone")
    }
    assert len(digests) == 1  # all saw the same batches


@pytest.mark.fault(
    "loss not finite in one of two processes",
    how="a loss that is NaN in process 1 alone",
    told="the loss became",
    kept="the last good checkpoint; both processes stop, none waits for the other",
)
def test_all_processes_stop_where_one_diverges(tmp_path: Path, told: str) -> None:
    for said in run_both("tests.two_processes", tmp_path, "diverging", status=1):
        assert re.search(told, said) and "Traceback" not in said


@pytest.mark.full
def test_two_processes_train_a_network_as_one_does(tmp_path: Path) -> None:
    found = check_equality(SMALL, tmp_path)
    print(found)


@pytest.mark.full
def test_one_process_of_torchrun_ends_with_the_bits_of_none(tmp_path: Path) -> None:
    arguments = ("--epochs", 1, "--batch-size", 479, "--device", "cpu", "--results-dir")
    run("reproduction.train", *arguments, tmp_path / "group", ranks=1)
    assert main([str(word) for word in (*arguments, tmp_path / "alone")]) == 0
    folder = f"checkpoints/{SMALL}.digits.reproduction.seed0"
    weights = [(tmp_path / name / folder / WEIGHTS).read_bytes() for name in ("group", "alone")]
    assert weights[0] == weights[1]


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_killed_process_restarts_the_group_to_the_same_bits(tmp_path: Path) -> None:
    arguments = ("--epochs", 2, "--batch-size", 478, "--device", "cpu", "--results-dir")
    folder = f"checkpoints/{SMALL}.digits.reproduction.seed0.processes2"
    run("reproduction.train", *arguments, tmp_path / "straight")
    group = subprocess.Popen(
        launch("reproduction.train", *arguments, tmp_path / "killed", restarts=1),
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    checkpoint = tmp_path / "killed" / folder / resume.CHECKPOINT
    while not checkpoint.exists() and group.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(member(str(tmp_path / "killed"), rank=1), signal.SIGKILL)
    _, told = group.communicate(timeout=200)
    assert group.returncode == 0, told
    assert "exitcode: -9" in told, told
    for name in ("model", "optimizer"):
        states = [
            torch.load(tmp_path / fate / folder / resume.CHECKPOINT, weights_only=True)[name]
            for fate in ("straight", "killed")
        ]
        assert flat(states[0]) == flat(states[1])
    weights = [(tmp_path / fate / folder / WEIGHTS).read_bytes() for fate in ("straight", "killed")]
    assert weights[0] == weights[1]


def member(word: str, rank: int) -> int:
    """Find the process of a group that trains into a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().split("\0")
            variables = (process / "environ").read_text().split("\0")
        except OSError:
            continue
        if (
            word in command
            and "torch.distributed.run" not in command
            and f"RANK={rank}" in variables
        ):
            return int(process.name)
    raise AssertionError(f"no process of rank {rank} trains into {word}")


def flat(state: Any) -> Any:
    """Turn tensors into lists, so that nested states can be compared."""
    if isinstance(state, torch.Tensor):
        return state.tolist()
    if isinstance(state, Mapping):
        return {key: flat(value) for key, value in state.items()}
    return [flat(value) for value in state] if isinstance(state, list) else state


def test_alone_the_loop_is_untouched() -> None:
    model, task = toy_model(), toy_task()
    assert distributed.current() is ALONE
    assert ALONE.leads
    assert ALONE.shared(task) is task
    assert ALONE.wrapped(model, True, CPU) is model
    assert not any(isinstance(part, distributed.SynchronizedNorm) for part in model.modules())
    ALONE.agree(3, 4, device=CPU)
    step = loop.StepResult(1.5, {"top1": 3}, 8)
    assert loop._of_all(ALONE, step, CPU) is step
    progress = resume.Progress(1, 2, 0.0, {}, 0, "", 0.0, [], [], [])
    alone, other = (loop._noise_seed(7, progress, Group(rank, 2)) for rank in (0, 1))
    assert alone == 0xF1E85E14C96E46E  # of SHA-256 of "7 1 2"
    assert other != alone


class Pair(NamedTuple):
    """Targets of two tensors."""

    a: torch.Tensor
    b: torch.Tensor


def test_targets_of_every_form_are_cut_like_their_images() -> None:
    images = torch.arange(4)
    forms = {
        "tensor": (images, [1, 3]),
        "list": ([{"boxes": k} for k in range(4)], [{"boxes": 1}, {"boxes": 3}]),
    }
    for value, expected in forms.values():
        found = share_of(Batch(images, value, "d"), 1, 2)
        assert (list(found.targets), found.images.tolist(), found.digest) == (expected, [1, 3], "d")
    pair = share_of(Batch(images, Pair(images, 10 * images), ""), 0, 2).targets
    assert (type(pair), pair.a.tolist(), pair.b.tolist()) == (Pair, [0, 2], [0, 20])
    mapped = share_of(Batch(images, {"x": (images, images)}, ""), 0, 4).targets
    assert [part.tolist() for part in mapped["x"]] == [[0], [0]]


@pytest.mark.parametrize("targets", [torch.arange(3), [1, 2, 3], 7, {"x": None}])
def test_targets_that_cannot_be_cut_get_a_sentence(targets: Any) -> None:
    with pytest.raises(UserError, match="cannot be shared by several processes"):
        share_of(Batch(torch.arange(4), targets, ""), 0, 2)


def test_a_batch_that_cannot_be_shared_evenly_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="batch_size 9 cannot be shared evenly by 2 processes"):
        next(Share(toy_task(), Group(0, 2)).batches("train", batch_size=9))


def test_a_run_of_other_size_is_another_run() -> None:
    task = toy_task()
    identities = [Group(0, ranks).shared(task).identity for ranks in (1, 2, 3)]
    assert identities[0] == task.identity
    assert identities[1] != identities[2]
    assert Group(0, 2).shared(task).identity == Group(1, 2).shared(task).identity


def test_which_recipes_synchronize_is_data() -> None:
    for name, recipe in published_recipes().items():
        assert recipe.training().sync_norm is recipe["sync_norm"], name
        assert recipe["sync_norm"] == (recipe.task in ("segmentation", "ocr")), name
    assert not loop.TrainConfig().sync_norm


def test_the_command_has_the_defaults_of_notebook_03() -> None:
    from comparison.parameters import COMMON, NOTEBOOKS

    found = {**vars(make_parser().parse_args([])), **DEFAULTS}
    expected = {**COMMON, **NOTEBOOKS["03_training"]}
    for name in ("body", "recipe", "detections"):  # of other networks
        assert not found.pop(name)
    del expected["arm"]
    assert {**found, "results_dir": str(found["results_dir"])} == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--network", "resnet50"], "network 'resnet50' is unknown"),
        (["--data", "mnist"], "data 'mnist' is unknown"),
        (["--body", "x.pt"], "--body is x.pt, but cls_hrnet_w18_small_v1 starts from the seed"),
        (["--network", "pose_hrnet_w32", "--image-size", "64"], "recipe pose_coco says the size"),
        (["--network", "det_hrnetv2p_w18"], "there are adapters for pose"),
    ],
)
def test_a_wrong_option_gets_a_sentence(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*given, "--results-dir", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())
