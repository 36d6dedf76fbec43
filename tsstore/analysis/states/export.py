"""All distinct states of a layer as a file, in order if that is asked for.

To be sorted, states need not fit into memory. An entry is a string of bytes that sorts as they do:
what its multiplicity lacks of the largest number, its row, and its incidence. Sorted runs of
entries go to a scratch file, one after another, and are merged as many at a time as are in memory
of each.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.scratch import local_parent, scratch_folder
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.request import Request, Run, countable
from tsstore.analysis.states.distinct import Piece, distinct_states, planned, spare_bytes
from tsstore.analysis.states.files import write_states
from tsstore.errors import AnalysisError, CountingError
from tsstore.store.reading.layer import LayerStates
from tsstore.text import Progress

MAX_CHUNK_BYTES = 16 << 20
CHUNK_SHARE = 6
"""What writing a chunk takes, as often as the chunk: its states in pieces and together, decoded,
compressed."""
SORTED_CHUNK_BYTES = 1 << 20
SORTING_BYTES = 12 << 20
"""Set apart for chunks of sorted states, and for sorting them."""

_LARGEST = 2**63 - 1
_NUMBER_BYTES = 8
OUT_BYTES = 1 << 18
"""Of entries that are handed on at a time."""

_Entries = npt.NDArray[np.bytes_]


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


def sorted_pieces(
    pieces: Iterable[Piece], row_bytes: int, memory: int, scratch: str | os.PathLike[str] | None
) -> Iterator[Piece]:
    """Yield all states, the most frequent first, and of equally frequent ones the first bytes.

    About so many bytes of memory are taken. What does not fit goes to a file in a scratch folder,
    the system's one if scratch is object storage; AnalysisError if it cannot be written.
    """
    size = row_bytes + 2 * _NUMBER_BYTES
    folder = local_parent(scratch)
    room = np.empty((max(memory // 3 // size, 2), size), np.uint8)
    with ExitStack() as stack:
        runs: _Runs | None = None
        used = 0
        for piece in pieces:
            entries = _pack(piece)
            while len(entries):
                taken = min(len(entries), len(room) - used)
                room[used : used + taken] = entries[:taken]
                entries, used = entries[taken:], used + taken
                if used == len(room):
                    runs = runs or _Runs(stack.enter_context(scratch_folder(folder)), size)
                    runs.write(_sort(room))
                    used = 0
        last = _sort(room[:used])
        if runs is None:
            yield from _unpacked([last])
            return
        runs.write(last)
        most = len(room)
        del room, last
        yield from _unpacked(runs.merged(most))


class _Runs:
    """Sorted runs of entries of so many bytes, in one file of a folder."""

    def __init__(self, folder: str, size: int) -> None:
        self._path = os.path.join(folder, f"{uuid.uuid4().hex}.sorted")
        self._dtype = np.dtype(f"S{size}")
        self._ends: list[int] = []

    def write(self, entries: _Entries) -> None:
        """Add a run."""
        try:
            with open(self._path, "ab") as file:
                file.write(entries.view(np.uint8).data)
        except OSError as error:
            raise AnalysisError(
                f"scratch file {self._path} cannot be written ({error.strerror}); free some space, "
                "pass another folder as scratch=, or give more memory"
            ) from error
        self._ends.append(len(entries) + (self._ends[-1] if self._ends else 0))

    def merged(self, most: int) -> Iterator[_Entries]:
        """Yield all entries in order, about so many of all runs being in memory at a time."""
        of_each = max(most // len(self._ends), 1)
        places = [0, *self._ends[:-1]]
        held = [np.empty(0, self._dtype)] * len(places)
        while True:
            for run, end in enumerate(self._ends):
                if not len(held[run]) and places[run] < end:
                    held[run] = self._read(places[run], min(of_each, end - places[run]))
                    places[run] += len(held[run])
            # Of a run that goes on in the file, nothing beyond what is held is known.
            edges = [
                own[-1:]
                for own, place, end in zip(held, places, self._ends, strict=True)
                if place < end
            ]
            if not edges:
                break
            edge = _sort(np.concatenate(edges))[:1]
            stops = [int(np.searchsorted(own, edge, side="right")[0]) for own in held]
            yield _sort(np.concatenate([own[:stop] for own, stop in zip(held, stops, strict=True)]))
            held = [own[stop:] for own, stop in zip(held, stops, strict=True)]
        yield _sort(np.concatenate(held))

    def _read(self, place: int, count: int) -> _Entries:
        try:
            offset = place * self._dtype.itemsize
            entries = np.fromfile(self._path, self._dtype, count, offset=offset)
        except OSError as error:
            raise AnalysisError(
                f"scratch file {self._path} cannot be read ({error.strerror}); export again"
            ) from error
        if len(entries) < count:
            raise CountingError(f"scratch file {self._path} has become shorter; export again")
        return entries


def _pack(piece: Piece) -> npt.NDArray[np.uint8]:
    """Return states as entries, uint8 (n, row_bytes + 16)."""
    rows, multiplicity, incidence = piece
    first = (_LARGEST - multiplicity).astype(">u8")[:, None].view(np.uint8)
    last = incidence.astype(">u8")[:, None].view(np.uint8)
    return np.concatenate([first, rows, last], axis=1)


def _unpacked(pieces: Iterable[_Entries]) -> Iterator[Piece]:
    """Yield entries as states, a bounded number at a time."""
    for entries in pieces:
        size = entries.dtype.itemsize
        table = entries.view(np.uint8).reshape(-1, size)
        for start in range(0, len(table), max(OUT_BYTES // size, 1)):
            part = table[start : start + max(OUT_BYTES // size, 1)]
            yield (
                np.ascontiguousarray(part[:, _NUMBER_BYTES:-_NUMBER_BYTES]),
                _LARGEST - _numbers(part[:, :_NUMBER_BYTES]),
                _numbers(part[:, -_NUMBER_BYTES:]),
            )


def _numbers(columns: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(columns).view(">u8").reshape(-1).astype(np.int64)


def _sort(entries: npt.NDArray[np.uint8] | _Entries) -> _Entries:
    """Sort entries where they are, and return each as one item."""
    item = f"S{entries.shape[1]}" if entries.ndim == 2 else entries.dtype
    items: _Entries = entries.reshape(-1).view(item)
    items.sort()
    return items
