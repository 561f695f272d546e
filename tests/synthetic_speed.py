"""Small valid records of timings, laid out by the code that lays out real ones."""

from collections.abc import Mapping
from typing import Any

from comparison.speed import case
from comparison.speed.contenders import Made, Setup
from comparison.speed.measure import Timed, speed_rows
from comparison.timing_plan import SpeedRun, speed_run_id
from tests.synthetic_base import Record, record

TRAINING = Setup(
    network="cls_hrnet_w18_small_v1",
    task="training",
    image_size=(32, 32),
    batch_size=128,
    threads=2,
)
LATENCY = Setup(
    network="cls_hrnet_w18", task="inference", image_size=(224, 224), batch_size=1, threads=2
)


def timed(
    setup: Setup,
    ratios: Mapping[str, float],
    *,
    rounds: int = 8,
    spread: float = 0.02,
    absent: Mapping[str, str] | None = None,
) -> Timed:
    """Make a timing in which each arm is some times as fast as the reference, give or take."""
    made = {
        arm: Made(work=lambda: None, precision=setup.precision, how=arm, eager=arm != "deploy")
        for arm in ("reference", *ratios)
    }
    missing = dict(absent or {})
    found = Timed(setup, made=made, absent=missing, load=(0.1, 0.2))
    found.making_s = dict.fromkeys((*made, *missing), 0.5)
    for number in range(rounds):
        shift = spread * (2 * number / max(rounds - 1, 1) - 1)  # from -spread to spread
        seconds = {f"{arm}_s": 0.2 / (ratio + shift) for arm, ratio in ratios.items()}
        found.rounds.append(
            {"round": number + 1, "reference_s": 0.2, "reference_ratio": 1.002, **seconds}
        )
    return found


def timing(setup: Setup, ratios: Mapping[str, float], **changed: Any) -> Record:
    """Make the record of a timing."""
    errors = changed.pop("errors", [])
    found = timed(setup, ratios, **changed)
    rows = speed_rows(found)
    limit = {"limit": "convolution", "precision": "float32", "shape": "", "layout": "NHWC"}
    stream = {**limit, "limit": "memory", "gflops": None, "intensity": None, "gbytes_per_s": 20.0}
    peaks = {"start_mib": 300.0, "making_mib": 500.0, "peak_mib": 650.0, "device_mib": None}
    run = SpeedRun(
        network=setup.network,
        task=setup.task,
        image_size=setup.image_size[0],
        batch_size=setup.batch_size,
        precision=setup.precision,
    )
    layer = {"kind": "layer", "arm": "reproduction", "name": "layer", "precision": "float32"}
    return record(
        "speed",
        speed_run_id(run),
        claim_ids=case.claims_of(rows),
        subject={
            **{"network": setup.network, "task": setup.task, "batch_size": setup.batch_size},
            **{"image_size": list(setup.image_size), "precision": setup.precision},
            **{"threads": setup.threads, "device": "cpu", "load_before": 0.1, "load_after": 0.2},
            **{"convolution_gmacs": 4.3, "published_top1_error": "23.2", "published_by": "README"},
            "machine": {"features": ["avx512f"], "cores": 2, "threads": 2},
        },
        tables={
            "speed": rows,
            "rounds": found.rounds,
            "memory": [{"arm": row["arm"], "status": "ran", **peaks} for row in rows],
            "operators": [
                {"arm": "reference", "operator": name, "ms": 10.0, "share": share, "calls": 3}
                for name, share in (("convolution", 0.8), ("batch norm", 0.2))
            ],
            "limits": [
                {**limit, "gflops": 200.0, "intensity": 400.0, "gbytes_per_s": None},
                stream,
            ],
            "roofline": [
                {
                    **{"kind": "network", "arm": row["arm"], "name": setup.network},
                    **{"precision": "float32", "gflops": 60.0, "intensity": 30.0, "ms": row["ms"]},
                }
                for row in rows
                if row["status"] == "ran"
            ]
            + [{**layer, "gflops": 40.0, "intensity": 20.0, "ms": 3.0}],
            "errors": errors,
            "gradients": [],
        },
        verdict=case.judge(rows, found.load),
    )


def error(task: str, verdict: str = "within tolerance") -> dict[str, Any]:
    """Make the row of an error."""
    quantity = "gradient, relative L2" if task == "training" else "output, largest error"
    return {
        **{"form": task, "precision": "float32", "quantity": quantity, "n": 6, "reference": 1e-6},
        **{"value": 2e-6, "verdict": verdict, "reason": "2 times the reference's own"},
    }


def timings(fast: float = 1.8, deploy: float = 2.6, **changed: Any) -> list[Record]:
    """Make one timing of training and one of inference; both aims are met unless changed."""
    return [
        timing(setup, {"reproduction": 1.0, **ratio}, **{"errors": [error(setup.task)], **changed})
        for setup, ratio in ((TRAINING, {"fast": fast}), (LATENCY, {"deploy": deploy}))
    ]
