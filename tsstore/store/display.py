"""How stores and layers show themselves, as text and in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsstore.store.layers import LayerStates
    from tsstore.store.reader import StateStore

LAYER_HEADINGS = ("layer", "neurons", "positions", "rows", "threshold", "dtype")


def printable(text: str) -> str:
    """Return `text` with control characters escaped, fit for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    """Return one line: samples, parts, steps, columns, whether it is finished."""
    parts = f"{len(store.parts)} part" + "s" * (len(store.parts) != 1)
    facts = [f"{store.samples:,} samples", parts]
    if store.steps not in ((), (None,)):
        facts.append("steps " + ", ".join(printable(str(step)) for step in store.steps))
    if store.columns:
        facts.append("columns " + ", ".join(printable(name) for name in store.columns))
    facts.append("finished" if store.finished else "not closed")
    return " · ".join(facts)


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
