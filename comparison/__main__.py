"""The command line: `python -m comparison COMMAND`.

A user's mistake, a damaged record and a full disk become one sentence and exit status 2; a check
that found a difference exits with 1, one that could not decide with 3.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comparison.mutation.plan import PLANS
from comparison.study import ROOT, StudyError, known_studies, load_study
from reference import confinement
from reference.errors import ReferenceUnavailable
from reproduction import UserError
from reproduction.tasks.classification.sources import obtain, parse_data


def confine(arguments: argparse.Namespace, *folders: Path) -> None:
    """Confine a command that runs the official code, if the process is its own."""
    if arguments.has_process:
        obtain(parse_data(getattr(arguments, "data", "digits")))
        confinement.enter(ROOT / "results" / "by_hand", *folders, always=True)


def run_build(arguments: argparse.Namespace) -> int:
    """Make tables, figures and numbers from a study's records."""
    from comparison import ledger
    from comparison.build import build

    study = load_study(arguments.study)
    written = build(study)
    for sentence in ledger.missing(ROOT / study.results_dir):
        print(sentence, file=sys.stderr)
    print(f"{len(written)} files in {study.results_dir}/tables and {study.results_dir}/figures")
    return 0


def run_ledger(arguments: argparse.Namespace) -> int:
    """Make the ledger of a study whose records are older than ledgers; else check it."""
    from comparison import ledger
    from comparison.record import read_records, read_sealed

    study = load_study(arguments.study)
    results = ROOT / study.results_dir
    if not ledger.read(results):
        print(f"{ledger.adopt(results, read_sealed(results))} records entered the ledger")
    gone = ledger.missing(results)
    print(f"{len(ledger.read(results))} entries, {len(read_records(results))} records")
    for sentence in gone:
        print(sentence, file=sys.stderr)
    return 1 if gone else 0


def run_report(arguments: argparse.Namespace) -> int:
    """Typeset a study's report."""
    from comparison import report

    print(report.build(arguments.study).relative_to(ROOT))
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Make tables and figures again; any difference to the stored ones fails."""
    from comparison import verify

    studies = [arguments.study] if arguments.study else _studies_with_results()
    found = 0
    for name in studies:
        study = load_study(name)
        differences = verify.differences(study)
        if name == verify.COMMITTED:
            differences += verify.readme_differences(study)
        found += len(differences)
        for sentence in differences:
            print(f"{name}: {sentence}", file=sys.stderr)
        if not differences:
            print(f"{name}: tables and figures are what the records give")
    if not studies:
        print("no study has results; nothing to verify")
    return 1 if found else 0


def _studies_with_results() -> list[str]:
    return [name for name in known_studies() if (ROOT / "results" / name / "tables").is_dir()]


def run_verdicts(arguments: argparse.Namespace) -> int:
    """Print the verdict on every claim; with --write, into README.md as well."""
    from comparison import claims, verify
    from comparison.record import read_records

    study = load_study(arguments.study)
    records = read_records(study.results_dir)
    chosen = [claims.claim_named(arguments.claim)] if arguments.claim else list(claims.CLAIMS)
    if arguments.claim:
        for claim in chosen:
            verdict = claim.verdict(study, records)
            print(f"{claim.id}: {verdict.outcome}: {claim.sentence} ({verdict.reason})")
        return 0
    table = claims.verdict_table(study, records)
    if arguments.write:
        verify.write_verdicts(table)
    print(table)
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Compare both implementations of one network now: exit status 0, 1, or 3 if undecided."""
    from comparison import equivalence
    from comparison.engine.report import check_target

    if arguments.save:
        check_target(arguments.save)
    confine(arguments, *([Path(arguments.save).parent] if arguments.save else []))
    report = equivalence.check(
        arguments.network,
        steps=arguments.steps,
        against=arguments.against,
        weights_file=arguments.weights_file,
        data=arguments.data,
    )
    print(report)
    if arguments.save:
        print(f"saved: {report.save(arguments.save)}")
    return report.exit_code


def run_trial(arguments: argparse.Namespace) -> int:
    """Try the checker itself on injected faults and harmless changes; its gates decide."""
    from comparison.mutation import trial

    plan = trial.plan_named(arguments.plan)
    confine(arguments)
    found = trial.run(plan, arguments.seed, tell=lambda text: print(text, file=sys.stderr))
    print(trial.told(found))
    return 1 if found.failed_gates() else 0


def run_benchmark(arguments: argparse.Namespace) -> int:
    """Time networks, forms and runtimes in turns; a ratio is printed only where it can be told."""
    from comparison.speed import command

    return command.run(arguments)


def run_audit(arguments: argparse.Namespace) -> int:
    """Audit the clean room and record it; a study judges the record, so a bad one is kept too."""
    from comparison import audit
    from comparison.record import write_record

    record = audit.run()
    write_record(arguments.results_dir, record)
    print(f"audit: {record['verdict']['outcome']}: {record['verdict']['reason']}")
    return 0


