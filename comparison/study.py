"""A study file as data: what is run, on what, how often, and the margin fixed beforehand.

A study is `workflow/studies/<name>.yaml`; its results lie in `results/<name>/`. Reading one needs
no PyTorch, so that finding out that nothing is to be done stays quick.
"""

import re
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from hashlib import sha256
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from comparison.mutation.plan import PLANS
from comparison.timing_plan import ARMS, SpeedPlan, SpeedRun, StudyError, need, shown
from reference.errors import ReferenceUnavailable
from reference.pins import load_pins
from reference.plain_yaml import NotPlain, read_plain

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "workflow" / "studies"
WEIGHTS = ("random", "trained")
# Dense tasks on composed scenes, and what networks they are trained with: the small one that both
# arms have, and the paper's variants of fusion, which only the reproduction has.
TASKS = ("pose", "segmentation", "ocr", "landmarks", "detection")
ABLATED = ("pose", "segmentation")
SMALL = "small"
VARIANTS = ("full", "across", "final", "bilinear")
TRACES = "traces"  # the numbers that the official code was recorded to
REFERENCE = "reference"
AGAINST = (REFERENCE, "timm", TRACES)
DEFAULT = "quick"  # the study that runs if none is named
NAME = r"\w[\w.-]*"
PLAIN = r"[\w.:/~+ -]*"
TRAINED_SIZE = 32  # pixels of the small data sets that studies train on
DENSE = "dense"  # stands for all networks of tasks other than classification


class Comparison(NamedTuple):
    """One comparison of the reproduction: of which network, with what, over how many steps."""

    network: str
    weights: str
    against: str
    steps: int

    @property
    def run_id(self) -> str:
        """Name of its record."""
        if self.against == TRACES:  # whose weights and steps are those of the recording
            return f"{self.network}.{TRACES}"
        return f"{self.network}.{self.weights}.{self.against}.steps{self.steps}"


def _distinct(name: str, values: tuple[str, ...]) -> None:
    """Refuse what is listed twice: each entry makes records of its own."""
    need(len(set(values)) == len(values), name, values, "each entry once")


