"""Small valid records, made through `comparison.record`, for tests of what reads records."""

from pathlib import Path
from typing import Any

import numpy as np

from comparison.mutation import case
from comparison.mutation.trial import Trial
from comparison.record import measurement
from comparison.study import ARMS, DENSE, Comparison, Study, load_study
from tests.compared import THRESHOLDS, followed, layers, modes, noise
from tests.synthetic_base import REFERENCE, Record, record
from tests.synthetic_dense import counted, traced
from tests.synthetic_speed import timings
from tests.synthetic_tasks import dense_runs
from tests.synthetic_trial import trial_rows

STUDY = """
description: what the synthetic records belong to
networks: [cls_hrnet_w18_small_v1, cls_hrnet_w18, dense]
equivalence:
  networks: [cls_hrnet_w18_small_v1]
  weights: [random]
  steps: 3
  timm: [cls_hrnet_w18_small_v1]
  traces: [dense]
training:
  network: cls_hrnet_w18_small_v1
  data: digits
  seeds: [0, 1, 2]
  epochs: 2
  batch_size: 128
  margin_pp: 1.0
tasks:
  names: [pose, segmentation]
  seeds: [0, 1, 2]
  epochs: 2
  scenes: 32
  margin_points: 5.0
  ablation: [pose]
speed:
  runs:
    - network: cls_hrnet_w18_small_v1
      task: training
      image_size: 32
      batch_size: 128
      arms: [reference, reproduction, fast]
      rounds: 8
    - network: cls_hrnet_w18
      task: inference
      image_size: 224
      batch_size: 1
      arms: [reference, reproduction, deploy]
      rounds: 8
trial: quick
scaling: true
"""


def study(folder: Path) -> Study:
    """Return a study whose file lies in a folder."""
    (folder / "synthetic.yaml").write_text(STUDY, encoding="utf-8")
    return load_study("synthetic", folder)


