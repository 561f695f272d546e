"""Numbers for the report about what the networks are and compute; see `comparison.numbers`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from comparison import agreement, dense_evidence, evidence, scaling
from comparison.evidence import Record
from comparison.study import Study
from comparison.tables.cost import DATA_SHARE_AIM, START_SHARE_AIM
from comparison.tables.table import NOT_RUN, fixed, scientific, short
from reproduction import CLASSIFICATION

# Takes a key, the text, and the record that it comes from.
Put = Callable[[str, str, str], None]


def paths(records: Iterable[Record], place: str) -> str:
    """Name the source of a number that rests on several records."""
    names = [evidence.name_of(record) for record in records]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}#{place}" if names else ""


def listed(values: Iterable[Any]) -> str:
    """Join the distinct values."""
    return ", ".join(sorted({str(value) for value in values})) or NOT_RUN


def networks(study: Study, records: Sequence[Record], put: Put) -> None:
    """Quote sizes, costs and how they divide over the network."""
    counted = {
        record["subject"]["network"]: record
        for record in evidence.of_case(records, "networks")
        if "cost" in record["tables"]
    }
    met = sum(r["verdict"]["outcome"] == "reproduced" for r in counted.values())
    whole = list(counted.values())
    put("networks.count", str(len(counted)) if counted else NOT_RUN, paths(whole, "tables.cost"))
    put("networks.reproduced", str(met) if counted else NOT_RUN, paths(whole, "verdict"))
    for name in study.classifiers:
        record = counted.get(name)
        for quantity in ("parameters_m", "gmacs", "published_gflops", "fvcore_gflops"):
            row = evidence.row_where(record, "cost", quantity=quantity) if record else None
            text = fixed(row["reproduction"], 4) if row else NOT_RUN
            put(f"networks.{name}.{quantity}", text, paths([record] if record else [], quantity))
    _family(records, put)
    drawn = evidence.main_network(study)
    put("network.drawn", evidence.short_name(drawn), "reproduction/config.py")
    small = CLASSIFICATION["cls_hrnet_w18_small_v1"]
    put("network.small_v1.width", str(small.width), "reproduction/config.py")
    _parts(study, counted.get(drawn), put)


def _family(records: Sequence[Record], put: Put) -> None:
    """Quote what is known about the networks for dense tasks, and by which kind of evidence."""
    counted = [r for r in evidence.of_case(records, "networks") if "dense_cost" in r["tables"]]
    networks = evidence.rows_of(counted, "dense_networks")
    figures = evidence.rows_of(counted, "dense_cost")
    beside = sum(row["parameters_reference"] is not None for row in networks)
    missed = sum(row["verdict"] == "not reproduced" for row in figures)
    source = paths(counted, "tables.dense_cost")
    put("family.networks", _count(networks), source)
    put("family.counted_beside", str(beside) if networks else NOT_RUN, source)
    put("family.figures", _count(figures), source)
    put("family.figures_missed", str(missed) if figures else NOT_RUN, source)
    ran = [row["live_verdict"] for row in networks if row.get("live_verdict", NOT_RUN) != NOT_RUN]
    equal = str(ran.count("reproduced")) if ran else NOT_RUN
    put("family.same_bits", equal, paths(counted, "tables.dense_networks"))
    compared = evidence.of_case(records, "equivalence")
    live = {agreement.network_of(record) for record in agreement.with_reference(records)}
    traced = {row["network"] for row in agreement.traces(compared)}
    source = paths(compared, "tables.modes")
    for key, names in (("live", live), ("traced", traced)):
        count = str(sum(name not in CLASSIFICATION for name in names))
        put(f"family.{key}", count if compared else NOT_RUN, source)


def _parts(study: Study, record: Record | None, put: Put) -> None:
    """Say which share head and last stage have in parameters and operations."""
    source = [record] if record else []
    name = evidence.short_name(evidence.main_network(study)) if record else NOT_RUN
    put("parts.network", name, paths(source, "subject.network"))
    for part, key in (("head", "head"), ("stage4", "stage4")):
        row = evidence.row_where(record, "parts", part=part) if record else None
        for what, column in (("parameters", "share_of_parameters"), ("macs", "share_of_gmacs")):
            text = f"{fixed(100 * row[column], 0)} %" if row else NOT_RUN
            put(f"parts.{key}_{what}", text, paths(source, f"tables.parts.{column}"))


def compared_networks(study: Study, records: Sequence[Record], put: Put) -> None:
    """Quote the comparison of the arms, the traces and the trajectory."""
    compared = agreement.with_reference(records)
    rows, layers = agreement.modes(compared), evidence.rows_of(compared, "layers")
    computed = [row for row in rows if row["mode"] in agreement.COMPUTED]
    source = paths(compared, "tables.modes")
    counts = {
        "networks": len({agreement.network_of(record) for record in compared}),
        "runs": len(compared),
        "layers": len(layers),
        "tensors": sum(row["compared"] for row in computed),
        "bit_equal_tensors": sum(row["bit_equal"] for row in computed),
        "unmatched": agreement.unmatched(compared),
        "steps": max((r["subject"]["config"]["steps"] for r in compared), default=0),
        "facts": sum(row["compared"] for row in rows if row["mode"] in agreement.STRUCTURE),
    }
    for key, count in counts.items():
        put(f"equivalence.{key}", str(count) if compared else NOT_RUN, source)
    groups: dict[str, tuple[str, ...]]
    groups = {mode.replace(" ", "_").replace("-", "_"): (mode,) for mode in agreement.COMPUTED}
    groups |= {"output": ("forward eval", "forward train"), "gradient": ("backward",)}
    for key, modes in groups.items():
        put(f"equivalence.{key}_max", scientific(agreement.largest(rows, *modes)), source)
    for key in ("output", "gradient"):
        put(f"equivalence.noise_{key}", scientific(agreement.noise(rows, *groups[key])), source)
    _margins(compared, put)
    _by_timm(records, put)
    _replayed(evidence.of_case(records, "equivalence"), put)
    _followed(compared, put)


def _margins(compared: Sequence[Record], put: Put) -> None:
    """Quote the constants of the thresholds, and what the rewrites and free runs showed."""
    source = paths(compared, "tables.thresholds")
    for key in ("relative", "noise_factor", "gap", "counting"):
        rows = (evidence.row_where(record, "thresholds", name=key) for record in compared)
        put(f"thresholds.{key}", listed(f"{row['value']:g}" for row in rows if row), source)
    named = {row["rewrite"] for row in evidence.rows_of(compared, "calibration")}
    put("rewrites.count", _count(named), paths(compared, "tables.calibration"))
    for key, name in (("rewrites.fewest", "fewest_counting_rewrites"), ("free.horizon", "horizon")):
        values = [evidence.measured(record, name) for record in compared]
        put(key, short(min(values, default=None)), paths(compared, name))
    steps = [evidence.measured(record, "free_steps") for record in compared]
    put("free.steps", short(max(steps, default=None)), paths(compared, "free_steps"))


def _by_timm(records: Sequence[Record], put: Put) -> None:
    """Quote the comparison with timm's network."""
    compared = [
        record
        for record in evidence.of_case(records, "equivalence")
        if agreement.against_of(record) == "timm"
    ]
    rows, source = agreement.modes(compared), paths(compared, "tables.modes")
    put("timm.networks", _count({agreement.network_of(record) for record in compared}), source)
    put("timm.output_max", scientific(agreement.largest(rows, "forward eval")), source)
    put("timm.gradient_max", scientific(agreement.largest(rows, "backward")), source)


