"""The table of a layer's distinct states, written to a file; and the most frequent of them."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.planning.layer_plan import Plan, layer_plan
from tsstore.analysis.request import Progress, Request, check_rows
from tsstore.analysis.schedulers import Scheduler, choose
from tsstore.analysis.states.distinct import Piece, distinct_states, spare_bytes
from tsstore.analysis.states.files import write_states
from tsstore.errors import AnalysisError
from tsstore.store.reading.layer import LayerStates

if TYPE_CHECKING:
    import pandas as pd

MAX_CHUNK_BYTES = 16 << 20
CHUNK_SHARE = 6
"""What writing a chunk takes, as often as the chunk: its states in pieces and together, decoded,
compressed."""


def export_states(
    states: LayerStates,
    out: str | os.PathLike[str],
    *,
    decoded: bool = False,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write every distinct state of a layer, its multiplicity and its incidence to a file.

    Exact for layers of any width, and of more states than fit into memory.

    Parameters
    ----------
    states
        The layer: ``store["conv_1"]``.
    out
        A new local path that ends in ``.parquet``, which needs the package pyarrow, or in
        ``.zarr``. Columns or arrays are `state`, `multiplicity` and `incidence`, in no particular
        order of the states; what they are of is in the metadata.
    decoded
        Whether a state is a boolean for each neuron, instead of its bytes as stored.
    memory, scheduler, scratch
        As for :func:`tsstore.analyze`.
    progress
        Called as ``progress(layer, tasks done, all tasks)``.

    Returns
    -------
    int
        Number of distinct states.

    Raises
    ------
    EmptyStoreError
        If the layer has no rows.
    StoreError
        If the path is no local one of these kinds, or pyarrow is not there.
    StoreExistsError
        If there is something at the path.
    AccessError
        If it cannot be written.
    MemoryTooSmallError, AnalysisError
        If memory, scheduler or scratch make no sense.
    DamageError
        If a chunk is not what was committed.
    """
    distinct = 0
    request = Request(memory, scheduler, progress, scratch)
    with _planned(states, request) as (plan, runner):
        chunk_bytes = min(spare_bytes(plan) // CHUNK_SHARE, MAX_CHUNK_BYTES)
        with (
            write_states(out, states, decoded, chunk_bytes) as append,
            closing(distinct_states(states, plan, runner, request)) as pieces,
        ):
            for piece in pieces:
                append(*piece)
                distinct += len(piece[0])
    return distinct


def most_frequent(
    states: LayerStates,
    count: int = 20,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the most frequent states of a layer, exactly, and how frequent they are.

    Parameters
    ----------
    states, memory, scheduler, scratch, progress
        As for :func:`export_states`.
    count
        How many states, 1 at least; they are kept in memory.

    Returns
    -------
    pandas.DataFrame
        A line for each of the `count` states of largest multiplicity, or of all if there are fewer.
        Of equally frequent ones those whose bytes come first. Columns are `state` (its bytes as
        stored), `multiplicity` (rows), `incidence` (samples), and `share` (of all rows).

    Raises
    ------
    AnalysisError
        If `count` is less than 1.
    EmptyStoreError, MemoryTooSmallError, DamageError
        As :func:`export_states`.
    """
    import pandas as pd

    if operator.index(count) < 1:
        raise AnalysisError(f"count is {count}; expected how many states to return, 1 at least")
    request = Request(memory, scheduler, progress, scratch)
    with (
        _planned(states, request) as (plan, runner),
        closing(distinct_states(states, plan, runner, request)) as pieces,
    ):
        rows, multiplicity, incidence = _most_frequent(pieces, count)
    return pd.DataFrame(
        {
            "state": pd.Series([row.tobytes() for row in rows], dtype=object),
            "multiplicity": multiplicity,
            "incidence": incidence,
            "share": multiplicity / states.rows,
        }
    )


@contextmanager
def _planned(states: LayerStates, request: Request) -> Iterator[tuple[Plan, Scheduler]]:
    """Yield how the states are counted, by exact keys, and where."""
    check_rows(states)
    with closing(choose(request.scheduler)) as runner:
        yield layer_plan(states, runner.memory(request.memory), runner, exact=True), runner


def _most_frequent(pieces: Iterator[Piece], count: int) -> Piece:
    """Return those of all states that come first, in order."""
    best = _first(next(pieces), count)
    for piece in pieces:
        if len(best[0]) == count:
            piece = _before_last(piece, best)
        if len(piece[0]):
            best = _first(_together([best, piece]), count)
    return best


def _together(pieces: Sequence[Piece]) -> Piece:
    rows, multiplicity, incidence = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return rows, multiplicity, incidence


def _before_last(piece: Piece, best: Piece) -> Piece:
    """Return those states of a piece that come before the last of the best."""
    rows, multiplicity, _ = piece
    last_row, last = best[0][-1:], best[1][-1]
    is_before = (multiplicity == last) & (_names(rows) < _names(last_row))
    return _select(piece, is_before | (multiplicity > last))


def _first(piece: Piece, count: int) -> Piece:
    """Return the first states of a piece: by multiplicity, largest first, then by their bytes."""
    rows, multiplicity, _ = piece
    return _select(piece, np.lexsort((_names(rows), -multiplicity))[:count])


def _select(piece: Piece, chosen: npt.NDArray[Any]) -> Piece:
    rows, multiplicity, incidence = piece
    return rows[chosen], multiplicity[chosen], incidence[chosen]


def _names(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """Return each row as one item, bytes (n,): they compare as rows do, byte by byte."""
    names: npt.NDArray[np.bytes_] = rows.view(f"S{rows.shape[1]}").reshape(-1)
    return names
