"""Tables about the study itself: claims, recipe, checklist, provenance, failures."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

from comparison import evidence, scaling
from comparison.claims import CLAIMS
from comparison.evidence import Record, measured
from comparison.study import ROOT, Study
from comparison.tables.table import NOT_RUN, Table, fixed, make_table, short
from reproduction import TrainConfig

CLAIM_COLUMNS = ("id", "claim", "outcome", "reason", "records", "notebook", "command")
PROVENANCE_COLUMNS = (
    *("record", "created_utc", "commit", "uncommitted_changes", "reference", "python", "torch"),
    *("platform", "cpu", "device", "threads", "jobs", "wall_s", "peak_memory_mib", "sha256"),
)


def claims(study: Study, records: Sequence[Record]) -> Table:
    """Judge every claim."""
    rows = []
    for claim in CLAIMS:
        verdict = claim.verdict(study, records)
        rows.append(
            {
                "id": claim.id,
                "claim": claim.sentence,
                "outcome": verdict.outcome,
                "reason": verdict.reason,
                "records": str(verdict.records),
                "notebook": claim.notebook or "–",
                "command": claim.command(study),
            }
        )
    caption = f"The claims and their verdicts in study {study.name}."
    return make_table("claims", caption, CLAIM_COLUMNS, rows, evidence.references(records))


def recipe(study: Study, records: Sequence[Record]) -> Table:
    """List every hyperparameter: paper, official code, ours, and what this study ran."""
    columns = ("hyperparameter", "paper", "reference", "reproduction", "this_study", "source")
    runs = evidence.planned_runs(records, study)
    ran = runs[0]["subject"]["config"]["recipe"] if runs else {}
    rows = [
        {
            "hyperparameter": item.name,
            "paper": item.metadata["paper"],
            "reference": item.metadata["reference"],
            "reproduction": _setting(item.default),
            "this_study": _setting(ran[item.name]) if ran else NOT_RUN,
            "source": item.metadata["source"],
        }
        for item in fields(TrainConfig)
    ]
    caption = "The training recipe: paper, official code, our default, and what this study ran."
    return make_table("recipe", caption, columns, rows, evidence.references(runs))


def _setting(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(short(entry) for entry in value)
    return short(value)


def provenance(study: Study, records: Sequence[Record]) -> Table:
    """List where, when and from which source every record was made."""
    rows = [_origin(record) for record in records]
    caption = "The records: source, environment, machine, time."
    ran = evidence.references(records)
    return make_table("provenance", caption, PROVENANCE_COLUMNS, rows, ran)


def _origin(record: Record) -> dict[str, str]:
    origin = record["provenance"]
    plain = ("python", "torch", "platform", "cpu", "device", "threads", "jobs")
    return {
        "record": f"{record['case']}/{record['run_id']}",
        "created_utc": record["created_utc"],
        "commit": origin["commit"][:12],
        "uncommitted_changes": short(origin["dirty"]),
        "reference": "; ".join(evidence.references([record])) or "none",
        **{name: short(origin.get(name)) for name in plain},
        "wall_s": fixed(origin["wall_s"], 1),
        "peak_memory_mib": fixed(origin.get("peak_memory_mib"), 0),
        "sha256": record["sha256"][:12],
    }


def failures(study: Study, records: Sequence[Record]) -> Table:
    """List the jobs that failed in the last run of the study."""
    path = ROOT / study.results_dir / "failures.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    caption = "Jobs that failed in the last run of the study; what rests on them reads not run."
    return make_table("failures", caption, ("job", "sentence", "where"), rows, [])


def checklist(study: Study, records: Sequence[Record]) -> Table:
    """Answer the usual questions about reproducibility from the records."""
    rows = [
        {"item": item, "answer": answer(study, records) or NOT_RUN}
        for item, answer in CHECKLIST.items()
    ]
    caption = "Reproducibility checklist, filled from the records."
    ran = evidence.references(records)
    return make_table("checklist", caption, ("item", "answer"), rows, ran)


Answer = Callable[[Study, Sequence[Record]], str]


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))


def _seeds(study: Study, records: Sequence[Record]) -> str:
    return _listed(sorted({r["subject"]["seed"] for r in evidence.planned_runs(records, study)}))


def _runs(study: Study, records: Sequence[Record]) -> str:
    runs = evidence.planned_runs(records, study)
    counts = (f"{len(v)} {arm}" for arm, v in evidence.accuracies(runs).items())
    return _listed(counts) if runs else ""


def _data(study: Study, records: Sequence[Record]) -> str:
    data = [record["inputs"]["data"] for record in evidence.planned_runs(records, study)]
    return _listed(
        f"{d['name']} ({d['license']}), {d['train_count']} training and {d['test_count']} test "
        f"images at {d['image_size']} pixels, SHA-256 {d['sha256'][:12]}"
        for d in data
    )


def _recipe(study: Study, records: Sequence[Record]) -> str:
    recipes = (r["subject"]["config"]["recipe"] for r in evidence.planned_runs(records, study))
    return _listed(
        ", ".join(f"{name} {_setting(value)}" for name, value in entry.items()) for entry in recipes
    )


def _batches(study: Study, records: Sequence[Record]) -> str:
    """Say whether the arms of each seed saw the same batches."""
    seen: dict[int, set[str]] = {}
    for record in evidence.planned_runs(records, study):
        seen.setdefault(record["subject"]["seed"], set()).add(measured(record, "batches_sha256"))
    same = sum(len(digests) == 1 for digests in seen.values())
    return f"the same batches in both arms for {same} of {len(seen)} seeds" if seen else ""


def _margin(study: Study, records: Sequence[Record]) -> str:
    allowed = evidence.margins(evidence.planned_runs(records, study))
    files = {
        r["subject"]["config"].get("study_sha256", "")[:12]
        for r in evidence.planned_runs(records, study)
    }
    margins = _listed(f"{value:g} pp of top-1" for value in sorted(allowed))
    return f"{margins}, study file SHA-256 {_listed(sorted(files))}" if allowed else ""


def _selection(study: Study, records: Sequence[Record]) -> str:
    return "the last epoch of every run; no run or epoch is selected"


def _compute(study: Study, records: Sequence[Record]) -> str:
    if not records:
        return ""
    hours = sum(map(scaling.job_wall_s, records)) / 3600
    machines = _listed(
        f"{r['provenance']['cpu']}, {r['provenance'].get('cores', '?')} cores" for r in records
    )
    return f"{fixed(hours, 2)} hours in all jobs; {machines}"


def _threads(study: Study, records: Sequence[Record]) -> str:
    return _listed(
        sorted(
            f"jobs at once: {r['provenance']['jobs']}, threads of each: "
            f"{r['provenance']['threads']}, OMP_WAIT_POLICY {r['provenance']['omp_wait_policy']}"
            for r in records
        )
    )


def _environment(study: Study, records: Sequence[Record]) -> str:
    return _listed(
        f"Python {r['provenance']['python']}, torch {r['provenance']['torch']}, lock SHA-256 "
        f"{r['provenance']['lock_sha256'][:12]}"
        for r in records
    )


def _code(study: Study, records: Sequence[Record]) -> str:
    commits = _listed(sorted({r["provenance"]["commit"][:12] for r in records}))
    changed = sum(r["provenance"]["dirty"] for r in records)
    return f"commits {commits}; {changed} records from uncommitted source" if records else ""


def _reference(study: Study, records: Sequence[Record]) -> str:
    return "; ".join(evidence.references(records))


CHECKLIST: dict[str, Answer] = {
    "Reference that ran": _reference,
    "Our source": _code,
    "Environment": _environment,
    "Data, splits, license": _data,
    "Seeds": _seeds,
    "Number of runs": _runs,
    "Hyperparameters": _recipe,
    "Order and augmentation": _batches,
    "Margin, fixed beforehand": _margin,
    "Model selection": _selection,
    "Compute": _compute,
    "Jobs and threads": _threads,
}
