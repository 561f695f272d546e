"""What the networks are and what they cost, both arms, beside the published figures.

The official README, timm and mmpretrain print different costs of the same networks because they
count different things. Each is met here by its own formula (`comparison.counting`).
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import reference
from comparison import arms, clock, family, published
from comparison.counting import IMAGE_SIZE, OPERATORS, PARTS, Cost, measure
from comparison.published import Figure
from comparison.record import measurement, new_record
from comparison.study import ARMS
from reproduction import CLASSIFICATION, network_config

POOLING_REASON = (
    "the arms write global average pooling in different forms, of which fvcore counts one: "
    "{gap:+d} operations"
)


@dataclass(frozen=True, kw_only=True)
class Formula:
    """How a figure that somebody prints follows from the counters.

    Attributes:
        by: Who prints it; a table of `published.toml`.
        quantity: What it is called there.
        unit: Its unit.
        words: The formula for a reader.
        value: The formula.
    """

    by: str
    quantity: str
    unit: str
    words: str
    value: Callable[[Cost], float]


ELSEWHERE = (
    Formula(
        by="timm",
        quantity="parameters_m",
        unit="10^6",
        words="all parameters",
        value=lambda cost: cost.parameters_m,
    ),
    Formula(
        by="timm",
        quantity="timm_gmacs",
        unit="10^9",
        words="all that fvcore counts: gmacs + 2 per normalized + 1 per upsampled element",
        value=lambda cost: cost.fvcore_gflops,
    ),
    Formula(
        by="mmpretrain",
        quantity="parameters",
        unit="1",
        words="all parameters without the biases of the head's convolutions",
        value=lambda cost: cost.total_parameters - cost.conv_biases,
    ),
    Formula(
        by="mmpretrain",
        quantity="flops",
        unit="1",
        words="convolution MACs + 2 per normalized + 1 per upsampled, rectified and pooled "
        "element, without the classifier",
        value=lambda cost: cost.mmpretrain_flops,
    ),
)


def _meets(figure: Figure, values: dict[str, float]) -> bool:
    return all(figure.is_met_by(value) for value in values.values())


def verdict(figure: Figure | None, values: dict[str, float], explained: bool = False) -> str:
    """Judge one quantity: both arms against the printed digits, and against each other."""
    if figure and not _meets(figure, values):
        return "not reproduced"
    if values["reference"] == values["reproduction"]:
        return "reproduced"
    return "explained difference" if explained else "not reproduced"


def _row(
    quantity: str,
    unit: str,
    figure: Figure | None,
    values: dict[str, float],
    outcome: str,
    published_as: str = "paper",
) -> dict[str, Any]:
    return {
        "quantity": quantity,
        "unit": unit,
        published_as: figure.printed if figure else "not published",
        **values,
        "delta": values["reproduction"] - values["reference"],
        "tolerance": f"printed ±{figure.half_unit}" if figure else "arms equal",
        "verdict": outcome,
        "source": figure.title if figure else "",
    }


def _not_run(quantity: str, figure: Figure) -> dict[str, Any]:
    """Lay out an accuracy: it needs ImageNet and published weights, so it is not claimed here."""
    nothing = dict.fromkeys((*ARMS, "delta", "tolerance", "verdict"), "not run")
    row = {"quantity": quantity, "unit": "%", "paper": figure.printed, **nothing}
    return {**row, "source": figure.title}


def pooling_gap(costs: dict[str, Cost]) -> int | None:
    """Return by how much fvcore's totals differ, if pooling's form is the whole of it."""

    def gap(count: Callable[[Cost], int]) -> int:
        return count(costs["reproduction"]) - count(costs["reference"])

    total = gap(lambda cost: cost.fvcore_total)
    return total if total == gap(lambda cost: cost.counted_pooling) else None


def cost_table(network: str, costs: dict[str, Cost]) -> list[dict[str, Any]]:
    """Lay the counts of both arms beside what the official README prints."""
    readme = published.figures(network, "readme")
    units = {
        "parameters_m": "10^6",
        "published_gflops": "2^30 MACs",
        "gmacs": "10^9 MACs",
        "fvcore_gflops": "10^9 operations",
    }
    rows = []
    for quantity, unit in units.items():
        figure = readme.get("gflops" if quantity == "published_gflops" else quantity)
        values = {arm: getattr(cost, quantity) for arm, cost in costs.items()}
        explained = quantity == "fvcore_gflops" and pooling_gap(costs) is not None
        rows.append(_row(quantity, unit, figure, values, verdict(figure, values, explained)))
    errors = [name for name in ("top1_error", "top5_error") if name in readme]
    return [*rows, *(_not_run(name, readme[name]) for name in errors)]


def elsewhere_table(network: str, costs: dict[str, Cost]) -> list[dict[str, Any]]:
    """Explain what other libraries print about the same network, each by its own formula."""
    rows = []
    for formula in ELSEWHERE:
        figure = published.figures(network, formula.by).get(formula.quantity)
        if figure:
            values = {arm: formula.value(cost) for arm, cost in costs.items()}
            outcome = "reproduced" if _meets(figure, values) else "not reproduced"
            row = _row(formula.quantity, formula.unit, figure, values, outcome, "printed")
            rows.append({"by": formula.by, **row, "formula": formula.words})
    return rows


def parts_table(costs: dict[str, Cost]) -> list[dict[str, Any]]:
    """List parameters and multiply-accumulates part by part, both arms."""
    ours = costs["reproduction"]
    return [
        {
            "part": part,
            **{f"{arm}_parameters": cost.parameters[part] for arm, cost in costs.items()},
            **{f"{arm}_gmacs": cost.macs[part] / 1e9 for arm, cost in costs.items()},
            "share_of_parameters": ours.parameters[part] / ours.total_parameters,
            "share_of_gmacs": ours.macs[part] / ours.total_macs,
        }
        for part in dict.fromkeys(PARTS.values())
    ]


def parts_agree(costs: dict[str, Cost]) -> bool:
    """Whether the arms hold and compute the same in every part, not only in sum."""
    a, b = costs["reference"], costs["reproduction"]
    return a.parameters == b.parameters and a.macs == b.macs


def operators_table(costs: dict[str, Cost]) -> list[dict[str, Any]]:
    """List what was counted, operator by operator, both arms."""
    return [
        {"operator": name, **{arm: cost.count(name) for arm, cost in costs.items()}}
        for name in OPERATORS
    ]


def judge(rows: list[dict[str, Any]], costs: dict[str, Cost]) -> dict[str, str]:
    """Sum up: every printed digit met, and the arms equal part by part.

    A difference that one row explains is told in the reason; it contradicts no printed digit.
    """
    failed = [row["quantity"] for row in rows if row["verdict"] == "not reproduced"]
    if not parts_agree(costs):
        failed.append("parts")
    if failed:
        reason = f"arms differ or a printed digit is missed: {', '.join(failed)}"
        return {"outcome": "not reproduced", "reason": reason}
    reason = "both arms are equal in every part and round to every printed digit"
    if gap := pooling_gap(costs):
        reason += f"; in fvcore_gflops {POOLING_REASON.format(gap=gap)}"
    return {"outcome": "reproduced", "reason": reason}


def expectations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn the published digits into the record's expectations."""
    reason = "a printed number stands for every value that rounds to it"
    return [
        {
            "name": row["quantity"],
            "value": row.get("paper") or row["printed"],
            "source": row["source"],
            "tolerance": row["tolerance"],
            "reason": reason,
        }
        for row in rows
        if row["source"] and row["verdict"] != "not run"
    ]


