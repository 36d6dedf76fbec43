"""What the command line shows: tables and lines on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as BarsOfRich

from tsstore import __version__
from tsstore.commands.tables import (
    TableFormat,
    csv_lines,
    markdown_lines,
    no_formula,
    table_lines,
    wrapped,
)
from tsstore.text import Progress, printable
from tsstore.text import silent as report_nothing

if TYPE_CHECKING:
    import pandas as pd

    from tsstore.analysis.results.by_layer import Shown

SCHEMA = 1
"""Of the documents of ``--json``: greater where a key is gone, or means something else."""
LINE_SECONDS = 30.0
"""How often a long task says how far it is, where there is no terminal."""
PLAIN_WIDTH = 200
"""Columns of tables that do not go to a terminal."""


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
    format: TableFormat = TableFormat.TABLE,
) -> None:
    """Print a table as wide as the terminal; `optional` columns may be left out, the last first."""
    if format is TableFormat.TABLE:
        lines = table_lines(headings, rows, terminal_width(), optional)
    else:
        lines = (csv_lines if format is TableFormat.CSV else markdown_lines)(headings, rows)
    for line in lines:
        typer.echo(line)


def print_shown(
    found: Shown, format: TableFormat, optional: Sequence[str] = (), json: bool = False
) -> None:
    """Print what was found: its table and what is to be known beside it, or one JSON document."""
    if json:
        print_json(found.to_dict())
    else:
        print_table(found.headings, found.cells(), optional, format=format)
        print_lines(found.sentences, format=format)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, after the versions of its schema and of tsstore."""
    versions = {"schema": SCHEMA, "tsstore": __version__}
    typer.echo(json.dumps({**versions, **document}, indent=2, allow_nan=False))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the lines of a table as JSON can hold them: None for the infinite, and for NaN."""
    lines = frame if frame.index.names == [None] else frame.reset_index()
    columns = {
        str(name): [_plain(value) for value in values.tolist()] for name, values in lines.items()
    }
    return [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]


def _plain(value: object) -> object:
    import pandas as pd

    is_infinite = isinstance(value, float) and not math.isfinite(value)
    return None if is_infinite or value is pd.NA else value


def print_lines(lines: Iterable[str], format: TableFormat = TableFormat.TABLE) -> None:
    """Print sentences, broken between words on a terminal; what begins with blanks stays whole.

    They go to stderr where tables are for other programs.
    """
    beside = format is not TableFormat.TABLE
    console = Console(stderr=beside)
    for line in lines:
        for part in wrapped(line, console.width) if console.is_terminal else [line]:
            # Empty lines part tables.
            typer.echo(part, err=beside and bool(part))


def save_csv(frame: pd.DataFrame, path: str) -> None:
    """Write a table to a CSV file, its index first; no name in it is a formula."""
    lines = frame.reset_index()
    lines.columns = [no_formula(str(name)) for name in lines]
    lines = lines.map(lambda value: no_formula(value) if isinstance(value, str) else value)
    lines.to_csv(path, index=False)


def check_output(path: str | None) -> None:
    """Raise before anything is counted what writing a file would raise afterwards."""
    from tsstore.store.targets import check_target

    if path is not None:
        check_target(path, replaces=True)


@contextmanager
def progress(silent: bool = False) -> Iterator[Progress]:
    """Yield what shows progress: a bar on a terminal, a line a task elsewhere, both on stderr."""
    console = Console(stderr=True)
    if silent:
        yield report_nothing
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with BarsOfRich(*columns, console=console, transient=True) as bars:
            yield Bars(bars)
    else:
        yield Lines()


class Bars:
    """Progress bars by name."""

    def __init__(self, bars: BarsOfRich) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show how many of a name's tasks are done."""
        if name not in self._tasks:
            shown = printable(name).replace("[", "\\[")
            self._tasks[name] = self._bars.add_task(shown, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)


class Lines:
    """A line for each task that is done, and every half minute while one goes on."""

    def __init__(self) -> None:
        self._last = monotonic()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Print how many of a name's tasks are done, if that is due."""
        if done == total or monotonic() - self._last >= LINE_SECONDS:
            self._last = monotonic()
            typer.echo(f"{printable(name)}: {done:,} of {total:,} done", err=True)


def terminal_width() -> int:
    """Return how many columns a table may take."""
    console = Console()
    return console.width if console.is_terminal else PLAIN_WIDTH
