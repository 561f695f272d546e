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
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import torch

from reproduction.durable import write_whole
from reproduction.errors import UserError
from reproduction.export import export_onnx
from reproduction.networks import build_network
from reproduction.runtimes import (
    CHOICE,
    FROM_FILE,
    PRECISIONS,
    Predict,
    load,
    load_file,
    unavailable,
)

MEASURED = ("eager", "torch_compile", "onnxruntime", "openvino")
ROUNDS = 8
HEAD = "# Written by `python -m reproduction.runtime_choice`: which runtime deploys a network.\n"
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


def measure(case: Case, precision: str, rounds: int = ROUNDS) -> Row:
    """Time all runtimes that there are here on one case, in one precision.

    Returns:
        What was timed; by runtime, ``ms`` and ``times_best``, the median ratio of its times to
        those of the fastest; and the machine.
    """
    network = build_network(case.network).eval()
    images = torch.randn(case.batch, 3, case.height, case.width)
    names = [runtime for runtime in MEASURED if not unavailable(runtime, precision)]
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(network, images, Path(folder) / "network.onnx")
        work = {
            name: load_file(path, images, name, precision=precision)
            if name in FROM_FILE
            else load(network, images, name, precision=precision)
            for name in names
        }
    taken = interleaved(work, images, rounds)
    best = min(taken.values(), key=median)
    return {
        **case._asdict(),
        "precision": precision,
        "ms": {name: round(1e3 * median(seconds), 1) for name, seconds in taken.items()},
        "times_best": {
            name: round(median(mine / least for mine, least in zip(seconds, best, strict=True)), 3)
            for name, seconds in taken.items()
        },
        **_machine(),
    }


def choose(rows: Sequence[Row]) -> dict[str, str]:
    """Return, by precision, the runtime that is the least slower than the best over all cases.

    Only runtimes that were timed in all cases of a precision can be chosen.

    >>> choose([{"precision": "float32", "times_best": {"a": 1.0, "b": 1.2}}])
    {'float32': 'a'}
    """
    ratios: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        ratios.setdefault(row["precision"], []).append(row["times_best"])
    return {
        precision: min(
            set.intersection(*map(set, found)),
            key=lambda runtime: (geometric_mean(case[runtime] for case in found), runtime),
        )
        for precision, found in ratios.items()
    }


def updated(rows: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Put rows in the place of those of the same case and precision.

    A row stays where the new one lacks one of its runtimes: a machine without bfloat16 arithmetic
    has nothing to say about it.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in (*rows, *new):
        key = tuple(row[name] for name in (*Case._fields, "precision"))
        if key not in found or set(found[key]["ms"]) <= set(row["ms"]):
            found[key] = row
    return list(found.values())


def text_of(rows: Sequence[Row]) -> str:
    """Write the table down."""
    lines = [HEAD, "[chosen]"]
    lines += [f'{precision} = "{runtime}"' for precision, runtime in choose(rows).items()]
    for row in rows:
        lines += ["", "[[measured]]", *(f"{key} = {_value(value)}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


def _table(path: Path) -> list[Row]:
    """Read the rows of a table; none where there is no file.

    Raises:
        UserError: The file is damaged.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))["measured"] if path.exists() else []
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path} is damaged ({error}): restore the committed file, or remove it"
        ) from error


def _machine() -> Row:
    packages = ("torch", "onnxruntime", "openvino")
    return {
        "processor": _processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        **{name: version(name) for name in packages},
    }


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items()) + " }"
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
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--out", type=Path, default=CHOICE, help="the table to bring up to date")
    given = parser.parse_args(arguments)
    try:
        there = _table(given.out)
        cases = [(case, precision) for precision in given.precision for case in CASES]
        new = [measure(case, precision, given.rounds) for case, precision in cases]
        text = text_of(updated(there, new))
        write_whole(given.out, text)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
