"""How fast both arms run: the same weights, the same input, in turns.

Clock times on a shared machine drift. So the arms take turns within every round (A B B A), one
ratio is taken a round, and what is stated is the median ratio with an interval that needs no
assumption on how ratios scatter. Speed is described here; what is claimed is only that the
reproduction is not slower than the reference by more than a fixed margin.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import torch
from torch import nn

import reference
from comparison import arms, clock
from comparison.record import measurement, new_record
from comparison.statistics import Interval
from comparison.study import ARMS
from reproduction import TrainConfig, UserError
from reproduction.device import resolve_device
from reproduction.tasks.classification.task import classification_loss
from reproduction.tasks.task import Batch
from reproduction.train import make_optimizer, train_step

CLASSES = 1000
CONFIDENCE = 0.95
SLOWDOWN_MARGIN = 1.10
WARM_UPS = 2
# A timing shorter than this repeats its work: the clock and the scheduler tick in milliseconds.
SHORTEST_TIMING_S = 0.05
ROUND = ("reference", "reproduction", "reproduction", "reference")


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Bound the median of the distribution by order statistics (the sign test's interval).

    The k-th smallest and k-th largest of n values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k), whatever the distribution; the largest k that keeps this above
    the confidence is taken. Fewer than six values have no 95 % interval.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Interval(value=3.5, low=1.0, high=6.0)
    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0]).low is None
    True
    """
    ordered, n = sorted(values), len(values)
    tail, k = 0.0, 0
    while k < n // 2 and 2 * (tail + math.comb(n, k) / 2**n) <= 1 - confidence:
        tail += math.comb(n, k) / 2**n
        k += 1
    low, high = (ordered[k - 1], ordered[n - k]) if k else (None, None)
    return Interval(value=median(ordered), low=low, high=high)


def direction(ratio: Interval) -> str:
    """Say which arm is faster, or that it cannot be said: never if the interval includes 1."""
    if ratio.low is None or ratio.high is None:
        return f"no statement: too few rounds for an interval of {CONFIDENCE:.0%}"
    if ratio.low > 1:
        return "reproduction slower"
    if ratio.high < 1:
        return "reproduction faster"
    return "no statement: the interval includes 1"


def judge(ratio: Interval) -> str:
    """Decide whether the reproduction is slower than the reference by more than the margin."""
    if ratio.low is None or ratio.high is None:
        return "undecided"
    if ratio.high <= SLOWDOWN_MARGIN:
        return "within tolerance"
    return "not reproduced" if ratio.low > SLOWDOWN_MARGIN else "undecided"


def interleave(timings: dict[str, Callable[[], float]], rounds: int) -> Iterator[dict[str, Any]]:
    """Time both arms in turns; within a round each arm goes first once and last once.

    Args:
        timings: For each arm, what runs it and returns the seconds of one call.
        rounds: How many rounds.

    Yields:
        Seconds of each arm (mean of its two turns), their ratio, and the ratio of the
        reference's second turn to its first: what the machine does to equal work.
    """
    for number in range(rounds):
        turns: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for arm in ROUND:
            turns[arm].append(timings[arm]())
        seconds = {arm: mean(turns[arm]) for arm in ARMS}
        yield {
            "round": number + 1,
            **{f"{arm}_s": seconds[arm] for arm in ARMS},
            "ratio": seconds["reproduction"] / seconds["reference"],
            "reference_ratio": turns["reference"][1] / turns["reference"][0],
        }


