"""All distinct states of a layer as a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.request import Request, Run, countable
from tsstore.analysis.states.distinct import Piece, distinct_states, planned, spare_bytes
from tsstore.analysis.states.files import write_states
from tsstore.analysis.states.sorting import sorted_pieces
from tsstore.errors import CountingError
from tsstore.store.reading.layer import LayerStates
from tsstore.text import Progress

MAX_CHUNK_BYTES = 16 << 20
CHUNK_SHARE = 6
"""What writing a chunk takes, as often as the chunk: its states in pieces and together, decoded,
compressed."""
SORTED_CHUNK_BYTES = 1 << 20
SORTING_BYTES = 12 << 20
"""Set apart for chunks of sorted states, and for sorting them."""


def export(
    store: Run,
    layer: str,
    out: str | os.PathLike[str],
    *,
    decoded: bool = False,
    sort: bool = False,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write every distinct state of a layer, its multiplicity and its incidence; return how many.

    Exact for layers of any width, and of more states than fit into memory.

    Parameters
    ----------
    store
        A run, or its path.
    layer
        Name of the layer.
    out
        A new path or URL of an object store that ends in ``.parquet``, which needs the package
        pyarrow, or in ``.zarr``. What goes to a URL is written to the scratch folder, and then
        sent. Columns or arrays are `state`, `multiplicity` and `incidence`; what they are of is in
        the metadata.
    decoded
        Whether a state is a boolean for each neuron, instead of its bytes as stored.
    sort
        Whether the most frequent states come first, and of equally frequent ones those whose bytes
        do: the file is then the same each time. Otherwise states are in no particular order, which
        is another one each time. Sorting takes 12 MiB more than what is the smallest memory else,
        and what does not fit goes through a file in `scratch`.
    memory, scheduler, scratch, progress
        As for `tsstore.analyze`.

    Raises
    ------
    UnknownLayerError, EmptyStoreError, DamageError
        If there is no such layer, it has no rows, or a chunk is not what was committed.
    StoreError, StoreExistsError, AccessError
        If the path is of none of these kinds, or pyarrow is not there; if there is something
        at the path; if it cannot be written.
    MemoryTooSmallError, AnalysisError
        If memory, scheduler or scratch make no sense.
    """
    request = Request(memory, scheduler, progress, scratch)
    return export_states(countable(store)[layer], out, decoded, sort, request)


def export_states(
    states: LayerStates, out: str | os.PathLike[str], decoded: bool, sort: bool, request: Request
) -> int:
    """Write a layer's states as `export` does."""
    distinct = 0
    with planned(states, request, SORTING_BYTES * sort) as (plan, runner):
        chunk_bytes = min(spare_bytes(plan) // CHUNK_SHARE, MAX_CHUNK_BYTES)
        if sort:
            # Whatever the memory is, so that chunks are those of every other export.
            chunk_bytes = SORTED_CHUNK_BYTES
        with (
            write_states(out, states, decoded, chunk_bytes, sort, request.scratch) as append,
            closing(distinct_states(states, plan, runner, request)) as pieces,
        ):
            rows = 0
            for piece in _in_order(pieces, states, plan, request) if sort else pieces:
                append(*piece)
                distinct += len(piece[0])
                rows += int(piece[1].sum())
            if rows != states.rows:
                raise CountingError(f"{rows} rows were written of {states.rows}; export again")
    return distinct


def _in_order(
    pieces: Iterator[Piece], states: LayerStates, plan: Plan, request: Request
) -> Iterator[Piece]:
    """Yield states in order, in what memory is left beside the chunks."""
    memory = spare_bytes(plan) + SORTING_BYTES - CHUNK_SHARE * SORTED_CHUNK_BYTES
    return sorted_pieces(pieces, states.row_bytes, memory, request.scratch)
