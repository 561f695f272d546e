"""What a notebook may be given, checked before anything runs.

papermill sets whatever it is told to and only warns about a name that the notebook lacks; a run
of hours on a misspelled parameter is what this module prevents.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comparison import clock
from comparison.mutation.plan import PLANS
from comparison.study import AGAINST, ARMS, DENSE, ROOT, SMALL, TASKS, TRACES, VARIANTS, WEIGHTS
from comparison.timing_plan import PRECISIONS, SPEED_TASKS
from reference import confinement
from reproduction import CLASSIFICATION, NETWORKS, UserError
from reproduction.device import DEVICES
from reproduction.tasks.classification.sources import obtain, parse_data

# How the reproduction trains: as it is compared, or as the committed table of forms says.
TRAINING_FORMS = ("eager", "fast")
# Defaults are those of the notebooks; a type says what papermill must pass.
COMMON: dict[str, Any] = {
    "network": "cls_hrnet_w18_small_v1",
    "data": "digits",
    "seed": 0,
    "device": "auto",
    "results_dir": "results/by_hand",
}
NOTEBOOKS: dict[str, dict[str, Any]] = {
    "01_networks": {},
    "02_equivalence": {
        "against": "reference",
        "weights": "random",
        "weights_file": "",
        "steps": 10,
    },
    "03_training": {
        "arm": "reproduction",
        "epochs": 4,
        "batch_size": 128,
        "image_size": 0,
        "form": "eager",
    },
    "04_speed": {
        "task": "inference",
        "image_size": 64,
        "batch_size": 8,
        "arms": "reference,reproduction,deploy",
        "precision": "float32",
        "rounds": 10,
        "weights_file": "",
        "accuracy_seeds": 0,
    },
    "05_differences": {},
    "06_trial": {"plan": "quick"},
    "07_tasks": {
        "task": "segmentation",
        "variant": SMALL,
        "arm": "reproduction",
        "epochs": 4,
        "scenes": 160,
    },
    "08_scaling": {},
}
CHOICES: dict[str, tuple[str, ...]] = {
    "network": tuple(CLASSIFICATION),
    "device": DEVICES,
    "arm": ARMS,
    "form": TRAINING_FORMS,
    "weights": WEIGHTS,
    "against": AGAINST,
    "plan": tuple(PLANS),
    "precision": PRECISIONS,
    "variant": (SMALL, *VARIANTS),
}
LARGEST = 2**32 - 1  # the largest seed that NumPy takes; no number needs more
# It runs no official code itself; the kernels that it starts need sockets, and confine themselves.
STARTS_NOTEBOOKS = ("08_scaling",)
# What `task` may be depends on the notebook.
TASKS_OF: dict[str, tuple[str, ...]] = {"04_speed": SPEED_TASKS, "07_tasks": TASKS}
SMALLEST: dict[str, int] = {"epochs": 1, "batch_size": 1, "rounds": 1, "steps": 1, "scenes": 1}
# Notebooks that take more networks than those for classification; some take the family as a whole.
FAMILY = ("01_networks", "02_equivalence")
ANY_NETWORK = ("04_speed",)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked parameters of one notebook run; those it does not take keep their defaults."""

    notebook: str
    network: str
    data: str
    seed: int
    device: str
    results_dir: Path = field(repr=False)  # executed notebooks name no folder of a machine
    against: str = "reference"
    weights: str = "random"
    weights_file: str = ""
    steps: int = 10
    arm: str = "reproduction"
    epochs: int = 4
    batch_size: int = 128
    image_size: int = 0
    form: str = "eager"
    rounds: int = 10
    accuracy_seeds: int = 0
    plan: str = "quick"
    task: str = "segmentation"
    variant: str = SMALL
    arms: str = ""
    precision: str = "float32"
    scenes: int = 160

    def decisive(self) -> dict[str, Any]:
        """Return what decides the outcome: the parameters of the notebook but for the folders."""
        taken = {**COMMON, **NOTEBOOKS[self.notebook]}
        chosen = {name: value for name, value in asdict(self).items() if name in taken}
        chosen["data"] = parse_data(self.data).name
        if self.form == "eager":
            chosen.pop("form", None)  # as in the records made before there were forms
        if not self.accuracy_seeds:
            chosen.pop("accuracy_seeds", None)  # likewise
        if self.weights_file:
            chosen["weights_file"] = Path(self.weights_file).name
        del chosen["results_dir"]
        return chosen

    def command(self) -> str:
        """Return the call that runs the notebook with these parameters, folders left out."""
        pairs = " ".join(
            f"-p {name} {value}" for name, value in self.decisive().items() if value != ""
        )
        return f"papermill notebooks/{self.notebook}.ipynb OUT.ipynb {pairs}"