def run(settings: Any) -> dict[str, Any]:
    """Count one network in both arms and lay it beside the published figures.

    Args:
        settings: Checked parameters of notebook 01 (`comparison.parameters.check`).

    Returns:
        The record: tables ``cost``, ``elsewhere``, ``parts`` and ``operators``; for dense tasks
        what `comparison.family.run` returns.
    """
    if settings.network not in CLASSIFICATION:
        return family.run(settings)
    started = time.perf_counter()
    network = settings.network
    costs = {}
    for arm in ARMS:
        clock.enter("preparation")
        model = arms.build(arm, network)
        clock.enter("work")
        costs[arm] = measure(model, arms.name_of(model))
    cost, elsewhere = cost_table(network, costs), elsewhere_table(network, costs)
    return new_record(
        case="networks",
        run_id=network,
        claim_ids=["C1", "C2"],
        subject={"network": network, "architecture": asdict(network_config(network))},
        inputs={"reference": reference.identity()},
        measurements=[
            measurement(f"{name}.{arm}", getattr(costs[arm], name), "count")
            for name in ("total_parameters", "total_macs", "fvcore_total", "conv_biases")
            for arm in ARMS
        ],
        tables={
            "cost": cost,
            "elsewhere": elsewhere,
            "parts": parts_table(costs),
            "operators": operators_table(costs),
        },
        expectations=expectations([*cost, *elsewhere]),
        verdict=judge([*cost, *elsewhere], costs),
        wall_s=time.perf_counter() - started,
        parameters={"network": network, "image_size": IMAGE_SIZE, "batch_size": 1},
        command=settings.command(),
    )
