"""The record of one timing: arms in turns, their memory, operators and place below the roof."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

import reference
from comparison import clock, published
from comparison.record import measurement, new_record
from comparison.speed import errors, machine, memory, statements, work
from comparison.speed.contenders import Setup
from comparison.speed.measure import Timed, aims_of, measure, speed_rows
from comparison.timing_plan import speed_run_id
from reference.errors import ReferenceUnavailable
from reproduction import network_config
from reproduction.device import resolve_device

Row = dict[str, Any]
# Worst first: the verdict of a record is that of its worst judged arm.
OUTCOMES = ("not reproduced", "undecided", "within tolerance", "reproduced", "not run")


def setup_of(settings: Any) -> tuple[Setup, list[str]]:
    """Turn checked parameters of notebook 04 into what is timed, and the arms."""
    setup = Setup(
        network=settings.network,
        task=settings.task,
        image_size=size_of(settings.network, settings.image_size),
        batch_size=settings.batch_size,
        precision=settings.precision,
        device=resolve_device(settings.device).type,
        seed=settings.seed,
        threads=torch.get_num_threads(),
    )
    return setup, [arm.strip() for arm in settings.arms.split(",")]


def size_of(network: str, height: int) -> tuple[int, int]:
    """Return height and width of images in the network's own shape; height 0 takes its own size.

    >>> size_of("pose_hrnet_w32", 256), size_of("cls_hrnet_w18", 64), size_of("cls_hrnet_w18", 0)
    ((256, 192), (64, 64), (224, 224))
    """
    own_height, own_width = network_config(network).image_size
    return (height, round(height * own_width / own_height)) if height else (own_height, own_width)


def memory_rows(timed: Timed) -> list[Row]:
    """Measure the peak memory of every arm that ran, each in a process of its own."""
    return [
        memory.measure(arm, timed.setup)
        if arm in timed.made
        else memory.not_measured(arm, timed.absent[arm])
        for arm in timed.making_s
    ]


def operator_rows(timed: Timed) -> list[Row]:
    """Measure where the time goes in the arms that PyTorch runs operator by operator, on a CPU."""
    if timed.setup.device != "cpu":
        return []
    profiled = ((arm, made) for arm, made in timed.made.items() if made.eager)
    return [row for arm, made in profiled for row in work.operators(arm, made.work)]


def roofline_rows(timed: Timed, speed: Sequence[Row]) -> list[Row]:
    """Lay out how fast networks compute, and the layers of the reproduction in inference."""
    ran = [row for row in speed if row["status"] == "ran"]
    points = work.network_points(
        timed.setup,
        {row["arm"]: row["ms"] / 1e3 for row in ran},
        {row["arm"]: row["precision"] for row in ran},
    )
    ours = timed.made.get("reproduction")
    if ours and (timed.setup.task, timed.setup.device) == ("inference", "cpu"):
        points += work.layer_points("reproduction", ours.work)
    return points


def error_tables(timed: Timed, arms: list[str], settings: Any) -> dict[str, list[Row]]:
    """Measure what the faster forms compute that ran."""
    setup, arms = timed.setup, [arm for arm in arms if arm in timed.made]
    rows: list[Row] = []
    gradients: list[Row] = []
    if setup.task == "training":
        if "fast" in timed.made:
            rows, gradients = errors.of_training(setup, settings.accuracy_seeds)
    elif errors.forms_of(setup, arms):
        rows = errors.of_inference(setup, arms)
    if settings.weights_file and errors.forms_of(setup, arms):
        rows += errors.of_decisions(setup, arms, settings.weights_file, settings.data)
    return {"errors": rows, "gradients": gradients}


def limit_rows(setup: Setup) -> list[Row]:
    """Measure what the machine can do, in float32 and in the precision that was timed."""
    device = torch.device(setup.device)
    precisions = dict.fromkeys(("float32", setup.precision))
    return [row for name in precisions for row in machine.limits(name, device)]


def judge(rows: Sequence[Row], load: tuple[float, float]) -> dict[str, str]:
    """Take over the worst verdict of all arms, and say what may be said of each."""
    judged = [row["verdict"] for row in rows if row["verdict"]]
    outcome = next((found for found in OUTCOMES if found in judged), "not run")
    told = "; ".join(
        f"{row['arm']}: {row['reason'] or row['statement']}" for row in rows if row["verdict"]
    )
    told = told or "no arm is judged on this input"
    return {"outcome": outcome, "reason": f"{told} (load {max(load):.1f} on {_cores()} cores)"}


def _cores() -> Any:
    return machine.described()["cores"]


def claims_of(rows: Sequence[Row]) -> list[str]:
    """List the claims that a record's rows decide."""
    fast = [row for row in rows if row["aim"] is not None]
    named = {"C10": [row for row in rows if row["arm"] == "reproduction"]}
    named["C16"] = [row for row in fast if row["task"] == "training"]
    named["C17"] = [row for row in fast if row["task"] == "inference"]
    return [claim for claim, deciding in named.items() if deciding]


