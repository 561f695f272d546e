"""The command line: `python -m reference status | fetch | record | audit`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reference import audit, confinement, fetch, recorded, store
from reference.errors import ReferenceAbsent, ReferenceUnavailable
from reference.loader import SOURCES, build, identity
from reference.pins import load_pins

USUAL_SHAPE = (2, 3, 64, 64)  # for a network of which no trace is shipped


def print_status(arguments: argparse.Namespace) -> int:
    """Print what is there of each pinned repository, and which reference will run."""
    pins = load_pins()
    for pin in (*pins.repositories, *pins.wheels):
        found = store.presence(pin, store.OFFICIAL)
        print(f"{found.state:<11}{pin.key}  ({pin.license}, {len(pin.files)} files)")
    failure = fetch.last_failure(store.OFFICIAL)
    if failure:
        print(f"last download failed: {failure}")
    files = {(pin.repository, pin.file): name for name, pin in reversed(pins.networks.items())}
    for network in reversed(files.values()):
        print_reference(network)
    return 0


def print_reference(network: str) -> None:
    """Print which reference runs for a network, and so for all others of its file."""
    try:
        chosen = identity(network=network)
    except ReferenceAbsent as error:
        print(f"reference for {network}: none but its trace, if there is one; {error}")
        return
    print(f"reference for {network}: {chosen['label']}, {chosen['license']}")
    print(f"  defined by a file of SHA-256 {chosen['sha256']}")
    for shim in chosen["shims"] or ["none"]:
        print(f"  shim: {shim}")


def run_fetch(arguments: argparse.Namespace) -> int:
    """Obtain the official files from a path or the network."""
    pins = load_pins()
    if arguments.path is not None:
        fetched = fetch.fetch_from(arguments.path, pins, store.OFFICIAL)
    elif arguments.if_absent:
        fetched = fetch.fetch_if_absent(pins, store.OFFICIAL)
    else:
        fetched = fetch.fetch_network(pins, store.OFFICIAL)
    print(fetched.line)
    return 0


def run_record(arguments: argparse.Namespace) -> int:
    """Record a trace of the reference; hold it to the shipped one, or write it to a file."""
    from reference import record  # torch is needed here and nowhere else

    if arguments.has_process:
        folders = [arguments.out.parent] if arguments.out else []
        confinement.enter(confinement.ROOT / "results" / "by_hand", *folders, always=True)
    expected = None if arguments.out else recorded.load_trace(arguments.network)
    model = build(arguments.network, source=arguments.source)
    shape = shape_of(arguments.network)
    rows = record.trace(model, shape)
    label = identity(arguments.source, arguments.network)["label"]
    print(f"{arguments.network} by {label}: {len(rows)} rows, input {shape}")
    if expected is None:
        recorded.write_rows(arguments.out, rows)
        print(f"written to {arguments.out}")
        return 0
    comparison = recorded.compare(rows, expected)
    for phase in recorded.summarize(comparison):
        print(
            "{phase:<8} {rows:>5} rows  {failures} fail  worst {worst_relative_error:.1e}"
            "  bound {bound:.0e}  {worst_key}".format(**phase)
        )
    return 0 if all(row["passes"] for row in comparison) else 1


def run_audit(arguments: argparse.Namespace) -> int:
    """Print the clean-room audit; exit status 1 above a limit."""
    result = audit.run()
    print(*audit.lines_of(result), sep="\n")
    return 0 if result["passes"] else 1


def shape_of(network: str) -> tuple[int, ...]:
    """Return the input shape that the shipped trace of a network has, or the usual one."""
    entry = recorded.recorded_networks().get(network, {"input_shape": USUAL_SHAPE})
    return tuple(entry["input_shape"])


def make_parser() -> argparse.ArgumentParser:
    """Describe the subcommands and their options."""
    parser = argparse.ArgumentParser(prog="python -m reference", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="what is there, and which reference will run")
    status.set_defaults(run=print_status)
    add_fetch(commands)
    add_record(commands)
    audit_parser = commands.add_parser("audit", help="how much text reproduction/ shares with it")
    audit_parser.set_defaults(run=run_audit)
    return parser


def add_fetch(commands: argparse._SubParsersAction) -> None:
    """Describe `fetch`."""
    parser = commands.add_parser("fetch", help="obtain and verify the official code")
    parser.add_argument(
        "--from",
        dest="path",
        type=Path,
        help="a copy, clone or bare git directory, a folder holding several, or the pinned wheel",
    )
    parser.add_argument(
        "--if-absent", action="store_true", help="do not repeat a download that failed before"
    )
    parser.set_defaults(run=run_fetch)


def add_record(commands: argparse._SubParsersAction) -> None:
    """Describe `record`."""
    parser = commands.add_parser("record", help="record a trace and hold it to the shipped one")
    parser.add_argument("network", help="official name, such as cls_hrnet_w18_small_v1")
    parser.add_argument("--source", choices=SOURCES, default="auto")
    parser.add_argument("--out", type=Path, help="write the trace to this .npz file instead")
    parser.set_defaults(run=run_record)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake becomes one sentence and exit status 2."""
    arguments = make_parser().parse_args(argv)
    arguments.has_process = argv is None
    try:
        return arguments.run(arguments)
    except ReferenceUnavailable as error:
        print(f"reference: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
