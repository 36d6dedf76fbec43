"""How stores and layers show themselves, as text and in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING

from tsstore.errors import DamageError, StoreError
from tsstore.store.reading.status import CUT_OFF
from tsstore.text import printable as printable

if TYPE_CHECKING:
    from tsstore.store.reading.layer import LayerStates
    from tsstore.store.reading.store import StateStore

LAYER_HEADINGS = ("layer", "neurons", "positions", "rows", "threshold", "dtype")


def store_text(store: StateStore) -> str:
    """Return a store's summary and its layers as aligned text."""
    lines = [f"<StateStore {printable(store.path)}>", f"  {store_summary(store)}"]
    rows = [LAYER_HEADINGS, *(layer_cells(states) for states in store.values())]
    return "\n".join(lines + text_table(rows) if len(rows) > 1 else lines)


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as aligned lines: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def store_html(store: StateStore) -> str:
    """Return a store's summary and its layers as an HTML table."""
    rows = [layer_cells(states) for states in store.values()]
    return (
        f"<b>StateStore</b> <code>{escape(printable(store.path))}</code>"
        f"<br>{escape(store_summary(store))}{html_table(LAYER_HEADINGS, rows)}"
    )


def store_summary(store: StateStore) -> str:
    """Return one line: samples, parts, steps, columns, whether and when it was written."""
    parts = f"{len(store.parts)} part" + "s" * (len(store.parts) != 1)
    facts = [f"{store.samples:,} samples", parts]
    if store.steps not in ((), (None,)):
        facts.append("steps " + ", ".join(printable(str(step)) for step in store.steps))
    if store.columns:
        facts.append("columns " + ", ".join(printable(name) for name in store.columns))
    facts.append(status_text(store))
    return " · ".join(facts)


def status_text(store: StateStore) -> str:
    """Return whether a run is live, finished or cut off and why, and when it last committed."""
    text = store.status
    reasons = {status.why for status in store.part_statuses if status.state == CUT_OFF}
    if text == CUT_OFF and reasons:
        text += f" ({'; '.join(sorted(map(printable, reasons)))})"
    if store.last_commit is None:
        return f"{text}, nothing committed"
    return f"{text}, last commit {ago(datetime.now(UTC) - store.last_commit)}"


def repeats_text(store: StateStore) -> str:
    """Return how many samples of a run repeat others; nothing where none do.

    It reads all ids. Whatever ids cannot be compared are the user's, and no error.
    """
    try:
        count = store.repeated_samples
    except DamageError:
        raise
    except StoreError as error:
        return f"repeated samples cannot be counted: {printable(str(error))}"
    return f"{count:,} samples repeat another one of the same id" if count else ""


def ago(age: timedelta) -> str:
    """Return how long ago something was, in its largest unit."""
    seconds = max(int(age.total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:,} {unit} ago"
    return f"{seconds} s ago"


def layer_html(states: LayerStates) -> str:
    """Return a layer's facts as an HTML table."""
    return html_table(LAYER_HEADINGS, [layer_cells(states)])


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table; every cell is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def layer_cells(states: LayerStates) -> tuple[str, ...]:
    """Return a layer's line of the table."""
    positions = "varying" if states.positions is None else f"{states.positions:,}"
    return (
        printable(states.name),
        f"{states.neurons:,}",
        positions,
        f"{states.rows:,}",
        f"{states.attributes.threshold['given']:g}",
        printable(states.attributes.dtype),
    )
