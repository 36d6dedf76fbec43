"""Tables for a terminal of any width: numbers stay whole, names can be told apart."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from html import escape
from itertools import takewhile

from rich.cells import cell_len

from tsstore.text import is_number, listed

GAP = 2
"""Columns between two cells."""
LEAST_NAME, LEAST_PREFIX, LEAST_TEXT = 12, 8, 16
"""Of names and texts so much is shown; shorter prefixes are not worth a line."""


_FORMULA, _FIGURES = re.compile(r"[=+\-@\t\r]"), re.compile(r"[-+\d.,e% \[\]]*")
_MEANING = re.compile(
    r"[\\`*~|]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(|(?<=http):(?=//)|(?<=https):(?=//)|(?<=www)\."
)
"""What in a line of Markdown would not be shown as it is."""


class TableFormat(StrEnum):
    """How a table is printed."""

    TABLE = "table"
    CSV = "csv"
    MARKDOWN = "markdown"


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, its cells, and how wide it is.

    Attributes
    ----------
    heading, cells
        Its texts.
    width
        Characters; longer headings and texts go on in the next line.
    """

    heading: str
    cells: tuple[str, ...]
    width: int

    @cached_property
    def is_numeric(self) -> bool:
        """Whether all cells are numbers or amounts, which stand to the right."""
        return bool(self.cells) and all(map(is_number, self.cells))

    @property
    def narrow(self) -> Column:
        """The column with its heading in several lines, cells in one."""
        least = max(map(cell_len, (*self.heading.split(), *self.cells)), default=0)
        return replace(self, width=min(self.width, least))

    def wrapped(self, cell: str) -> list[str]:
        """Return a text in lines of the column's width."""
        return _wrap(cell, self.width) or [""]

    def aligned(self, line: str) -> str:
        """Return a line of the column filled to its width."""
        blanks = " " * (self.width - cell_len(line))
        return blanks + line if self.is_numeric else line + blanks


def table_lines(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    optional: Sequence[str] = (),
) -> list[str]:
    """Return rows of cells as lines of at most `width` characters, where that is possible.

    What has too little room gives it up in this order: what all names begin with stands once
    above; headings and texts go on in the next line; columns named in `optional` are left out, the
    last one first, which a line says; names are shortened in the middle; at last each row is a
    block of lines.
    """
    columns = _columns(headings, rows)
    if _span(columns) <= width:
        return _lines(columns)
    above, columns = _prefix_once(columns)
    columns = [column.narrow for column in columns]
    left_out: list[str] = []
    for heading in reversed(optional):
        if _span(columns) > width and heading in headings:
            left_out.insert(0, heading)
            columns = [column for column in columns if column.heading != heading]
    columns = _with_names_shortened(_with_last_text_wrapped(columns, width), width)
    if _span(columns) > width:
        return _blocks(headings, rows)
    columns = _with_lower_headings(columns, width)
    below = _wrap(f"Not shown for want of width: {listed(left_out)}.", width) if left_out else []
    return [*above, *_lines(columns), *below]


def table_width(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the width in which a table need not give up anything."""
    return _span(_columns(headings, rows))


def csv_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as CSV; numbers are without commas between their thousands."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(no_formula, headings))
    writer.writerows(
        [cell.replace(",", "") if is_number(cell) else no_formula(cell) for cell in row]
        for row in rows
    )
    return text.getvalue().splitlines()


def no_formula(cell: str) -> str:
    """Return a cell that a spreadsheet shows and does not compute: behind an apostrophe."""
    return f"'{cell}" if _FORMULA.match(cell) and not _FIGURES.fullmatch(cell) else cell


def markdown_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as a table of Markdown, in which names mean nothing but themselves."""
    columns = zip(*rows, strict=True) if rows else [()] * len(headings)
    numeric = [bool(column) and all(map(is_number, column)) for column in columns]
    below = ["---:" if is_numeric else "---" for is_numeric in numeric]
    cells = [[_markdown(cell) for cell in row] for row in (headings, *rows)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], below, *cells[1:])]


def _markdown(cell: str) -> str:
    return _MEANING.sub(r"\\\g<0>", escape(cell, quote=False))


def wrapped(line: str, width: int) -> list[str]:
    """Return a sentence in lines broken between words; what begins with blanks stays as it is."""
    return [line] if line.startswith(" ") else _wrap(line, width) or [line]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Column]:
    """Return the columns of a table, each as wide as its longest text."""
    cells = list(zip(*rows, strict=True)) or [()] * len(headings)
    return [
        Column(heading, tuple(column), max(map(cell_len, (heading, *column))))
        for heading, column in zip(headings, cells, strict=True)
    ]


