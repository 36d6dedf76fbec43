"""Batches, and the arrays of a part that take them: its layers and sample columns grow together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import ColumnsError, StoreError
from tsstore.store.chunked.writer import ArrayWriter, Compression, Encoder
from tsstore.store.files.base import Files
from tsstore.store.format import paths
from tsstore.store.format.arrays import (
    MAX_CHUNK_BYTES,
    MAX_TEXT_BYTES,
    ArraySpec,
    sample_spec,
    states_spec,
)
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.format.documents import write_group
from tsstore.store.format.record import ArrayCommit, LayerCommit

CHUNK_BYTES = 2 << 20
MIN_CHUNK_BYTES = 128 << 10
BUFFER_BYTES = 256 << 20
"""What the unfinished chunks of all layers may take together, unless chunks become too small."""


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


class LayerWriter:
    """The arrays of one layer; `positions` begins when a sample first has more or fewer rows."""

    def __init__(
        self,
        files: Files,
        part: str,
        directory: str,
        attributes: LayerAttributes,
        spec: ArraySpec,
        samples_before: int = 0,
        encoder: Encoder | None = None,
    ) -> None:
        self.directory = directory
        self.row_bytes = attributes.row_bytes
        self._files = files
        self._part = part
        write_group(files, paths.layer_path(part, directory), attributes.to_json())
        states = paths.states_paths(part, directory)
        self._states = ArrayWriter(files, states, spec, encoder=encoder)
        self._positions: ArrayWriter | None = None
        self._constant = 0 if samples_before else None
        self._chooses = "positions" in (attributes.sampling or {})
        self._lengths: tuple[int, int] | None = None
        self._has_chosen = False

    def append(self, batch: LayerBatch, samples: int, samples_before: int) -> None:
        """Append a batch's rows, of so many samples after so many others."""
        if not samples:
            return
        self._states.append(batch.rows)
        ends = batch.ends
        if self._chooses:
            self._has_chosen |= batch.lengths is not None
            fewest, most = batch.lengths or ends
            known = self._lengths or (fewest, most)
            self._lengths = min(known[0], fewest), max(known[1], most)
        if self._constant is None:
            self._constant = ends[0]
        if self._positions is None and ends != (self._constant, self._constant):
            self._begin_positions(samples_before)
        if self._positions is not None:
            self._positions.append(batch.each(samples))

    def flush(self) -> LayerCommit:
        """Write unfinished chunks and return what to commit."""
        positions = None if self._positions is None else self._positions.flush()
        lengths = self._lengths if self._has_chosen else None
        return LayerCommit(self._states.flush(), positions, lengths)

    def write_shapes(self) -> None:
        """Let plain Zarr readers see the committed rows."""
        self._states.write_shape()
        if self._positions is not None:
            self._positions.write_shape()

    def _begin_positions(self, samples_before: int) -> None:
        spec = sample_spec("int64")
        where = paths.positions_paths(self._part, self.directory)
        self._positions = ArrayWriter(self._files, where, spec)
        # Piece by piece: the samples so far may be many, and all had the same number of rows.
        piece = np.full(spec.chunk_rows, self._constant or 0, dtype=np.int64)
        for start in range(0, samples_before, len(piece)):
            self._positions.append(piece[: samples_before - start])


