"""The claims of the report: what is said, which records decide it, and how.

A claim's verdict is a function of the study and its records. A claim whose records are missing is
not run; one of which some are missing is judged by those that are there, and says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comparison import agreement, judges
from comparison.evidence import Record
from comparison.judges import Judge, Verdict
from comparison.speed import evidence as timings
from comparison.study import DEFAULT, Study, StudyError


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the report.

    Attributes:
        id: As cited, e.g. ``C5``.
        sentence: What is claimed.
        cases: Cases of the records that decide it.
        notebook: Where to look and try; empty where a command does it.
        judge: Takes the verdict from the study and the records of those cases.
    """

    id: str
    sentence: str
    cases: tuple[str, ...]
    notebook: str
    judge: Judge

    def command(self, study: Study) -> str:
        """Return the one command that runs it again in a study."""
        chosen = "" if study.name == DEFAULT else f" STUDY={study.name}"
        return f"make claim ID={self.id}{chosen}"

    def verdict(self, study: Study, records: Iterable[Record]) -> Verdict:
        """Judge the claim from a study's records."""
        mine = [record for record in records if record["case"] in self.cases]
        if not mine:
            return Verdict(outcome="not run", reason="no record")
        return self.judge(study, mine)


CLAIMS = (
    Claim(
        id="C1",
        sentence="All classification networks have the published numbers of parameters.",
        cases=("networks",),
        notebook="notebooks/01_networks.ipynb",
        judge=judges.of_cost("parameters_m", "parameter counts met to the printed digit"),
    ),
    Claim(
        id="C2",
        sentence="All classification networks have the published GFLOPs to the printed digit.",
        cases=("networks",),
        notebook="notebooks/01_networks.ipynb",
        judge=judges.of_cost("published_gflops", "costs met to the printed digit"),
    ),
    Claim(
        id="C3",
        sentence="Layers, settings, state, optimizer and schedule correspond one to one; "
        "batches repeat.",
        cases=("equivalence",),
        notebook="notebooks/02_equivalence.ipynb",
        judge=judges.of_modes(*agreement.STRUCTURE),
    ),
    Claim(
        id="C4",
        sentence="In float64 the reproduction computes what the official code was recorded to.",
        cases=("equivalence",),
        notebook="notebooks/02_equivalence.ipynb",
        judge=judges.of_traces,
    ),
    Claim(
        id="C5",
        sentence="With equal weights all outputs, gradients, buffers and steps agree in float64, "
        "against measured rounding.",
        cases=("equivalence",),
        notebook="notebooks/02_equivalence.ipynb",
        judge=judges.of_modes(*agreement.COMPUTED),
    ),
    Claim(
        id="C6",
        sentence="The comparison catches at least 98 % of injected faults, names the place of at "
        "least 90 %, and raises no alarm on harmless rewrites.",
        cases=("trial",),
        notebook="notebooks/06_trial.ipynb",
        judge=judges.of_trial,
    ),
    Claim(
        id="C7",
        sentence="In eager float32 both train with equal bits, step by step.",
        cases=("equivalence",),
        notebook="notebooks/02_equivalence.ipynb",
        judge=judges.of_bits,
    ),
    Claim(
        id="C8",
        sentence="Both reach the same accuracy, within the margin fixed beforehand.",
        cases=("training",),
        notebook="notebooks/03_training.ipynb",
        judge=judges.of_accuracy,
    ),
    Claim(
        id="C9",
        sentence="Weights trained by one decide every test image alike in the other, in float64.",
        cases=("training",),
        notebook="notebooks/03_training.ipynb",
        judge=judges.of_exchange,
    ),
    Claim(
        id="C10",
        sentence="In eager execution the reproduction is as fast as the reference.",
        cases=("speed",),
        notebook="notebooks/04_speed.ipynb",
        judge=timings.of_equal_speed,
    ),
    Claim(
        id="C11",
        sentence="The reproduction reaches the published ImageNet accuracy.",
        cases=("training",),
        notebook="notebooks/03_training.ipynb",
        judge=judges.of_imagenet,
    ),
    Claim(
        id="C12",
        sentence="The reproduction has no more text in common with the official code than "
        "independently written programs have.",
        cases=("audit",),
        notebook="",
        judge=judges.of_records,
    ),
    Claim(
        id="C13",
        sentence="Where paper, official code and reproduction differ is known, and as documented.",
        cases=("differences",),
        notebook="notebooks/05_differences.ipynb",
        judge=judges.of_records,
    ),
    Claim(
        id="C14",
        sentence="The networks for dense tasks have the official names and shapes, and every "
        "published size and cost is met or explained.",
        cases=("networks",),
        notebook="notebooks/01_networks.ipynb",
        judge=judges.of_dense_cost,
    ),
    Claim(
        id="C15",
        sentence="Trained on dense tasks both end alike: with equal bits, or with equal scores "
        "within the margin fixed beforehand.",
        cases=("tasks",),
        notebook="notebooks/07_tasks.ipynb",
        judge=judges.of_tasks,
    ),
    Claim(
        id="C16",
        sentence="Training in the fast form is faster than the reference by the factors fixed "
        "beforehand; where its gradients are less exact, by how much is known.",
        cases=("speed",),
        notebook="notebooks/04_speed.ipynb",
        judge=timings.of_aims("training", timings.of_errors("training")),
    ),
    Claim(
        id="C17",
        sentence="Deployed for inference it is faster than the reference by the factors fixed "
        "beforehand, with the same outputs and accuracy.",
        cases=("speed",),
        notebook="notebooks/04_speed.ipynb",
        judge=timings.of_aims("inference", timings.of_errors("inference")),
    ),
)


def claim_named(identifier: str) -> Claim:
    """Look a claim up.

    Raises:
        StudyError: No claim has that id; the message lists those that exist.
    """
    for claim in CLAIMS:
        if claim.id == identifier:
            return claim
    known = ", ".join(claim.id for claim in CLAIMS)
    raise StudyError(f"claim {identifier!r} is unknown; use one of {known}")


def verdict_table(study: Study, records: Sequence[Record]) -> str:
    """Write the verdicts as a markdown table, one row a claim, with its command."""
    head = f"| claim | verdict (study `{study.name}`) | why | run it again |"
    lines = [head, "|---|---|---|---|"]
    for claim in CLAIMS:
        verdict = claim.verdict(study, records)
        lines.append(
            f"| {claim.id}: {claim.sentence} | {verdict.outcome} | {verdict.reason} | "
            f"`{claim.command(study)}` |"
        )
    return "\n".join(lines)
