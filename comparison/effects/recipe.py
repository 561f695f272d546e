"""Differences of recipe, counting and publication: schedule, batch, widths, units, tables."""

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from comparison import arms, published
from comparison.counting import count_parameters, measure
from comparison.effects.subjects import CLASSES, Effect
from reproduction import ClassificationNetwork, TrainConfig, network_config
from reproduction.train import learning_rate

SMALL = "cls_hrnet_w18_small_v1"
SMALL_WIDTH, NOMINAL_WIDTH = 16, 18


def schedule_of_current_torch(config: TrainConfig) -> list[float]:
    """Follow PyTorch's own scheduler when it is stepped at the start of every epoch."""
    milestones = [round(share * config.epochs) for share in config.milestones]
    return rates_stepped_first(config.learning_rate, milestones, config.gamma, config.epochs)


def rates_stepped_first(
    rate: float, milestones: Sequence[int], gamma: float, epochs: int
) -> list[float]:
    """Return the rate of every epoch if the scheduler is stepped at its start."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma)
    rates = []
    with warnings.catch_warnings():
        # PyTorch warns that the order is wrong; the order is what is measured.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(epochs):
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    return rates


def drops(rates: Sequence[float]) -> list[int]:
    """List the epochs, counted from 0, that are the first at a lower rate."""
    return [epoch for epoch in range(1, len(rates)) if rates[epoch] < rates[epoch - 1] * 0.99]


def schedule_table(config: TrainConfig) -> list[dict[str, Any]]:
    """List the epochs, counted from 0, that are the first at a lower learning rate."""
    reference = drops(schedule_of_current_torch(config))
    ours = drops([learning_rate(config, e, config.epochs) for e in range(config.epochs)])
    paper = [round(share * config.epochs) for share in config.milestones]
    return [
        {"drop": n + 1, "paper": p, "reference": r, "reproduction": o}
        for n, (p, r, o) in enumerate(zip(paper, reference, ours, strict=True))
    ]


def schedule(rows: list[dict[str, Any]]) -> Effect:
    """D4: when the learning rate drops."""
    early = [row["paper"] - row["reference"] for row in rows]
    return Effect(
        what="epochs by which each drop comes early when the script runs on this PyTorch",
        value=statistics.mean(early),
        unit="epochs",
        holds=set(early) == {1} and all(row["reproduction"] == row["paper"] for row in rows),
    )


def accuracy_view() -> Effect:
    """D5: flattening the first k rows of a transposed matrix of hits by `view`."""
    hits = torch.zeros(8, 5).t()
    failed = []
    for k in (1, 5):
        try:
            hits[:k].view(-1)
        except RuntimeError:
            failed.append(k)
    return Effect(
        what="accuracies (top-1, top-5) that the expression cannot compute on this PyTorch",
        value=len(failed),
        unit="of 2",
        holds=failed == [5],
    )


def width_of_small() -> Effect:
    """D7: parameters of W18-Small-v1 if its width were what its name says."""
    printed = published.figures(SMALL, "readme")["parameters_m"]
    millions = {}
    for width in (SMALL_WIDTH, NOMINAL_WIDTH):
        with torch.device("meta"):
            config = replace(network_config(SMALL), width=width)
            model = ClassificationNetwork(config, CLASSES, 3)
        counts = count_parameters(model, arms.name_of(model))
        millions[width] = sum(counts.values()) / 1e6
    return Effect(
        what=f"parameters at width {NOMINAL_WIDTH} (published: {printed.printed})",
        value=millions[NOMINAL_WIDTH],
        unit="10^6",
        holds=printed.is_met_by(millions[SMALL_WIDTH])
        and not printed.is_met_by(millions[NOMINAL_WIDTH]),
    )


def batch_and_rate(config: TrainConfig) -> Effect:
    """D8: learning rate per image of a batch, official files against the paper's appendix."""
    paper = {item.name: item.metadata["paper"] for item in fields(TrainConfig)}
    ours = config.learning_rate / config.batch_size
    ratio = ours / (float(paper["learning_rate"]) / float(paper["batch_size"]))
    return Effect(
        what="learning rate per image of a batch, official files / paper",
        value=ratio,
        unit="1",
        holds=math.isclose(ratio, 1.0),
    )


def cost_convention(network: str) -> Effect:
    """D9: what is printed as GFLOPs."""
    model = arms.build("reproduction", network)
    cost = measure(model, arms.name_of(model))
    printed = published.figures(network, "readme")["gflops"]
    others = (cost.gmacs, cost.fvcore_gflops, 2 * cost.gmacs)
    return Effect(
        what="how much larger the count is in units of 10^9 than as printed",
        value=100 * (cost.gmacs / cost.published_gflops - 1),
        unit="%",
        holds=printed.is_met_by(cost.published_gflops)
        and not any(printed.is_met_by(other) for other in others),
    )


def published_twice() -> Effect:
    """D16: the same networks, two published tables."""
    gaps = [
        abs(float(figure.printed) - float(published.figures(name, "readme")[quantity].printed))
        for name in published.networks("paper")
        for quantity, figure in published.figures(name, "paper").items()
    ]
    differing = sum(gap > 0 for gap in gaps)
    return Effect(
        what=f"largest gap between paper and README; {differing} of {len(gaps)} errors differ",
        value=round(max(gaps), 6),
        unit="percentage points",
        holds=differing > 0,
    )
