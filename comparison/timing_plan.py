"""Which timings a study takes, as data; imports no PyTorch."""

from dataclasses import dataclass
from typing import Any

LONGEST_SHOWN = 200
SPEED_TASKS = ("inference", "training")
PRECISIONS = ("float32", "bfloat16")
ARMS = ("reference", "reproduction")


class StudyError(ValueError):
    """Say what is wrong with a study's name or file, in one sentence."""


def shown(given: Any) -> str:
    """Show a value in a message, cut where it is long."""
    text = repr(given)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def need(holds: bool, name: str, given: Any, expected: Any) -> None:
    """Refuse an entry of a study that does not hold.

    Raises:
        StudyError: It says what was given and what to give.
    """
    if not holds:
        raise StudyError(f"{name} is {shown(given)}; give {expected}")


@dataclass(frozen=True, kw_only=True)
class SpeedRun:
    """One timing: which arms, on which input.

    Attributes:
        network: Official name.
        task: ``inference`` or ``training``.
        image_size: Height in pixels; the width follows the network's own shape.
        batch_size: Images a call.
        precision: Of the arms that have a choice.
        arms: Timed in turns.
        rounds: How often.
        accuracy_seeds: Over how many seeds a small network is trained in the form that was timed.
    """

    network: str
    task: str
    image_size: int
    batch_size: int
    precision: str = "float32"
    arms: tuple[str, ...] = ARMS
    rounds: int = 20
    accuracy_seeds: int = 0

    def __post_init__(self) -> None:
        for name, known in (("task", SPEED_TASKS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            need(value in known, f"speed.runs.{name}", value, f"one of {', '.join(known)}")
        for name in ("image_size", "batch_size", "rounds"):
            value = getattr(self, name)
            need(value >= 1, f"speed.runs.{name}", value, "a whole number of at least 1")
        seeds = self.accuracy_seeds
        need(seeds >= 0, "speed.runs.accuracy_seeds", seeds, "a whole number of at least 0")
        distinct = len(set(self.arms)) == len(self.arms) > 0
        need(distinct, "speed.runs.arms", self.arms, "at least one arm, each once")


def speed_run_id(run: Any) -> str:
    """Name a timing by what decides what is timed; for a `SpeedRun` or a notebook's settings."""
    size = f"{run.image_size}.b{run.batch_size}"
    return f"{run.network}.{run.task}.{size}.{run.precision}"


@dataclass(frozen=True, kw_only=True)
class SpeedPlan:
    """What is timed, one record a run."""

    runs: tuple[SpeedRun, ...]

    def __post_init__(self) -> None:
        names = [speed_run_id(run) for run in self.runs]
        need(len(set(names)) == len(names) > 0, "speed.runs", names, "distinct runs, at least one")
