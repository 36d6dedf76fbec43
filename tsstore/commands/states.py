"""Commands about the distinct states themselves: the most frequent ones, and a table of all."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.options import (
    Filter,
    Json,
    Memory,
    OneLayer,
    RunPath,
    Scheduler,
    Scratch,
    Step,
)
from tsstore.commands.selecting import select_layer
from tsstore.commands.terminal import print_lines, print_table, progress
from tsstore.text import printable


def states(
    run: RunPath,
    layer: OneLayer,
    most: Annotated[int, typer.Option(min=1, help="How many states to show.")] = 20,
    hex: Annotated[
        bool, typer.Option("--hex", help="Hexadecimal digits instead of drawings.")
    ] = False,
    step: Step = None,
    filter: Filter = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
    json: Json = False,
) -> None:
    """Draw the most frequent states of a layer, and say how frequent they are."""
    import tsstore
    from tsstore.analysis.states.frequent import HEADINGS

    store, name = select_layer(run, layer, step, filter)
    with progress(silent=json) as report:
        found = tsstore.states(
            store, name, most, memory=memory, scheduler=scheduler, scratch=scratch, progress=report
        )
    if json:
        typer.echo(found.to_json())
        return
    if len(found):
        print_table(HEADINGS, found.cells(hex), ("neurons on", "samples"))
    print_lines(found.lines(hex))


def export(
    run: RunPath,
    layer: OneLayer,
    states: Annotated[
        str,
        typer.Option(help="Where to write the table of distinct states: OUT.parquet or OUT.zarr."),
    ],
    decoded: Annotated[
        bool, typer.Option("--decoded", help="One value a neuron, instead of packed bytes.")
    ] = False,
    step: Step = None,
    filter: Filter = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
) -> None:
    """Write all distinct states of a layer, with multiplicities and incidences, to a file."""
    import tsstore

    store, name = select_layer(run, layer, step, filter)
    with progress() as report:
        count = tsstore.export(
            store,
            name,
            states,
            decoded=decoded,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            progress=report,
        )
    found = store[name]
    typer.echo(
        f"{printable(states)}: {count:,} distinct states of the {found.rows:,} rows of "
        f"{printable(found.name)}"
    )
