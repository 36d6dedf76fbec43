"""What single neurons do: how often they fire, which never do, which do the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

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
    records,
    save_csv,
)
from tsstore.errors import AnalysisError
from tsstore.text import counted, printable

if TYPE_CHECKING:
    import pandas as pd

    from tsstore.analysis.neurons.results import Neurons

MOST_PAIRS = 20
"""Of a layer and kind, in a table."""
SHADES = " ░▒▓█"
MAP_SIZE = 24, 72
"""Lines, and characters of each, of a drawing."""


def neurons(
    run: options.RunPath,
    layer: options.Layers = None,
    step: options.Step = None,
    filter: options.Filter = None,
    by: options.By = None,
    bins: options.Bins = None,
    window: options.Window = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    output: Annotated[str | None, options.output("A CSV file: one line a neuron.")] = None,
    near: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="List pairs of neurons that do the same, or the opposite, in such a share of the "
            "rows, such as 0.99.",
        ),
    ] = None,
    maps: Annotated[
        bool,
        typer.Option("--maps", help="Draw how often neurons fire at each position of a sample."),
    ] = False,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Find neurons that are dead, always on, or duplicates.

    How often each neuron fires is counted, with limits.
    """
    import tsstore
    from tsstore.analysis.neurons.results import Neurons

    store = options.select(run, step, filter, layer)
    by = options.by_step_if_several(store, by, window, "counted")
    if near is not None and not 0 <= near <= 1:
        raise AnalysisError(f"--near is {near:g}; expected a share of the rows, from 0 to 1")
    if (near is not None or maps) and not (by is None and window is None):
        option = "--maps" if near is None else "--near"
        raise AnalysisError(
            f"{option} counts all samples together; leave out --by and --window, and choose a "
            "group by --filter label=3, or by --step"
        )
    check_output(output)
    with progress(silent=json) as report:
        found = tsstore.neurons(
            store,
            by=by,
            bins=bins,
            window=window,
            joint=near is not None,
            maps=maps,
            memory=memory,
            scheduler=scheduler,
            progress=report,
        )
    pairs = found.near_pairs(near) if near is not None and isinstance(found, Neurons) else None
    if output is not None:
        save_csv(found.to_frame(), output)
    if json:
        shown: dict[str, Any] = {} if pairs is None else {"near_pairs": records(pairs)}
        if isinstance(found, Neurons) and maps:
            shown["maps"] = {name: layer.map.values.tolist() for name, layer in found.items()}
        print_json(found.to_dict() | shown)
        return
    print_shown(found, format, ("10–90 %",))
    if pairs is not None:
        _print_pairs(pairs, format=format)
    if isinstance(found, Neurons) and maps:
        print_lines(_map_lines(found), format=format)
    if output is None:
        print_lines(["Pass --output neurons.csv for a line a neuron."], format=format)


def _map_lines(found: Neurons) -> Iterator[str]:
    """Yield drawings of the mean rates of layers by position; of many positions, means of some."""
    import numpy as np

    yield "Mean rate by position: blank below 20 % of the samples, then ░, ▒, ▓, and █ from 80 %."
    for name, layer in found.items():
        rates = layer.map.mean("neuron").values
        if rates.size == 1:
            continue
        rates = rates.reshape(-1, rates.shape[-1])
        for axis, most in enumerate(MAP_SIZE):
            if rates.shape[axis] > most:
                some = np.array_split(rates, most, axis)
                rates = np.stack([own.mean(axis) for own in some], axis)
        yield f"{printable(name)}: {' × '.join(map(str, layer.map.shape[:-1]))} positions"
        for line in rates:
            yield "  " + "".join(SHADES[min(int(rate * len(SHADES)), 4)] for rate in line)


def _print_pairs(pairs: pd.DataFrame, format: TableFormat = TableFormat.TABLE) -> None:
    """Print pairs of neurons, of each layer those that are most alike."""
    shown = pairs.groupby(["layer", "kind"], sort=False).head(MOST_PAIRS)
    lines = [
        (
            printable(pair["layer"]),
            f"{pair['neuron']:,}",
            f"{pair['other']:,}",
            pair["kind"],
            f"{pair['share']:.4f}",
            f"{pair['by_chance']:.4f}",
            f"{pair['kappa']:.3f}",
        )
        for pair in shown.to_dict("records")
    ]
    told = f"{counted(len(pairs), 'pair')} of neurons"
    if lines:
        headings = ("layer", "neuron", "other", "do", "share of rows", "by chance", "kappa")
        if format is not TableFormat.TABLE:
            print_lines([""])
        print_table(headings, lines, format=format)
    if len(shown) < len(pairs):
        told += f", of which {len(shown):,} are shown: those most alike, of each layer"
    print_lines([f"{told}."], format=format)
