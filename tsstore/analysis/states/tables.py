"""A table of distinct states that is written a chunk at a time: what it is of, and as Parquet."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tsstore import bits
from tsstore.errors import StoreError

Rows: TypeAlias = npt.NDArray[np.uint8]
Numbers: TypeAlias = npt.NDArray[np.int64]

_COUNT_BYTES = 16
_LEVEL_BYTES = 4
"""Of each boolean in a list, while a row group of Parquet is being written."""
_PAGE_BYTES = 1 << 16
"""Of a Parquet page: its writer keeps several of them, in all columns."""
CODEC = "zstd"
"""Distinct states have few repeats that a faster codec would find."""


@dataclass(frozen=True)
class StatesTable:
    """What a table is of, and how it is laid out.

    Decoded, states are written as booleans, one for each neuron. About so many bytes of states, as
    they are written, and of their counts make a chunk. Attributes are what readers may want to
    know.
    """

    neurons: int
    row_bytes: int
    decoded: bool
    chunk_bytes: int
    attributes: dict[str, Any]

    @property
    def entry_bytes(self) -> int:
        """Bytes of a state as it is written, and of its counts."""
        return (self.neurons if self.decoded else self.row_bytes) + _COUNT_BYTES

    def written(self, rows: Rows) -> Rows | npt.NDArray[np.bool_]:
        """Return states as they are written."""
        return bits.unpack(rows, self.neurons) if self.decoded else rows


class TableFile(ABC):
    """A table that is being written: so many states at a time, a Zarr chunk or a row group."""

    def __init__(self, table: StatesTable, chunk_rows: int) -> None:
        self._table = table
        self._chunk_rows = chunk_rows
        self._held: list[list[npt.NDArray[Any]]] = []
        self._count = 0

    def append(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        """Add states; full chunks are written."""
        piece: list[npt.NDArray[Any]] = [rows, multiplicity, incidence]
        while len(piece[0]):
            room = self._chunk_rows - self._count
            self._held.append([own[:room] for own in piece])
            self._count += len(self._held[-1][0])
            piece = [own[room:] for own in piece]
            if self._count == self._chunk_rows:
                self._write_held()

    def finish(self) -> None:
        """Write what is left, so that it survives a loss of power."""
        if self._count:
            self._write_held()

    def _write_held(self) -> None:
        chunk = [np.concatenate(own) for own in zip(*self._held, strict=True)]
        self._held, self._count = [], 0
        self._write(*chunk)

    @abstractmethod
    def discard(self) -> None:
        """Remove all that was written, and let nothing be written any more."""

    @abstractmethod
    def _write(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        """Write states as the chunk that follows."""


class ParquetFile(TableFile):
    """A Parquet file of three columns, in row groups of a chunk.

    A decoded state is a list of booleans of fixed size: an array in polars and pyarrow, and one
    ``numpy.stack`` away from a matrix in pandas. A column for each neuron would make the metadata
    of each row group, all of which are held until the end, as large as a wide layer's states.
    """

    def __init__(self, path: Path, table: StatesTable) -> None:
        self._arrow, parquet = _import_pyarrow()
        self._path = path
        levels = _LEVEL_BYTES * table.neurons if table.decoded else 0
        super().__init__(table, max(1, table.chunk_bytes // (table.entry_bytes + levels)))
        self._file = open(path, "xb")  # noqa: SIM115 - closed when finished or discarded
        counts = ["multiplicity", "incidence"]
        self._writer = parquet.ParquetWriter(
            self._file,
            self._schema(),
            compression=CODEC,
            data_page_size=_PAGE_BYTES,
            # Dictionaries and bounds of states would be as large as these, and of no use.
            use_dictionary=counts,
            write_statistics=counts,
        )

    def finish(self) -> None:
        """Write the last row group and the metadata."""
        super().finish()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove the file."""
        # Its writer would complain later if it were not closed; and to close it is to write.
        for close in (self._writer.close, self._file.close):
            with suppress(Exception):
                close()
        self._path.unlink(missing_ok=True)

    def _write(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        columns = [self._states(rows), multiplicity, incidence]
        self._writer.write_batch(self._arrow.record_batch(columns, schema=self._writer.schema))

    def _states(self, rows: Rows) -> Any:
        written = self._table.written(rows).reshape(-1)
        if self._table.decoded:
            values = self._arrow.array(written)
            return self._arrow.FixedSizeListArray.from_arrays(values, self._table.neurons)
        buffers = [None, self._arrow.py_buffer(written)]
        return self._arrow.FixedSizeBinaryArray.from_buffers(self._type(), len(rows), buffers)

    def _type(self) -> Any:
        if self._table.decoded:
            return self._arrow.list_(self._arrow.bool_(), self._table.neurons)
        return self._arrow.binary(self._table.row_bytes)

    def _schema(self) -> Any:
        count = self._arrow.int64()
        return self._arrow.schema(
            [("state", self._type()), ("multiplicity", count), ("incidence", count)],
            metadata={"tsstore": json.dumps(self._table.attributes)},
        )


def _import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow, which not everyone has, and its module for Parquet."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise StoreError(
            "a Parquet file needs the package pyarrow, which is not installed; "
            "pip install tsstore[parquet], or write to a name that ends in .zarr"
        ) from None
