"""What the paper says, what the reference does, what we do, and how much it matters.

`differences.toml` holds the statements and DEVIATIONS.md the prose, under the same D-numbers. The
effects are measured here each time: a statement that no longer holds makes the record fail.
"""

import time
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import reference
from comparison import clock
from comparison.effects import dense, networks, recipe, scores
from comparison.effects.subjects import Effect, Subjects
from comparison.record import measurement, new_record
from reproduction import TrainConfig

STATEMENTS = Path(__file__).with_name("differences.toml")


@cache
def statements() -> dict[str, dict[str, str]]:
    """Read the statements, by D-number."""
    return tomllib.loads(STATEMENTS.read_text(encoding="utf-8"))


def measurable(
    subjects: Subjects, sizes: list[dict[str, Any]], drops: list[dict[str, Any]]
) -> dict[str, Callable[[], Effect]]:
    """Say for each D-number that has a measured effect how it is measured.

    Args:
        subjects: Both arms.
        sizes: Rows of `networks.sizes_table`.
        drops: Rows of `recipe.schedule_table`.
    """
    return {
        "D1": lambda: networks.interpolation(subjects),
        "D2": lambda: networks.convolution_order(subjects.seed),
        "D3": lambda: networks.input_sizes(sizes),
        "D4": lambda: recipe.schedule(drops),
        "D5": recipe.accuracy_view,
        "D6": lambda: networks.class_count(subjects),
        "D7": recipe.width_of_small,
        "D8": lambda: recipe.batch_and_rate(TrainConfig()),
        "D9": lambda: recipe.cost_convention(subjects.network),
        "D10": lambda: networks.head_biases(subjects),
        "D11": lambda: networks.batch_of_one(subjects),
        "D12": lambda: networks.list_mutation(subjects),
        "D13": lambda: networks.missing_checkpoint(subjects),
        "D16": recipe.published_twice,
        "D17": lambda: networks.weight_names(subjects),
        **measurable_dense(subjects.seed),
    }


def measurable_dense(seed: int) -> dict[str, Callable[[], Effect]]:
    """Say how the differences of networks for dense tasks are measured."""
    return {
        "D18": lambda: dense.corners(seed),
        "D19": lambda: dense.weight_decay_of_adam(seed),
        "D20": lambda: dense.shared_setting(seed),
        "D21": dense.drops_of_pose,
        "D22": dense.late_decay,
        "D23": dense.scaled_cost,
        "D24": dense.missed_figures,
        "D25": scores.no_hard_pixel,
        "D26": lambda: scores.auxiliary_mean(seed),
        "D27": lambda: scores.summed_exponentials(seed),
        "D28": scores.absent_class,
        "D29": scores.empty_targets,
        "D30": scores.wider_threshold,
        "D31": scores.shifted_peaks,
        "D32": scores.wrapped_label,
        "D33": dense.cut_names,
        "D34": dense.numpy_names,
        "D37": scores.mirrored_landmark,
        "D44": lambda: scores.upper_halves(seed),
    }


def row(number: str, statement: dict[str, str], effect: Effect | None) -> dict[str, Any]:
    """Lay one difference out; one without a measurable effect is not comparable.

    An effect without a value could not be measured on this machine, and says why.
    """
    outcome = "not comparable"
    if effect is not None and effect.value is None:
        outcome = "not run"
    elif effect is not None:
        outcome = "explained difference" if effect.holds else "not reproduced"
    reason = f": {statement['unmeasured']}" if "unmeasured" in statement else ""
    return {
        "id": number,
        **{name: statement[name] for name in ("title", "paper", "reference", "reproduction")},
        "effect": effect.what if effect else f"not measured{reason}",
        "value": effect.value if effect else None,
        "unit": effect.unit if effect else "",
        "verdict": outcome,
        "source": statement["source"],
    }


def judge(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Fail if a documented difference is not as documented."""
    failed = [entry["id"] for entry in rows if entry["verdict"] == "not reproduced"]
    if failed:
        reason = f"no longer as documented: {', '.join(failed)}"
        return {"outcome": "not reproduced", "reason": reason}
    measured = sum(entry["verdict"] == "explained difference" for entry in rows)
    reason = f"{measured} of {len(rows)} differences measured, those as documented"
    return {"outcome": "explained difference", "reason": reason}


def run(settings: Any) -> dict[str, Any]:
    """Measure every documented difference that can be measured in seconds.

    Args:
        settings: Checked parameters of notebook 05 (`comparison.parameters.check`).

    Returns:
        The record: tables ``differences``, ``sizes`` (D3) and ``schedule`` (D4).
    """
    started = time.perf_counter()
    subjects = Subjects(settings.network, settings.seed)
    clock.enter("work")
    sizes, drops = networks.sizes_table(subjects), recipe.schedule_table(TrainConfig())
    effects = {n: measure() for n, measure in measurable(subjects, sizes, drops).items()}
    rows = [row(n, statement, effects.get(n)) for n, statement in statements().items()]
    return new_record(
        case="differences",
        run_id="all",
        claim_ids=["C13"],
        subject={"network": settings.network, "seed": settings.seed},
        inputs={"reference": reference.identity()},
        measurements=[measurement(n, effect.value, effect.unit) for n, effect in effects.items()],
        tables={"differences": rows, "sizes": sizes, "schedule": drops},
        expectations=[
            {
                "name": "every measured difference is as documented",
                "value": True,
                "source": "DEVIATIONS.md",
                "tolerance": "none",
                "reason": "a difference that has gone or was never there is a finding",
            }
        ],
        verdict=judge(rows),
        wall_s=time.perf_counter() - started,
        parameters=settings.decisive(),
        command=settings.command(),
    )
