"""What single neurons do: how often they fire, which never do, which do the same."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.options import (
    Bins,
    By,
    Filter,
    Json,
    Layers,
    Memory,
    RunPath,
    Scheduler,
    Step,
    Window,
)
from tsstore.commands.selecting import by_step_if_several, select
from tsstore.commands.terminal import print_lines, print_table, progress


def neurons(
    run: RunPath,
    layer: Layers = None,
    step: Step = None,
    filter: Filter = None,
    by: By = None,
    bins: Bins = None,
    window: Window = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help="A CSV file: one line a neuron."),
    ] = None,
    json: Json = False,
) -> None:
    """Count how often each neuron fires, and find dead, always-on and duplicate ones."""
    import tsstore

    store = select(run, step, filter, layer)
    by = by_step_if_several(store, by, window, "counted")
    with progress(silent=json) as report:
        found = tsstore.neurons(
            store,
            by=by,
            bins=bins,
            window=window,
            memory=memory,
            scheduler=scheduler,
            progress=report,
        )
    if output is not None:
        found.to_frame().to_csv(output)
    if json:
        typer.echo(found.to_json())
        return
    print_table(found.headings, found.cells(), ("10–90 %",))
    print_lines(found.sentences)
    if output is None:
        print_lines(["Pass --output neurons.csv for a line a neuron."])
