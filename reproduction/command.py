"""Train one network from the command line, on one device or, unchanged, on many.

    python -m reproduction.train --network cls_hrnet_w18 --data image_folder:data/imagenet
    torchrun --nproc-per-node 4 -m reproduction.train --network cls_hrnet_w18 --data ...

Networks for classification take the parameters of notebook 03, with the same defaults. For any
other network `--data` names the folder of its data set, and its published recipe decides the rest:

    python -m reproduction.train --network pose_hrnet_w32 --data data/coco --body cls.safetensors

The same call goes on with what was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reproduction import distributed
from reproduction.checkpoints import save_checkpoint
from reproduction.config import TrainConfig, network_config
from reproduction.device import DEVICES, resolve_device
from reproduction.distributed import Group
from reproduction.errors import UserError
from reproduction.forms import EAGER, choose_form
from reproduction.networks import build_network
from reproduction.published_recipes import recipe_for
from reproduction.recipe import Recipe
from reproduction.tasks.classification.sources import load_dataset
from reproduction.tasks.classification.task import Classification
from reproduction.tasks.published import (
    RANDOM,
    check_adapter,
    departures,
    published_task,
    take_start,
)
from reproduction.tasks.segmentation.task import SegmentationResult
from reproduction.tasks.task import Result, Task
from reproduction.train import train

DEFAULTS = {"epochs": 4, "batch_size": 128}  # of notebook 03
DECODING_THREADS = 8
WEIGHTS = "weights.safetensors"


def make_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="python -m reproduction.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", default="cls_hrnet_w18_small_v1", help="by official name")
    parser.add_argument("--data", default="digits", help="as in notebook 03, or a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: 4, or as published")
    parser.add_argument("--batch-size", type=int, help="images a step, over all processes")
    parser.add_argument("--image-size", type=int, default=0, help="0: the data set's own")
    parser.add_argument("--recipe", default="", help="another one of the network's task and data")
    parser.add_argument("--body", type=Path, help="weights to start from; none: random ones")
    parser.add_argument("--detections", type=Path, help="COCO results with boxes to evaluate in")
    parser.add_argument("--form", default="eager", choices=("eager", "fast"), help="of steps")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--results-dir", type=Path, default=Path("results/by_hand"))
    return parser


def chosen(options: argparse.Namespace) -> tuple[nn.Module, Task[Result], TrainConfig | Recipe]:
    """Return the network with its start weights, its task and its recipe.

    Raises:
        UserError: Network, data or weights do not exist or do not fit.
    """
    for name, value in (("--seed", options.seed), ("--image-size", options.image_size)):
        if value < 0:
            raise UserError(f"{name} is {value}; give a whole number of at least 0")
    if network_config(options.network).task == "classification":
        return _classification(options)
    recipe = recipe_for(options.network, options.recipe)
    if options.image_size:
        raise UserError(f"--image-size is {options.image_size}; recipe {recipe.name} says the size")
    check_adapter(recipe)
    torch.manual_seed(options.seed)
    network = build_network(options.network)
    take_start(network, recipe, options.body)
    task = published_task(recipe, Path(options.data), detections=options.detections)
    return network, task, replace(recipe.training(), **_changed(options))


def _classification(options: argparse.Namespace) -> tuple[nn.Module, Task[Result], TrainConfig]:
    """Choose as notebook 03 does: the same start weights, batches and recipe."""
    if options.body not in (None, RANDOM):
        raise UserError(f"--body is {options.body}, but {options.network} starts from the seed")
    if options.detections:
        raise UserError(f"--detections is {options.detections}, but {options.network} has no boxes")
    lengths = DEFAULTS
    if options.recipe:
        recipe = recipe_for(options.network, options.recipe)
        lengths = {"epochs": recipe["epochs"], "batch_size": recipe.batch_size}
    dataset = load_dataset(
        options.data, image_size=options.image_size or None, workers=DECODING_THREADS
    )
    torch.manual_seed(options.seed)
    network = build_network(options.network, num_classes=dataset.num_classes)
    return network, Classification(dataset), TrainConfig(**{**lengths, **_changed(options)})


def _changed(options: argparse.Namespace) -> dict[str, Any]:
    given = {"epochs": options.epochs, "batch_size": options.batch_size}
    return {name: value for name, value in given.items() if value is not None}


def run(options: argparse.Namespace, processes: Group) -> None:
    """Train, and let process 0 write the weights and say what was reached.

    Raises:
        UserError: What was asked for does not exist, does not fit, or diverged.
    """
    model, task, recipe = chosen(options)
    data = Path(options.data).name.partition(":")[0]
    name = f"{options.network}.{data}.reproduction.seed{options.seed}"
    name += f".{options.recipe}" if options.recipe else ""
    name += "" if options.form == "eager" else f".{options.form}"
    if options.body not in (None, RANDOM):  # a run from other weights is another run
        name += f".body_{sha256(options.body.read_bytes()).hexdigest()[:8]}"
    if processes.ranks > 1:
        name += f".processes{processes.ranks}"
    folder = options.results_dir / "checkpoints" / name
    device = resolve_device(options.device)
    form = EAGER
    if options.form == "fast" and isinstance(task, Classification):
        share = recipe.batch_size // processes.ranks
        form = choose_form(options.network, task.dataset.image_size, share)
    if processes.leads and options.form == "fast" and form == EAGER:
        print("note: no fast form was tuned for this network and shape: eager steps", flush=True)
    if processes.leads:
        published = recipe_for(options.network, options.recipe)
        for sentence in departures(published, options.body, options.detections):
            print(f"note: {sentence}", flush=True)
    seed = options.seed
    result = train(model, task, recipe, seed=seed, out_dir=folder, device=device, form=form)
    if processes.leads:
        save_checkpoint(model, folder / WEIGHTS)
        scores = ", ".join(f"{score} {value:.2f}" for score, value in result.final.scores.items())
        print(f"{scores}; loss {result.final.loss:.4f}; weights in {folder / WEIGHTS}")
        if isinstance(result.final, SegmentationResult) and result.final.remark:
            print(f"note: {result.final.remark}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake becomes one sentence and exit status 2."""
    options = make_parser().parse_args(argv)
    try:
        with distributed.joined(resolve_device(options.device)) as processes:
            run(options, processes)
    except (UserError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0
