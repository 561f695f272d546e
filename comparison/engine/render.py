"""A report as text, as HTML and as LaTeX tables."""

import html as escape_html
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from comparison.engine.verdict import MODES, ModeVerdict, Origin

if TYPE_CHECKING:
    from comparison.engine.report import Report

SHOWN = 8  # entries of a list before "and N more"
HEADER = ("mode", "verdict", "compared", "equal bits", "margin", "first divergent")
_ORIGINS = ("mode", "site", "what is wrong", "confirmed")
_STYLE = (
    "font-family:sans-serif;font-size:90%;border-collapse:collapse;text-align:left;"
    "border-top:1px solid #999;border-bottom:1px solid #999"
)
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def text(report: "Report") -> str:
    """Return a report for a terminal."""
    lines = [f"{report.title}: {report.outcome}", "", *_aligned([HEADER, *_mode_rows(report)])]
    lines += ["", *_reasons(report.modes)]
    if report.origins:
        lines += ["", "where it begins:"]
        lines += [f"  {o.site}: {o.text}{_confirmed(o)}" for o in _capped(report.origins)]
        lines += (
            [f"  and {len(report.origins) - SHOWN} more"] if len(report.origins) > SHOWN else []
        )
    lines += [f"note: {sentence}" for sentence in sentences(report)]
    return "\n".join(lines)


def html(report: "Report") -> str:
    """Return a report as a part of a page."""
    parts = [f"<p><b>{_e(report.title)}: {_e(report.outcome)}</b></p>"]
    parts.append(_html_table(HEADER, _mode_rows(report)))
    parts += [f"<p>{_e(reason)}</p>" for reason in _reasons(report.modes)]
    if report.origins:
        parts.append(_html_table(_ORIGINS, _origin_rows(report)))
    parts += [f"<p>{_e(sentence)}</p>" for sentence in sentences(report)]
    return "\n".join(parts)


def page(report: "Report") -> str:
    """Return a report as a page of its own."""
    title = _e(report.title)
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    return f"{head}</head>\n<body>\n{html(report)}\n</body></html>\n"


def latex(report: "Report") -> str:
    """Return the tables of modes and of origins, for booktabs."""
    tables = [_latex_table(HEADER, _mode_rows(report), report.title)]
    if report.origins:
        tables.append(_latex_table(_ORIGINS, _origin_rows(report), "where the differences begin"))
    return "\n".join(tables)


def sentences(report: "Report") -> list[str]:
    """Say what was not matched, what was ambiguous, and all notices."""
    matched = report.matched
    said = [f"matched by {matched.how}: {matched.tensors} tensors, {matched.operations} operations"]
    for side, names in (
        ("reference", matched.unmatched_reference),
        ("candidate", matched.unmatched_candidate),
    ):
        if names:
            said.append(f"only in the {side}: {listed(names)}")
    said += [f"told apart by order only: {listed(names)}" for names in matched.ambiguous[:SHOWN]]
    if len(matched.ambiguous) > SHOWN:
        said.append(f"and {len(matched.ambiguous) - SHOWN} more sets told apart by order only")
    return said + list(report.notices)


def listed(names: Sequence[str]) -> str:
    """Return names in a row, the first ones only if they are many.

    >>> listed(["a", "b"])
    'a, b'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _mode_rows(report: "Report") -> list[tuple[str, ...]]:
    return [
        (
            f"M{MODES.index(v.mode)} {v.mode}",
            v.outcome,
            str(v.compared or ""),
            str(v.bit_equal or ""),
            "" if v.worst_margin is None else f"{v.worst_margin:+.1f}",
            v.first_divergent,
        )
        for v in report.modes
    ]


def _reasons(modes: Iterable[ModeVerdict]) -> list[str]:
    return [f"{v.mode}: {v.reason}" for v in modes if v.outcome not in ("reproduced",)]


def _origin_rows(report: "Report") -> list[tuple[str, ...]]:
    said = {True: "yes", False: "no", None: "not tried"}
    return [(o.mode, o.site, o.text, said[o.confirmed]) for o in report.origins]


def _confirmed(origin: Origin) -> str:
    return {True: " (confirmed)", False: " (not the only cause)", None: ""}[origin.confirmed]


def _capped(origins: Sequence[Origin]) -> Sequence[Origin]:
    return origins[:SHOWN]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_e(cell)}</th>" for cell in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<table style="{_STYLE}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'


def _latex_table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    lines = [" & ".join(_l(cell) for cell in row) + r" \\" for row in rows]
    top = " & ".join(header) + r" \\"
    columns = "l" * len(header)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_l(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            top,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _e(value: Any) -> str:
    return escape_html.escape(str(value))


def _l(value: str) -> str:
    return re.sub(r"[&%$#_{}\\~^]", lambda match: _LATEX[match.group()], value)
