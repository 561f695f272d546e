"""What a network has to compute and to move, and how fast it does: the points of the roofline."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from comparison.dense_cost import build_on_meta

PASSES = {"inference": 1, "training": 3}  # a training step counts as three forward passes
BYTES = 4
# Part of the name of an operator -> the group under which its time is listed; the first that fits.
GROUPS = {
    "conv": "convolution",
    "addcmul": "batch norm",  # of wide rows (`reproduction.wide_norm`); no other layer has it
    "batch_norm": "batch norm",
    "batchnorm": "batch norm",
    "upsample": "upsampling",
    "sgd": "optimizer",
    "optimizer": "optimizer",
    "_foreach": "optimizer",
    "relu": "ReLU",
    "threshold": "ReLU",
    "clamp": "ReLU",
    "mm": "matrix product",
    "linear": "matrix product",
    "add": "addition",
    "copy": "layout and copies",
    "contiguous": "layout and copies",
    "clone": "layout and copies",
    "aten::to": "layout and copies",
    "permute": "layout and copies",
    "cat": "layout and copies",
}
OTHER = "other"


def group_of(operator: str) -> str:
    """Name the group of an operator of PyTorch.

    >>> group_of("aten::mkldnn_convolution"), group_of("aten::add_"), group_of("aten::mean")
    ('convolution', 'addition', 'other')
    """
    name = operator.lower()
    return next((group for part, group in GROUPS.items() if part in name), OTHER)


def _profiled(work: Callable[[], Any], calls: int, shapes: bool) -> list[FunctionEventAvg]:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports its own starts as errors
    work()  # what is done once only is not counted
    with profile(activities=[ProfilerActivity.CPU], record_shapes=shapes, with_flops=shapes) as p:
        for _ in range(calls):
            work()
    return list(p.key_averages(group_by_input_shape=shapes))


def operators(arm: str, work: Callable[[], Any], calls: int = 3) -> list[dict[str, Any]]:
    """Measure where the time of an arm goes, by groups of operators.

    Args:
        arm: Which arm.
        work: Runs it once, in PyTorch on the CPU.
        calls: How many calls are profiled, each by itself; the one of median length is shown, so
            that what disturbs one call does not count.

    Returns:
        Rows with milliseconds of that call and the share, largest first.
    """
    profiles = [_profiled(work, 1, shapes=False) for _ in range(calls)]
    profiles.sort(key=lambda events: sum(event.self_cpu_time_total for event in events))
    spent: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in profiles[calls // 2]:
        group = group_of(event.key or "")
        spent[group] += event.self_cpu_time_total  # microseconds
        counts[group] += event.count
    total = sum(spent.values())
    return [
        {
            "arm": arm,
            "operator": group,
            "ms": value / 1e3,
            "share": value / total,
            "calls": counts[group],
        }
        for group, value in spent.most_common()
    ]


def convolutions(network: str, image_size: tuple[int, int], batch_size: int) -> dict[str, float]:
    """Count what all convolutions of a network compute and move in one forward pass.

    Returns:
        `flops`, two a multiply-accumulate, and `bytes` in float32, every input, weight and output
        moved once: what no network can do without.
    """
    model = build_on_meta(network)
    assert model is not None
    total = {"flops": 0.0, "bytes": 0.0}

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.get_parameter("weight")
        total["flops"] += 2 * output.numel() * weight[0].numel()
        total["bytes"] += BYTES * (inputs[0].numel() + weight.numel() + output.numel())

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*upsample.* is deprecated")
            model.eval()(torch.empty(batch_size, 3, *image_size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return total


def network_points(
    setup: Any, seconds: dict[str, float], precisions: dict[str, str]
) -> list[dict[str, Any]]:
    """Lay out how fast whole networks compute; a training step counts as three forward passes.

    Args:
        setup: The `comparison.speed.contenders.Setup` that was timed.
        seconds: Of one call, for each arm that ran.
        precisions: Of each arm.
    """
    counted = convolutions(setup.network, setup.image_size, setup.batch_size)
    operations = PASSES[setup.task] * counted["flops"]
    return [
        {
            "kind": "network",
            "arm": arm,
            "name": setup.network,
            "precision": precisions[arm],
            "gflops": operations / taken / 1e9,
            "intensity": counted["flops"] / counted["bytes"],
            "ms": 1e3 * taken,
        }
        for arm, taken in seconds.items()
    ]


def layer_points(arm: str, work: Callable[[], Any], calls: int = 2) -> list[dict[str, Any]]:
    """Measure how fast the convolutions of an arm compute, those of equal shape as one.

    Args:
        arm: Which arm, in float32.
        work: Runs one forward pass in PyTorch on the CPU.
        calls: How often it is run.
    """
    return [
        {
            "kind": "layer",
            "arm": arm,
            "name": name,
            "precision": "float32",
            "gflops": event.flops / event.cpu_time_total / 1e3,
            "intensity": event.flops / event.count / moved,
            "ms": event.cpu_time_total / calls / 1e3,
        }
        for event, name, moved in _convolution_events(_profiled(work, calls, shapes=True))
    ]


def _convolution_events(
    events: list[FunctionEventAvg],
) -> Iterator[tuple[FunctionEventAvg, str, float]]:
    """Yield each group of equal convolutions with its name and the bytes one of them moves."""
    for event in events:
        if event.key != "aten::conv2d" or not (event.flops and event.input_shapes):
            continue
        images, weight = (list(map(int, shape)) for shape in event.input_shapes[:2])
        outputs = event.flops / event.count / (2 * weight[1] * weight[2] * weight[3])
        moved = BYTES * (_product(images) + _product(weight) + outputs)
        yield event, f"{'x'.join(map(str, images))} to {weight[0]}, {weight[2]}x{weight[3]}", moved


def _product(shape: list[int]) -> int:
    return int(torch.Size(shape).numel())
