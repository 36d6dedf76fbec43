"""What single neurons do: how often they fire, which never do, which do the same."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.options import Filter, Json, Layers, Memory, RunPath, Scheduler, Step
from tsstore.commands.selecting import select
from tsstore.commands.terminal import print_lines, print_table, progress


def neurons(
    run: RunPath,
    layer: Layers = None,
    step: Step = None,
    filter: Filter = None,
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
    from tsstore.analysis.neurons import HEADINGS

    store = select(run, step, filter, layer)
    with progress(silent=json) as report:
        found = tsstore.neurons(store, memory=memory, scheduler=scheduler, progress=report)
    if output is not None:
        found.to_frame().to_csv(output)
    if json:
        typer.echo(found.to_json())
        return
    print_table(HEADINGS, [layer.cells for layer in found.values()], ("10–90 %",))
    print_lines(found.sentences)
    if output is None:
        print_lines(["Pass --output neurons.csv for a line a neuron."])
