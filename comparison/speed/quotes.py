"""The numbers about speed that the report's text quotes; `comparison.numbers` lists them."""

from collections.abc import Sequence

from comparison.deployed import ERROR_FACTOR
from comparison.evidence import Record, short_name
from comparison.quotes import Put, listed, paths
from comparison.speed import evidence
from comparison.speed.errors import GRADIENT_FACTOR
from comparison.speed.statements import SLOWDOWN_MARGIN, aims
from comparison.study import Study
from comparison.tables.table import NOT_RUN, fixed, short


def speed(study: Study, records: Sequence[Record], put: Put) -> None:
    """Quote ratios by aim, the reproduction against the reference, and the machine's limits."""
    timed = evidence.timed(records)
    source = paths(timed, "tables.speed")
    put("speed.timings", str(len(timed)) if timed else NOT_RUN, source)
    put("speed.threads", listed(str(r["subject"]["threads"]) for r in timed), source)
    put("speed.cpu", listed(r["provenance"]["cpu"] for r in timed), source)
    features = (", ".join(r["subject"]["machine"]["features"]) for r in timed)
    put("speed.features", listed(features), source)
    put("speed.output_factor", short(ERROR_FACTOR), "comparison/deployed.py")
    put("speed.gradient_factor", short(GRADIENT_FACTOR), "comparison/speed/errors.py")
    for key, arm in (("", "deploy"), ("reproduction_", "reproduction")):
        told = "; ".join(evidence.slower(records, arm)) or "none"
        known = any(row["ratio_high"] is not None for row in evidence.ran(records, arm))
        put(f"speed.{key}slower", told if known else NOT_RUN, source)
    put("speed.margin", f"{SLOWDOWN_MARGIN:.2f}", "comparison/speed/statements.py")
    equal = [row for row in evidence.ran(records, "reproduction") if row["ratio_low"] is not None]
    put("speed.reproduction_timings", str(len(equal)) if equal else NOT_RUN, source)
    for name, choose in (("low", min), ("high", max)):
        ends = [row[f"ratio_{name}"] for row in equal]
        put(f"speed.reproduction_{name}", fixed(choose(ends, default=None), 2), source)
    _aims(records, put)
    _limits(records, put)


def _aims(records: Sequence[Record], put: Put) -> None:
    found = [evidence.row_of(records, aim) for aim in aims()]
    run = [row for row in found if row and row["verdict"] != "not run"]
    met = sum(row["verdict"] in ("reproduced", "within tolerance") for row in run)
    source = paths(evidence.timed(records), "tables.speed")
    put("speed.aims", str(len(found)), "comparison/speed/aims.toml")
    put("speed.aims_timed", str(len(run)) if run else NOT_RUN, source)
    put("speed.aims_met", str(met) if run else NOT_RUN, source)


def _limits(records: Sequence[Record], put: Put) -> None:
    """Quote the timing that the roofline shows."""
    shown = evidence.main(records)
    source = paths(shown, "tables.limits, tables.roofline, tables.operators")
    record = shown[0] if shown else None
    about = record["subject"] if record else {}
    put("roof.network", short_name(about["network"]) if record else NOT_RUN, source)
    put("roof.batch_size", short(about.get("batch_size")), source)
    roof = evidence.roof(record) if record else None
    put("roof.gflops", fixed(roof, 0), source)
    put("roof.gbytes_per_s", fixed(evidence.bandwidth(record) if record else None, 0), source)
    rates = evidence.rates(record) if record else {}
    for arm in ("reference", "reproduction", "deploy"):
        share = 100 * rates[arm]["gflops"] / roof if roof and arm in rates else None
        put(f"roof.{arm}", NOT_RUN if share is None else f"{fixed(share, 0)} %", source)
    spent = evidence.shares(record, "reference") if record else {}
    for group, key in (("convolution", "convolution"), ("batch norm", "batch_norm")):
        share = 100 * spent[group] if group in spent else None
        put(f"roof.{key}_share", NOT_RUN if share is None else f"{fixed(share, 0)} %", source)
