"""What the parts of one step hold together: their layers and columns, part after part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError, StoreError
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.reading.part import Part
from tsstore.store.reading.store import StateStore
from tsstore.text import printable

_PIECE_BYTES = 8 << 20

Pieces = Iterable[npt.NDArray[Any]]


class MergedParts:
    """The parts of one step, in the order in which repeated samples count.

    Attributes
    ----------
    store
        The run with these parts only: by attempt, then by rank.
    layers
        By public name.
    columns
        By name, a sample column of each part that holds samples, and one at least.
    """

    def __init__(self, store: StateStore, step: int | str | None) -> None:
        parts = [part for part in store.parts if part.step == step]
        parts.sort(key=lambda part: (part.attributes.attempt, part.attributes.rank))
        self.store = StateStore(parts[0].files, store.run, tuple(parts), (step,))
        self.layers = dict(self.store)
        self.columns = {name: self._column(name) for name in self.store.columns}

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts, in order."""
        return self.store.parts

    def rows(self, layer: str) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield all rows of a layer, some whole chunks at a time."""
        return array_pieces([part.states for part in self.layers[layer].parts])

    def positions(self, layer: str) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the number of rows of each sample, some samples at a time."""
        for part in self.layers[layer].parts:
            yield from part.position_pieces()

    def _column(self, name: str) -> list[CommittedArray]:
        with_samples = [part for part in self.parts if part.samples]
        parts = with_samples or [part for part in self.parts if name in part.columns]
        where = f"{self.store.path}: sample column {printable(name)}"
        lacking = [part.directory for part in parts if name not in part.columns]
        if lacking:
            raise StoreError(
                f"{where} is missing in {', '.join(lacking)}, which other parts of the step have; "
                "expected it in all: they cannot be made one"
            )
        arrays = [part.columns[name] for part in parts]
        types = dict.fromkeys(array.spec.dtype for array in arrays)
        if len(types) > 1:
            raise FormatError(
                f"{where} is {' and '.join(types)} in parts of one step; expected one type: they "
                "cannot be made one"
            )
        return arrays


def array_pieces(arrays: Sequence[CommittedArray]) -> Iterator[npt.NDArray[Any]]:
    """Yield the entries of arrays one after another, some whole chunks at a time."""
    for array in arrays:
        chunk_bytes = array.spec.chunk_bytes or _PIECE_BYTES
        rows = array.spec.chunk_rows * max(_PIECE_BYTES // chunk_bytes, 1)
        for start in range(0, array.rows, rows):
            yield array.read(start, min(start + rows, array.rows))
