"""Published figures, as printed, and the one rule by which a measured value meets them.

A printed number stands for every value that rounds to it: 23.2 means 23.15 to 23.25.
"""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One printed number: who printed it, what it counts, its digits."""

    source: str
    title: str
    quantity: str
    printed: str

    @property
    def half_unit(self) -> Decimal:
        """Half a unit of the last printed digit."""
        exponent = Decimal(self.printed).as_tuple().exponent
        return Decimal(5).scaleb(int(exponent) - 1)

    def is_met_by(self, value: float) -> bool:
        """Whether the value rounds to the printed digits, either way at the middle.

        >>> Figure(source="", title="", quantity="", printed="23.2").is_met_by(23.25)
        True
        >>> Figure(source="", title="", quantity="", printed="23.20").is_met_by(23.25)
        False
        """
        return abs(Decimal(str(value)) - Decimal(self.printed)) <= self.half_unit


@dataclass(frozen=True, kw_only=True)
class DenseFigure:
    """One printed number about a network for a dense task, and the convention that it follows."""

    network: str
    quantity: str
    printed: str
    image_size: tuple[int, int]
    convention: str
    by: str


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What the paper prints for variants of fusion on one task; figures as printed, in percent."""

    task: str
    figures: dict[str, str]
    network: str
    metric: str
    source: str


def ablation(task: str) -> Ablation:
    """Return the paper's ablation of fusion on a task."""
    (entry,) = (entry for entry in _sources()["ablation"] if entry["task"] == task)
    return Ablation(**entry)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """One printed accuracy of a network for a dense task.

    Attributes:
        task: As in `reproduction.NetworkConfig.task`.
        network: Official name, or the published one of a whole detector.
        data: Data set and split.
        setting: Input size, flipping, scales, schedule.
        metric: What is printed.
        printed: Its digits.
        by: Who prints it.
    """

    task: str
    network: str
    data: str
    setting: str
    metric: str
    printed: str
    by: str


@cache
def _sources() -> dict[str, Any]:
    return tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))


def figures(network: str, source: str) -> dict[str, Figure]:
    """Return what one source prints about a network, by quantity; empty if it prints nothing."""
    entry = _sources()[source]
    return {
        quantity: Figure(source=source, title=entry["title"], quantity=quantity, printed=printed)
        for quantity, printed in entry["rows"].get(network, {}).items()
    }


def networks(source: str) -> list[str]:
    """List the networks about which a source prints anything."""
    return list(_sources()[source]["rows"])


def dense_figures() -> list[DenseFigure]:
    """Return all that is printed about networks for dense tasks."""
    return [
        DenseFigure(**{**entry, "image_size": tuple(entry["image_size"])})
        for entry in _sources()["dense"]
    ]


def accuracies() -> list[Accuracy]:
    """Return the printed accuracies of networks for dense tasks."""
    return [
        Accuracy(**common, metric=metric, printed=printed)
        for entry in _sources()["accuracy"]
        for common in [{name: entry[name] for name in _ACCURACY_KEYS}]
        for metric, printed in entry["printed"].items()
    ]


_ACCURACY_KEYS = ("task", "network", "data", "setting", "by")
