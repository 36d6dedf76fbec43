"""Creating a run, and writing one part of it: append batches, commit, seal."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

from tsstore.errors import (
    ColumnsError,
    FormatError,
    PartSealedError,
    StoreError,
    StoreExistsError,
    TsstoreError,
)
from tsstore.store import layout
from tsstore.store.arrays import ArrayWriter
from tsstore.store.batch import Batch as Batch
from tsstore.store.batch import LayerBatch as LayerBatch
from tsstore.store.batch import check_column
from tsstore.store.documents import create_group, metadata_key, write_group
from tsstore.store.files import Files
from tsstore.store.layer_writer import LayerWriter, chunk_rows
from tsstore.store.layout import LayerAttributes, PartAttributes, RunAttributes
from tsstore.store.metadata import CODECS
from tsstore.store.record import CommitRecord, Seal

CHUNK_BYTES = 2 << 20
MIN_CHUNK_BYTES = 128 << 10
BUFFER_BYTES = 256 << 20
"""What the unfinished chunks of all layers may take together, unless chunks become too small."""


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
    run = RunAttributes(
        uuid.uuid4().hex, now(), {"tsstore": version("tsstore"), **(software or {})}
    )
    try:
        if files.list(""):
            raise FileExistsError
        create_group(files, "", run.to_json())
    except FileExistsError:
        raise StoreExistsError(
            f"{files.location} exists already; expected a new path: choose another one, "
            "or remove what is there"
        ) from None
    # Other processes sync their own parts only.
    files.sync()
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
        self._layers: dict[str, LayerWriter] = {}
        self._columns: dict[str, tuple[str, ArrayWriter]] = {}
        self._record = CommitRecord()
        self._batches = 0
        self._samples = 0
        self._defined = False
        self._appending = False
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
        """Create the arrays of layers, and, the first time, of sample columns.

        Samples appended before have no positions in a layer that is defined later.

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
        if not self._defined:
            self._create_groups()
        chunk_bytes = self._chunk_bytes or max(
            MIN_CHUNK_BYTES, min(CHUNK_BYTES, BUFFER_BYTES // max(len(layers), 1))
        )
        for index, (name, attributes) in enumerate(layers.items(), start=len(self._layers)):
            rows = chunk_rows(attributes.row_bytes, positions[name], chunk_bytes)
            spec = layout.states_spec(attributes.row_bytes, rows, self._codec, self._level)
            directory = layout.directory_name(index, name)
            self._layers[name] = LayerWriter(
                self._files, self.directory, directory, attributes, spec, self._samples
            )
        for index, (name, dtype) in enumerate({} if self._defined else columns.items()):
            directory = layout.column_directory(index, name)
            paths = layout.column_paths(self.directory, directory)
            spec = layout.sample_spec(dtype)
            column = ArrayWriter(self._files, paths, spec, {"name": name, "index": index})
            self._columns[name] = (directory, column)
        self._defined = True

    def append(self, batch: Batch) -> None:
        """Append a batch; it counts from the next commit on.

        Raises
        ------
        PartSealedError
            If the part has been sealed.
        StoreError, ColumnsError
            If the batch does not fit the part, or an earlier one could not be appended whole.
        """
        if self.sealed:
            raise PartSealedError(f"{self.directory} is sealed and takes no more batches")
        self._check_whole()
        self._check_batch(batch)
        self._appending = True
        for name, layer in batch.layers.items():
            self._layers[name].append(layer, self._samples)
        for name, column in batch.columns.items():
            self._columns[name][1].append(column)
        self._samples += batch.samples
        self._batches += 1
        self._appending = False

    def commit(self) -> CommitRecord:
        """Put all appended batches on disk for good: chunks, then the record, then shapes.

        Raises
        ------
        PartSealedError
            If another process has sealed the part.
        StoreError
            If a batch could not be appended whole.
        """
        self._check_whole()
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
        seal = Seal(record, why, by, now())
        try:
            create_group(self._files, layout.seal_path(self.directory), seal.to_json())
        except FileExistsError:
            self._check_seal()
        self._files.sync()
        self.sealed = True

    def _create_groups(self) -> None:
        # A part that has layers has a record, so that a lost record is noticed.
        write_group(self._files, layout.commit_path(self.directory), self._record.to_json())
        self._files.sync()
        for group in ("layers", "samples", "sample_checksums"):
            write_group(self._files, f"{self.directory}/{group}")

    def _check_seal(self) -> None:
        if self._files.exists(metadata_key(layout.seal_path(self.directory))):
            self.sealed = True
            raise PartSealedError(
                f"{self._files.location}/{self.directory} was sealed by another process: "
                "what this one recorded since its last commit does not count; stop this job"
            )

    def _check_whole(self) -> None:
        if self._appending:
            raise StoreError(
                f"{self._files.location}/{self.directory}: a batch could not be written whole, so "
                "no later one is taken; what was committed before stays readable: run again"
            )

    def _check_batch(self, batch: Batch) -> None:
        """Refuse a batch that not every layer and column can take, before any of them does."""
        if set(batch.layers) != set(self._layers):
            raise StoreError(
                f"{self.directory}: the batch has layers {sorted(batch.layers)}; "
                f"expected {sorted(self._layers)}"
            )
        if set(batch.columns) != set(self._columns):
            raise ColumnsError(
                f"{self.directory}: the batch has columns {sorted(batch.columns)}; "
                f"expected {sorted(self._columns)}"
            )
        for name, layer in batch.layers.items():
            layer.check(f"layer {name!r}", batch.samples, self._layers[name].row_bytes)
        for name, column in batch.columns.items():
            check_column(name, column, batch.samples, self._columns[name][1].spec)

    def _create_part(self, part: PartAttributes) -> PartAttributes:
        """Create the part's group under the first free number of attempts."""
        prefix = layout.part_directory(part.rank, 0)[:-5]
        attempt = sum(name.startswith(prefix) for name in self._files.list(""))
        while True:
            part = replace(part, attempt=attempt, started=now())
            directory = layout.part_directory(part.rank, attempt)
            try:
                create_group(self._files, directory, part.to_json())
            except FileExistsError:
                attempt += 1
            else:
                return part


def check_codec(codec: str, level: int | None) -> None:
    """Raise TsstoreError where format 1 has no such codec."""
    if codec not in CODECS:
        raise TsstoreError(f"codec is {codec!r}; expected one of {', '.join(CODECS)}")
    if level is not None and not 1 <= level <= 9:
        raise FormatError(f"compression level is {level!r}; expected 1 to 9")
