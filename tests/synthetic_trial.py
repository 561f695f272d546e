"""Rows of a trial of the checker, as `comparison.mutation.suite` makes them."""

from typing import Any


def trial_rows() -> list[dict[str, Any]]:
    """Make the rows of eleven faults, all caught and the second misplaced, and a harmless one."""
    bench = "cls_hrnet_w18_small_v1, 64 px, batch 4, seed 0, {} tree"
    seen: dict[str, Any] = {
        **{"kind": "fault", "caught": True, "phase_correct": True, "inside": True, "exact": True},
        **{"first_end": True, "hops": 0, "mode": "forward eval", "site": "conv1", "said": "wrong"},
        **{"expected_modes": "forward eval", "truth": "stem.conv", "wall_s": 9.0, "cpu_s": 4.0},
        "flagged_by": "assert_close, defaults",
    }
    odd = {"exact": False, "first_end": False, "hops": 2, "flagged_by": "", "margin": 1.5}
    silent = {"kind": "harmless", "family": "harmless", "caught": False, "margin": -1.25}
    return [
        {"bench": bench.format("own"), "name": "eps", "family": "BN", "margin": 6.0, **seen},
        {"bench": bench.format("other"), "name": "lr", "family": "optimizer", **seen, **odd},
        *(
            {"bench": bench.format("own"), "name": f"sum {i}", "family": "fusion", **seen}
            | {"margin": None}
            for i in range(9)
        ),
        {"bench": bench.format("own"), "name": "thirds", **seen, **silent},
    ]