def timer(
    work: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """Warm `work` up and return what times it: the mean over enough calls to be measurable.

    Args:
        work: Runs one arm once.
        device: Where; an accelerator is waited for.
        clock: Seconds, for tests.
    """

    def timed(calls: int) -> float:
        _wait_for(device)
        start = clock()
        for _ in range(calls):
            work()
        _wait_for(device)
        return (clock() - start) / calls

    for _ in range(WARM_UPS):
        single = timed(1)
    calls = max(1, math.ceil(SHORTEST_TIMING_S / max(single, 1e-6)))
    return lambda: timed(calls)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def inference(model: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    """Return one forward pass in eval mode, without gradients."""

    def work() -> None:
        model.eval()
        with torch.inference_mode():
            model(images)

    return work


def training(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Return one training step at learning rate 0: all of its arithmetic, weights unchanged."""
    optimizer = make_optimizer(model, TrainConfig(learning_rate=0.0))
    batch = Batch(images, labels, "")

    def work() -> None:
        model.train()
        train_step(model, batch, optimizer, classification_loss)

    return work


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing that is timed."""

    name: str
    batch_size: int
    make: Callable[[nn.Module, torch.Tensor, torch.Tensor], Callable[[], Any]]


def tasks(batch_size: int) -> tuple[Task, ...]:
    """List what is timed: latency, throughput and a training step."""
    return (
        Task(name="latency", batch_size=1, make=lambda m, x, _: inference(m, x)),
        Task(name="throughput", batch_size=batch_size, make=lambda m, x, _: inference(m, x)),
        Task(name="training step", batch_size=batch_size, make=training),
    )


def check_input(image_size: int, batch_size: int) -> None:
    """Refuse inputs that one of the arms cannot run.

    Raises:
        UserError: The reference cannot fuse streams of this image size (D3), or a training
            step would have to normalize over a single value (D11).
    """
    if image_size < 1 or image_size % 32 not in (0, 29, 30, 31):
        raise UserError(
            f"image_size {image_size} runs in the reproduction only: the reference needs a "
            "remainder of 0, 29, 30 or 31 modulo 32; use a multiple of 32"
        )
    if batch_size * math.ceil(image_size / 32) ** 2 < 2:
        raise UserError(
            f"batch_size {batch_size} at image_size {image_size} leaves one value a channel to "
            "normalize over: use a batch_size of at least 2"
        )


def time_task(
    task: Task, models: dict[str, nn.Module], image_size: int, rounds: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Time one task in both arms; return its row and its rounds."""
    device = next(models["reference"].parameters()).device
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(task.batch_size, 3, image_size, image_size, generator=generator)
    labels = torch.randint(CLASSES, (task.batch_size,), generator=generator)
    work = {arm: task.make(models[arm], images.to(device), labels.to(device)) for arm in ARMS}
    timings = {arm: timer(work[arm], device) for arm in ARMS}
    load_before = os.getloadavg()[0]
    taken = list(interleave(timings, rounds))
    ratio = median_interval([entry["ratio"] for entry in taken])
    seconds = {arm: median(entry[f"{arm}_s"] for entry in taken) for arm in ARMS}
    row = {
        "task": task.name,
        "image_size": image_size,
        "batch_size": task.batch_size,
        "paper": "not published",
        **{f"{arm}_ms": 1e3 * seconds[arm] for arm in ARMS},
        **{f"{arm}_images_per_s": task.batch_size / seconds[arm] for arm in ARMS},
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "reference_ratio": median(entry["reference_ratio"] for entry in taken),
        "rounds": rounds,
        "tolerance": f"ratio <= {SLOWDOWN_MARGIN}",
        "statement": direction(ratio),
        "verdict": judge(ratio),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }
    return row, [{"task": task.name, **entry} for entry in taken]


def summarize(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Give the worst verdict of all tasks, and what may be said about each."""
    outcomes = [row["verdict"] for row in rows]
    worst = next(o for o in ("not reproduced", "undecided", "within tolerance") if o in outcomes)
    stated = "; ".join(f"{row['task']}: {row['statement']}" for row in rows)
    load = max(max(row["load_before"], row["load_after"]) for row in rows)
    return {"outcome": worst, "reason": f"{stated} (load {load:.1f} on {os.cpu_count()} cores)"}


def _measurements(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        measurement(
            f"ratio.{row['task']}",
            row["ratio"],
            "reproduction / reference",
            n=row["rounds"],
            ci_low=row["ratio_low"],
            ci_high=row["ratio_high"],
        )
        for row in rows
    ]


def run(settings: Any) -> dict[str, Any]:
    """Time both arms with the same weights and inputs.

    Args:
        settings: Checked parameters of notebook 04 (`comparison.parameters.check`).

    Returns:
        The record: tables ``speed`` (a row a task) and ``rounds`` (every round).

    Raises:
        UserError: One of the arms cannot run the input.
    """
    started = time.perf_counter()
    check_input(settings.image_size, settings.batch_size)
    device = resolve_device(settings.device)
    models = {
        arm: arms.build_from_seed(arm, settings.network, CLASSES, settings.seed).to(device)
        for arm in ARMS
    }
    clock.enter("work")
    rows, rounds = [], []
    for task in tasks(settings.batch_size):
        row, taken = time_task(task, models, settings.image_size, settings.rounds, settings.seed)
        rows.append(row)
        rounds.extend(taken)
    return new_record(
        case="speed",
        run_id=settings.network,
        claim_ids=["C10"],
        subject={"network": settings.network, "device": device.type},
        inputs={"reference": reference.identity()},
        measurements=_measurements(rows),
        tables={"speed": rows, "rounds": rounds},
        expectations=[
            {
                "name": "ratio of times, reproduction / reference",
                "value": 1.0,
                "source": "the same network: no published figure",
                "tolerance": f"at most {SLOWDOWN_MARGIN}",
                "reason": "equal arithmetic; smaller slowdowns do not matter to a user",
            }
        ],
        verdict=summarize(rows),
        wall_s=time.perf_counter() - started,
        parameters={**settings.decisive(), "threads": torch.get_num_threads()},
        command=settings.command(),
    )