def _replayed(compared: Sequence[Record], put: Put) -> None:
    rows = agreement.traces(compared)
    source = paths((r for r in compared if r["tables"].get("traces")), "tables.traces")
    errors = [row["worst_relative_error"] for row in rows]
    put("traces.networks", _count({row["network"] for row in rows}), source)
    put("traces.rows", str(sum(row["rows"] for row in rows)) if rows else NOT_RUN, source)
    put("traces.max_error", scientific(max(errors, default=None)), source)


def _followed(compared: Sequence[Record], put: Put) -> None:
    followed = agreement.trajectories(compared, "float32")
    source = paths((r for r in compared if r["tables"].get("trajectory")), "tables.trajectory")
    steps = [len(rows) for rows in followed]
    whole = sum(agreement.bit_equal_steps(rows) == len(rows) for rows in followed)
    put("steps.runs", _count(followed), source)
    put("steps.whole", str(whole) if followed else NOT_RUN, source)
    put("steps.span", agreement.span(steps) if steps else NOT_RUN, source)


def _count(found: Sequence[Any] | set[Any]) -> str:
    return str(len(found)) if found else NOT_RUN


def dense_tasks(study: Study, records: Sequence[Record], put: Put) -> None:
    """Resolve the numbers of dense tasks for the report's text."""
    found, runs = dense_evidence.outcomes(study, records), dense_evidence.planned(study, records)
    plan, source = study.tasks, paths(runs, "measurements")
    pairs, equal = (sum(getattr(it, name) for it in found) for name in ("pairs", "equal"))
    trained = [record for record in runs if dense_evidence.is_run(record)]
    counted = {
        "tasks.count": len(found),
        "tasks.runs": len(trained),
        "tasks.seeds": len(plan.seeds) if plan and found else 0,
        "tasks.scenes": plan.scenes if plan and found else 0,
        "tasks.epochs": plan.epochs if plan and found else 0,
    }
    for key, value in counted.items():
        put(key, str(value) if value else NOT_RUN, source)
    put("tasks.margin", fixed(plan.margin_points if plan and found else None, 1), source)
    put("tasks.pairs", str(pairs) if found else NOT_RUN, source)
    put("tasks.bit_equal", str(equal) if pairs else NOT_RUN, source)


