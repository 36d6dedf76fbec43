"""Commands about the distinct states themselves: the most frequent ones, and a table of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tsstore.commands import options
from tsstore.commands.tables import TableFormat, shortened, table_width
from tsstore.commands.terminal import (
    check_output,
    print_json,
    print_lines,
    print_table,
    progress,
    records,
    save_csv,
    terminal_width,
)
from tsstore.text import counted, printable

if TYPE_CHECKING:
    import pandas as pd

Output = Annotated[str | None, options.output("A CSV file for all of it.")]
MOST_LINES = 20
MOST_LETTERS = 48, 24, 16, 12
"""Of a value that was recorded, where the whole of it is too wide: as many as there is room for."""


def states(
    run: options.RunPath,
    layer: options.OneLayer,
    most: Annotated[
        int, typer.Option("--most", "-n", metavar="N", min=1, help="How many states to show.")
    ] = 20,
    hex: Annotated[
        bool, typer.Option("--hex", help="Hexadecimal digits instead of drawings.")
    ] = False,
    step: options.Step = None,
    filter: options.Filter = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Draw the most frequent states of a layer."""
    import tsstore
    from tsstore.analysis.states.frequent import HEADINGS

    store, name = options.select_layer(run, layer, step, filter)
    with progress(silent=json) as report:
        found = tsstore.states(
            store, name, most, memory=memory, scheduler=scheduler, scratch=scratch, progress=report
        )
    if json:
        print_json(found.to_dict())
        return
    if len(found):
        print_table(HEADINGS, found.cells(hex), ("neurons on", "samples"), format=format)
    print_lines(found.lines(hex), format=format)


def export(
    run: options.RunPath,
    layer: options.OneLayer,
    states: Annotated[
        str,
        typer.Option(
            "--states",
            "--output",
            "-o",
            metavar="OUT",
            help="Where to write the table of distinct states: OUT.parquet or OUT.zarr.",
        ),
    ],
    decoded: Annotated[
        bool, typer.Option("--decoded", help="One value a neuron, instead of packed bytes.")
    ] = False,
    sort: Annotated[
        bool, typer.Option("--sort", help="The most frequent first; the same file each time.")
    ] = False,
    step: options.Step = None,
    filter: options.Filter = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    json: options.Json = False,
) -> None:
    """Write all distinct states of a layer to a file.

    With each go the rows and the samples it is in: its multiplicity and incidence.
    """
    import tsstore

    store, name = options.select_layer(run, layer, step, filter)
    with progress(silent=json) as report:
        count = tsstore.export(
            store,
            name,
            states,
            decoded=decoded,
            sort=sort,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            progress=report,
        )
    found = store[name]
    if json:
        document = {"run": store.path, "layer": found.name, "path": states}
        print_json({**document, "rows": found.rows, "distinct": count})
        return
    typer.echo(
        f"{printable(states)}: {count:,} distinct states of the {found.rows:,} rows of "
        f"{printable(found.name)}"
    )


def surprising(
    run: options.RunPath,
    layer: options.OneLayer,
    n: Annotated[
        int, typer.Option("--most", "-n", metavar="N", min=1, help="How many samples to show.")
    ] = 20,
    output: Output = None,
    step: options.Step = None,
    filter: options.Filter = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Show the samples whose states are least expected.

    What is expected of a sample is told by all others.
    """
    import tsstore

    store, name = options.select_layer(run, layer, step, filter)
    check_output(output)
    with progress(silent=json) as report:
        frame = tsstore.surprising(
            store, name, n, memory=memory, scheduler=scheduler, scratch=scratch, progress=report
        )
    if output is not None:
        save_csv(frame, output)
    if json:
        document = {"run": store.path, "layer": name, "samples": records(frame)}
        print_json({**document, "equally_surprising": frame.attrs["equally_surprising"]})
        return
    shown = frame.assign(
        bits=[f"{bits:.2f}" for bits in frame["bits"]],
        new=[f"{100 * new:.3g} %" for new in frame["new"]],
    )
    _print_samples(shown.rename(columns={"new": "new rows"}), len(frame), format)
    lines = [
        "Bits: the mean surprisal of a sample's rows, given the other samples. New rows: those of "
        "states that no other sample shows."
    ]
    if ties := frame.attrs["equally_surprising"]:
        lines.append(f"{counted(ties, 'more sample')} as surprising as the last one.")
    print_lines(lines, format=format)


def samples(
    run: options.RunPath,
    state: Annotated[
        str, typer.Argument(metavar="STATE", help="Hexadecimal digits, or a drawing of ■ and □.")
    ],
    layer: options.OneLayer,
    output: Output = None,
    step: options.Step = None,
    filter: options.Filter = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Show which samples are in a state, and at which positions."""
    store, name = options.select_layer(run, layer, step, filter)
    found = store[name]
    check_output(output)
    frame = found.samples_of(state)
    if output is not None:
        save_csv(frame, output)
    if json:
        document = {"run": store.path, "layer": found.name, "rows": found.rows}
        print_json({**document, "rows_in_state": len(frame), "samples": records(frame)})
        return
    _print_samples(frame, MOST_LINES, format)
    which = counted(len(frame.index.unique()), "sample")
    line = f"{counted(len(frame), 'row')} of {found.rows:,} in this state, of {which}"
    if len(frame) > MOST_LINES and format is TableFormat.TABLE:
        line += f"; {MOST_LINES} are shown, --output has all"
    print_lines([f"{line}."], format=format)


def _print_samples(shown: pd.DataFrame, most: int, format: TableFormat) -> None:
    """Print a table of samples; levels of the index that are the same for all are left out."""
    for level in ("part", "step"):
        if shown.index.get_level_values(level).nunique() < 2:
            shown = shown.droplevel(level)
    if format is not TableFormat.TABLE:
        most = len(shown)
    lines = shown.head(most).reset_index()
    headings = [printable(str(name)) for name in lines]
    cells = [list(map(_cell, line)) for line in lines.itertuples(index=False)]
    columns = list(zip(*cells, strict=True))
    for letters in MOST_LETTERS if format is TableFormat.TABLE else ():
        if table_width(headings, cells) <= terminal_width():
            break
        cells = [
            list(row) for row in zip(*(shortened(own, letters) for own in columns), strict=True)
        ]
    if cells:
        print_table(headings, cells, format=format)


def _cell(value: object) -> str:
    return printable(f"{value:.6g}" if isinstance(value, float) else str(value))
