"""Creating a run, and writing one part of it: append batches, commit, seal."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError, PartSealedError, StoreExistsError, TsstoreError
from tsstore.store import layout
from tsstore.store.arrays import ArrayWriter
from tsstore.store.files import Files
from tsstore.store.layout import LayerAttributes, PartAttributes, RunAttributes
from tsstore.store.metadata import (
    CODECS,
    dump,
    group_document,
    metadata_key,
    write_group,
)
from tsstore.store.record import CommitRecord, LayerCommit, Seal

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
        int64 (samples,): rows of each sample.
    """

    rows: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What one batch gave: the same samples in every layer and column.

    Attributes
    ----------
    samples
        Number of samples.
    layers
        By public name.
    columns
        Arrays of one entry a sample, by name; text as object arrays of str.
    """

    samples: int
    layers: Mapping[str, LayerBatch]
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that the batch takes in memory."""
        rows = sum(layer.rows.nbytes + layer.positions.nbytes for layer in self.layers.values())
        return rows + sum(column.nbytes for column in self.columns.values())


def now() -> str:
    """Return the time as ISO 8601 text in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def create_run(files: Files, software: Mapping[str, str] | None = None) -> RunAttributes:
    """Create the root of a run, exclusively.

    Raises
    ------
    StoreExistsError
        If there is something at the path already.
    """
    run = RunAttributes(uuid.uuid4().hex, now(), {"tsstore": version("tsstore"), **(software or {})})
    try:
        if files.list(""):
            raise FileExistsError
        files.create(metadata_key(""), dump(group_document(run.to_json())))
    except FileExistsError:
        raise StoreExistsError(
            f"{files.location} exists already; expected a new path: choose another one, "
            "or remove what is there"
        ) from None
    return run


class PartWriter:
    """Writes one part: one process, for ever.

    A batch is appended to every layer and column; :meth:`commit` puts all appended batches on
    disk for good, or none.

    Parameters
    ----------
    files
        Where the run lies; its root exists.
    part
        What to say of this process; the attempt is chosen here.
    codec, level
        Compressor of the states.
    chunk_bytes
        Size of a decoded chunk of states; chosen by the number of layers unless given.
    """

    def __init__(
        self,
        files: Files,
        part: PartAttributes,
        *,
        codec: str = "lz4",
        level: int | None = None,
        chunk_bytes: int | None = None,
    ) -> None:
        self._files = files
        self._codec = codec
        self._level = CODECS[codec] if level is None else level
        self._chunk_bytes = chunk_bytes
        self._layers: dict[str, _LayerWriter] = {}
        self._columns: dict[str, tuple[str, ArrayWriter]] = {}
        self._record = CommitRecord()
        self._batches = 0
        self._samples = 0
        self.sealed = False
        self.attributes = self._create_part(part)

    @property
    def directory(self) -> str:
        """The part's directory in the run."""
        return layout.part_directory(self.attributes.rank, self.attributes.attempt)

    @property
    def record(self) -> CommitRecord:
        """What has been committed."""
        return self._record

    @property
    def started(self) -> bool:
        """Whether layers and columns have been defined."""
        return bool(self._layers)

    def define(
        self,
        layers: Mapping[str, LayerAttributes],
        positions: Mapping[str, int],
        columns: Mapping[str, str],
    ) -> None:
        """Create the arrays of all layers and sample columns.

        Parameters
        ----------
        layers
            Attributes of each layer, by public name.
        positions
            Rows of a sample in the first batch, by public name: chunks hold whole samples where
            they can.
        columns
            Dtype names by column name.
        """
        for group in ("layers", "samples", "sample_checksums"):
            write_group(self._files, f"{self.directory}/{group}")
        chunk_bytes = self._chunk_bytes or max(
            MIN_CHUNK_BYTES, min(CHUNK_BYTES, BUFFER_BYTES // max(len(layers), 1))
        )
        for index, (name, attributes) in enumerate(layers.items()):
            rows = _chunk_rows(attributes.row_bytes, positions[name], chunk_bytes)
            spec = layout.states_spec(attributes.row_bytes, rows, self._codec, self._level)
            directory = layout.directory_name(index, name)
            self._layers[name] = _LayerWriter(
                self._files, self.directory, directory, attributes, spec
            )
        for index, (name, dtype) in enumerate(columns.items()):
            directory = layout.column_directory(index, name)
            paths = layout.column_paths(self.directory, directory)
            spec = layout.sample_spec(dtype)
            column = ArrayWriter(self._files, paths, spec, {"name": name, "index": index})
            self._columns[name] = (directory, column)

    def append(self, batch: Batch) -> None:
        """Append a batch; it counts from the next commit on.

        Raises
        ------
        PartSealedError
            If the part has been sealed.
        """
        if self.sealed:
            raise PartSealedError(f"{self.directory} is sealed and takes no more batches")
        for name, layer in batch.layers.items():
            self._layers[name].append(layer, self._samples)
        for name, column in batch.columns.items():
            self._columns[name][1].append(column)
        self._samples += batch.samples
        self._batches += 1

    def commit(self) -> CommitRecord:
        """Put all appended batches on disk for good: chunks, then the record, then shapes.

        Raises
        ------
        PartSealedError
            If another process has sealed the part.
        """
        if self._record.generation and self._record.batches == self._batches:
            return self._record
        self._check_seal()
        record = CommitRecord(
            generation=self._record.generation + 1,
            batches=self._batches,
            samples=self._samples,
            time=now(),
            layers={layer.directory: layer.flush() for layer in self._layers.values()},
            columns={directory: column.flush() for directory, column in self._columns.values()},
        )
        self._files.sync()
        write_group(self._files, layout.commit_path(self.directory), record.to_json())
        self._files.sync()
        self._check_seal()
        self._record = record
        for layer in self._layers.values():
            layer.write_shapes()
        for _, column in self._columns.values():
            column.write_shape()
        return record

    def seal(self, why: str = "closed") -> None:
        """Commit, then freeze the part for ever; nothing where it is sealed."""
        if self.sealed:
            return
        record = self.commit()
        by = f"{socket.gethostname()} process {os.getpid()}"
        document = group_document(Seal(record, why, by, now()).to_json())
        try:
            self._files.create(metadata_key(layout.seal_path(self.directory)), dump(document))
        except FileExistsError:
            self._check_seal()
        self._files.sync()
        self.sealed = True

    def _check_seal(self) -> None:
        if self._files.exists(layout.seal_path(self.directory)):
            self.sealed = True
            raise PartSealedError(
                f"{self._files.location}/{self.directory} was sealed by another process: "
                "what this one recorded since its last commit does not count; stop this job"
            )

    def _create_part(self, part: PartAttributes) -> PartAttributes:
        """Create the part's group under the first free number of attempts."""
        prefix = layout.part_directory(part.rank, 0)[:-5]
        attempt = sum(name.startswith(prefix) for name in self._files.list(""))
        while True:
            part = replace(part, attempt=attempt, started=now())
            key = metadata_key(layout.part_directory(part.rank, attempt))
            try:
                self._files.create(key, dump(group_document(part.to_json())))
            except FileExistsError:
                attempt += 1
            else:
                return part


class _LayerWriter:
    """The arrays of one layer; `positions` begins when a sample first has another number of rows."""

    def __init__(
        self,
        files: Files,
        part: str,
        directory: str,
        attributes: LayerAttributes,
        spec: layout.ArraySpec,
    ) -> None:
        self.directory = directory
        self._files = files
        self._part = part
        write_group(files, layout.layer_path(part, directory), attributes.to_json())
        self._states = ArrayWriter(files, layout.states_paths(part, directory), spec)
        self._positions: ArrayWriter | None = None
        self._constant: int | None = None

    def append(self, batch: LayerBatch, samples_before: int) -> None:
        """Append a batch's rows, after so many samples."""
        self._states.append(batch.rows)
        if self._positions is None and not self._is_constant(batch.positions):
            self._begin_positions(samples_before)
        if self._positions is not None:
            self._positions.append(batch.positions)

    def flush(self) -> LayerCommit:
        """Write unfinished chunks and return what to commit."""
        positions = None if self._positions is None else self._positions.flush()
        return LayerCommit(self._states.flush(), positions)

    def write_shapes(self) -> None:
        """Let plain Zarr readers see the committed rows."""
        self._states.write_shape()
        if self._positions is not None:
            self._positions.write_shape()

    def _is_constant(self, positions: npt.NDArray[np.int64]) -> bool:
        if self._constant is None and len(positions):
            self._constant = int(positions[0])
        return bool(np.all(positions == self._constant))

    def _begin_positions(self, samples_before: int) -> None:
        paths = layout.positions_paths(self._part, self.directory)
        self._positions = ArrayWriter(self._files, paths, layout.sample_spec("int64"))
        # Piece by piece: the samples so far may be many, and all had the same number of rows.
        piece = np.full(layout.COLUMN_CHUNK_ROWS, self._constant or 0, dtype=np.int64)
        for start in range(0, samples_before, len(piece)):
            self._positions.append(piece[: samples_before - start])


def _chunk_rows(row_bytes: int, positions: int, chunk_bytes: int) -> int:
    """Return rows of a chunk: of whole samples where one fits."""
    rows = max(chunk_bytes // row_bytes, 1)
    return rows - rows % positions if 0 < positions <= rows else rows


def check_codec(codec: str, level: int | None) -> None:
    """Raise TsstoreError where format 1 has no such codec."""
    if codec not in CODECS:
        raise TsstoreError(f"codec is {codec!r}; expected one of {', '.join(CODECS)}")
    if level is not None and not 1 <= level <= 9:
        raise FormatError(f"compression level is {level!r}; expected 1 to 9")
