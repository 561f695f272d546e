"""What the networks for dense tasks are and what they cost, both arms, beside published figures.

Names, shapes and counts are those of networks built without memory for their weights; then, where
the official code is there, both are run on one batch. One record holds the whole family (``dense``)
or one network of it.
"""

import time
from collections import Counter
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from torch import nn

import reference
from comparison import arms, clock, dense_cost, same_bits
from comparison.record import measurement, new_record
from comparison.study import ARMS, DENSE
from reference.errors import ReferenceAbsent
from reference.pins import load_pins
from reproduction import CLASSIFICATION, NETWORKS, NetworkConfig

KEY_DIGITS = 16
CLAIM_IDS = ["C14"]


def members(network: str) -> list[str]:
    """List the networks that a name stands for: itself, or all for dense tasks."""
    return [n for n in NETWORKS if n not in CLASSIFICATION] if network == DENSE else [network]


def key_hash(model: nn.Module) -> str:
    """Hash the names and shapes of a state dict, under official names and in order."""
    state = arms.official_state(model)
    lines = (f"{name} {list(tensor.shape)}" for name, tensor in state.items())
    return sha256("\n".join(lines).encode()).hexdigest()[:KEY_DIGITS]


def network_row(name: str) -> dict[str, Any]:
    """Lay one network out: how it is configured, and what either arm has and computes."""
    config = NETWORKS[name]
    row: dict[str, Any] = {"network": name, **_configured(config)}
    for arm in ARMS:
        model = dense_cost.build_on_meta(name, arm)
        row[f"keys_{arm}"] = None if model is None else key_hash(model)
        row[f"entries_{arm}"] = None if model is None else len(model.state_dict())
        row[f"parameters_{arm}"] = dense_cost.parameters_of(name, arm)
        row[f"macs_{arm}"] = dense_cost.macs_of(name, config.image_size, arm)
    row |= {"keys_pinned": load_pins().network(name).keys, **same_bits.row(name)}
    return {**row, "verdict": network_verdict(row)}


def _configured(config: NetworkConfig) -> dict[str, Any]:
    corners = ", corners aligned" if config.upsampling.align_corners else ""
    return {
        "task": config.task,
        "width": config.width,
        "outputs": config.outputs,
        "image_size": " x ".join(map(str, config.image_size)),
        "upsampling": config.upsampling.mode + corners,
    }


def network_verdict(row: dict[str, Any]) -> str:
    """Judge a network: the pinned names and shapes, and what a reference that is there has."""
    same = row["keys_reproduction"] == row["keys_pinned"] and all(
        row[f"{quantity}_reference"] in (None, row[f"{quantity}_reproduction"])
        for quantity in ("keys", "entries", "parameters", "macs")
    )
    same = same and row["live_verdict"] != "not reproduced"
    return "reproduced" if same else "not reproduced"


def judge(networks: list[dict[str, Any]], cost: list[dict[str, Any]]) -> dict[str, str]:
    """Sum up networks and printed figures; those that are missed are named."""
    wrong = [row["network"] for row in networks if row["verdict"] != "reproduced"]
    if wrong:
        reason = f"the arms or the pinned names differ: {', '.join(wrong)}"
        return {"outcome": "not reproduced", "reason": reason}
    beside = sum(row["parameters_reference"] is not None for row in networks)
    ran = sum(row["live_verdict"] == "reproduced" for row in networks)
    reason = (
        f"{len(networks)} networks have the pinned names and shapes, {beside} of them were counted "
        f"in the reference too, equal, and {ran} give the same bits as it"
    )
    if not cost:
        return {"outcome": "reproduced", "reason": f"{reason}; no figures are printed"}
    return {"outcome": cost_outcome(cost), "reason": f"{reason}; {cost_summary(cost)}"}


def cost_outcome(cost: list[dict[str, Any]]) -> str:
    """Return the worst verdict on the printed figures."""
    found = {row["verdict"] for row in cost}
    order = ("not reproduced", "explained difference", "within tolerance", "reproduced")
    return next(outcome for outcome in order if outcome in found)


def cost_summary(cost: list[dict[str, Any]]) -> str:
    """Say how many printed figures come about how, and which not at all."""
    counts = Counter(row["verdict"] for row in cost)
    told = (
        f"of {len(cost)} printed figures {counts['reproduced']} are met by rounding, "
        f"{counts['explained difference']} by cut digits or another unit, "
        f"{counts['within tolerance']} within 0.2 %, {counts['not reproduced']} not"
    )
    missed = [f"{row['network']} {row['paper']}" for row in cost if row["manner"] == _MISSED]
    return f"{told}: {', '.join(missed)}" if missed else told


_MISSED = "not reproduced"


def _identities(names: list[str]) -> dict[str, Any]:
    """Say which official code was counted, by the networks' tasks."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            identity = reference.identity(network=name)
        except ReferenceAbsent:
            continue
        found.setdefault(identity["implementation"], identity)
    return found


def run(settings: Any) -> dict[str, Any]:
    """Count networks for dense tasks in both arms and lay them beside the published figures.

    Args:
        settings: Checked parameters of notebook 01; ``network`` is one of them, or ``dense``.

    Returns:
        The record: tables ``dense_networks`` and ``dense_cost``.
    """
    started = time.perf_counter()
    clock.enter("work")  # a network is counted as soon as it is built
    names = members(settings.network)
    networks = [network_row(name) for name in names]
    extra = dense_cost.UNCONFIGURED if settings.network == DENSE else {}
    cost = dense_cost.table({*names, *extra})
    identities = _identities(names)
    counted: dict[str, Any] = next(iter(identities.values()), {})
    return new_record(
        case="networks",
        run_id=settings.network,
        claim_ids=CLAIM_IDS,
        subject={
            "network": settings.network,
            "architectures": {name: asdict(NETWORKS[name]) for name in names},
        },
        inputs={"reference": counted, "references": identities},
        measurements=[
            measurement(f"parameters.{row['network']}", row["parameters_reproduction"], "count")
            for row in networks
        ],
        tables={"dense_networks": networks, "dense_cost": cost},
        expectations=[
            {
                "name": f"{row['network']} {row['quantity']}",
                "value": row["paper"],
                "source": row["source"],
                "tolerance": "printed digits, cut or rounded, or 0.2 %",
                "reason": row["convention"],
            }
            for row in cost
        ],
        verdict=judge(networks, cost),
        wall_s=time.perf_counter() - started,
        parameters=settings.decisive(),
        command=settings.command(),
    )
