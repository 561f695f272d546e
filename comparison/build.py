"""Make a study's tables, figures and numbers from its records; the same records, the same bytes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from comparison import (
    cost_figures,
    dense_evidence,
    evidence,
    figures,
    numbers,
    products,
    speed_figures,
    task_figures,
    trial_figures,
    trials,
)
from comparison.evidence import Record
from comparison.freshness import check_data
from comparison.record import read_records
from comparison.speed import evidence as timings
from comparison.study import ROOT, Study, StudyError
from comparison.tables import build_tables
from reproduction import network_config
from reproduction.durable import drop_partials, write_whole


def build(study: Study, folder: Path | None = None) -> list[Path]:
    """Write `tables/` and `figures/` of a study.

    Args:
        study: Whose records are read, from its own folder.
        folder: Where to write; the study's folder by default.

    Returns:
        The files written. Figures for which there are no records are left out, and removed.

    Raises:
        RecordError: A record is damaged or was edited.
        StaleError: A record was made on other data than there is.
        StudyError: A file could not be written.
    """
    records = read_records(study.results_dir)
    check_data(records, study.training.data if study.training else "")
    folder = folder or ROOT / study.results_dir
    try:
        for part in ("tables", "figures"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            drop_partials(folder / part)
        return [
            *_write_tables(study, records, folder / "tables"),
            *_write_figures(study, records, folder / "figures"),
        ]
    except OSError as problem:
        raise StudyError(
            f"{problem.filename or folder} could not be written ({problem.strerror}): free some "
            "space and run the same command again"
        ) from problem


def _write_tables(study: Study, records: Sequence[Record], folder: Path) -> list[Path]:
    written = []
    for table in build_tables(study, records):
        for ending, text in (("csv", table.to_csv()), ("tex", table.to_latex())):
            written.append(folder / f"{table.name}.{ending}")
            write_whole(written[-1], text)
    written.append(folder / products.NUMBERS)
    write_whole(written[-1], numbers.to_json(numbers.collect(study, records)))
    return written


Choose = Callable[[Study, Sequence[Record]], list[Record]]


def _of_case(case: str) -> Choose:
    return lambda study, records: evidence.of_case(records, case)


def _planned(study: Study, records: Sequence[Record]) -> list[Record]:
    return evidence.planned_runs(records, study)


def _all(study: Study, records: Sequence[Record]) -> list[Record]:
    return list(records)


def _timed(study: Study, records: Sequence[Record]) -> list[Record]:
    return timings.timed(records)


# What a figure shows, and how it is drawn.
DRAWN: dict[str, tuple[Choose, Callable[[list[Record]], Figure]]] = {
    "error_by_layer": (evidence.compared_by_layer, lambda shown: figures.error_by_layer(shown[0])),
    "noise_floor": (evidence.compared_by_layer, lambda shown: figures.noise_floor(shown[0])),
    "divergence": (evidence.followed_longest, lambda shown: figures.divergence(shown[0])),
    "training_curves": (_planned, figures.training_curves),
    "accuracy_intervals": (_planned, figures.accuracy_intervals),
    "predictions": (dense_evidence.pictured, task_figures.predictions),
    "cost_accuracy": (_of_case("networks"), figures.cost_accuracy),
    "speed": (_timed, speed_figures.ratios),
    "roofline": (
        lambda study, records: timings.main(records),
        lambda shown: speed_figures.roofline(shown[0]),
    ),
    "latency_accuracy": (
        lambda study, records: timings.latencies(records),
        speed_figures.latency_accuracy,
    ),
    "scaling": (_all, cost_figures.speedup),
    "trial": (trials.planned, lambda shown: trial_figures.scoreboard(shown[0])),
}


def draw(
    name: str, study: Study, records: Sequence[Record]
) -> tuple[Figure, Sequence[Record]] | None:
    """Draw one figure of a study.

    Args:
        name: A name of `products.FIGURES`.
        study: Says what was planned.
        records: All records of the study.

    Returns:
        The figure and the records it shows, or None if none of them is there.
    """
    if name == "network":
        config = network_config(evidence.main_network(study))
        return figures.network_diagram(config), []
    choose, make = DRAWN[name]
    shown = choose(study, records)
    return (make(shown), shown) if shown else None


def _write_figures(study: Study, records: Sequence[Record], folder: Path) -> list[Path]:
    written = []
    for name in products.FIGURES:
        drawn = draw(name, study, records)
        if drawn is None:
            for ending in products.ENDINGS:
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
            continue
        figure, shown = drawn
        written += figures.save(figure, folder, name, shown)
        plt.close(figure)
    return written
