"""All tables of a study, in the order of the report."""

from collections.abc import Callable, Sequence

from comparison.evidence import Record
from comparison.study import Study
from comparison.tables import agreement, cost, dense, family, outcomes, speed, structure, trial
from comparison.tables import study as about
from comparison.tables.table import Table

MAKERS: dict[str, Callable[[Study, Sequence[Record]], Table]] = {
    "networks": structure.networks,
    "cost": structure.cost,
    "dense_networks": family.dense_networks,
    "dense_cost": family.dense_cost,
    "equivalence": agreement.equivalence,
    "modes": agreement.modes,
    "family": family.evidence_by_network,
    "trial": trial.scores,
    "policies": trial.policies,
    "checkers": trial.checkers,
    "survivors": trial.survivors,
    "training": outcomes.training,
    "accuracy": outcomes.accuracy,
    "exchange": outcomes.exchange,
    "tasks": dense.tasks,
    "ablation": dense.ablation,
    "aims": speed.aims,
    "errors": speed.errors,
    "speed": speed.speed,
    "operators": speed.operators,
    "task_accuracy": family.task_accuracy,
    "differences": structure.differences,
    "traps": structure.traps,
    "audit": structure.audit,
    "recipe": about.recipe,
    "claims": about.claims,
    "checklist": about.checklist,
    "study_cost": cost.study_cost,
    "scaling": cost.scaling_table,
    "provenance": about.provenance,
    "failures": about.failures,
}


def build_tables(study: Study, records: Sequence[Record]) -> list[Table]:
    """Make every table of a study; one without records has its head only.

    Args:
        study: Says what was planned.
        records: What was recorded, sorted by case and run.
    """
    tables = [make(study, records) for make in MAKERS.values()]
    compared = study.equivalence.networks if study.equivalence else ()
    return [*tables, *(agreement.layers(network, records) for network in compared)]
