"""All distinct states of a layer as a file."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from tsstore.analysis.request import Request, countable
from tsstore.analysis.states.distinct import distinct_states, planned, spare_bytes
from tsstore.analysis.states.files import write_states
from tsstore.store.files.open import StorePath
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.store import StateStore
from tsstore.text import Progress

MAX_CHUNK_BYTES = 16 << 20
CHUNK_SHARE = 6
"""What writing a chunk takes, as often as the chunk: its states in pieces and together, decoded,
compressed."""


def export(
    store: StateStore | StorePath,
    layer: str,
    out: str | os.PathLike[str],
    *,
    decoded: bool = False,
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
        A new local path that ends in ``.parquet``, which needs the package pyarrow, or in
        ``.zarr``. Columns or arrays are `state`, `multiplicity` and `incidence`, in no particular
        order of the states; what they are of is in the metadata.
    decoded
        Whether a state is a boolean for each neuron, instead of its bytes as stored.
    memory, scheduler, scratch, progress
        As for :func:`tsstore.analyze`.

    Raises
    ------
    UnknownLayerError, EmptyStoreError, DamageError
        If there is no such layer, it has no rows, or a chunk is not what was committed.
    StoreError, StoreExistsError, AccessError
        If the path is no local one of these kinds, or pyarrow is not there; if there is something
        at the path; if it cannot be written.
    MemoryTooSmallError, AnalysisError
        If memory, scheduler or scratch make no sense.
    """
    request = Request(memory, scheduler, progress, scratch)
    return export_states(countable(store)[layer], out, decoded, request)


def export_states(
    states: LayerStates, out: str | os.PathLike[str], decoded: bool, request: Request
) -> int:
    """Write a layer's states as `export` does."""
    distinct = 0
    with planned(states, request) as (plan, runner):
        chunk_bytes = min(spare_bytes(plan) // CHUNK_SHARE, MAX_CHUNK_BYTES)
        with (
            write_states(out, states, decoded, chunk_bytes) as append,
            closing(distinct_states(states, plan, runner, request)) as pieces,
        ):
            for piece in pieces:
                append(*piece)
                distinct += len(piece[0])
    return distinct
