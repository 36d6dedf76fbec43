"""Packed rows on disk, indexed as NumPy would index them in memory."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.errors import RowIndexError
from tsstore.store.chunked.chunk import taking_memory
from tsstore.store.chunked.reader import CommittedArray

RowNumbers = range | npt.NDArray[np.int64]
"""Row numbers that ascend, each once."""

_Index = int | slice | npt.NDArray[np.int64]

_EXPECTED = "expected an integer, a slice, '...', or a list or an array of integers or of booleans"


class Selection(NamedTuple):
    """Which rows are to be read, as few as do, and what to take of them: an index, rows first."""

    rows: RowNumbers
    key: tuple[_Index, ...]


class PackedRows:
    """The packed rows of arrays, one array after another: uint8 (rows, row_bytes).

    Each chunk that holds some of the rows wanted is decoded once, and no other.
    """

    def __init__(self, arrays: Sequence[CommittedArray], where: str) -> None:
        self._arrays = arrays
        self._where = where

    @property
    def row_bytes(self) -> int:
        """Bytes of a packed row."""
        (width,) = self._arrays[0].spec.row_shape
        return width

    @cached_property
    def rows(self) -> int:
        """Number of committed rows."""
        return sum(array.rows for array in self._arrays)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, row_bytes)."""
        return self.rows, self.row_bytes

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8: rows are packed."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Number of axes: 2."""
        return 2

    @property
    def size(self) -> int:
        """Number of bytes, before compression."""
        return self.rows * self.row_bytes

    @property
    def nbytes(self) -> int:
        """Number of bytes, before compression."""
        return self.size

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        for array in self._arrays:
            for first in range(0, array.rows, array.spec.chunk_rows):
                yield from array.read(first, min(first + array.spec.chunk_rows, array.rows))

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        rows, taken = self._select(key)
        selected: npt.NDArray[np.uint8] = self._read(rows)[taken]
        return selected

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self._where}: rows are decoded, which makes a copy; pass copy=None")
        rows = self._read(range(self.rows))
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def _select(self, key: Any) -> Selection:
        try:
            return _select(key, self.shape)
        except RowIndexError as error:
            raise RowIndexError(f"{self._where}: {error}") from None

    def _read(self, rows: RowNumbers) -> npt.NDArray[np.uint8]:
        """Return rows, numbered through all arrays; no chunk is decoded twice, or in vain."""
        spans = list(_spans(self._arrays, rows))
        for array, _ in spans:
            array.check_extent()
        with taking_memory(self._where, len(rows) * self.row_bytes):
            out = np.empty((len(rows), self.row_bytes), dtype=np.uint8)
            numbers = [(array, _numbers(held)) for array, held in spans]
        filled = 0
        for array, held in numbers:
            target = out[filled : filled + len(held)]
            if isinstance(held, range):
                array.read(held.start, held.stop, target)
            else:
                array.take(held, target)
            filled += len(held)
        return out


def _select(index: Any, shape: tuple[int, int]) -> Selection:
    """Return which rows of an array of that shape, (rows, row_bytes), an index means."""
    row, *others = _by_axis(index, shape)
    if isinstance(row, int):
        return Selection(range(row, row + 1), (0, *others))
    if isinstance(row, slice):
        rows = range(shape[0])[row]
        ascending = rows if rows.step > 0 else rows[::-1]
        return Selection(ascending, (slice(None, None, 1 if rows.step > 0 else -1), *others))
    alone = not any(isinstance(other, np.ndarray) for other in others)
    if alone and row.ndim == 1 and np.all(row[1:] > row[:-1]):
        return Selection(row, (slice(None), *others))
    distinct, places = np.unique(row, return_inverse=True)
    return Selection(distinct, (places.reshape(row.shape), *others))


def _by_axis(index: Any, shape: tuple[int, int]) -> list[_Index]:
    """Return what an index says of the rows and, where it says anything, of the bytes."""
    given = list(index) if isinstance(index, tuple) else [index]
    entries: list[Any] = [entry if entry is Ellipsis else _entry(entry) for entry in given]
    axes = sum(entry.ndim if _is_mask(entry) else entry is not Ellipsis for entry in entries)
    if axes > len(shape) or sum(entry is Ellipsis for entry in entries) > 1:
        raise RowIndexError(
            f"found {len(given)} indices for {axes} axes; expected two at most, of rows and of "
            "their bytes, and '...' once"
        )
    by_axis: list[_Index] = []
    for entry in entries:
        if entry is Ellipsis:
            by_axis += [slice(None)] * (len(shape) - axes)
        elif _is_mask(entry):
            by_axis += _of_mask(entry, shape[len(by_axis) :])
        else:
            by_axis.append(_within(entry, shape[len(by_axis)], len(by_axis)))
    return by_axis or [slice(None)]


def _entry(entry: Any) -> Any:
    """Return a slice, an integer, or an array of integers or booleans."""
    if isinstance(entry, slice):
        try:
            range(0)[entry]
        except (TypeError, ValueError) as error:
            raise RowIndexError(f"{entry} means no rows: {error}") from None
        return entry
    if not isinstance(entry, bool) and getattr(entry, "ndim", 0) == 0:
        try:
            return operator.index(entry)
        except TypeError:
            pass
    try:
        array = np.asarray(entry)
    except (TypeError, ValueError, RuntimeError):
        array = np.empty(0, dtype=object)
    if array.size == 0 and array.dtype == np.float64 and isinstance(entry, list):
        # NumPy makes it float64 elsewhere, and takes it for integers here.
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu" or array.ndim == 0:
        raise RowIndexError(f"{entry!r:.80} means no rows; {_EXPECTED}")
    return array


def _is_mask(entry: object) -> bool:
    return isinstance(entry, np.ndarray) and entry.dtype == np.bool_


def _of_mask(mask: npt.NDArray[np.bool_], sizes: tuple[int, ...]) -> tuple[_Index, ...]:
    if mask.shape != sizes[: mask.ndim]:
        raise RowIndexError(
            f"found a mask of shape {mask.shape}, expected {sizes[: mask.ndim]}; give it an entry "
            "for each row"
        )
    return mask.nonzero()


def _within(entry: _Index, size: int, axis: int) -> _Index:
    """Return an index that counts from the front only."""
    if isinstance(entry, slice):
        return entry
    numbers = np.asarray(entry)
    if numbers.size and not (numbers.min() >= -size and numbers.max() < size):
        wrong = numbers.max() if numbers.max() >= size else numbers.min()
        raise RowIndexError(
            f"there is no {('row', 'byte')[axis]} {wrong}; expected one from {-size} to {size - 1}"
        )
    if isinstance(entry, int):
        return entry % size
    return np.where(numbers < 0, numbers + size, numbers).astype(np.int64)


def _spans(
    arrays: Sequence[CommittedArray], rows: RowNumbers
) -> Iterator[tuple[CommittedArray, RowNumbers]]:
    """Yield the rows of each array that holds some, as it numbers them."""
    first = 0
    for array in arrays:
        start, stop = (bisect_left(rows, edge) for edge in (first, first + array.rows))
        if start < stop:
            held = rows[start:stop]
            if isinstance(held, range):
                yield array, range(held.start - first, held.stop - first, held.step)
            else:
                yield array, held - first
        first += array.rows


def _numbers(rows: RowNumbers) -> RowNumbers:
    """Return rows that do not follow each other as an array."""
    if isinstance(rows, range) and rows.step > 1:
        return np.arange(rows.start, rows.stop, rows.step)
    return rows
