"""Train one arm as a study asks for it, and record what came of it.

Both arms go through `reproduction.train.train`, with the start weights and the batches that the
seed decides. What the network learned is then also run by the other arm (`comparison.exchange`).
"""

import hashlib
import os
import time
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

import reference
from comparison import arms, clock
from comparison.exchange import Exchange, exchange
from comparison.parameters import Settings
from comparison.record import measurement, new_record
from comparison.study import study_of
from reproduction import TrainConfig
from reproduction.checkpoints import save_tensors
from reproduction.device import resolve_device
from reproduction.evaluate import Evaluation
from reproduction.forms import EAGER, Form, choose_form, table_sha256
from reproduction.tasks.classification.data import Dataset
from reproduction.tasks.classification.sources import load_dataset
from reproduction.tasks.classification.task import Classification
from reproduction.train import LOSS_WINDOW, TrainResult, train

WEIGHTS = "weights.safetensors"
MAX_DECODING_THREADS = 8


def run(settings: Settings) -> dict[str, Any]:
    """Train one arm from its seed, exchange the weights, and return the record.

    Checkpoints, the log and the final weights (official names) lie in
    ``checkpoints/<run_id>/`` below the results folder; an interrupted run goes on from there.

    Raises:
        UserError: Data, recipe, checkpoint or device do not fit; the message says what to do.
    """
    started = time.perf_counter()
    device = resolve_device(settings.device)
    dataset = load_dataset(
        settings.data, image_size=settings.image_size or None, workers=_decoding_threads(device)
    )
    config = TrainConfig(epochs=settings.epochs, batch_size=settings.batch_size)
    model = arms.build_from_seed(settings.arm, settings.network, dataset.num_classes, settings.seed)
    form = EAGER
    if settings.form == "fast":
        form = choose_form(settings.network, dataset.image_size, settings.batch_size)
        if form == EAGER:
            print("note: no fast form was tuned for this network and shape: eager steps")
    run_id = f"{settings.network}.{dataset.name}.{settings.arm}.seed{settings.seed}"
    run_id += "" if settings.form == "eager" else f".{settings.form}"
    folder = settings.results_dir / "checkpoints" / run_id
    start_sha256 = weights_digest(model)
    task = Classification(dataset)
    clock.enter("work")
    result = train(
        model, task, config, seed=settings.seed, out_dir=folder, device=device, form=form
    )
    save_tensors(arms.official_state(model), folder / WEIGHTS)
    exchanged = exchange(model, settings.arm, settings.network, dataset, device)
    return new_record(
        case="training",
        run_id=run_id,
        claim_ids=["C8", "C9", "C11"],
        subject={
            "network": settings.network,
            "arm": settings.arm,
            "seed": settings.seed,
            "device": str(device),
            **({} if settings.form == "eager" else _form(form)),
        },
        inputs=_inputs(dataset, model, start_sha256),
        measurements=_measurements(result, exchanged),
        tables={
            "epochs": result.history,
            "losses": [
                {"step": (index + 1) * LOSS_WINDOW, "train_loss": loss}
                for index, loss in enumerate(result.losses)
            ],
            "exchange": exchanged.summary,
            "flips": exchanged.flips,
        },
        expectations=_expectations(settings),
        verdict=_verdict(exchanged),
        wall_s=time.perf_counter() - started,
        parameters={**settings.decisive(), "recipe": asdict(config), **_study(settings)},
        command=settings.command(),
    )


def epochs_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show a record's epochs: learning rate, losses and accuracies."""
    columns = ["epoch", "learning_rate", "train_loss", "train_top1", "test_loss", "test_top1"]
    return pd.DataFrame(record["tables"]["epochs"])[[*columns, "test_top5", "wall_s"]]


def loss_curve(record: dict[str, Any]) -> Figure | None:
    """Draw a record's training loss over the steps; nothing of a run too short to have one."""
    losses = pd.DataFrame(record["tables"]["losses"])
    if losses.empty:
        return None
    title = f"{record['subject']['arm']}, seed {record['subject']['seed']}"
    axes = losses.plot(x="step", y="train_loss", ylabel="training loss (nats)", title=title)
    return axes.figure