@dataclass(frozen=True, kw_only=True)
class EquivalencePlan:
    """Which networks are compared with the reference, with which weights, over how many steps.

    Attributes:
        networks: Compared with the reference.
        weights: With which weights.
        steps: Optimizer steps.
        timm: Compared with timm's network as well, with random weights.
        long: Followed over `long_steps` optimizer steps as well, with random weights.
        long_steps: See `long`.
        traces: Held to what is on record, without the reference; ``dense`` names a family.
    """

    networks: tuple[str, ...]
    weights: tuple[str, ...] = ("random",)
    steps: int = 10
    timm: tuple[str, ...] = ()
    long: tuple[str, ...] = ()
    long_steps: int = 200
    traces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        need(set(self.weights) <= set(WEIGHTS), "equivalence.weights", self.weights, WEIGHTS)
        for name in ("networks", "weights", "timm", "long", "traces"):
            _distinct(f"equivalence.{name}", getattr(self, name))
        for name in ("steps", "long_steps"):
            value = getattr(self, name)
            need(value >= 1, f"equivalence.{name}", value, "a whole number of at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What both arms are trained on; the margin is in percentage points of top-1 accuracy."""

    network: str
    data: str
    arms: tuple[str, ...] = ARMS
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    margin_pp: float
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        need(bool(self.arms), "training.arms", self.arms, "at least one arm")
        need(set(self.arms) <= set(ARMS), "training.arms", self.arms, ARMS)
        _distinct("training.arms", self.arms)
        need(bool(self.seeds), "training.seeds", self.seeds, "at least one seed")
        distinct = len(set(self.seeds)) == len(self.seeds)
        need(distinct and min(self.seeds) >= 0, "training.seeds", self.seeds, "distinct, from 0")
        for name in ("epochs", "batch_size", "threads"):
            value = getattr(self, name)
            need(value >= 1, f"training.{name}", value, "a whole number of at least 1")
        need(self.margin_pp > 0, "training.margin_pp", self.margin_pp, "a number above 0")


@dataclass(frozen=True, kw_only=True)
class TasksPlan:
    """Which dense tasks both arms are trained for, on how many composed scenes.

    Attributes:
        names: Tasks.
        arms: Which arms.
        seeds: Of start weights and order.
        epochs: Over the training scenes.
        scenes: To train on.
        margin_points: Largest difference of the arms' means that counts as none, in points of the
            task's metric; where all runs end with equal bits it is not needed.
        ablation: Tasks for which the reproduction is also trained with each of `VARIANTS`.
    """

    names: tuple[str, ...]
    arms: tuple[str, ...] = ARMS
    seeds: tuple[int, ...]
    epochs: int
    scenes: int
    margin_points: float
    ablation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        need(bool(self.names), "tasks.names", self.names, "at least one task")
        need(set(self.names) <= set(TASKS), "tasks.names", self.names, TASKS)
        need(bool(self.arms), "tasks.arms", self.arms, "at least one arm")
        need(set(self.arms) <= set(ARMS), "tasks.arms", self.arms, ARMS)
        for name in ("names", "arms", "ablation"):
            _distinct(f"tasks.{name}", getattr(self, name))
        need(set(self.ablation) <= set(ABLATED), "tasks.ablation", self.ablation, ABLATED)
        distinct = len(set(self.seeds)) == len(self.seeds) > 0
        need(distinct and min(self.seeds) >= 0, "tasks.seeds", self.seeds, "distinct, from 0")
        for name in ("epochs", "scenes"):
            value = getattr(self, name)
            need(value >= 1, f"tasks.{name}", value, "a whole number of at least 1")
        need(self.margin_points > 0, "tasks.margin_points", self.margin_points, "more than 0")

    def runs(self) -> list[tuple[str, str, str, int]]:
        """List what is trained: task, variant of the network, arm and seed."""
        both = [
            (name, SMALL, arm, seed)
            for name in self.names
            for seed in self.seeds
            for arm in self.arms
        ]
        return both + [
            (name, variant, "reproduction", seed)
            for name in self.ablation
            for variant in VARIANTS
            for seed in self.seeds
        ]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file, checked; `sha256` is that of the file's bytes, `trial` names a plan."""

    name: str
    sha256: str
    description: str
    networks: tuple[str, ...] = ()
    equivalence: EquivalencePlan | None = None
    training: TrainingPlan | None = None
    tasks: TasksPlan | None = None
    speed: SpeedPlan | None = None
    trial: str = field(default="")
    differences: bool = field(default=True)
    audit: bool = field(default=True)
    scaling: bool = field(default=False)

    def __post_init__(self) -> None:
        need(self.trial in ("", *PLANS), "trial", self.trial, f"one of {', '.join(PLANS)}")
        _distinct("networks", self.networks)

    @property
    def results_dir(self) -> str:
        """The study's folder, relative to the repository."""
        return f"results/{self.name}"

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The networks for classification among those that are counted."""
        return tuple(name for name in self.networks if name.startswith("cls_"))

    @property
    def latencies(self) -> tuple[SpeedRun, ...]:
        """The timings of one image of a classification network at the published size."""
        return tuple(
            run
            for run in (self.speed.runs if self.speed else ())
            if run.network.startswith("cls_")
            and (run.task, run.image_size, run.batch_size) == ("inference", 224, 1)
            and run.precision == "float32"
        )

    def deploys_trained(self, run: SpeedRun) -> bool:
        """Whether a timing deploys the network that the study trains, on images of that size."""
        trained = self.training.network if self.training else None
        return (run.task, run.network, run.image_size) == ("inference", trained, TRAINED_SIZE)

    def compared(self) -> list[Comparison]:
        """List what is compared layer by layer.

        Only the network that the study trains has trained weights.
        """
        plan, trained = self.equivalence, self.training.network if self.training else None
        if plan is None:
            return []
        live = [
            Comparison(network, weights, REFERENCE, plan.steps)
            for network in plan.networks
            for weights in plan.weights
            if weights == "random" or network == trained
        ]
        live += [Comparison(network, "random", "timm", plan.steps) for network in plan.timm]
        live += [Comparison(name, "random", REFERENCE, plan.long_steps) for name in plan.long]
        return live + [Comparison(name, "random", TRACES, 1) for name in plan.traces]


def known_studies(folder: Path = STUDIES) -> list[str]:
    """List the studies that exist, by name."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_study(name: str, folder: Path = STUDIES) -> Study:
    """Read and check a study file.

    Args:
        name: The file's name without its ending, e.g. ``quick``.
        folder: Where study files lie.

    Raises:
        StudyError: There is no such study, its file has an unknown, missing or ill-typed entry, or
            the pins of the reference are damaged.
    """
    path = folder / f"{name}.yaml"
    if name not in known_studies(folder):
        known = ", ".join(known_studies(folder))
        raise StudyError(f"study {name!r} is unknown; use one of {known}, or add {path.name}")
    if not re.fullmatch(NAME, name):
        raise StudyError(f"study {name!r}: give a file whose name is letters, digits, _, . and -")
    content = path.read_bytes()
    try:
        entries = read_plain(content)
        study = _read(Study, entries, "", name=name, sha256=sha256(content).hexdigest())
        _check_networks(study)
        return study
    except ReferenceUnavailable as problem:  # the pins, which name all networks, are damaged
        raise StudyError(str(problem)) from None
    except (StudyError, NotPlain) as problem:
        raise StudyError(f"{path.name}: {' '.join(str(problem).split())}") from None


def _check_networks(study: Study) -> None:
    """Refuse a network that there is none of; nothing else would before its job runs."""
    known = set(load_pins().networks)
    plan = study.equivalence
    named: dict[str, set[str]] = {
        "networks": set(study.networks) - {DENSE},
        "training.network": {study.training.network} if study.training else set(),
        "speed.runs": {run.network for run in study.speed.runs} if study.speed else set(),
    }
    for key in ("networks", "timm", "long", "traces") if plan else ():
        family = {DENSE} if key == TRACES else set()
        named[f"equivalence.{key}"] = set(getattr(plan, key)) - family
    for key, names in named.items():
        need(names <= known, key, sorted(names - known), "official names, such as cls_hrnet_w18")


def study_of(results_dir: str | Path) -> Study | None:
    """Return the study that a results folder belongs to, or None for a run by hand."""
    folder = (ROOT / results_dir).resolve()
    if folder.parent == ROOT / "results" and folder.name in known_studies():
        return load_study(folder.name)
    return None


def _read(kind: type, entries: Any, prefix: str, **known: Any) -> Any:
    """Build a plan from a mapping; every key is checked, nothing is converted silently."""
    if not isinstance(entries, dict):
        raise StudyError(f"{prefix.rstrip('.') or 'the file'} is {shown(entries)}; give a mapping")
    plan = {item.name: item for item in fields(kind) if item.name not in known}
    for name in entries:
        if name not in plan:
            raise StudyError(f"{prefix}{name} is unknown; known here are {', '.join(plan)}")
    for name, item in plan.items():
        if name not in entries and item.default is MISSING:
            raise StudyError(f"{prefix}{name} is missing")
    values = {
        name: _value(plan[name].type, given, prefix + name) for name, given in entries.items()
    }
    return kind(**known, **values)


def _value(kind: Any, given: Any, name: str) -> Any:
    """Check one entry against the type that its field declares."""
    if isinstance(kind, UnionType):
        plan = get_args(kind)[0]
        return None if given is None else _read(plan, given, f"{name}.")
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(item, type) and is_dataclass(item) and isinstance(given, list):
            return tuple(_read(item, entry, f"{name}.") for entry in given)
        need(isinstance(given, list), name, given, f"a list of {item.__name__}")
        return tuple(_value(item, entry, f"an entry of {name}") for entry in given)
    if kind is float and type(given) is int:
        return float(given)
    need(type(given) is kind, name, given, f"a value of type {kind.__name__}")
    if kind is str and name != "description":  # names become paths and words of command lines
        need(
            bool(re.fullmatch(PLAIN, given)),
            name,
            given,
            "letters, digits and any of _ . : / ~ + -",
        )
    if kind is float:
        need(isfinite(given), name, given, "a finite number")
    return given
