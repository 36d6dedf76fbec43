"""Two runs beside each other, and the steps of one."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.options import (
    Filter,
    Format,
    Intervals,
    Json,
    Layers,
    Memory,
    OtherFilter,
    OtherStep,
    RunPath,
    Scheduler,
    Scratch,
)
from tsstore.commands.selecting import select
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import (
    check_output,
    print_json,
    print_lines,
    print_table,
    progress,
    save_csv,
)
from tsstore.text import printable


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="Path of a run.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="Path of another one.")],
    layer: Layers = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", "--step-a", metavar="STEP", help="Step of RUN. (--step-a is its old name.)"
        ),
    ] = None,
    filter: Filter = None,
    other_step: OtherStep = None,
    other_filter: OtherFilter = None,
    efficiency: Annotated[
        bool,
        typer.Option("--efficiency/--no-efficiency", help="Count states for the efficiencies."),
    ] = True,
    novelty: Annotated[
        bool,
        typer.Option("--novelty", help="Find the states of both runs, and new ones of OTHER."),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(metavar="N", help="Chooses the new states whose distances are told."),
    ] = 0,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
    format: Format = TableFormat.TABLE,
    json: Json = False,
) -> None:
    """Compare two runs: efficiencies, bits that differ, new states.

    Bits are compared where samples of both runs have the same id.
    """
    import tsstore
    from tsstore.analysis.flips import HEADINGS
    from tsstore.analysis.results.difference import HEADINGS as DIFFERENCES
    from tsstore.analysis.results.overlap import HEADINGS as OVERLAPS

    with progress(silent=json) as report:
        found = tsstore.compare(
            select(first, step, filter),
            select(second, other_step, other_filter or filter),
            layer,
            efficiency=efficiency,
            novelty=novelty,
            seed=seed,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            progress=report,
        )
    if json:
        print_json(found.to_dict())
        return
    print_lines(map(printable, found.warnings), format=format)
    if found.efficiency is not None:
        print_table(DIFFERENCES, found.efficiency.cells(), format=format)
        print_lines([found.efficiency.pairing, ""], format=format)
    print_table(HEADINGS, [layer.cells for layer in found.values()], ("neurons",), format=format)
    print_lines(found.sentences, format=format)
    if found.overlap is not None:
        print_lines([""], format=format)
        print_table(
            OVERLAPS,
            found.overlap.cells(),
            ("states of first", "of second", "of both"),
            format=format,
        )
        print_lines(found.overlap.sentences, format=format)


def steps(
    run: RunPath,
    layer: Layers = None,
    filter: Filter = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
    intervals: Intervals = True,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help="A CSV file: a line a layer and step."),
    ] = None,
    format: Format = TableFormat.TABLE,
    json: Json = False,
) -> None:
    """Show how a training developed: accuracy, efficiency, dead neurons.

    A run has a step for each evaluation that a trainer's callback recorded.
    """
    import tsstore
    from tsstore.analysis.steps import HEADINGS

    store = select(run, None, filter, layer)
    check_output(output)
    with progress(silent=json) as report:
        found = tsstore.steps(
            store,
            intervals=intervals,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            progress=report,
        )
    if output is not None:
        save_csv(found.to_frame(), output)
    if json:
        print_json(found.to_dict())
        return
    optional = ("always on", "duplicates", "samples")
    print_table(HEADINGS, found.cells(), optional, format=format)
    print_lines(found.sentences, format=format)
