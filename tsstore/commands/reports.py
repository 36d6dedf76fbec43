"""The page on a run."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.options import (
    Filter,
    Json,
    Layers,
    Memory,
    RunPath,
    Scheduler,
    Scratch,
    Step,
)
from tsstore.commands.selecting import select
from tsstore.commands.terminal import print_json, progress
from tsstore.errors import AnalysisError
from tsstore.text import format_memory, printable


def report(
    run: RunPath,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="Where to write the page.")
    ] = "report.html",
    layer: Layers = None,
    step: Step = None,
    filter: Filter = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Show each layer by a sample column as well, such as label."
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Compare with another run, or another step.")
    ] = None,
    compare_step: Annotated[
        str | None, typer.Option("--compare-step", metavar="STEP", help="Step of the other run.")
    ] = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
    json: Json = False,
) -> None:
    """Write a page on a run, for a browser.

    It says which layers use their neurons, how sure that is, and what to do next.
    """
    import tsstore

    if compare_step is not None and compare is None:
        raise AnalysisError(
            "--compare-step is a step of another run; pass --compare OTHER, which may be the same"
        )
    store = select(run, step, filter, layer)
    other = None if compare is None else select(compare, compare_step, filter)
    with progress(silent=json) as show:
        size = tsstore.report(
            store,
            output,
            by=by,
            compare=other,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            progress=show,
        )
    if json:
        print_json({"run": store.path, "path": output, "bytes": size})
        return
    typer.echo(f"{printable(output)}: {format_memory(size)}; open it in a browser")
