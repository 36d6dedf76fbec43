"""What the command line shows: tables and lines on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as BarsOfRich
from rich.table import Table
from rich.text import Text

from tsstore.text import Progress, is_number
from tsstore.text import silent as report_nothing

PLAIN_WIDTH = 200
"""Columns of tables that do not go to a terminal."""


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print an aligned table; columns of numbers and amounts to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, heading in enumerate(headings):
        numeric = bool(rows) and all(is_number(row[column]) for row in rows)
        table.add_column(Text(heading), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    _console().print(table)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they are, each whole."""
    console = _console()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(silent: bool = False) -> Iterator[Progress]:
    """Yield what shows progress: a bar on a terminal, a line a task elsewhere, both on stderr."""
    console = Console(stderr=True)
    if silent:
        yield report_nothing
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with BarsOfRich(*columns, console=console, transient=True) as bars:
            yield Bars(bars)
    else:
        yield _report_line


class Bars:
    """Progress bars by name."""

    def __init__(self, bars: BarsOfRich) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show how many of a name's tasks are done."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name.replace("[", "\\["), total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)


def _report_line(name: str, done: int, total: int) -> None:
    if done == total:
        typer.echo(f"{name}: {total:,} of {total:,} done", err=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)
