"""What a comparison starts from: both networks in one state, and the batches both see."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors

from comparison import arms
from comparison.parameters import Settings
from comparison.sides import Batch, Side, load_state, random_batch, random_state, state_sha256
from comparison.study import ROOT
from reproduction import UserError
from reproduction.checkpoints import load_checkpoint
from reproduction.tasks.classification.sources import load_dataset

IMAGE_SIZE = 64
# At 64 pixels the lowest stream has 2 x 2 values an image, so a channel has eight of them: with
# fewer, batch statistics make the gradients explode (two values: five hundredfold).
BATCH_SIZE = 2


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides in the same state.

    Attributes:
        reference: The reference.
        reproduction: Ours.
        batches: One for each optimizer step, in float64.
        inputs: Where weights and data come from, for the record.
    """

    reference: Side
    reproduction: Side
    batches: tuple[Batch, ...]
    inputs: dict[str, Any]


def pair_of(settings: Settings) -> Pair:
    """Build both networks with the weights and the batches that the settings name.

    Random weights see random images, trained weights see images of their data set.

    Raises:
        UserError: The weights do not fit the network, or have fewer classes than the data.
    """
    if settings.weights == "random":
        return random_pair(settings.network, settings.steps, settings.seed)
    return _trained_pair(settings)


def random_pair(network: str, steps: int, seed: int = 0) -> Pair:
    """Build both networks of 1000 classes in a random state, with random batches.

    Raises:
        UserError: The network is unknown.
    """
    sides = _sides(network, arms.OFFICIAL_CLASSES)
    state = random_state(sides[0].model, seed)
    for side in sides:
        load_state(side, state)
    weights = {"kind": "random", "seed": seed, "sha256": state_sha256(state)}
    return Pair(
        reference=sides[0],
        reproduction=sides[1],
        batches=random_batches(steps, seed),
        inputs={"weights": weights, "data": {"name": "random normal images"}},
    )


def random_batches(count: int, seed: int = 0) -> tuple[Batch, ...]:
    """Draw batches of images and of labels of 1000 classes from a seed."""
    shape = (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
    return tuple(
        random_batch(shape, arms.OFFICIAL_CLASSES, f"{seed}/{step}") for step in range(count)
    )


def _trained_pair(settings: Settings) -> Pair:
    path = ROOT / settings.weights_file
    num_classes = _class_count(path)
    dataset = load_dataset(settings.data, image_size=IMAGE_SIZE)
    if dataset.num_classes > num_classes:
        raise UserError(
            f"{path.name} knows {num_classes} classes and {settings.data} has "
            f"{dataset.num_classes}: name the data set that the weights were trained on"
        )
    reference, reproduction = _sides(settings.network, num_classes)
    load_checkpoint(reproduction.model, path)
    load_state(reference, reproduction.state())
    shown = dataset.batches("train", seed=settings.seed, batch_size=BATCH_SIZE)
    batches = tuple(Batch(b.images.double(), b.labels) for b in islice(shown, settings.steps))
    weights = {
        "kind": "trained",
        "file": path.name,
        "num_classes": num_classes,
        "sha256": state_sha256(reproduction.state()),
        "shims": [] if num_classes == arms.OFFICIAL_CLASSES else [arms.CLASS_COUNT_SHIM],
    }
    data = {"name": dataset.name, "sha256": dataset.sha256, "image_size": IMAGE_SIZE}
    return Pair(
        reference=reference,
        reproduction=reproduction,
        batches=batches,
        inputs={"weights": weights, "data": data},
    )


def _sides(network: str, num_classes: int) -> tuple[Side, Side]:
    ours, theirs = (arms.build(arm, network, num_classes) for arm in ("reproduction", "reference"))
    return Side(model=theirs), Side(model=ours, name_of=arms.name_of(ours))


def _class_count(path: Path) -> int:
    """Read how many classes a weights file has; `load_checkpoint` tells what is wrong with it."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            name = next(name for name in names if name.endswith("classifier.weight"))
            return int(file.get_slice(name).get_shape()[0])
    except (OSError, StopIteration, safetensors.SafetensorError):
        return arms.OFFICIAL_CLASSES
