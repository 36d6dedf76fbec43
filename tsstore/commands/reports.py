"""The page on a run."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.options import Memory, RunPath, Scheduler, Scratch
from tsstore.commands.terminal import progress
from tsstore.text import format_memory, printable


def report(
    run: RunPath,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="Where to write the page.")
    ] = "report.html",
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
) -> None:
    """Write a page on a run: which layers use their neurons, how sure that is, what to do next."""
    import tsstore

    with progress() as show:
        size = tsstore.report(
            run, output, memory=memory, scheduler=scheduler, scratch=scratch, progress=show
        )
    typer.echo(f"{printable(output)}: {format_memory(size)}; open it in a browser")
