"""The record of a comparison with what is on record alone: no mode runs, the traces decide.

That is what a network for a dense task has on a machine without its official code, and all that
a whole family has in one record.
"""

import time
from typing import Any

from comparison import clock, traces
from comparison.engine.measures import finite
from comparison.engine.verdict import MODES
from comparison.family import members
from comparison.record import new_record
from comparison.study import Comparison
from reference.recorded import recorded_networks
from reproduction import build_network

ASKED = "compared by recorded traces alone"
Rows = list[dict[str, Any]]


def run(settings: Any, reason: str = ASKED) -> dict[str, Any]:
    """Replay all that is on record about a network, or about every network for dense tasks.

    Args:
        settings: Checked parameters of notebook 02.
        reason: Why nothing was compared live.

    Returns:
        A record of the case ``equivalence`` whose modes were not run. Its verdict is that of the
        traces, or ``not run`` where there are none.
    """
    started = time.perf_counter()
    clock.enter("work")
    rows = [row for name in members(settings.network) for row in replayed(name)]
    named = Comparison(settings.network, settings.weights, settings.against, settings.steps)
    return new_record(
        case="equivalence",
        run_id=named.run_id,
        claim_ids=["C4"],
        subject={"network": settings.network, "seed": settings.seed, "against": settings.against},
        inputs={"recorded": sorted({row["network"] for row in rows}), "live": reason},
        measurements=[],
        tables={"modes": unrun_modes(reason), "traces": rows, **_nothing()},
        expectations=[
            {
                "name": f"{row['network']}: {row['phase']}",
                "value": 0.0,
                "source": "reference/traces",
                "tolerance": row["bound"],
                "reason": "measured between correct implementations; see reference/recorded.py",
            }
            for row in rows
        ],
        verdict=judge(rows, reason),
        wall_s=time.perf_counter() - started,
        parameters=settings.decisive(),
        command=settings.command(),
    )


def replayed(network: str) -> Rows:
    """Replay what is on record about one network, which is built for this alone."""
    if not (traces.anchors_of(network) or network in recorded_networks()):
        return []
    return plain(traces.replay(network, build_network(network)))


def plain(rows: Rows) -> Rows:
    """Make rows fit for a record, which holds no infinity."""
    return [{k: finite(v) if isinstance(v, float) else v for k, v in r.items()} for r in rows]


def judge(rows: Rows, reason: str) -> dict[str, str]:
    """Draw the verdict from replayed rows."""
    if not rows:
        told = f"no mode run: {reason}; nothing is on record about it"
        return {"outcome": "not run", "reason": told}
    failed = [row for row in rows if row["failures"]]
    if failed:
        told = f"recorded traces: {failed[0]['phase']} of {failed[0]['network']} differs at "
        return {"outcome": "not reproduced", "reason": told + failed[0]["worst_key"]}
    numbers, networks = sum(r["rows"] for r in rows), len({row["network"] for row in rows})
    told = f"{numbers} recorded rows of {networks} networks are met; no mode run: {reason}"
    return {"outcome": "reproduced", "reason": told}


def unrun_modes(reason: str) -> Rows:
    """List all modes as not run."""
    numbers = dict.fromkeys(("compared", "bit_equal", "differing", "undecided"), 0)
    nothing = {"worst_margin": None, "max_error": 0.0, "noise": 0.0}
    told = {"outcome": "not run", "reason": reason, "first_divergent": "", "notices": ""}
    return [{"mode": mode, **numbers, **nothing, **told} for mode in MODES]


def _nothing() -> dict[str, Rows]:
    names = ("layers", "calibration", "noise", "steps", "trajectory", "origins", "findings")
    return {**{name: [] for name in names}, "thresholds": []}
