"""Commands about the distinct states themselves: the most frequent ones, and a table of all."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from tsstore.commands.options import Json, Memory, OneLayer, RunPath, Scheduler, Scratch
from tsstore.commands.terminal import print_lines, print_table, progress
from tsstore.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from tsstore.store.reading.layer import LayerStates

HEADINGS = ("state", "neurons on", "rows", "share of rows", "samples")

MOST_BITS = 64
"""States of more neurons are shown in hexadecimal."""
HEX_ENDS = 24, 8
"""Of long ones so many digits from both ends."""


def states(
    run: RunPath,
    layer: OneLayer,
    most: Annotated[int, typer.Option(min=1, help="How many states to show.")] = 20,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
    json: Json = False,
) -> None:
    """Show the most frequent states of a layer, and how frequent they are."""
    from tsstore.analysis.states.distinct import most_frequent

    found = _layer(run, layer)
    with progress(silent=json) as report:
        table = most_frequent(
            found, most, memory=memory, scheduler=scheduler, scratch=scratch, progress=report
        )
    if json:
        typer.echo(_document(found, table))
    else:
        rows = _cells(found, table)
        print_table(HEADINGS, rows)
        print_lines([_reading(found)])


def export(
    run: RunPath,
    layer: OneLayer,
    states: Annotated[
        str,
        typer.Option(help="Where to write the table of distinct states: OUT.parquet or OUT.zarr."),
    ],
    decoded: Annotated[
        bool, typer.Option("--decoded", help="One value a neuron, instead of packed bytes.")
    ] = False,
    memory: Memory = None,
    scheduler: Scheduler = None,
    scratch: Scratch = None,
) -> None:
    """Write all distinct states of a layer, with multiplicities and incidences, to a file."""
    from tsstore.analysis.states.distinct import export_states

    found = _layer(run, layer)
    with progress() as report:
        count = export_states(
            found,
            states,
            decoded=decoded,
            memory=memory,
            scheduler=scheduler,
            scratch=scratch,
            progress=report,
        )
    typer.echo(
        f"{printable(states)}: {count:,} distinct states of the {found.rows:,} rows of "
        f"{printable(found.name)}"
    )


def _layer(run: str, layer: str) -> LayerStates:
    """Return the states of a layer of a run that can be counted."""
    from tsstore.analysis.request import check_rows, countable

    found = countable(run)[layer]
    check_rows(found)
    return found


def _cells(states: LayerStates, table: pd.DataFrame) -> list[list[str]]:
    on = _decode(states, table).sum(axis=1)
    shown = _shown(states, table)
    columns = table["multiplicity"], table["share"], table["incidence"]
    return [
        [state, f"{neurons:,}", f"{rows:,}", f"{100 * share:.3g} %", f"{samples:,}"]
        for state, neurons, rows, share, samples in zip(shown, on, *columns, strict=True)
    ]


def _shown(states: LayerStates, table: pd.DataFrame) -> list[str]:
    """Return states as text that fits a line."""
    if states.neurons <= MOST_BITS:
        return ["".join("01"[bit] for bit in row) for row in _decode(states, table).astype(int)]
    first, last = HEX_ENDS
    digits = [state.hex() for state in table["state"]]
    return [
        text if len(text) <= first + last else f"{text[:first]}…{text[-last:]}" for text in digits
    ]


def _decode(states: LayerStates, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    import numpy as np

    from tsstore import bits

    rows = np.frombuffer(b"".join(table["state"]), np.uint8).reshape(-1, states.row_bytes)
    return bits.unpack(rows, states.neurons)


def _reading(states: LayerStates) -> str:
    if states.neurons <= MOST_BITS:
        return "A digit is a neuron, neuron 0 first; 1 is on."
    return "Two digits are a byte of 8 neurons, neuron 0 its lowest bit; all digits: --json."


def _document(states: LayerStates, table: pd.DataFrame) -> str:
    """Return the table as JSON, with the bytes of states in hexadecimal."""
    on = _decode(states, table).sum(axis=1).tolist()
    frame = table.assign(state=[state.hex() for state in table["state"]], neurons_on=on)
    document = {
        "run": states.location,
        "layer": states.name,
        "neurons": states.neurons,
        "rows": states.rows,
        "states": frame.to_dict(orient="records"),
    }
    return json_module.dumps(document, indent=2, allow_nan=False)
