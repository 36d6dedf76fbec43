"""What of a run a command is about: its layers, a step, samples with some values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tsstore.errors import AnalysisError, StoreError
from tsstore.text import counted, listed, printable

if TYPE_CHECKING:
    from tsstore.store.reading.store import StateStore


def select(
    run: str, step: str | None, conditions: list[str] | None, layers: list[str] | None = None
) -> StateStore:
    """Return a view of a run as the options --step, --filter and --layer say."""
    import tsstore
    from tsstore.store.reading.conditions import parse_value

    store = tsstore.open(run)
    if step is not None:
        store = store.at_step(next((own for own in store.steps if str(own) == step), step))
    for condition in conditions or []:
        name, equals, value = condition.partition("=")
        if not equals:
            raise StoreError(f"--filter is {condition!r:.80}; expected COLUMN=VALUE, as label=3")
        store = store.filter(**{name: parse_value(store.parts, name, value)})
    return store.select(*layers) if layers else store


def by_step_if_several(
    store: StateStore, by: str | None, window: int | None, done: str
) -> str | None:
    """Return what groups are by: steps where there are several, and it was not asked; say so."""
    if len(store.steps) < 2 or by is not None or window is not None:
        return by
    steps = counted(len(store.steps), "step")
    typer.echo(f"{printable(store.path)} holds {steps}: {done} --by step; see --step", err=True)
    return "step"


def select_layer(
    run: str, layer: str, step: str | None, conditions: list[str] | None
) -> tuple[StateStore, str]:
    """Return a view of a run, and the name of the one layer of it that --layer names."""
    store = select(run, step, conditions, [layer])
    if len(store.layers) > 1:
        raise AnalysisError(
            f"--layer is {printable(layer)}, which means {listed(list(store.layers))}; expected "
            "one layer"
        )
    return store, store.layers[0]