def check(notebook: str, namespace: Mapping[str, Any]) -> Settings:
    """Check a notebook's variables and freeze them.

    In a kernel, data that have to be downloaded are obtained as well; from then on it is confined
    to the results folder and without a network (`reference.confinement`), unless it only starts
    other notebooks.

    Args:
        notebook: Name of the notebook without its ending.
        namespace: The notebook's global variables.

    Raises:
        UserError: A parameter is unknown, of another type, or has no meaning.
    """
    expected = {**COMMON, **NOTEBOOKS[notebook]}
    given = {name: value for name, value in namespace.items() if _is_parameter(name, value)}
    for name in given:
        if name not in expected:
            raise UserError(
                f"parameter {name!r} is unknown; {notebook} takes {', '.join(expected)}"
            )
    values = {name: given.get(name, default) for name, default in expected.items()}
    for name, value in values.items():
        _check_one(name, value, type(expected[name]), _choices(notebook, name))
    data = parse_data(values["data"])
    _check_together(values)
    values["results_dir"] = _inside(values["results_dir"])
    if "get_ipython" in namespace:  # the last moment at which the network is there
        obtain(data)
        if notebook not in STARTS_NOTEBOOKS:
            confinement.enter(values["results_dir"])
    clock.begin()
    return Settings(notebook=notebook, **values)


def _inside(results_dir: str) -> Path:
    """Return the folder for results: below `results`, or anywhere outside of the repository."""
    is_plain = results_dir.isprintable() and results_dir and ".." not in Path(results_dir).parts
    place = (ROOT / results_dir).resolve() if is_plain else ROOT
    ours = place == ROOT or place in ROOT.parents or place.is_relative_to(ROOT)
    if ours and not place.is_relative_to(ROOT / "results"):
        raise UserError(
            f"results_dir is {results_dir!r}; give results/NAME, or the whole path of a folder "
            "outside of the repository, without .."
        )
    return ROOT / results_dir


def _is_parameter(name: str, value: Any) -> bool:
    """Tell parameters from what a notebook's kernel and its imports put beside them."""
    kernel = ("In", "Out", "exit", "quit", "open", "get_ipython")
    plain = isinstance(value, str | int | float | bool | list | dict | tuple)
    return not name.startswith("_") and name not in kernel and plain


def _choices(notebook: str, name: str) -> tuple[str, ...]:
    """List what a parameter may be; nothing if its type is all that is asked."""
    if name == "network" and notebook in FAMILY:
        return (*NETWORKS, DENSE)
    if name == "network" and notebook in ANY_NETWORK:
        return tuple(NETWORKS)
    if name == "task":
        return TASKS_OF[notebook]
    return CHOICES.get(name, ())


def _check_together(values: Mapping[str, Any]) -> None:
    """Refuse parameters that have no meaning beside one another."""
    trained = values.get("weights") == "trained"
    if trained and not values["weights_file"]:
        raise UserError("weights is 'trained', but weights_file is empty: name a checkpoint")
    if trained and (values["network"] not in CLASSIFICATION or values["against"] == TRACES):
        raise UserError(
            f"weights is 'trained', but network is {values['network']!r} and against "
            f"{values['against']!r}: trained weights are for classification, compared live"
        )
    weights = values.get("weights_file")
    if weights and not (ROOT / weights).is_file():
        raise UserError(
            f"weights_file {weights!r} does not exist, seen from {ROOT}: train first, or name "
            "another file"
        )
    decides = weights and "weights" not in values  # how a deployed form decides, in notebook 04
    if decides and (values["network"] not in CLASSIFICATION or values["task"] != "inference"):
        raise UserError(
            f"weights_file is given, but network is {values['network']!r} and task "
            f"{values['task']!r}: accuracy is that of a deployed classifier; leave the file out, "
            "or give a network for classification and task = 'inference'"
        )
    if values.get("form", "eager") != "eager" and values["arm"] != "reproduction":
        raise UserError(
            f"form is {values['form']!r}, but arm is {values['arm']!r}: forms are of the "
            "reproduction; give form = 'eager', or arm = 'reproduction'"
        )
    if values["network"] == DENSE and values.get("against", TRACES) != TRACES:
        raise UserError(
            f"network {DENSE!r} is a family, which is compared by recorded traces only: give "
            f"against = {TRACES!r}, or name one network"
        )


def _check_one(name: str, value: Any, kind: type, choices: tuple[str, ...]) -> None:
    if type(value) is not kind:
        raise UserError(f"parameter {name} is {value!r}; give a value of type {kind.__name__}")
    if choices and value not in choices:
        raise UserError(f"{name} {value!r} is unknown; use one of {', '.join(choices)}")
    if isinstance(value, int | float) and not value >= SMALLEST.get(name, 0):
        raise UserError(
            f"parameter {name} is {value}; give a number of at least {SMALLEST.get(name, 0)}"
        )
    if isinstance(value, int | float) and value > LARGEST:
        raise UserError(f"parameter {name} is {value:.3g}; give a number of at most {LARGEST}")
