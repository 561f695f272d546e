"""Small valid tables of a comparison, for the synthetic records."""

from typing import Any

from comparison import agreement

THRESHOLDS = {
    **{"relative": 1e-12, "noise_factor": 30.0, "floor": 1e-13, "gap": 1e3},
    **{"zero": 1e-10, "zero_growth": 1e6, "horizon": 1e-6, "counting": 6.0},
}


def modes(error: float, outcome: str) -> list[dict[str, Any]]:
    """Make a row for each mode; accuracy is not run."""
    rows = [
        {
            **{"mode": mode, "outcome": outcome, "reason": "as constructed", "compared": 30},
            **{"bit_equal": 10, "differing": 0, "undecided": 0, "worst_margin": -2.7},
            **{"max_error": error, "noise": 1e-15, "first_divergent": "", "notices": ""},
        }
        for mode in agreement.MODES
    ]
    for row in rows:
        if row["mode"] in agreement.STRUCTURE:
            row |= {"max_error": 0.0, "worst_margin": None}
        if row["mode"] == "accuracy":
            row |= {"outcome": "not run", "compared": 0, "bit_equal": 0, "worst_margin": None}
    return rows


def layers(error: float, outcome: str) -> list[dict[str, Any]]:
    """Make 30 layers."""
    return [
        {
            **{"depth": depth, "reference": f"layer{depth}", "reproduction": f"part{depth}"},
            **{"op": "conv2d", "shape": "16x16x16"},
            **dict.fromkeys(("forward_eval", "forward_train"), error * depth / 30),
            **{"activation_gradient": 3 * error, "parameter_gradient": 0.0, "float32": 2e-7},
            **{"noise_forward": 1e-15, "noise_gradient": None if depth < 9 else 1e-14},
            **{"threshold_forward": 1e-12, "threshold_gradient": 1e-11},
            "agrees": outcome == "reproduced",
        }
        for depth in range(1, 31)
    ]


def noise() -> list[dict[str, Any]]:
    """Make counts of tensors by decade."""
    counts = [
        ("noise", -15, 20),
        ("noise", -14, 10),
        ("deviation", None, 25),
        ("deviation", -15, 5),
    ]
    return [
        {"mode": mode, "quantity": quantity, "decade": decade, "tensors": tensors}
        for mode in ("forward eval", "backward")
        for quantity, decade, tensors in counts
    ]


def followed(error: float, steps: int) -> dict[str, list[dict[str, Any]]]:
    """Make teacher-forced steps, and free ones whose horizon ends after two."""
    forced = [
        {
            **{"step": step, "tensors": 40, "bit_equal": 20, "differing": 0, "first": ""},
            **{"worst_margin": -2.7, "largest_relative": error},
        }
        for step in range(1, steps + 1)
    ]
    equal = ("loss_bit_equal", "gradients_bit_equal", "state_bit_equal")
    free = [
        {
            **{"precision": precision, "step": step, **dict.fromkeys(equal, True)},
            "divergence": 0.0,
            "noise": None if precision == "float32" else 10.0 ** (4 * step - 16),
        }
        for precision in ("float32", "float64")
        for step in (1, 2, 3)
    ]
    return {"steps": forced, "trajectory": free}
