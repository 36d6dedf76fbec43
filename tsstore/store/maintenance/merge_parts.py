"""What the parts of one step hold together: their layers and columns, part after part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import DamageError, FormatError, StoreError
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.reading.layer import LayerPart
from tsstore.store.reading.part import Part
from tsstore.store.reading.store import StateStore
from tsstore.text import printable

_PIECE_BYTES = 8 << 20

Pieces = Iterable[npt.NDArray[Any]]


class MergedParts:
    """The parts of one step, in the order in which repeated samples count.

    Parameters
    ----------
    store
        The run.
    step
        The step; at least one part has it.

    Attributes
    ----------
    store
        The run with these parts only: by attempt, then by rank.
    layers
        By public name.
    columns
        By name, a sample column of each part that holds samples, and one at least.

    Raises
    ------
    StoreError
        If a part with samples lacks a layer or a column that another one has.
    FormatError
        If parts disagree about a layer's neurons, threshold or dtype, or about a column's type.
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


def compare(merged: MergedParts, part: Part, report: Callable[[int], None]) -> None:
    """Read parts and the one that was made of them, checksums and all; compare entry by entry.

    Parameters
    ----------
    merged
        The source.
    part
        What was made of it.
    report
        Called with the number of layers and columns that have been compared.

    Raises
    ------
    DamageError
        If they differ, or one of them is not what was committed.
    """
    check = _Check(f"{part.files.location}/{part.directory}", merged.store.path)
    check("its layers", list(part.layers) == list(merged.layers))
    check("its columns", list(part.columns) == list(merged.columns))
    for done, (name, copy) in enumerate(part.layers.items(), start=1):
        _compare_layer(merged, name, copy, check)
        report(done)
    for done, (name, column) in enumerate(part.columns.items(), start=1 + len(part.layers)):
        pieces = array_pieces(merged.columns[name])
        check.pieces(f"entries of column {printable(name)}", pieces, column.read, column.rows)
        report(done)


def _compare_layer(merged: MergedParts, name: str, copy: LayerPart, check: _Check) -> None:
    def read_positions(start: int, stop: int) -> npt.NDArray[np.int64]:
        return copy.read_positions(start, stop - start)

    what = f"layer {printable(name)}"
    check(f"attributes of {what}", copy.attributes == merged.layers[name].attributes)
    check.pieces(f"rows of {what}", merged.rows(name), copy.states.read, copy.rows)
    positions = merged.positions(name)
    check.pieces(f"rows by sample of {what}", positions, read_positions, copy.samples)


class _Check:
    """Raises where what a part holds is not what its source does."""

    def __init__(self, where: str, source: str) -> None:
        self._where = where
        self._source = source

    def __call__(self, what: str, is_same: bool) -> None:
        if not is_same:
            raise DamageError(
                f"{self._where}: {what} are not those of {self._source}; look after the disk"
            )

    def pieces(
        self, what: str, pieces: Pieces, read: Callable[[int, int], npt.NDArray[Any]], rows: int
    ) -> None:
        """Compare pieces of the source with what is read in their place."""
        start = 0
        for piece in pieces:
            stop = start + len(piece)
            self(what, stop <= rows and _is_same(piece, read(start, stop)))
            start = stop
        self(what, start == rows)


def _is_same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether entries are the same to the bit: NaN is itself, and -0.0 is not 0.0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind == "O":
        return bool(np.array_equal(one, other))
    return bool(np.array_equal(one.view(np.uint8), other.view(np.uint8)))
