"""What a comparison starts from: both networks in one state, and the batches both see."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from comparison import arms, dense, recipes
from comparison.engine.sides import Batch, Side
from comparison.engine.states import (
    load_state,
    random_batch,
    random_state,
    share_parameters,
    state_sha256,
)
from comparison.parameters import Settings
from comparison.study import ROOT
from reproduction import TrainConfig, UserError, network_config
from reproduction.checkpoints import load_checkpoint, read_weights
from reproduction.tasks.classification.sources import load_dataset

IMAGE_SIZE = 64
# At 64 pixels the lowest stream has 2 x 2 values an image, so a channel has sixteen of them: below
# eight, batch statistics make the gradients explode (two values: five hundredfold).
BATCH_SIZE = 4
SOURCES = {"reference": "auto", "timm": "timm"}
DATA_BATCHES = 2  # of the training recipe's size


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides in the same state, in float64.

    Attributes:
        reference: The reference.
        reproduction: Ours.
        name_map: Our names of state tensors to the reference's.
        batches: One for each optimizer step, in float64.
        inputs: Where weights, data and recipes come from, for the record.
        epochs: Of the recipes.
    """

    reference: Side
    reproduction: Side
    name_map: Callable[[str], str]
    batches: tuple[Batch, ...]
    inputs: dict[str, Any]
    epochs: int = TrainConfig().epochs


def pair_of(settings: Settings) -> Pair:
    """Build both networks with the weights and the batches that the settings name.

    Random weights see random images, trained weights see images of their data set.

    Raises:
        UserError: The weights do not fit the network, or have fewer classes than the data.
    """
    if settings.weights == "random":
        return random_pair(settings.network, settings.steps, settings.seed, settings.against)
    return _trained_pair(settings)


def random_pair(network: str, steps: int, seed: int = 0, against: str = "reference") -> Pair:
    """Build both networks, with as many outputs as officially, in a random state.

    Raises:
        UserError: The network is unknown.
    """
    config = network_config(network)
    models = _models(network, config.outputs, against)
    state = random_state(models[0], seed)
    for model in models:
        _load(model, state)
    weights = {"kind": "random", "seed": seed, "sha256": state_sha256(state)}
    inputs = {"weights": weights, "data": {"name": "random normal images"}}
    if config.task == "classification":
        return _pair(models, network, against, random_batches(steps, seed), inputs)
    quiet(models)
    shape = (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
    batches = tuple(dense.batch_of(config, shape, f"{seed}/{step}") for step in range(steps))
    return _pair(models, network, against, batches, inputs)


def quiet(models: Iterable[nn.Module]) -> None:
    """Let no channel be dropped: OCR's dropout is the one draw of random numbers in a network.

    Both sides would draw alike, but a rewritten batch would be shown other channels.
    """
    for model in models:
        for module in model.modules():
            if isinstance(module, nn.Dropout2d):
                module.p = 0.0


def random_batches(count: int, seed: int = 0) -> tuple[Batch, ...]:
    """Draw batches of images and of labels of 1000 classes from a seed."""
    shape = (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
    return tuple(
        random_batch(shape, arms.OFFICIAL_CLASSES, f"{seed}/{step}") for step in range(count)
    )


def loaded(settings: Settings) -> Iterator[Batch]:
    """Yield the first batches of an arm's training, from a data set of its own.

    Raises:
        UserError: The data are not there.
    """
    dataset = load_dataset(settings.data)
    batch_size = min(TrainConfig().batch_size, len(dataset.train.labels))
    shown = dataset.batches("train", seed=settings.seed, batch_size=batch_size)
    return (Batch(b.images, b.labels) for b in islice(shown, DATA_BATCHES))


def _trained_pair(settings: Settings) -> Pair:
    path = ROOT / settings.weights_file
    num_classes = _class_count(path)
    dataset = load_dataset(settings.data, image_size=IMAGE_SIZE)
    if dataset.num_classes > num_classes:
        raise UserError(
            f"{path.name} knows {num_classes} classes and {settings.data} has "
            f"{dataset.num_classes}: name the data set that the weights were trained on"
        )
    theirs, ours = _models(settings.network, num_classes, settings.against)
    load_checkpoint(ours, path)
    arms.transfer(ours, theirs)
    shown = dataset.batches("train", seed=settings.seed, batch_size=BATCH_SIZE)
    batches = tuple(Batch(b.images.double(), b.labels) for b in islice(shown, settings.steps))
    weights = {
        "kind": "trained",
        "file": path.name,
        "num_classes": num_classes,
        "sha256": state_sha256(arms.official_state(ours)),
        "shims": [] if num_classes == arms.OFFICIAL_CLASSES else [arms.CLASS_COUNT_SHIM],
    }
    data = {"name": dataset.name, "sha256": dataset.sha256, "image_size": IMAGE_SIZE}
    inputs = {"weights": weights, "data": data}
    return _pair((theirs, ours), settings.network, settings.against, batches, inputs)


def _models(network: str, num_classes: int, against: str) -> tuple[nn.Module, nn.Module]:
    ours = arms.build("reproduction", network, num_classes)
    return arms.build("reference", network, num_classes, source=SOURCES[against]), ours


def _load(model: nn.Module, state: dict[str, Any]) -> None:
    names = arms.name_of(model)
    load_state(model, state, {own: names(own) for own in model.state_dict()})


def _pair(
    models: tuple[nn.Module, nn.Module],
    network: str,
    against: str,
    batches: tuple[Batch, ...],
    inputs: dict[str, Any],
) -> Pair:
    theirs, ours = (model.double() for model in models)
    names = arms.name_of(ours)
    share_parameters(ours, theirs, {own: names(own) for own in ours.state_dict()})
    side, recipe = recipes.reference_side(theirs, network, SOURCES[against])
    config = network_config(network)
    is_dense = config.task != "classification"
    return Pair(
        reference=side,
        reproduction=recipes.our_dense_side(ours, config) if is_dense else recipes.our_side(ours),
        name_map=arms.name_of(ours),
        batches=batches,
        inputs={**inputs, "reference_recipe": recipe},
        epochs=(dense.recipe_of(config) if is_dense else TrainConfig()).epochs,
    )


def _class_count(path: Path) -> int:
    """Read how many classes a weights file has; `load_checkpoint` tells what else is wrong."""
    for name, tensor in read_weights(path).items():
        if name.endswith("classifier.weight") and tensor.dim():
            return len(tensor)
    return arms.OFFICIAL_CLASSES
