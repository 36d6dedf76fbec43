"""What the parts of one step hold together: layers, columns, and entries one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from tsstore.errors import FormatError, StoreError
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.reading.part import readers
from tsstore.store.reading.sample_filter import View
from tsstore.store.reading.store import StateStore
from tsstore.store.threads import in_threads, processors
from tsstore.text import printable

MOST_THREADS = 16
_PIECE_BYTES = 2 << 20
_AHEAD_BYTES = 128 << 20
"""What is read ahead of what is written takes twice as much at most."""


class MergedParts:
    """What the parts of one step hold, in the order in which repeated samples count.

    `store` is the run with these parts only: by attempt, then by rank. `columns` holds, by name, a
    sample column of each part that holds samples, and one at least.
    """

    def __init__(self, store: StateStore, step: int | str | None) -> None:
        parts = [part for part in store.parts if part.step == step]
        parts.sort(key=lambda part: (part.attributes.attempt, part.attributes.rank))
        self.store = StateStore(parts[0].files, store.run, tuple(parts), View(steps=(step,)))
        self.layers = dict(self.store)
        self.columns = {name: self._column(name) for name in self.store.columns}

    def _column(self, name: str) -> list[CommittedArray]:
        with_samples = [part for part in self.store.parts if part.samples]
        parts = with_samples or [part for part in self.store.parts if name in part.columns]
        where = f"{self.store.path}: sample column {printable(name)}"
        lacking = [part.directory for part in parts if name not in part.columns]
        if lacking:
            raise StoreError(
                f"{where} is missing in {', '.join(lacking)}, which other parts of the step have; "
                "expected it in all: they cannot be made one"
            )
        arrays = list(in_threads(lambda part: part.columns[name], parts, readers(parts)))
        types = dict.fromkeys(array.spec.dtype for array in arrays)
        if len(types) > 1:
            raise FormatError(
                f"{where} is {' and '.join(types)} in parts of one step; expected one type: they "
                "cannot be made one"
            )
        return arrays


def array_pieces(arrays: Sequence[CommittedArray]) -> Iterator[npt.NDArray[Any]]:
    """Yield the entries of arrays one after another, some whole chunks at a time, read ahead."""

    def spans() -> Iterator[tuple[CommittedArray, int, int]]:
        for array in arrays:
            chunk_bytes = array.spec.chunk_bytes or _PIECE_BYTES
            rows = array.spec.chunk_rows * max(_PIECE_BYTES // chunk_bytes, 1)
            for start in range(0, array.rows, rows):
                yield array, start, min(start + rows, array.rows)

    largest = max(_PIECE_BYTES, *(array.spec.chunk_bytes for array in arrays))
    threads = min(max(processors(), arrays[0].files.readers), MOST_THREADS)
    threads = max(min(threads, _AHEAD_BYTES // largest), 1)
    return in_threads(lambda span: span[0].read(*span[1:]), spans(), threads)
