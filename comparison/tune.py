"""Measure training forms for one shape and write what pays into the committed table.

A maintainer's command: no run of the study tunes anything, because a form chosen anew each time
would change a run's bits from one day to the next. What was measured stands beside each choice.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import reference
from comparison import arms
from comparison.arms import OFFICIAL_CLASSES as CLASSES
from comparison.provenance import provenance
from comparison.speed.contenders import Setup, check
from comparison.speed.timing import median_interval, timer
from comparison.statistics import Interval
from reproduction import TrainConfig, UserError
from reproduction.durable import write_whole
from reproduction.forms import EAGER, KEYS, PRECISIONS, TABLE, Form, prepare, table_rows
from reproduction.tasks.classification.task import classification_loss
from reproduction.tasks.task import Batch
from reproduction.train import make_optimizer, train_step

HEAD = "# Which form pays for which shape, and what was measured: by `python -m comparison tune`.\n"
ROUNDS = 12
SEED = 0
LARGE = 2**21  # weights, of which the gradient takes oneDNN three times as long as one product
CANDIDATES: dict[str, tuple[Form, ...]] = {
    "float32": (
        EAGER,
        Form(name="fused", fused_optimizer=True),
        Form(name="channels last", channels_last=True, fused_optimizer=True),
        Form(
            name="channels last, products of large weights",
            channels_last=True,
            fused_optimizer=True,
            gemm_weights=LARGE,
        ),
        *(
            Form(
                name=f"channels last, products to {limit}x{limit}",
                channels_last=True,
                fused_optimizer=True,
                gemm_limit=limit,
            )
            for limit in (1, 2, 4)
        ),
    ),
    "bfloat16": (
        Form(
            name="channels last, bfloat16",
            channels_last=True,
            fused_optimizer=True,
            autocast="bfloat16",
        ),
        Form(
            name="channels last, products of large weights, bfloat16",
            channels_last=True,
            fused_optimizer=True,
            gemm_weights=LARGE,
            autocast="bfloat16",
        ),
    ),
}


def candidates(precision: str, image_size: int) -> list[Form]:
    """List the forms that differ at an image size: products need maps as small as their limit.

    >>> [form.gemm_limit for form in candidates("float32", 64)]
    [0, 0, 0, 0, 2, 4]
    """
    smallest_map = math.ceil(image_size / 32)
    return [form for form in CANDIDATES[precision] if not 0 < form.gemm_limit < smallest_map]


def has_amx() -> bool:
    """Tell whether this machine multiplies bfloat16 tiles (AMX), for which bfloat16 rows aim."""
    return bool(torch.cpu._is_amx_tile_supported())


def tune(
    network: str,
    image_size: int,
    batch_size: int,
    precision: str = "float32",
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Time whole training steps of all forms against the reference's eager float32 step.

    Args:
        network: Official name of a network for classification.
        image_size: Height and width of the images.
        batch_size: Images a step.
        precision: Which candidates: ``float32`` or ``bfloat16``.
        rounds: How often all take their turns.

    Returns:
        The row for the table: the fastest form whose speedup is above 1 beyond doubt, else
        `EAGER`, with what was measured.

    Raises:
        UserError: Shape or precision are not what can be timed.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use {' or '.join(PRECISIONS)}")
    if rounds < 6:
        raise UserError(f"rounds is {rounds}; fewer than 6 have no 95 % interval")
    size = (image_size, image_size)
    check(Setup(network=network, task="training", image_size=size, batch_size=batch_size), ["fast"])
    forms = candidates(precision, image_size)
    steps = {"reference": _step("reference", network, image_size, batch_size, EAGER)}
    for form in forms:
        steps[form.name] = _step("reproduction", network, image_size, batch_size, form)
    measured = speedups(steps, rounds)
    pays = [form for form in forms if (measured[form.name].low or 0) > 1]
    chosen = max(pays, key=lambda form: measured[form.name].value, default=EAGER)
    return {
        "network": network,
        "image_size": image_size,
        "batch_size": batch_size,
        "precision": precision,
        "form": asdict(chosen),
        "measured": [{"form": name, **_told(found)} for name, found in measured.items()],
        "rounds": rounds,
        **_machine(),
    }


def speedups(
    steps: Mapping[str, Callable[[], Any]],
    rounds: int,
    timed: Callable[[Callable[[], Any]], Callable[[], float]] | None = None,
) -> dict[str, Interval]:
    """Time all in turns, there and back in every round: how often each is faster than the first.

    Args:
        steps: What is timed, by name; the first is what the others are compared with.
        rounds: How often.
        timed: Makes what times one of them, for tests.

    Returns:
        For all but the first, the median of the rounds' ratios with its interval.
    """
    timed = timed or (lambda work: timer(work, torch.device("cpu")))
    timings = {name: timed(step) for name, step in steps.items()}
    names = list(timings)
    ratios: dict[str, list[float]] = {name: [] for name in names[1:]}
    for _ in range(rounds):
        seconds = dict.fromkeys(names, 0.0)
        for name in (*names, *reversed(names)):
            seconds[name] += timings[name]()
        for name in names[1:]:
            ratios[name].append(seconds[names[0]] / seconds[name])
    return {name: median_interval(taken) for name, taken in ratios.items()}


def _step(
    arm: str, network: str, image_size: int, batch_size: int, form: Form
) -> Callable[[], Any]:
    """Return one whole training step at learning rate 0, as `reproduction.train` does it."""
    model = prepare(arms.build_from_seed(arm, network, CLASSES, SEED).train(), form)
    optimizer = make_optimizer(model, TrainConfig(learning_rate=0.0), fused=form.fused_optimizer)
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
    labels = torch.randint(CLASSES, (batch_size,), generator=generator)
    batch = Batch(images, labels, "")
    return lambda: train_step(model, batch, optimizer, classification_loss, form)


def _told(found: Interval) -> dict[str, float]:
    assert found.low is not None and found.high is not None
    return {
        "speedup": round(found.value, 3),
        "low": round(found.low, 3),
        "high": round(found.high, 3),
    }


def _machine() -> dict[str, Any]:
    made = provenance(0.0)
    return {
        "reference": reference.identity()["label"],
        "cpu": made["cpu"],
        "amx": has_amx(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "torch": made["torch"],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write_row(row: Mapping[str, Any], path: Path = TABLE) -> None:
    """Put a row into the table, in place of one of the same shape: whole or not at all.

    Raises:
        UserError: The table there is damaged, or cannot be written.
    """
    kept = [
        {**old, "form": asdict(old["form"])}
        for old in table_rows(path)
        if any(old[key] != row[key] for key in KEYS)
    ]
    rows = sorted([*kept, row], key=lambda entry: tuple(entry[key] for key in KEYS))
    try:
        write_whole(path, HEAD + "".join(_toml(entry) for entry in rows))
    except OSError as error:
        raise UserError(
            f"{path.name} could not be written ({error.strerror}): free some space or ask for "
            "write access, and tune again"
        ) from error


def _toml(row: Mapping[str, Any]) -> str:
    """Write one row; tomllib reads only, and values here are plain."""
    lines = [f"{key} = {_value(value)}" for key, value in row.items()]
    return "\n[[row]]\n" + "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[\n" + "".join(f"  {_value(entry)},\n" for entry in value) + "]"
    return json.dumps(value)
