"""What a comparison found: prints, renders in a notebook, is saved, and has an exit code."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comparison.engine import render
from comparison.engine.rows import Key, Row
from comparison.engine.verdict import (
    MODES,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
    WITHIN_TOLERANCE,
    Finding,
    ModeVerdict,
    Origin,
)
from reproduction.durable import write_whole
from reproduction.errors import UserError

ENDINGS = (".json", ".html", ".tex", ".txt")


def check_target(path: str | Path) -> Path:
    """Return where a report shall be saved, if it can be.

    Raises:
        UserError: The ending is unknown, or the folder does not exist.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise UserError(f"{path.name} has no known ending; use one of {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path} could not be written (no such folder): name one that exists")
    return path


@dataclass(frozen=True)
class Matched:
    """How the two models were matched.

    Attributes:
        how: By ``map``, ``names``, ``values`` or ``structure``.
        tensors: Pairs of state tensors.
        operations: Pairs of operations.
        unmatched_reference: What only the reference has.
        unmatched_candidate: What only the candidate has.
        ambiguous: Sets of tensors that could not be told apart and were paired in order.
    """

    how: str
    tensors: int
    operations: int
    unmatched_reference: tuple[str, ...] = ()
    unmatched_candidate: tuple[str, ...] = ()
    ambiguous: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of `comparison.compare`.

    Attributes:
        title: What was compared with what.
        modes: One verdict per mode, M0 to M10.
        origins: Where the differences begin.
        matched: How the models were matched.
        findings: Differences that are no matter of size.
        rows: Every compared tensor.
        calibration: For every neutral rewrite and mode, how many tensors it changed.
        steps: One row per teacher-forced step.
        trajectory: One row per free step.
        inputs: What went in: shapes, seed, budget.
        notices: What else should be known.
        wall_s: Seconds taken.
    """

    title: str
    modes: tuple[ModeVerdict, ...]
    matched: Matched
    origins: tuple[Origin, ...] = ()
    findings: tuple[Finding, ...] = ()
    rows: tuple[Row, ...] = field(default=(), repr=False)
    calibration: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    steps: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    trajectory: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    wall_s: float = 0.0

    @property
    def outcome(self) -> str:
        """Return the outcome of the whole: the worst of the modes that ran."""
        ran = [verdict.outcome for verdict in self.modes if verdict.outcome != NOT_RUN]
        for outcome in (NOT_REPRODUCED, UNDECIDED, WITHIN_TOLERANCE, REPRODUCED):
            if outcome in ran:
                return outcome
        return UNDECIDED

    @property
    def exit_code(self) -> int:
        """Return 0 if every mode that ran agrees, 1 if one does not, 3 if undecided."""
        return {NOT_REPRODUCED: 1, UNDECIDED: 3}.get(self.outcome, 0)

    def mode(self, name: str) -> ModeVerdict:
        """Return the verdict on one mode.

        Raises:
            UserError: There is no such mode.
        """
        for verdict in self.modes:
            if verdict.mode == name:
                return verdict
        raise UserError(f"mode {name!r} is unknown; use one of {', '.join(MODES)}")

    def __str__(self) -> str:
        return render.text(self)

    def _repr_html_(self) -> str:
        return render.html(self)

    def to_html(self) -> str:
        """Return a page of its own."""
        return render.page(self)

    def to_latex(self) -> str:
        """Return the table of modes and that of origins, for booktabs."""
        return render.latex(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data; what is not finite becomes None."""
        content = _plain({name: getattr(self, name) for name in self.__dataclass_fields__})
        return {"outcome": self.outcome, "exit_code": self.exit_code, **content}

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read a report back; what was not finite is infinite.

        Raises:
            UserError: The text is no report.
        """
        try:
            return cls._from_plain(json.loads(text))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            told = " ".join(str(error).split())[:200]
            raise UserError(
                f"this is no report ({type(error).__name__}: {told}): give the text of a .json "
                "file that was saved by a comparison"
            ) from error

    @classmethod
    def _from_plain(cls, content: dict[str, Any]) -> "Report":
        content = {name: content[name] for name in cls.__dataclass_fields__}
        content["modes"] = tuple(ModeVerdict(**_tuples(v)) for v in content["modes"])
        content["origins"] = tuple(Origin(**_tuples(v)) for v in content["origins"])
        content["findings"] = tuple(Finding(**v) for v in content["findings"])
        content["matched"] = Matched(**_tuples(content["matched"]))
        content["rows"] = tuple(_row(row) for row in content["rows"])
        for name in ("calibration", "steps", "trajectory", "notices"):
            content[name] = tuple(content[name])
        return cls(**content)

    def save(self, path: str | Path) -> Path:
        """Write the report, as .json, .html, .tex or .txt by the ending; whole or not at all.

        Raises:
            UserError: The ending is unknown, or the file cannot be written.
        """
        path = check_target(path)
        made = {
            ".json": self.to_json,
            ".html": self.to_html,
            ".tex": self.to_latex,
            ".txt": lambda: f"{self}\n",
        }
        try:
            write_whole(path, made[path.suffix]())
        except OSError as error:
            raise UserError(
                f"{path} could not be written ({error.strerror}): name a folder that exists and "
                "has space"
            ) from error
        return path


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, Key):
        return list(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _tupled(item) for key, item in value.items()}


def _tupled(item: Any) -> Any:
    return tuple(_tupled(one) for one in item) if isinstance(item, list) else item


def _row(content: Mapping[str, Any]) -> Row:
    values = _tuples(content)
    for name in ("difference", "size", "candidate_size", "l2"):
        values[name] = math.inf if values[name] is None else values[name]
    return Row(**{**values, "key": Key(*values["key"])})
