"""What groups of samples have to do with states: what states tell of them, which they share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tsstore.commands import options
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import (
    check_output,
    print_lines,
    print_shown,
    progress,
    save_csv,
)


def information(
    run: options.RunPath,
    by: Annotated[
        str, typer.Option(metavar="COLUMN", help="Sample column that the groups are by, as label.")
    ],
    layer: options.Layers = None,
    step: options.Step = None,
    filter: options.Filter = None,
    bins: options.Bins = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    dependent_by: options.DependentBy = None,
    unique_by: options.UniqueBy = None,
    repeats: options.Repeats = "once",
    intervals: options.Intervals = True,
    exact: options.Exact = False,
    patience: options.Patience = 600,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Say how much states tell of the group of their sample.

    In bits, with what shuffled labels show beside.
    """
    import tsstore

    once_or_each: Any = repeats
    store = options.select(run, step, filter, layer)
    with progress(silent=json) as report:
        found = tsstore.information(
            store,
            by,
            bins=bins,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            dependent_by=dependent_by,
            unique_by=unique_by,
            repeats=once_or_each,
            intervals=intervals,
            exact=exact,
            patience=patience,
            progress=report,
        )
    print_shown(found, format, json=json)


def shared_states(
    run: options.RunPath,
    by: options.By = None,
    layer: options.Layers = None,
    step: options.Step = None,
    filter: options.Filter = None,
    bins: options.Bins = None,
    window: options.Window = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="A CSV file: the states that two groups share."
        ),
    ] = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Count which distinct states groups of samples share.

    Of 100 groups at most.
    """
    import tsstore

    store = options.select(run, step, filter, layer)
    by = options.by_step_if_several(store, by, window, "counted")
    check_output(output)
    with progress(silent=json) as report:
        found = tsstore.shared_states(
            store,
            by,
            bins=bins,
            window=window,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            progress=report,
        )
    if output is not None:
        save_csv(found.to_frame(), output)
    print_shown(found, format, json=json)
    if output is None and not json:
        print_lines(
            ["Pass --output shared.csv for the states that each two groups share."], format=format
        )