def identity_of(network: str) -> dict[str, Any]:
    """Say which reference runs for a network; nothing where there is none."""
    try:
        return reference.identity(network=network)
    except ReferenceUnavailable:
        return {}


def _subject(timed: Timed) -> Row:
    """Say what was timed, with counted cost and published accuracy beside it."""
    setup = timed.setup
    counted = work.convolutions(setup.network, setup.image_size, batch_size=1)
    error = published.figures(setup.network, "readme").get("top1_error")
    return {
        **{key: value for key, value in asdict(setup).items() if key != "seed"},
        "image_size": list(setup.image_size),
        "convolution_gmacs": counted["flops"] / 2e9,
        "published_top1_error": error.printed if error else None,
        "published_by": error.title if error else None,
        "decided": {arm: made.decided for arm, made in timed.made.items() if made.decided},
        "machine": machine.described(),
        "load_before": timed.load[0],
        "load_after": timed.load[1],
    }


def _measurements(rows: Sequence[Row]) -> list[Row]:
    return [
        measurement(
            f"ratio.{row['arm']}",
            row["ratio"],
            "times as fast as the reference",
            n=row["rounds"],
            ci_low=row["ratio_low"],
            ci_high=row["ratio_high"],
        )
        for row in rows
        if row["ratio"] is not None
    ]


def _expectations(timed: Timed) -> list[Row]:
    """Lay out what was aimed at beforehand, and the margin for the reproduction."""
    equal = {
        "name": "speed of the reproduction in eager float32, as a ratio to the reference",
        "value": 1.0,
        "source": "the same network: no published figure",
        "tolerance": f"at least 1 / {statements.SLOWDOWN_MARGIN}",
        "reason": "equal arithmetic; smaller slowdowns do not matter to a user",
    }
    return [equal, *(statements.expectation(aim) for aim in aims_of(timed))]


def run(settings: Any) -> dict[str, Any]:
    """Time arms with the same weights and inputs, and see where their time goes.

    Args:
        settings: Checked parameters of notebook 04 (`comparison.parameters.check`).

    Returns:
        The record: tables ``speed`` (a row an arm), ``rounds``, ``memory``, ``operators``,
        ``limits`` and ``roofline``.

    Raises:
        UserError: An arm is unknown, or the input has no meaning.
    """
    started = time.perf_counter()
    setup, arms = setup_of(settings)
    clock.enter("work")
    timed = measure(setup, arms, settings.rounds)
    speed = speed_rows(timed)
    tables = {
        "speed": speed,
        "rounds": timed.rounds,
        "operators": operator_rows(timed),
        "limits": limit_rows(setup),
        "roofline": roofline_rows(timed, speed),
        "memory": memory_rows(timed),
        **error_tables(timed, arms, settings),
    }
    return new_record(
        case="speed",
        run_id=speed_run_id(settings),
        claim_ids=claims_of(speed),
        subject=_subject(timed),
        inputs={"reference": identity_of(setup.network)},
        measurements=_measurements(speed),
        tables=tables,
        expectations=_expectations(timed),
        verdict=judge(speed, timed.load),
        wall_s=time.perf_counter() - started,
        parameters={**settings.decisive(), "threads": setup.threads},
        command=settings.command(),
    )
