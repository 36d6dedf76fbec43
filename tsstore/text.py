"""Text for people, on a terminal and in HTML: tables, amounts, ages, names, escaping, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from html import escape

from tsstore.charts import STYLE

Progress = Callable[[str, int, int], None]
"""Takes what is done, how many of its tasks are, and of how many."""

MOST_NAMED = 4
"""So many names a sentence lists; of more it tells how many."""

MOST_OPEN = 25
"""Tables of so many lines a notebook shows at once; longer ones are opened by a click."""

_STYLE = f"""<style>
.tsstore {{ overflow-wrap: anywhere; --soft: currentColor; --rule: #8886; --accent: #0b76d1; }}
.tsstore .scroll {{ overflow-x: auto; }} .tsstore summary {{ cursor: pointer; }}
.tsstore table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
.tsstore :is(th, td) {{ padding: .15em .7em; text-align: right; white-space: nowrap; }}
.tsstore :is(th, td):first-child {{ text-align: left; }}
.tsstore {{ {STYLE} }} .tsstore svg {{ max-width: 36rem; }}
</style>"""
_UNITS = {"bytes", "KiB", "MiB", "GiB", "%"}


def silent(task: str, done: int, total: int) -> None:
    """Show no progress."""


def printable(text: str) -> str:
    """Return `text` with control characters escaped, fit for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def format_memory(amount: int) -> str:
    """Return an amount of bytes as a person would write it."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount >= size:
            return f"{amount / size:.4g} {unit}"
    return f"{amount} bytes"


def ago(age: timedelta) -> str:
    """Return how long ago something was, in its largest unit."""
    seconds = max(int(age.total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:,} {unit} ago"
    return f"{seconds} s ago"


def counted(number: int, thing: str) -> str:
    """Return a number of things: ``"1 row"``, ``"2 rows"``."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them, each fit to be printed; of many the first ones."""
    shown = [printable(name) for name in names[:MOST_NAMED]]
    if len(names) > MOST_NAMED:
        shown.append(f"{len(names) - MOST_NAMED} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)


def is_number(cell: str) -> bool:
    """Whether a cell of a table stands to the right: a number, an amount, or none."""
    number, _, unit = cell.partition(" ")
    digits = number.replace(",", "").replace(".", "")
    return (digits.isdigit() and (not unit or unit in _UNITS)) or cell in ("", "varying")


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as aligned lines: the first column to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def html_title(kind: str, where: str, summary: str = "") -> str:
    """Return how a notebook begins to show an object: its kind, its path, a line on it."""
    line = f"<br>{escape(summary)}" if summary else ""
    title = f"<b>{escape(kind)}</b> <code>{escape(printable(where))}</code>{line}"
    return f'<div class="tsstore">{title}</div>'


def html_folded(summary: str, content: str, is_open: bool = False) -> str:
    """Return HTML that a click on its summary shows and hides; what is too wide scrolls."""
    kind = "details open" if is_open else "details"
    folded = f'<summary>{escape(summary)}</summary><div class="scroll">{content}</div>'
    return f'<div class="tsstore"><{kind}>{folded}</details></div>'


def html_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    tooltips: Sequence[Mapping[str, str]] = (),
) -> str:
    """Return an HTML table, everything escaped; `tooltips` are by row, and then by heading."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headings)
    lines = []
    for index, row in enumerate(rows):
        tips = tooltips[index] if tooltips else {}
        cells = (
            _html_cell(cell, tips.get(heading)) for heading, cell in zip(headings, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return _STYLE + html_folded(counted(len(lines), "line"), table, len(lines) <= MOST_OPEN)


def html_lines(lines: Iterable[str]) -> str:
    """Return lines as an HTML paragraph; empty ones are left out."""
    return f'<p class="tsstore">{"<br>".join(escape(line) for line in lines if line)}</p>'


def _html_cell(cell: str, tooltip: str | None) -> str:
    title = "" if tooltip is None else f' title="{escape(tooltip)}"'
    return f"<td{title}>{escape(cell)}</td>"
