"""Small valid records of networks for dense tasks: counted, by trace alone, and trained."""

from typing import Any

from comparison import by_trace
from comparison.record import measurement
from comparison.study import DENSE, TRACES, Comparison

Record = dict[str, Any]
KEYS = "33d183da9806e2ce"


def network_row(name: str = "pose_hrnet_w32", **changed: Any) -> dict[str, Any]:
    """Make the row of one counted network."""
    return {
        **{"network": name, "task": "pose", "width": 32, "outputs": 17, "image_size": "256 x 192"},
        **{"upsampling": "nearest", "keys_pinned": KEYS, "verdict": "reproduced"},
        **{"live": "official 6f69e467", "live_verdict": "reproduced", "live_difference": ""},
        **{f"{quantity}_reference": value for quantity, value in COUNTS.items()},
        **{f"{quantity}_reproduction": value for quantity, value in COUNTS.items()},
        **changed,
    }


COUNTS = {"keys": KEYS, "entries": 1754, "parameters": 28_536_113, "macs": 7_645_003_776}


def printed_row(paper: str = "28.5", **changed: Any) -> dict[str, Any]:
    """Make the row of one printed figure."""
    return {
        **{"network": "pose_hrnet_w32", "quantity": "parameters_m", "image_size": "256 x 192"},
        **{"paper": paper, "reference": 28.54, "reproduction": 28.54, "own": 28.54},
        **{"convention": "the network itself", "manner": "rounded", "verdict": "reproduced"},
        **{"source": "README", **changed},
    }


def counted(reference: dict[str, Any], **tables: Any) -> Record:
    """Return the parts of the record of the family."""
    return {
        "claim_ids": ["C14"],
        "subject": {"network": DENSE},
        "inputs": {"references": {"pose": reference}},
        "tables": {
            "dense_networks": [network_row()],
            "dense_cost": [printed_row()],
            **tables,
        },
    }


def traced(failures: int = 0, reason: str = by_trace.ASKED) -> Record:
    """Return the parts of a record of recorded traces alone."""
    run = Comparison(DENSE, "random", TRACES, 1)
    row = {"network": "pose_hrnet_w32", "phase": "forward", "rows": 600, "failures": failures}
    empty = ("layers", "calibration", "noise", "steps", "trajectory", "origins", "findings")
    return {
        "run_id": run.run_id,
        "claim_ids": ["C4"],
        "subject": {"network": DENSE, "against": TRACES},
        "inputs": {"live": reason},
        "tables": {
            **{name: [] for name in (*empty, "thresholds")},
            "modes": by_trace.unrun_modes(reason),
            "traces": [{**row, "worst_relative_error": 1e-14, "worst_key": "forward/conv1"}],
        },
        "parameters": run._asdict(),
    }


def trained(arm: str, variant: str = "small", **scores: float) -> Record:
    """Return the parts of a record of a dense task that an arm was trained on."""
    return {
        "subject": {"task": "pose", "variant": variant, "arm": arm, "seed": 0},
        "inputs": {"data": {"name": "composed scenes", "sha256": ["c" * 64, "d" * 64]}},
        "measurements": [measurement(name, value, "%") for name, value in scores.items()],
    }
