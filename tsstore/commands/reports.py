"""The page on a run."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands import options
from tsstore.commands.terminal import print_json, progress
from tsstore.errors import AnalysisError
from tsstore.text import format_memory, printable


def report(
    run: options.RunPath,
    output: Annotated[str, options.output("Where to write the page.")] = "report.html",
    layer: options.Layers = None,
    step: options.Step = None,
    filter: options.Filter = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Show each layer by a sample column as well, such as label."
        ),
    ] = None,
    bins: options.Bins = None,
    window: options.Window = None,
    compare: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Compare with another run, or another step.")
    ] = None,
    other_step: options.OtherStep = None,
    other_filter: options.OtherFilter = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    json: options.Json = False,
) -> None:
    """Write a page on a run, for a browser.

    It says which layers use their neurons, how sure that is, and what to do next.
    """
    import tsstore

    if compare is None and (other_step is not None or other_filter):
        raise AnalysisError(
            "--other-step and --other-filter are of another run; pass --compare OTHER, which may "
            "be the same"
        )
    store = options.select(run, step, filter, layer)
    other = None if compare is None else options.select(compare, other_step, other_filter or filter)
    with progress(silent=json) as show:
        size = tsstore.report(
            store,
            output,
            by=by,
            bins=bins,
            window=window,
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
