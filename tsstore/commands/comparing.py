"""One beside another: two runs, the steps of one, groups of samples and the states they share."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands import options
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import (
    check_output,
    print_json,
    print_lines,
    print_shown,
    print_table,
    progress,
    save_csv,
)
from tsstore.text import printable


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="Path of a run.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="Path of another one.")],
    layer: options.Layers = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", "--step-a", metavar="STEP", help="Step of RUN. (--step-a is its old name.)"
        ),
    ] = None,
    filter: options.Filter = None,
    other_step: options.OtherStep = None,
    other_filter: options.OtherFilter = None,
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
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Compare two runs: efficiencies, bits that differ, new states.

    Bits are compared where samples of both runs have the same id.
    """
    import tsstore

    with progress(silent=json) as report:
        found = tsstore.compare(
            options.select(first, step, filter),
            options.select(second, other_step, other_filter or filter),
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
        print_table(found.efficiency.headings, found.efficiency.cells(), format=format)
        print_lines([found.efficiency.pairing, ""], format=format)
    print_shown(found, format, ("neurons",))
    if found.overlap is not None:
        print_lines([""], format=format)
        print_shown(found.overlap, format, ("states of first", "of second", "of both"))


def steps(
    run: options.RunPath,
    layer: options.Layers = None,
    filter: options.Filter = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    intervals: options.Intervals = True,
    output: Annotated[str | None, options.output("A CSV file: a line a layer and step.")] = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Show how a training developed: accuracy, efficiency, dead neurons.

    A run has a step for each evaluation that a trainer's callback recorded.
    """
    import tsstore

    store = options.select(run, None, filter, layer)
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
    print_shown(found, format, ("always on", "duplicates", "samples"), json)


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
            repeats=repeats,  # type: ignore[arg-type]
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
        str | None, options.output("A CSV file: the states that two groups share.")
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
