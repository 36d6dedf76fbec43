"""How stores and layers show themselves, as text and in notebooks."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from tsstore.errors import DamageError, StoreError
from tsstore.store.reading.status import CUT_OFF
from tsstore.text import ago, html_table, html_title, printable, text_table

if TYPE_CHECKING:
    from tsstore.store.reading.layer import LayerStates
    from tsstore.store.reading.store import StateStore

LAYER_HEADINGS = ("layer", "neurons", "positions", "rows", "threshold", "dtype")


def store_text(store: StateStore) -> str:
    """Return a store's summary and its layers as aligned text."""
    lines = [f"<StateStore {printable(store.path)}>", f"  {store_summary(store)}"]
    rows = [LAYER_HEADINGS, *(layer_cells(states) for states in store.values())]
    return "\n".join(lines + text_table(rows) if len(rows) > 1 else lines)


def store_html(store: StateStore) -> str:
    """Return a store's summary and its layers as an HTML table."""
    rows = [layer_cells(states) for states in store.values()]
    return (
        f"{html_title('StateStore', store.path)}"
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


def layer_html(states: LayerStates) -> str:
    """Return a layer's facts as an HTML table."""
    return html_table(LAYER_HEADINGS, [layer_cells(states)])


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
