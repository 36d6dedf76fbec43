"""What one batch gave, and whether a part can take it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import ColumnsError, StoreError
from tsstore.store.format.arrays import MAX_TEXT_BYTES, ArraySpec


@dataclass(frozen=True)
class LayerBatch:
    """What one batch gave in one layer.

    Attributes
    ----------
    rows
        uint8 (rows, row_bytes), sample after sample.
    positions
        Rows of each sample: one number where all have as many, else int64 (samples,).
    lengths
        The fewest and the most positions of a sample, where some were chosen; None where all of
        them have rows.
    """

    rows: npt.NDArray[np.uint8]
    positions: int | npt.NDArray[np.int64]
    lengths: tuple[int, int] | None = None

    def each(self, samples: int) -> npt.NDArray[np.int64]:
        """Return the rows of each of so many samples."""
        if isinstance(self.positions, int):
            return np.full(samples, self.positions, np.int64)
        return self.positions

    @property
    def ends(self) -> tuple[int, int]:
        """The fewest and the most rows of a sample, of which there is one."""
        if isinstance(self.positions, int):
            return self.positions, self.positions
        return int(self.positions.min()), int(self.positions.max())

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        counts = 0 if isinstance(self.positions, int) else self.positions.nbytes
        return self.rows.nbytes + counts

    def check(self, name: str, samples: int, row_bytes: int) -> None:
        """Raise StoreError where the rows are not those of so many samples."""
        counts = self.positions
        total = samples * counts if isinstance(counts, int) else int(counts.sum())
        expected = (total, row_bytes)
        if self.rows.shape != expected or self.rows.dtype != np.uint8:
            raise StoreError(
                f"{name}: rows are {self.rows.dtype} {self.rows.shape}; expected uint8 {expected}"
            )
        if not isinstance(counts, int) and (counts.shape != (samples,) or (counts < 0).any()):
            raise StoreError(
                f"{name}: the batch has {samples} samples, but numbers of rows for "
                f"{counts.shape}, the smallest {counts.min(initial=0)}"
            )


@dataclass(frozen=True)
class Batch:
    """What one batch gave: the same samples in every layer and column, by public name.

    Columns have one entry a sample; text is held as object arrays of str.
    """

    samples: int
    layers: Mapping[str, LayerBatch]
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that the batch takes in memory."""
        rows = sum(layer.nbytes for layer in self.layers.values())
        columns = sum(column.nbytes for column in self.columns.values())
        # An array of text holds pointers only.
        texts = [column.tolist() for column in self.columns.values() if column.dtype == object]
        return rows + columns + sum(sys.getsizeof(text) for column in texts for text in column)


def check_column(name: str, column: npt.NDArray[Any], samples: int, spec: ArraySpec) -> None:
    """Raise ColumnsError where a column is not one entry a sample, or not text where it should be.

    Text that cannot be stored would otherwise come to light in a commit, too late for its batch.
    """
    if column.shape != (samples,):
        raise ColumnsError(
            f"column {name!r} has shape {column.shape}; expected ({samples},): one entry a sample"
        )
    if not spec.is_text:
        return
    for value in column:
        try:
            size = len(value.encode()) if type(value) is str else -1
        except UnicodeEncodeError:
            size = -1
        if not 0 <= size <= MAX_TEXT_BYTES:
            raise ColumnsError(
                f"column {name!r} has an entry {value!r:.80}; expected text of at most "
                f"{MAX_TEXT_BYTES} bytes in UTF-8"
            )