def curves(seed: int, top1: float, epochs: int) -> dict[str, list[dict[str, Any]]]:
    """Make the tables of epochs and losses of a training run."""
    history = [
        {
            "epoch": epoch,
            "learning_rate": 0.05,
            "steps": 10,
            "train_loss": 2.0 / epoch,
            "train_top1": top1 - 1,
            "test_loss": 1.0 / epoch,
            "test_top1": top1 - (epochs - epoch),
            "test_top5": 99.0,
            "wall_s": 3.0 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    rng = np.random.default_rng(seed)
    losses = [
        {"step": 5 * (i + 1), "train_loss": 2.3 * 0.8**i + 0.05 * float(rng.random())}
        for i in range(2 * epochs)
    ]
    return {"epochs": history, "losses": losses}


def training(
    arm: str, seed: int, top1: float, *, margin: float = 1.0, epochs: int = 2, **changed: Any
) -> Record:
    """Make a training run that ends with an accuracy."""
    network = "cls_hrnet_w18_small_v1"
    flips = changed.pop("flips", 0)
    exchange = [
        {
            "trained_by": arm,
            "precision": precision,
            "images": 360,
            "flips": flips if precision == "float64" else 1,
            **{f"top1_{name}": top1 for name in ARMS},
        }
        for precision in ("float32", "float64")
    ]
    data = {
        **{"name": "digits", "num_classes": 10, "image_size": 32, "license": "CC BY 4.0"},
        **{"train_count": 1437, "test_count": 360, "sha256": "cd" * 32, "source": "package"},
        **changed.pop("data", {}),
    }
    numbers = {
        "top1": top1,
        "top5": 99.0,
        "test_loss": 0.5,
        "train_loss": 1.0,
        "train_wall_s": 6.0,
        "batches_sha256": changed.pop("batches", f"{seed:064d}"),
        "data_share": 0.004,
    }
    return record(
        "training",
        f"{network}.digits.{arm}.seed{seed}",
        claim_ids=["C8", "C9", "C11"],
        subject={"network": network, "arm": arm, "seed": seed},
        inputs={"data": data, "weights": {"final_sha256": f"{seed}"}},
        measurements=[measurement(name, value, "") for name, value in numbers.items()],
        tables={**curves(seed, top1, epochs), "exchange": exchange, "flips": []},
        expectations=[
            {"name": "top1_difference", "value": 0.0, "source": "study", "tolerance": margin}
        ],
        parameters={
            **{"network": network, "data": "digits", "arm": arm, "seed": seed},
            **{"epochs": epochs, "batch_size": 128, "study_sha256": "ef" * 32},
            "recipe": {
                **{"learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "gamma": 0.1},
                **{"weight_decay": 1e-4, "batch_size": 128, "epochs": epochs},
                "milestones": [0.3, 0.6, 0.9],
            },
            **changed,
        },
    )


ACCURACIES = {"reference": (90.1, 90.5, 90.2), "reproduction": (90.2, 90.4, 90.3)}


def training_runs(shift: float = 0.0, **changed: Any) -> list[Record]:
    """Make three runs an arm; `shift` moves the reproduction."""
    return [
        training(arm, seed, top1 + (shift if arm == "reproduction" else 0.0), **changed)
        for arm, values in ACCURACIES.items()
        for seed, top1 in enumerate(values)
    ]


PUBLISHED = {  # printed parameters, GFLOPs and top-1 error; counted parameters and GFLOPs
    "cls_hrnet_w18_small_v1": ("13.2", "1.49", "27.7", 13.187464, 1.4915),
    "cls_hrnet_w18": ("21.3", "3.99", "23.2", 21.299004, 3.9894),
}


def network(name: str, outcome: str = "reproduced") -> Record:
    """Make the record of a network's size and cost."""
    millions, gflops, error, counted_m, counted_gflops = PUBLISHED[name]
    counted = {
        "parameters_m": (millions, counted_m),
        "published_gflops": (gflops, counted_gflops),
        "gmacs": ("not published", 1.0737 * counted_gflops),
        "fvcore_gflops": ("not published", 1.08 * counted_gflops),
    }
    rows = [
        {
            **{"quantity": quantity, "unit": "1", "paper": printed, "source": "README"},
            **dict.fromkeys(ARMS, value),
            **{"delta": 0.0, "tolerance": "printed digits", "verdict": outcome},
        }
        for quantity, (printed, value) in counted.items()
    ]
    nothing = dict.fromkeys((*ARMS, "delta", "tolerance", "verdict"), "not run")
    errors = {"quantity": "top1_error", "unit": "%", "paper": error, "source": "README"}
    parts = [
        {"part": part, "share_of_parameters": size, "share_of_gmacs": cost}
        for part, size, cost in (("stage4", 0.4, 0.35), ("head", 0.55, 0.2))
    ]
    return record(
        "networks",
        name,
        claim_ids=["C1", "C2"],
        subject={"network": name},
        tables={"cost": [*rows, {**errors, **nothing}], "parts": parts},
        verdict={"outcome": outcome, "reason": "counted"},
    )


def scaling() -> Record:
    """Make a measurement of two jobs, one at a time and two at a time."""
    rows = [
        {
            **{"workers": workers, "jobs": 2, "job_s": job_s, "measured_s": measured_s},
            **{"simulated_s": measured_s, "error": 0.0},
        }
        for workers, job_s, measured_s in ((1, 8.0, 8.0), (2, 10.0, 5.0))
    ]
    return record(
        "scaling",
        "notebooks",
        measurements=[
            measurement(name, value, "1")
            for name, value in (("speedup", 1.6), ("slowdown", 1.25), ("error", 0.0))
        ],
        tables={"runs": rows, "jobs": []},
    )


def differences() -> Record:
    """Make a record of two documented differences, one of them of a dense task."""
    row = {
        **{"id": "D1", "title": "Interpolation", "paper": "bilinear", "reference": "nearest"},
        **{"reproduction": "as the reference", "effect": "change of the logits", "value": 0.4},
        **{"unit": "1", "verdict": "explained difference", "source": "paper"},
    }
    outcome = {"outcome": "explained difference", "reason": "as documented"}
    rows = [row, {**row, "id": "D18", "title": "Corners"}]
    return record("differences", "all", tables={"differences": rows}, verdict=outcome)


def audit(longest_run: int = 30) -> Record:
    """Make an audit with one source that is there and one that is not."""
    known = {
        **{"reference": "HRNet@f760c988", "path": "cls_hrnet.py", "tokens": 3000, "share": 0.08},
        **{"longest_run": longest_run, "source": "measured", "passes": longest_run <= 67},
    }
    absent = {
        **{"reference": "HRNet@6f69e467", "path": "pose_hrnet.py", "tokens": None, "share": None},
        **{"longest_run": None, "source": "not run", "passes": None},
    }
    control = {"first": "a.py", "second": "b.py", "kind": "independent", "longest_run": 66}
    outcome = "within tolerance" if known["passes"] else "not reproduced"
    return record(
        "audit",
        "all",
        claim_ids=["C12"],
        measurements=[
            measurement("limit_longest_run", 67, "tokens"),
            measurement("limit_share", 0.186, "share"),
        ],
        tables={"files": [known, absent], "controls": [{**control, "share": 0.18}]},
        verdict={"outcome": outcome, "reason": "audited"},
    )


def equivalence(
    name: str = "cls_hrnet_w18_small_v1",
    weights: str = "random",
    *,
    error: float = 2e-15,
    against: str = "reference",
    steps: int = 3,
) -> Record:
    """Make a comparison of 30 layers whose errors grow with depth."""
    outcome = "reproduced" if error < 1e-11 else "not reproduced"
    trace = {"network": name, "phase": "forward", "rows": 90, "failures": 0}
    run = Comparison(name, weights, against, steps)
    counts = {"unmatched": 0, "horizon": 2, "free_steps": 3, "fewest_counting_rewrites": 7}
    return record(
        "equivalence",
        run.run_id,
        claim_ids=["C3", "C4", "C5", "C7"],
        subject={"network": name, "against": against},
        measurements=[measurement(key, value, "count") for key, value in counts.items()],
        tables={
            **{"modes": modes(error, outcome), "layers": layers(error, outcome)},
            **{"noise": noise(), "origins": [], "findings": []},
            **followed(error, steps),
            "calibration": [
                {"rewrite": f"rewrite {i}", "mode": "forward eval", "changed": 30} for i in range(8)
            ],
            "traces": [{**trace, "worst_relative_error": 1e-14}],
            "thresholds": [
                {"name": key, "value": value, "reason": "as constructed"}
                for key, value in THRESHOLDS.items()
            ],
        },
        verdict={"outcome": outcome, "reason": "compared"},
        parameters=run._asdict(),
    )


def trial(rows: list[dict[str, Any]] | None = None, *, noticed: bool = True) -> Record:
    """Make the record of a trial of the checker."""
    rows = trial_rows() if rows is None else rows
    checker = {"mutant": "a phase dropped", "noticed": noticed, "by": "eps", "said": "missed"}
    left_out = {"bench": "b", "family": "fusion", "name": "nothing", "reason": "equivalent"}
    found = Trial(rows=rows, excluded=[left_out], checkers=[checker])
    tables = case.tables_of(found)
    return record(
        "trial",
        "quick.seed0",
        claim_ids=["C6"],
        subject={"plan": "quick", "seed": 0},
        measurements=case.measurements(tables),
        tables=tables,
        verdict=case.judge(found),
        parameters={"plan": "quick"},
    )


def all_records() -> list[Record]:
    """Make one record or more of every case, sorted as they are read."""
    records = [
        *(network(name) for name in PUBLISHED),
        record("networks", DENSE, **counted(REFERENCE)),
        equivalence(),
        record("equivalence", **traced()),
        equivalence(against="timm"),
        trial(),
        *training_runs(),
        *dense_runs(),
        *timings(),
        scaling(),
        differences(),
        audit(),
    ]
    return sorted(records, key=lambda entry: (entry["case"], entry["run_id"]))
