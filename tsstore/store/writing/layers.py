"""The arrays of a part: its layers and sample columns, which grow together."""

from __future__ import annotations

from collections.abc import Mapping

from tsstore.errors import ColumnsError, StoreError
from tsstore.store.chunked.encoders import make_encoder
from tsstore.store.chunked.reader import ArrayWriter
from tsstore.store.files.base import Files
from tsstore.store.format.arrays import CODECS, sample_spec, states_spec
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.format.paths import column_directory, column_paths, directory_name
from tsstore.store.format.record import ArrayCommit, LayerCommit
from tsstore.store.writing.batch import Batch, check_column
from tsstore.store.writing.layer import LayerWriter, chunk_rows

CHUNK_BYTES = 2 << 20
MIN_CHUNK_BYTES = 128 << 10
BUFFER_BYTES = 256 << 20
"""What the unfinished chunks of all layers may take together, unless chunks become too small."""


class PartArrays:
    """Writes the layers and sample columns of one part.

    Parameters
    ----------
    files
        Where the run lies.
    part
        The part's directory.
    codec, level
        Compressor of the states.
    chunk_bytes
        Size of a decoded chunk of states; chosen by the number of layers unless given.
    threads
        How many chunks of states are encoded at a time.

    Attributes
    ----------
    batches, samples
        How many have been appended.
    defined
        Whether the columns, and the first layers, have been defined.
    """

    def __init__(
        self,
        files: Files,
        part: str,
        codec: str,
        level: int | None = None,
        chunk_bytes: int | None = None,
        threads: int = 1,
    ) -> None:
        self.batches = 0
        self.samples = 0
        self.defined = False
        self._appending = False
        self._files = files
        self._part = part
        self._codec = codec
        self._level = CODECS[codec] if level is None else level
        self._chunk_bytes = chunk_bytes
        self._encoder = make_encoder(threads)
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
        """Create the arrays of layers, and, the first time, of sample columns.

        See :meth:`tsstore.store.writing.part.PartWriter.define`.
        """
        chunk_bytes = self._chunk_bytes or max(
            MIN_CHUNK_BYTES, min(CHUNK_BYTES, BUFFER_BYTES // max(len(layers), 1))
        )
        for index, (name, attributes) in enumerate(layers.items(), start=len(self._layers)):
            rows = chunk_rows(attributes.row_bytes, positions[name], chunk_bytes)
            spec = states_spec(attributes.row_bytes, rows, self._codec, self._level)
            directory = directory_name(index, name)
            self._layers[name] = LayerWriter(
                self._files, self._part, directory, attributes, spec, self.samples, self._encoder
            )
        if not self.defined:
            self._define_columns(columns)
        self.defined = True

    def append(self, batch: Batch) -> None:
        """Append a batch to all layers and columns.

        Raises
        ------
        StoreError, ColumnsError
            If the batch does not fit, or an earlier one could not be appended whole.
        """
        self.check_whole()
        self._check_fit(batch)
        self._appending = True
        for name, layer in batch.layers.items():
            self._layers[name].append(layer, self.samples)
        for name, column in batch.columns.items():
            self._columns[name][1].append(column)
        self.samples += batch.samples
        self.batches += 1
        self._appending = False

    def check_whole(self) -> None:
        """Raise StoreError where a batch was appended by half."""
        if self._appending:
            raise StoreError(
                f"{self._files.location}/{self._part}: a batch could not be written whole, so "
                "no later one is taken; what was committed before stays readable: run again"
            )

    def release(self) -> None:
        """Give memory and threads back: nothing more is appended or flushed."""
        self._encoder.close()
        self._layers.clear()
        self._columns.clear()

    def flush_layers(self) -> dict[str, LayerCommit]:
        """Write the layers' unfinished chunks; return what to commit, by directory.

        All their chunks are written then.
        """
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

    def _define_columns(self, columns: Mapping[str, str]) -> None:
        for index, (name, dtype) in enumerate(columns.items()):
            directory = column_directory(index, name)
            paths = column_paths(self._part, directory)
            spec = sample_spec(dtype)
            column = ArrayWriter(self._files, paths, spec, {"name": name, "index": index})
            self._columns[name] = (directory, column)

    def _check_fit(self, batch: Batch) -> None:
        """Refuse a batch that not every layer and column can take, before any of them does."""
        if set(batch.layers) != set(self._layers):
            raise StoreError(
                f"{self._part}: the batch has layers {sorted(batch.layers)}; "
                f"expected {sorted(self._layers)}"
            )
        if set(batch.columns) != set(self._columns):
            raise ColumnsError(
                f"{self._part}: the batch has columns {sorted(batch.columns)}; "
                f"expected {sorted(self._columns)}"
            )
        for name, layer in batch.layers.items():
            layer.check(f"layer {name!r}", batch.samples, self._layers[name].row_bytes)
        for name, column in batch.columns.items():
            check_column(name, column, batch.samples, self._columns[name][1].spec)