def exchange_table(record: dict[str, Any]) -> pd.DataFrame:
    """Show how many decisions differ when the other arm runs the same weights."""
    return pd.DataFrame(record["tables"]["exchange"])


def _decoding_threads(device: torch.device) -> int:
    return 0 if device.type == "cpu" else min(MAX_DECODING_THREADS, os.cpu_count() or 1)


def weights_digest(model: nn.Module) -> str:
    """Hash all parameters and buffers by official name: equal digests are equal bits."""
    total = hashlib.sha256()
    for name, tensor in arms.official_state(model).items():
        total.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _inputs(dataset: Dataset, model: nn.Module, start_sha256: str) -> dict[str, Any]:
    return {
        "reference": {
            **reference.identity(),
            "study_shims": [arms.CLASS_COUNT_SHIM],
        },
        "data": {
            "name": dataset.name,
            "train_count": len(dataset.train.labels),
            "test_count": len(dataset.test.labels),
            "num_classes": dataset.num_classes,
            "image_size": dataset.image_size,
            "sha256": dataset.sha256,
            "source": dataset.source,
            "license": dataset.license,
        },
        "weights": {
            "source": "start weights drawn by the reproduction from the seed, shared by both arms",
            "parameters": sum(tensor.numel() for tensor in model.parameters()),
            "start_sha256": start_sha256,
            "final_sha256": weights_digest(model),
        },
    }


def _form(form: Form) -> dict[str, Any]:
    """Say which form ran, by which table; a shape that it lacks runs in the eager one."""
    return {"form": asdict(form), "forms_table_sha256": table_sha256()}


def _measurements(result: TrainResult[Evaluation], exchanged: Exchange) -> list[dict[str, Any]]:
    final, last = result.final, result.history[-1]
    count = final.count
    steps = sum(row["steps"] for row in result.history)
    flips = {row["precision"]: row["flips"] for row in exchanged.summary}
    return [
        measurement("top1", final.top1, "percent", n=count),
        measurement("top5", final.top5, "percent", n=count),
        measurement("test_loss", final.loss, "nats", n=count),
        measurement("train_loss", last["train_loss"], "nats"),
        measurement("steps", steps, "steps"),
        measurement("train_wall_s", last["wall_s"], "s"),
        measurement("resumed", result.resumed, "flag"),
        measurement("data_share", result.data_share, "share of the steps' time"),
        measurement("batches_sha256", result.batches_sha256, "digest"),
        *(measurement(f"flips_{name}", value, "images", n=count) for name, value in flips.items()),
    ]


def _expectations(settings: Settings) -> list[dict[str, Any]]:
    study = study_of(settings.results_dir)
    no_flip = {
        "name": "flips_float64",
        "value": 0,
        "source": "equal networks decide equally",
        "tolerance": 0,
        "reason": "float64 rounding is far below any margin between two logits",
    }
    if study is None or study.training is None:
        return [no_flip]
    margin = {
        "name": "top1_difference",
        "value": 0.0,
        "source": f"workflow/studies/{study.name}.yaml, training.margin_pp",
        "tolerance": study.training.margin_pp,
        "reason": "fixed in the study file before the first run",
    }
    return [no_flip, margin]


def _study(settings: Settings) -> dict[str, Any]:
    study = study_of(settings.results_dir)
    return {} if study is None else {"study": study.name, "study_sha256": study.sha256}


def _verdict(exchanged: Exchange) -> dict[str, str]:
    flips = {row["precision"]: row["flips"] for row in exchanged.summary}
    images = exchanged.summary[0]["images"]
    outcome = "not reproduced" if flips["float64"] else "reproduced"
    reason = (
        f"the other arm, given these weights, decides {flips['float64']} of {images} test images "
        f"differently in float64 and {flips['float32']} in float32"
    )
    return {"outcome": outcome, "reason": reason}