def cost(study: Study, records: Sequence[Record], put: Put) -> None:
    """Quote what the study's jobs took, how they were spent, and how they scale."""
    accounted = [record for record in records if "job" in record["provenance"]]
    jobs = [record["provenance"]["job"] for record in accounted]
    wall_s = sum(map(scaling.job_wall_s, records)) if records else None
    spent_s = sum(job["wall_s"] for job in jobs)
    start_s = sum(job["phases_s"][name] for job in jobs for name in ("kernel start", "imports"))
    shares = [evidence.measured(record, "data_share") for record in records]
    largest = max((share for share in shares if share is not None), default=None)
    source = paths(accounted, "provenance.job")
    put("cost.hours", fixed(wall_s and wall_s / 3600, 2), paths(records, "provenance"))
    put("cost.cpu_hours", fixed(sum(j["cpu_s"] for j in jobs) / 3600 if jobs else None, 2), source)
    put("cost.start_share", f"{fixed(100 * start_s / spent_s, 1)} %" if jobs else NOT_RUN, source)
    put("cost.start_aim", f"{100 * START_SHARE_AIM:g} %", "comparison/tables/cost.py")
    put("cost.data_aim", f"{100 * DATA_SHARE_AIM:g} %", "comparison/tables/cost.py")
    share = NOT_RUN if largest is None else f"{fixed(100 * largest, 1)} %"
    known = [share for share in shares if share is not None]
    over = str(sum(share > DATA_SHARE_AIM for share in known)) if known else NOT_RUN
    put("cost.data_share", share, paths(records, "data_share"))
    put("cost.data_runs", str(len(known)) if known else NOT_RUN, paths(records, "data_share"))
    put("cost.data_over", over, paths(records, "data_share"))
    _scaling(records, put)


def _scaling(records: Sequence[Record], put: Put) -> None:
    ran = evidence.of_case(records, scaling.CASE)[:1]
    for key in ("speedup", "slowdown"):
        value = evidence.measured(ran[0], key) if ran else None
        put(f"scaling.{key}", fixed(value, 2), paths(ran, key))
    error = evidence.measured(ran[0], "error") if ran else None
    told = NOT_RUN if error is None else f"{fixed(100 * error, 1)} %"
    put("scaling.error", told, paths(ran, "error"))
    put("scaling.tolerance", f"{100 * scaling.TOLERANCE:g} %", "comparison/scaling.py")
    busy = scaling.most_busy(records)
    put("scaling.many", str(scaling.MANY), "comparison/scaling.py")
    most = str(busy) if busy else NOT_RUN
    put("scaling.half_efficient", most, paths(records, "provenance"))