def run_tune(arguments: argparse.Namespace) -> int:
    """For maintainers: time the training forms for one shape and put the best into their table."""
    from comparison import tune
    from reproduction.forms import TABLE

    row = tune.tune(
        arguments.network, arguments.size, arguments.batch, arguments.precision, arguments.rounds
    )
    for found in row["measured"]:
        print("{form:<32} {speedup:.3f} [{low:.3f}, {high:.3f}]".format(**found))
    tune.write_row(row)
    print(
        f"{row['form']['name']}: written to {TABLE.name} ({row['threads']} threads, {row['cpu']})"
    )
    return 0


def run_costs(arguments: argparse.Namespace) -> int:
    """Count what networks for dense tasks have and cost, beside every published figure."""
    from comparison import dense_cost

    for row in dense_cost.table(arms=["reproduction"]):
        print(
            "{network:<36}{quantity:<13}{image_size:<12}published {paper:<7}"
            "counted {reproduction:<10.4f}{manner:<15} {convention}; {source}".format(**row)
        )
    return 0


BENCHMARK: dict[str, tuple[dict[str, Any], str]] = {
    "network": ({"required": True}, "official name, e.g. cls_hrnet_w18"),
    "size": ({"default": ""}, "pixels: 224, or 256x192 (height x width); else the network's own"),
    "batch": ({"type": int, "default": 1}, "images a call"),
    "arms": (
        {"default": "reference,reproduction,deploy"},
        "some of reference,timm,reproduction,fast,folded,deploy,openvino,onnxruntime,"
        "torch_compile,cuda",
    ),
    "task": ({"default": "inference"}, "inference or training"),
    "precision": ({"default": "float32"}, "float32 or bfloat16, of the arms that have a choice"),
    "rounds": ({"type": int, "default": 10}, "six are the least for an interval"),
    "threads": ({"type": int, "default": 0}, "of each arm; PyTorch's number by default"),
    "device": ({"default": "auto"}, "auto, cpu, cuda or mps"),
    "seed": ({"type": int, "default": 0}, "of weights and input"),
    "save": ({"default": "", "metavar": "FILE"}, ".json or .txt"),
}


def make_parser() -> argparse.ArgumentParser:
    """Describe the subcommands."""
    parser = argparse.ArgumentParser(prog="python -m comparison", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    known = ", ".join(known_studies())
    for name, run in (("build", run_build), ("report", run_report)):
        command = commands.add_parser(name, help=run.__doc__)
        command.add_argument("--study", default="quick", help=known)
        command.set_defaults(run=run)
    entered = commands.add_parser("ledger", help=run_ledger.__doc__)
    entered.add_argument("--study", default="standard", help=known)
    entered.set_defaults(run=run_ledger)
    verify = commands.add_parser("verify", help=run_verify.__doc__)
    verify.add_argument("--study", help=f"{known}; by default every study with results")
    verify.set_defaults(run=run_verify)
    verdicts = commands.add_parser("verdicts", help=run_verdicts.__doc__)
    verdicts.add_argument("--study", default="standard", help=known)
    verdicts.add_argument("--claim", metavar="ID", help="one claim only, e.g. C2")
    verdicts.add_argument("--write", action="store_true", help="into README.md as well")
    verdicts.set_defaults(run=run_verdicts)
    check = commands.add_parser("check", help=run_check.__doc__)
    check.add_argument("--network", required=True, help="official name, e.g. cls_hrnet_w18")
    check.add_argument("--steps", type=int, default=2, help="optimizer steps")
    check.add_argument("--against", default="reference", help="reference or timm")
    check.add_argument("--weights-file", default="", help="trained weights; else random ones")
    check.add_argument("--data", default="digits", help="what trained weights are shown")
    check.add_argument("--save", default="", metavar="FILE", help=".html, .json, .tex or .txt")
    check.set_defaults(run=run_check)
    trial = commands.add_parser("trial", help=run_trial.__doc__)
    trial.add_argument("--plan", default="quick", help=f"{', '.join(PLANS)}; how much is tried")
    trial.add_argument("--seed", type=int, default=0, help="decides weights, faults and sites")
    trial.set_defaults(run=run_trial)
    tune = commands.add_parser("tune", help=run_tune.__doc__)
    tune.add_argument("--network", required=True, help="official name, e.g. cls_hrnet_w18")
    tune.add_argument("--size", type=int, required=True, help="height and width of the images")
    tune.add_argument("--batch", type=int, required=True, help="images a step")
    tune.add_argument("--precision", default="float32", help="float32 or bfloat16")
    tune.add_argument("--rounds", type=int, default=12, help="at least 6")
    tune.set_defaults(run=run_tune)
    costs = commands.add_parser("costs", help=run_costs.__doc__)
    costs.set_defaults(run=run_costs)
    _add_benchmark(commands.add_parser("benchmark", help=run_benchmark.__doc__))
    audit = commands.add_parser("audit", help=run_audit.__doc__)
    audit.add_argument("--results-dir", default="results/by_hand", help="where to record it")
    audit.set_defaults(run=run_audit)
    return parser


def _add_benchmark(command: argparse.ArgumentParser) -> None:
    """Describe `benchmark`; what its words may be is told when one is wrong."""
    for name, words in BENCHMARK.items():
        command.add_argument(f"--{name}", help=words[1], **words[0])
    command.set_defaults(run=run_benchmark)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand."""
    arguments = make_parser().parse_args(argv)
    arguments.has_process = argv is None
    try:
        return arguments.run(arguments)
    except (UserError, StudyError, ReferenceUnavailable, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
