"""A table whose cells are text, how numbers become cells, and how it is written.

What was not measured reads "not run"; what has no meaning in a row reads as a dash.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

NOT_RUN = "not run"
NOT_RECORDED = "not recorded"  # in records made before it was measured
NOTHING = "–"
CONTRACT = ("paper", "reference", "reproduction", "delta", "tolerance", "verdict")
REFERENCE_COLUMN = "reference_ran"
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "Δ": r"$\Delta$",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as they are printed.

    Attributes:
        name: Name of the files.
        caption: What it shows.
        columns: Headings of the CSV file.
        rows: Cells, all text.
        reference: Which reference ran: label and hash, or ``not run``.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reference: str

    def frame(self) -> pd.DataFrame:
        """Return the cells as a data frame."""
        return pd.DataFrame(list(self.rows), columns=list(self.columns))

    def to_csv(self) -> str:
        """Return the CSV file; each row ends with the reference that ran."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.columns, REFERENCE_COLUMN])
        writer.writerows([*row, self.reference] for row in self.rows)
        return text.getvalue()

    def to_latex(self) -> str:
        r"""Return a LaTeX table for the package booktabs, to be read by ``\input``."""
        body = [" & ".join(map(escape, row)) + r" \\" for row in self.rows]
        lines = [
            "% made from records; do not edit",
            r"\begin{table}",
            rf"\caption{{{escape(self.caption)} {escape(f'Reference: {self.reference}.')}}}",
            rf"\label{{tab:{self.name}}}",
            r"\begin{tabular}{" + "l" * len(self.columns) + "}",
            r"\toprule",
            " & ".join(escape(column.replace("_", " ")) for column in self.columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def make_table(
    name: str,
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    reference: Sequence[str],
) -> Table:
    """Lay rows out under their columns.

    Args:
        name: Name of the files.
        caption: What it shows.
        columns: Headings, in order; every row has just these.
        rows: Cells by column.
        reference: Every reference that ran for one of the rows.

    Raises:
        ValueError: A row has other columns, or a blank cell.
    """
    for row in rows:
        if set(row) != set(columns):
            raise ValueError(f"table {name}: a row has {sorted(row)}, expected {sorted(columns)}")
        if blank := [column for column, cell in row.items() if not cell.strip()]:
            raise ValueError(f"table {name}: {blank} blank; write {NOT_RUN!r} or {NOTHING!r}")
    cells = tuple(tuple(" ".join(row[column].split()) for column in columns) for row in rows)
    ran = "; ".join(reference) or NOT_RUN
    return Table(name=name, caption=caption, columns=tuple(columns), rows=cells, reference=ran)


def escape(text: str) -> str:
    """Make text safe for LaTeX.

    >>> escape("w18_small: 5 %")
    'w18\\\\_small: 5 \\\\%'
    """
    return "".join(_ESCAPES.get(character, character) for character in text)


def fixed(value: Any, digits: int, sign: bool = False) -> str:
    """Round to decimals; missing reads "not run", and no zero is negative.

    >>> fixed(1.49152, 4), fixed(-0.0001, 2, sign=True), fixed(None, 2)
    ('1.4915', '+0.00', 'not run')
    """
    if value is None:
        return NOT_RUN
    rounded = round(float(value), digits) + 0.0
    return f"{rounded:{'+' if sign else ''}.{digits}f}"


def scientific(value: Any) -> str:
    """Round to two significant digits with an exponent; zero and infinity are words.

    >>> scientific(3.14e-15), scientific(0.0), scientific(None)
    ('3.1e-15', '0', 'not run')
    """
    if value is None:
        return NOT_RUN
    if value == 0:
        return "0"
    return f"{value:.1e}" if math.isfinite(value) else "infinite"


def short(value: Any, digits: int = 4) -> str:
    """Write a value of any kind: numbers with few significant digits, the rest as it is.

    >>> short(0.000123456), short(12345678), short("text"), short(True), short(None)
    ('0.0001235', '12345678', 'text', 'yes', 'not run')
    """
    if value is None or value == "":
        return NOT_RUN if value is None else NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def interval(low: float | None, high: float | None, digits: int, sign: bool = False) -> str:
    """Write an interval.

    >>> interval(0.95, 1.051, 2), interval(None, None, 2)
    ('[0.95, 1.05]', 'not run')
    """
    if low is None or high is None:
        return NOT_RUN
    return f"[{fixed(low, digits, sign)}, {fixed(high, digits, sign)}]"
