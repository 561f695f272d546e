"""The command ``python -m comparison benchmark``: time arms and print what may be said."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from comparison.provenance import provenance
from comparison.speed import machine, statements
from comparison.speed.case import identity_of, memory_rows, size_of
from comparison.speed.contenders import Setup, check
from comparison.speed.measure import Timed, measure, speed_rows
from reproduction import NETWORKS, UserError
from reproduction.device import resolve_device

ENDINGS = (".json", ".txt")
HEAD = ("arm", "precision", "ms", "range", "images/s", "ratio", "interval", "peak MiB")
Row = dict[str, Any]


def setup_of(arguments: argparse.Namespace) -> Setup:
    """Turn the command line into what is timed.

    Raises:
        UserError: A value has no meaning.
    """
    if arguments.network not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise UserError(f"network {arguments.network!r} is unknown; use one of {known}")
    for name in ("rounds", "batch"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} is {getattr(arguments, name)}; give at least 1")
    if arguments.threads < 0:
        raise UserError(f"--threads is {arguments.threads}; give at least 1, or leave it out")
    return Setup(
        network=arguments.network,
        task=arguments.task,
        image_size=_size(arguments.size, arguments.network),
        batch_size=arguments.batch,
        precision=arguments.precision,
        device=resolve_device(arguments.device).type,
        seed=arguments.seed,
        threads=arguments.threads or torch.get_num_threads(),
    )


def _size(text: str, network: str) -> tuple[int, int]:
    """Read a size: nothing, one side, or height x width."""
    sides = text.lower().split("x") if text else []
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise UserError(f"--size {text!r} is no size; give 224, or 256x192 (height x width)")
    if len(sides) == 2:
        return int(sides[0]), int(sides[1])
    return size_of(network, int(sides[0]) if sides else 0)


def run(arguments: argparse.Namespace) -> int:
    """Time networks, runtimes and forms in turns; print ratios only where they can be told."""
    target = _target(arguments.save) if arguments.save else None
    setup = setup_of(arguments)
    arms = [arm.strip() for arm in arguments.arms.split(",") if arm.strip()]
    check(setup, arms)
    timed = measure(setup, arms, arguments.rounds, tell=_tell)
    rows = speed_rows(timed)
    _tell("measuring memory, each arm in a process of its own")
    peaks = memory_rows(timed)
    told = text_of(timed, rows, peaks)
    print(told)
    if target is not None:
        _save(target, told, {"speed": rows, "rounds": timed.rounds, "memory": peaks}, timed)
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _target(name: str) -> Path:
    path = Path(name)
    if path.suffix not in ENDINGS:
        raise UserError(f"{path.name} has no known ending; use one of {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path} could not be written (no such folder): name one that exists")
    return path


def _save(path: Path, told: str, tables: dict[str, list[Row]], timed: Timed) -> None:
    content = told
    if path.suffix == ".json":
        about = {"machine": machine.described(), "load": timed.load, **provenance(0.0)}
        content = json.dumps({**tables, "provenance": about}, indent=1)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(content + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path} could not be written ({error.strerror}): free some space or name another file"
        ) from error
    print(f"saved: {path}")


def text_of(timed: Timed, rows: list[Row], peaks: list[Row]) -> str:
    """Lay a timing out for a terminal."""
    by_arm = {row["arm"]: row for row in peaks}
    lines = [cells(row, by_arm[row["arm"]]) for row in rows if row["status"] == "ran"]
    widths = [max(map(len, column)) for column in zip(HEAD, *lines, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (HEAD, *lines)
    ]
    absent = [f"{row['arm']}: {row['status']}" for row in rows if row["status"] != "ran"]
    said = [f"{row['arm']}: {row['statement']}" for row in rows if row["ratio"] is not None]
    judged = [
        f"{row['arm']}: {row['verdict']}: {row['reason']}"
        for row in rows
        if row["verdict"] and row["reason"]
    ]
    return "\n".join([*_head(timed), "", *table, "", *said, *absent, *judged]).rstrip()


def _head(timed: Timed) -> list[str]:
    setup, origin = timed.setup, provenance(0.0)
    height, width = setup.image_size
    known = ", ".join(machine.features()) or "no known features"
    label = identity_of(setup.network).get("label", "not run")
    return [
        f"{setup.network}, {setup.task}, {height}x{width}, batch {setup.batch_size}: "
        f"{len(timed.rounds)} interleaved rounds on {setup.device}",
        f"{setup.threads} threads, {origin['cores']} cores, {origin['cpu']} ({known}), load "
        f"{timed.load[0]:.1f} before and {timed.load[1]:.1f} after",
        f"reference: {label}, eager, float32; torch {origin['torch']}",
    ]


def cells(row: Row, peak: Row) -> tuple[str, ...]:
    """Lay one arm out; a ratio that cannot be told is not printed."""
    ratio, bounds = "–", "–"
    if row["ratio"] is not None:
        silent = row["statement"].startswith(statements.NO_STATEMENT)
        ratio = statements.NO_STATEMENT if silent else f"x{row['ratio']:.2f}"
    if row["ratio_low"] is not None:
        bounds = f"[{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    return (
        row["arm"],
        row["precision"],
        f"{row['ms']:.1f}",
        f"[{row['ms_low']:.1f}, {row['ms_high']:.1f}]",
        f"{row['images_per_s']:.1f}",
        ratio,
        bounds,
        "not run" if peak["peak_mib"] is None else f"{peak['peak_mib']:.0f}",
    )
