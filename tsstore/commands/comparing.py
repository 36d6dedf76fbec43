"""Two runs beside each other."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.options import Format, Json, Layers, Memory, Scheduler, Scratch
from tsstore.commands.selecting import select
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import print_json, print_lines, print_table, progress
from tsstore.text import printable


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="Path of a run.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="Path of another one.")],
    layer: Layers = None,
    step_a: Annotated[
        str | None, typer.Option("--step-a", metavar="STEP", help="Step of the first run.")
    ] = None,
    step_b: Annotated[
        str | None, typer.Option("--step-b", metavar="STEP", help="Step of the other run.")
    ] = None,
    efficiency: Annotated[
        bool,
        typer.Option("--efficiency/--no-efficiency", help="Count states for the efficiencies."),
    ] = True,
    novelty: Annotated[
        bool,
        typer.Option("--novelty", help="Find the states of both runs, and new ones of the other."),
    ] = False,
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
            select(first, step_a, None),
            select(second, step_b, None),
            layer,
            efficiency=efficiency,
            novelty=novelty,
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
