"""Names of what is made from a study's records: its tables, figures and report."""

from comparison.study import ROOT, Study

TABLES = (
    "networks",
    "cost",
    "dense_networks",
    "dense_cost",
    "equivalence",
    "modes",
    "family",
    "trial",
    "policies",
    "checkers",
    "survivors",
    "training",
    "accuracy",
    "exchange",
    "tasks",
    "ablation",
    "aims",
    "errors",
    "speed",
    "operators",
    "task_accuracy",
    "differences",
    "traps",
    "audit",
    "recipe",
    "claims",
    "checklist",
    "study_cost",
    "scaling",
    "provenance",
    "failures",
)
# Figure, and the part of the study file without which there is nothing to draw.
FIGURES = {
    "network": "networks",
    "error_by_layer": "equivalence",
    "noise_floor": "equivalence",
    "divergence": "equivalence",
    "training_curves": "training",
    "accuracy_intervals": "training",
    "predictions": "tasks",
    "cost_accuracy": "networks",
    "speed": "speed",
    "roofline": "speed",
    "latency_accuracy": "latencies",
    "trial": "trial",
    "scaling": "networks",  # or any other jobs
}
ENDINGS = ("svg", "png")
NUMBERS = "numbers.json"
REPORT = ROOT / "reports" / "report.pdf"


def table_names(study: Study) -> list[str]:
    """List a study's tables: the common ones, and one a network that is compared by layer."""
    compared = study.equivalence.networks if study.equivalence else ()
    return [*TABLES, *(f"layers_{network}" for network in compared)]


def table_files(study: Study) -> list[str]:
    """List the files in a study's `tables/`."""
    names = table_names(study)
    return [*(f"{name}.{ending}" for name in names for ending in ("csv", "tex")), NUMBERS]


def figure_files(study: Study) -> list[str]:
    """List the files in the `figures/` of a study that ran as planned."""
    drawn = [name for name, part in FIGURES.items() if getattr(study, part)]
    return [f"{name}.{ending}" for name in drawn for ending in ENDINGS]