def _span(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def _lines(columns: Sequence[Column]) -> list[str]:
    """Return the table: headings at the bottom of theirs, cells at the top."""
    heads = [column.wrapped(column.heading) for column in columns]
    height = max(map(len, heads))
    groups = [[[""] * (height - len(head)) + head for head in heads]]
    groups += [
        [column.wrapped(cell) for column, cell in zip(columns, row, strict=True)]
        for row in zip(*(column.cells for column in columns), strict=True)
    ]
    lines = []
    for group in groups:
        for index in range(max(map(len, group))):
            parts = (
                column.aligned(cell[index] if index < len(cell) else "")
                for column, cell in zip(columns, group, strict=True)
            )
            lines.append((" " * GAP).join(parts).rstrip())
    return lines


def _prefix_once(columns: list[Column]) -> tuple[list[str], list[Column]]:
    """Return a line with what all names begin with, and the columns without it."""
    names = columns[0].cells
    ends = (name.split(".")[:-1] for name in (min(names, default=""), max(names, default="")))
    same = takewhile(lambda parts: parts[0] == parts[1], zip(*ends, strict=False))
    prefix = "".join(f"{part}." for part, _ in same)
    if len(names) < 2 or len(prefix) < LEAST_PREFIX:
        return [], columns
    heading = columns[0].heading
    rest = tuple("…" + name.removeprefix(prefix) for name in names)
    first = Column(heading, rest, max(map(cell_len, (heading, *rest))))
    return [f"{heading} …: {prefix}"], [first, *columns[1:]]


def _with_last_text_wrapped(columns: list[Column], width: int) -> list[Column]:
    """Return the columns with a text in the last one as narrow as it must be, to a limit."""
    *others, last = columns
    room = width - _span([*others, replace(last, width=0)])
    if room >= last.width or last.is_numeric or not others:
        return columns
    words = [word for cell in (last.heading, *last.cells) for word in cell.split()]
    least = max(LEAST_TEXT, *map(cell_len, words), 0)
    return [*others, replace(last, width=max(min(least, last.width), room))]


def _with_lower_headings(columns: list[Column], width: int) -> list[Column]:
    """Return the columns with the room that is left given to the highest headings."""
    while True:
        heights = [len(column.wrapped(column.heading)) for column in columns]
        highest = [place for place, height in enumerate(heights) if height == max(heights)]
        wider = list(columns)
        for place in highest if max(heights) > 1 else []:
            while len(wider[place].wrapped(wider[place].heading)) == max(heights):
                wider[place] = replace(wider[place], width=wider[place].width + 1)
        if wider == columns or _span(wider) > width:
            return columns
        columns = wider


def _with_names_shortened(columns: list[Column], width: int) -> list[Column]:
    """Return the columns with shorter names where these still can be told apart."""
    first, *others = columns
    room = width - _span([replace(first, width=0), *others])
    if room >= first.width or room < LEAST_NAME:
        return columns
    short = shortened(first.cells, room)
    if len(set(short)) < len(set(first.cells)):
        return columns
    return [Column(first.heading, short, room), *others]


def shortened(names: Sequence[str], room: int) -> tuple[str, ...]:
    """Return names of at most `room` characters' width, all cut where most can be told apart.

    That is in the middle, unless it is better elsewhere.
    """
    best, kinds = tuple(names), len(set(names))
    apart = 0
    for head in sorted(range(1, room - 1), key=lambda head: abs(2 * head - room)):
        short = tuple(_shortened(name, head, room) for name in names)
        if len(set(short)) > apart:
            best, apart = short, len(set(short))
        if apart == kinds:
            break
    return best


def _shortened(name: str, head: int, room: int) -> str:
    """Return a name of at most `room` characters' width, `head` of it before the cut."""
    if cell_len(name) <= room:
        return name
    start, end = name[:head], name[-(room - head - 1) :]
    while cell_len(start) > head:
        start = start[:-1]
    while cell_len(end) > room - head - 1:
        end = end[1:]
    return f"{start}…{end}"


def _blocks(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return each row as its name and a line for each of its cells."""
    indent = max(map(cell_len, headings[1:]), default=0)
    lines = []
    for name, *cells in rows:
        lines.append(name)
        lines += [
            f"  {heading}{' ' * (indent - cell_len(heading))}  {cell}"
            for heading, cell in zip(headings[1:], cells, strict=True)
            if cell
        ]
    return lines
