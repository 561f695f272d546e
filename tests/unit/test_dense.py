"""Networks for dense tasks are compared as they are trained: loss, optimizer, every output."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from comparison import dense, equivalence, parameters, recipes
from comparison.engine.modes.static import learning_rates, optimizer_findings, scheduler_findings
from comparison.engine.states import load_state, random_state
from comparison.equivalence import compare_pair
from comparison.pairing import Pair, quiet
from reproduction import NETWORKS, NetworkConfig, UserError
from reproduction.networks import CLASSES, set_momentum
from tests.unit.toys import Theirs

OFFICIAL: dict[str, dict[str, Any]] = {
    "pose": {"OPTIMIZER": "adam", "LR": 1e-3, "WD": 1e-4, "LR_STEP": [170, 200], "LR_FACTOR": 0.1},
    "landmarks": {"OPTIMIZER": "adam", "LR": 1e-4, "WD": 0.0, "LR_STEP": [30, 50]},
    "segmentation": {
        **{"OPTIMIZER": "sgd", "LR": 0.01, "WD": 5e-4, "MOMENTUM": 0.9, "NESTEROV": False},
        "END_EPOCH": 484,
    },
}
OFFICIAL["ocr"] = OFFICIAL["segmentation"]
NAMES = {
    "pose": "pose_hrnet_w32",
    "landmarks": "face_hrnet_w18_wflw",
    "segmentation": "seg_hrnet_w48_lip",
    "ocr": "seg_hrnet_ocr_w48_lip",
    "detection": "det_hrnetv2p_w18",
}


def tiny(task: str) -> NetworkConfig:
    """Shrink an official network of a task to the least of everything."""
    return replace(
        NETWORKS[NAMES[task]],
        **{"width": 4, "stage1_blocks": 1, "stage1_width": 4, "residual_units": 1},
        **{"exchange_blocks": (1, 1, 1), "outputs": 3},
    )


def tiny_pair(task: str) -> Pair:
    """Make two copies of one tiny network, one of them trained by the official file."""
    config = tiny(task)
    model = CLASSES[config.task](config, config.outputs).double()
    set_momentum(model, config.norm_momentum)
    quiet([model])
    load_state(model, random_state(model, 0))
    settings, loss = OFFICIAL.get(task), dense.loss_of(config)
    ours = recipes.our_dense_side(copy.deepcopy(model), config)
    theirs = (
        recipes.official_side(model, settings, loss)
        if settings
        else recipes.our_dense_side(model, config)
    )
    count = 4 if task == "ocr" else 2  # OCR normalizes over batch and classes alone
    batches = tuple(dense.batch_of(config, (count, 3, 64, 64), f"tiny/{i}") for i in range(2))
    inputs = {"reference_recipe": "a file like the official one"}
    return Pair(
        reference=theirs,
        reproduction=ours,
        name_map=str,
        batches=batches,
        inputs=inputs,
        epochs=dense.recipe_of(config).epochs,
    )


def outcomes(pair: Pair) -> dict[str, str]:
    """Compare a pair over two steps and return the outcome of each mode."""
    settings = parameters.check("02_equivalence", {"network": "seg_hrnet_w48_lip", "steps": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equivalence.reference, "identity", lambda *given: {"label": "a twin"})
        report = compare_pair(pair, settings).report
    return {verdict.mode: verdict.outcome for verdict in report.modes}


RUN = ("static", "forward eval", "forward train", "loss", "backward", "state after step")


@pytest.mark.parametrize(
    "task", [t if t == "pose" else pytest.param(t, marks=pytest.mark.full) for t in NAMES]
)
def test_a_dense_network_agrees_with_its_twin_in_every_mode(task: str) -> None:
    found = outcomes(tiny_pair(task))

    assert {found[mode] for mode in (*RUN, "teacher-forced trajectory")} == {"reproduced"}, found
    assert found["data path"] == "not run"


@pytest.mark.full
def test_a_fault_in_the_second_output_is_found() -> None:
    pair = tiny_pair("ocr")
    norm = next(m for m in pair.reproduction.model.head.modules() if isinstance(m, nn.BatchNorm2d))
    norm.eps = 1.1e-5

    assert "not reproduced" in outcomes(pair).values()


def findings(task: str, **changed: Any) -> list[str]:
    """Compare the official recipe of a task, changed or not, with ours, without training."""
    config = tiny(task)
    sides = (
        recipes.official_side(Theirs(), {**OFFICIAL[task], **changed}, dense.loss_of(config)),
        recipes.our_dense_side(Theirs(), config),
    )
    made, names = [], []
    for side in sides:
        assert side.make_optimizer is not None
        made.append(side.make_optimizer(side.model))
        names.append({id(p): name for name, p in side.model.named_parameters()})
    _, options = optimizer_findings(*made, *names)
    _, rates = scheduler_findings(*sides, dense.recipe_of(config).epochs)
    return [finding.text for finding in (*options, *rates)]


@pytest.mark.parametrize("task", OFFICIAL)
def test_our_dense_recipes_are_the_official_ones(task: str) -> None:
    assert findings(task) == []


@pytest.mark.parametrize(
    ("task", "changed", "told"),
    [
        ("pose", {"LR": 1e-4}, "lr is 0.001"),
        ("pose", {"LR_STEP": [169, 199]}, "at epochs 170, 200, in the reference at 169, 199"),
        ("landmarks", {"OPTIMIZER": "sgd", "MOMENTUM": 0.0, "NESTEROV": False}, "is Adam"),
        ("segmentation", {"WD": 1e-4}, "weight decay is 0.0005"),
        ("segmentation", {"END_EPOCH": 200}, "the learning rate of epoch 1 is"),
    ],
)
def test_another_official_value_is_a_difference(
    task: str, changed: dict[str, Any], told: str
) -> None:
    assert any(told in text for text in findings(task, **changed))


def test_the_weight_decay_of_a_file_does_not_reach_adam() -> None:
    assert findings("pose", WD=0.1) == []


def test_a_polynomial_decay_ends_near_zero() -> None:
    rates = learning_rates(recipes.our_dense_side(Theirs(), tiny("segmentation")), 484)

    assert rates[0] == 0.01 and 0 < rates[-1] < 1e-4 and sorted(rates, reverse=True) == rates


def test_one_official_file_has_another_rate() -> None:
    rates = {n: dense.recipe_of(c).learning_rate for n, c in NETWORKS.items() if n[:4] == "face"}

    assert {name for name, rate in rates.items() if rate == 2e-4} == {"face_hrnet_w18_aflw"}


@pytest.mark.parametrize("task", NAMES)
def test_every_output_has_a_part_in_the_loss(task: str) -> None:
    config = tiny(task)
    network = CLASSES[config.task](config, config.outputs)
    batch = dense.batch_of(config, (2, 3, 64, 64), "parts")
    outputs = network(batch.inputs.float())
    made = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    targets = batch.targets
    if isinstance(targets, tuple):
        targets = tuple(target.float() for target in targets)

    gradients = torch.autograd.grad(dense.loss_of(config)(outputs, targets), made)

    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_the_loss_of_landmarks_has_the_bits_of_the_mean_squared_error() -> None:
    config = tiny("landmarks")
    targets = dense.batch_of(config, (2, 3, 96, 64), "bits").targets
    maps = torch.rand(targets[0].shape, generator=torch.Generator().manual_seed(0)).double()
    found, usual = (maps.clone().requires_grad_() for _ in range(2))

    loss, expected = dense.loss_of(config)(found, targets), F.mse_loss(usual, targets[0])
    loss.backward()
    expected.backward()

    assert torch.equal(loss, expected) and torch.equal(found.grad, usual.grad)
    with pytest.raises(UserError, match="heatmaps are a list"):
        dense.loss_of(config)([found], targets)


def test_batches_depend_on_the_seed_and_ignore_some_labels() -> None:
    one, same, other = (
        dense.batch_of(tiny("segmentation"), (2, 3, 32, 32), seed) for seed in ("a", "a", "b")
    )

    assert torch.equal(one.targets, same.targets) and not torch.equal(one.targets, other.targets)
    assert set(one.targets.unique().tolist()) == {0, 1, 2, 255}