class PartArrays:
    """Writes the layers and sample columns of one part.

    Attributes
    ----------
    part
        Directory of the part; known at last when the layers are defined.
    batches, samples
        How many have been appended.
    defined
        Whether the columns, and the first layers, have been defined.
    """

    def __init__(
        self, files: Files, part: str, compression: Compression, chunk_bytes: int | None = None
    ) -> None:
        self.batches = self.samples = 0
        self.defined = self._appending = False
        self._files = files
        self.part = part
        self._compression = compression
        self._chunk_bytes = chunk_bytes
        self._encoder = Encoder(compression.threads)
        self._layers: dict[str, LayerWriter] = {}
        self._columns: dict[str, tuple[str, ArrayWriter]] = {}

    def __bool__(self) -> bool:
        """Whether there are any layers."""
        return bool(self._layers)

    def define(
        self,
        layers: Mapping[str, LayerAttributes],
        positions: Mapping[str, int],
        columns: Mapping[str, str],
    ) -> None:
        """Create the arrays of layers; see :meth:`tsstore.store.writing.part.PartWriter.define`."""
        chunk_bytes = self._chunk_bytes or max(
            MIN_CHUNK_BYTES, min(CHUNK_BYTES, BUFFER_BYTES // max(len(layers), 1))
        )
        codec, level = self._compression.codec, self._compression.level
        for index, (name, attributes) in enumerate(layers.items(), start=len(self._layers)):
            rows = chunk_rows(attributes.row_bytes, positions[name], chunk_bytes)
            spec = states_spec(attributes.row_bytes, rows, codec, level)
            directory = paths.directory_name(index, name)
            self._layers[name] = LayerWriter(
                self._files, self.part, directory, attributes, spec, self.samples, self._encoder
            )
        if not self.defined:
            for index, (name, dtype) in enumerate(columns.items()):
                directory = paths.column_directory(index, name)
                where = paths.column_paths(self.part, directory)
                said = {"name": name, "index": index}
                column = ArrayWriter(self._files, where, sample_spec(dtype), said)
                self._columns[name] = directory, column
        self.defined = True

    def append(self, batch: Batch) -> None:
        """Append a batch to all layers and columns, or refuse it before any of them has changed."""
        self.check_whole()
        self._check_fit(batch)
        self._appending = True
        for name, layer in batch.layers.items():
            self._layers[name].append(layer, batch.samples, self.samples)
        for name, column in batch.columns.items():
            self._columns[name][1].append(column)
        self.samples += batch.samples
        self.batches += 1
        self._appending = False

    def check_whole(self) -> None:
        """Raise StoreError where a batch was appended by half."""
        if self._appending:
            raise StoreError(
                f"{self._files.location}/{self.part}: a batch could not be written whole, so "
                "no later one is taken; what was committed before stays readable: run again"
            )

    def release(self) -> None:
        """Give memory and threads back: nothing more is appended or flushed."""
        self._encoder.close()
        self._layers.clear()
        self._columns.clear()

    def flush_layers(self) -> dict[str, LayerCommit]:
        """Write all of the layers' chunks; return what to commit, by directory."""
        commits = {layer.directory: layer.flush() for layer in self._layers.values()}
        self._encoder.drain()
        return commits

    def flush_columns(self) -> dict[str, ArrayCommit]:
        """Write the columns' unfinished chunks; return what to commit, by directory."""
        return {directory: column.flush() for directory, column in self._columns.values()}

    def write_shapes(self) -> None:
        """Let plain Zarr readers see the committed rows."""
        for layer in self._layers.values():
            layer.write_shapes()
        for _, column in self._columns.values():
            column.write_shape()

    def _check_fit(self, batch: Batch) -> None:
        """Refuse a batch that not every layer and column can take, before any of them does."""
        for what, found, expected, error in (
            ("layers", batch.layers, self._layers, StoreError),
            ("columns", batch.columns, self._columns, ColumnsError),
        ):
            if set(found) != set(expected):
                has = f"{self.part}: the batch has {what} {sorted(found)}"
                raise error(f"{has}; expected {sorted(expected)}")
        for name, layer in batch.layers.items():
            layer.check(f"layer {name!r}", batch.samples, self._layers[name].row_bytes)
        for name, column in batch.columns.items():
            check_column(name, column, batch.samples, self._columns[name][1].spec)


def chunk_rows(row_bytes: int, positions: int, chunk_bytes: int) -> int:
    """Return rows of a chunk: of whole samples where one fits."""
    rows = max(min(chunk_bytes, MAX_CHUNK_BYTES) // row_bytes, 1)
    return rows - rows % positions if 0 < positions <= rows else rows
