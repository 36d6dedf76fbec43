"""What groups of samples have to do with states: what states tell of them, which they share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tsstore.commands.options import (
    Bins,
    By,
    DependentBy,
    Exact,
    Filter,
    Format,
    Intervals,
    Json,
    Layers,
    Memory,
    Patience,
    Repeats,
    RunPath,
    Scheduler,
    Scratch,
    Step,
    UniqueBy,
    Window,
)
from tsstore.commands.selecting import by_step_if_several, select
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import (
    check_output,
    print_json,
    print_lines,
    print_table,
    progress,
    save_csv,
)


def information(
    run: RunPath,
    by: Annotated[
        str, typer.Option(metavar="COLUMN", help="Sample column that the groups are by, as label.")
    ],
    layer: Layers = None,
    step: Step = None,
    filter: Filter = None,
    bins: Bins = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
    dependent_by: DependentBy = None,
    unique_by: UniqueBy = None,
    repeats: Repeats = "once",
    intervals: Intervals = True,
    exact: Exact = False,
    patience: Patience = 600,
    format: Format = TableFormat.TABLE,
    json: Json = False,
) -> None:
    """Say how much states tell of the group of their sample.

    In bits, with what shuffled labels show beside.
    """
    import tsstore

    once_or_each: Any = repeats
    store = select(run, step, filter, layer)
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
    if json:
        print_json(found.to_dict())
        return
    print_table(found.headings, found.cells(), format=format)
    print_lines(found.sentences, format=format)


def shared_states(
    run: RunPath,
    by: By = None,
    layer: Layers = None,
    step: Step = None,
    filter: Filter = None,
    bins: Bins = None,
    window: Window = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="A CSV file: the states that two groups share."
        ),
    ] = None,
    format: Format = TableFormat.TABLE,
    json: Json = False,
) -> None:
    """Count which distinct states groups of samples share.

    Of 100 groups at most.
    """
    import tsstore

    store = select(run, step, filter, layer)
    by = by_step_if_several(store, by, window, "counted")
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
    if json:
        print_json(found.to_dict())
        return
    print_table(found.headings, found.cells(), format=format)
    print_lines(found.sentences, format=format)
    if output is None:
        print_lines(
            ["Pass --output shared.csv for the states that each two groups share."], format=format
        )
