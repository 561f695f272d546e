"""Which runtime is the fastest: `python -m reproduction.runtime_choice` measures and notes it.

All runtimes take turns on the same images, forwards and backwards through the list, so that what
drifts on a machine meets all alike. The result, `runtimes.toml`, is committed; a network is
deployed by that table, so that the same call runs the same arithmetic everywhere.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import torch

from reproduction.errors import UserError
from reproduction.export import export_onnx
from reproduction.networks import build_network
from reproduction.runtimes import CHOICE, PRECISIONS, Predict, load, load_file, unavailable

# torch.compile takes minutes a network, so it is not in the table.
MEASURED = ("eager", "onnxruntime", "openvino")
ROUNDS = 8
Row = dict[str, Any]


class Case(NamedTuple):
    """What is timed: a network on images (batch, 3, height, width)."""

    network: str
    height: int
    width: int
    batch: int


CASES = (
    Case("cls_hrnet_w18", 224, 224, 8),
    Case("cls_hrnet_w18", 224, 224, 1),
    Case("pose_hrnet_w32", 256, 192, 8),
)


def interleaved(
    work: Mapping[str, Predict], images: torch.Tensor, rounds: int
) -> dict[str, list[float]]:
    """Time functions in turns, each once forwards and once backwards through the list a round.

    Returns:
        Seconds of every call, two a round, by name; the calls of all names are aligned.
    """
    taken: dict[str, list[float]] = {name: [] for name in work}
    for name in work:
        work[name](images)
    for _ in range(rounds):
        for name in (*work, *reversed(list(work))):
            start = time.perf_counter()
            work[name](images)
            taken[name].append(time.perf_counter() - start)
    return taken


def measure(case: Case, rounds: int = ROUNDS) -> list[Row]:
    """Time all runtimes, in both precisions, on one case.

    Returns:
        One row a runtime and precision: ``ms``, and ``times_best``, the median ratio of its times
        to those of the fastest in its precision.
    """
    network = build_network(case.network).eval()
    images = torch.randn(case.batch, 3, case.height, case.width)
    forms = [(r, p) for p in PRECISIONS for r in MEASURED if not unavailable(r, p)]
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(network, images, Path(folder) / "network.onnx")
        work = {
            f"{runtime} {precision}": load(network, images, runtime, precision=precision)
            if runtime == "eager"
            else load_file(path, images, runtime, precision=precision)
            for runtime, precision in forms
        }
    taken = interleaved(work, images, rounds)
    rows = []
    for precision in PRECISIONS:
        of_precision = {r: taken[f"{r} {precision}"] for r, p in forms if p == precision}
        best = min(of_precision.values(), key=median)
        for runtime, seconds in of_precision.items():
            ratio = median(mine / least for mine, least in zip(seconds, best, strict=True))
            row = {**case._asdict(), "precision": precision, "runtime": runtime}
            rows.append({**row, "ms": 1e3 * median(seconds), "times_best": ratio})
    return rows


def choose(rows: Sequence[Row]) -> dict[str, str]:
    """Return, by precision, the runtime that is the least slower than the best over all cases.

    >>> rows = [{"precision": "float32", "runtime": "a", "times_best": 1.0},
    ...         {"precision": "float32", "runtime": "b", "times_best": 1.2}]
    >>> choose(rows)
    {'float32': 'a'}
    """
    ratios: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        of_precision = ratios.setdefault(row["precision"], {})
        of_precision.setdefault(row["runtime"], []).append(row["times_best"])
    return {
        precision: min(found, key=lambda runtime: geometric_mean(found[runtime]))
        for precision, found in ratios.items()
    }


def text_of(rows: Sequence[Row]) -> str:
    """Write the table down, with what it was measured on."""
    measured_with = {name: version(name) for name in ("torch", "onnxruntime", "openvino")}
    lines = [
        "# Written by `python -m reproduction.runtime_choice`: which runtime deploys a network.",
        f'processor = "{_processor()}"',
        f"cores = {os.cpu_count()}",
        f"threads = {torch.get_num_threads()}",
        f"load = {os.getloadavg()[0]:.2f}",
        *(f'{name} = "{number}"' for name, number in measured_with.items()),
        "",
        "[chosen]",
        *(f'{precision} = "{runtime}"' for precision, runtime in choose(rows).items()),
    ]
    for row in rows:
        shown = {**row, "ms": round(row["ms"], 1), "times_best": round(row["times_best"], 3)}
        lines += ["", "[[measured]]"]
        lines += [f"{key} = {_value(value)}" for key, value in shown.items()]
    return "\n".join(lines) + "\n"


def _value(value: str | float) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine()).replace('"', "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; a user's mistake becomes one sentence and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m reproduction.runtime_choice", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each runtime, halved")
    parser.add_argument("--out", type=Path, default=CHOICE, help="the table to write")
    given = parser.parse_args(arguments)
    try:
        rows = [row for case in CASES for row in measure(case, given.rounds)]
        text = text_of(rows)
        partial = given.out.with_name(given.out.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(given.out)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
