"""One stored array: the growing end of it, and its committed part."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError
from tsstore.store.chunked import chunk as chunks
from tsstore.store.chunked.chunk import damaged, taking_memory
from tsstore.store.chunked.encoders import Encoder
from tsstore.store.chunked.shard import ChunkReader, ShardWriter
from tsstore.store.files.base import Files
from tsstore.store.format.arrays import ArraySpec, checksums_spec, read_array
from tsstore.store.format.documents import dump, metadata_key
from tsstore.store.format.paths import ArrayPaths
from tsstore.store.format.record import ArrayCommit

_LITTLE_UINT32 = np.dtype("<u4")
_POINTER_BYTES = 8


class ArrayWriter:
    """Appends entries to one array, in whole chunks; the unfinished one waits in memory.

    Parameters
    ----------
    files
        Where the store lies.
    paths
        Of the array and of its chunks' checksums.
    spec
        What the array is.
    attributes
        Its tsstore attributes.
    encoder
        Encodes its chunks, which are on disk when that has been drained; at once unless given.
    """

    def __init__(
        self,
        files: Files,
        paths: ArrayPaths,
        spec: ArraySpec,
        attributes: dict[str, Any] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self.spec = spec
        self.rows = 0
        self._files = files
        self._path = paths.values
        self._attributes = attributes
        self._encoder = encoder or Encoder()
        self._buffer = chunks.empty_entries(spec, spec.chunk_rows)
        self._filled = 0
        self._written_rows = 0
        self._checksums = _ChecksumWriter(files, paths) if paths.checksums else None
        self._shards = None if spec.shard_chunks is None else ShardWriter(files, paths.values, spec)
        self._write_metadata()

    def append(self, entries: npt.NDArray[Any]) -> None:
        """Append entries of shape (n, *row_shape); full chunks are encoded and written."""
        start = 0
        while start < len(entries):
            count = min(len(entries) - start, self.spec.chunk_rows - self._filled)
            self._buffer[self._filled : self._filled + count] = entries[start : start + count]
            self._filled += count
            self.rows += count
            start += count
            if self._filled == self.spec.chunk_rows:
                self._finish_chunk()

    def flush(self) -> ArrayCommit:
        """Write the unfinished chunk under its final key and return what to commit."""
        tail = self._buffer[: self._filled]
        if self._filled and self.rows != self._written_rows:
            self._buffer[self._filled :] = "" if self.spec.is_text else 0
            self._write_chunk(self.rows // self.spec.chunk_rows)
        if self._shards:
            self._shards.flush()
        self._written_rows = self.rows
        digest = self._checksums.flush() if self._checksums else 0
        return ArrayCommit(self.rows, digest, self._filled, chunks.checksum(self.spec, tail))

    def finish(self) -> ArrayCommit:
        """Flush, and give memory back: no more entries are taken."""
        commit = self.flush()
        self._buffer = self._buffer[:0].copy()
        self._shards = None
        return commit

    def write_shape(self) -> None:
        """Let plain Zarr readers see the committed rows, and none beyond."""
        if self._written_rows != self._shown_rows:
            self._write_metadata()
        if self._checksums:
            self._checksums.write_shape()

    def _finish_chunk(self) -> None:
        self._write_chunk(self.rows // self.spec.chunk_rows - 1)
        if self._checksums:
            self._checksums.append(chunks.checksum(self.spec, self._buffer))
        self._filled = 0

    def _write_chunk(self, index: int) -> None:
        if self._shards:
            self._shards.put(index, chunks.encode(self.spec, self._buffer))
        else:
            write = partial(self._files.write, self.spec.chunk_key(self._path, index))
            self._encoder.put(self.spec, self._buffer, write)

    def _write_metadata(self) -> None:
        document = self.spec.document(self._written_rows, self._path, self._attributes)
        self._files.write(metadata_key(self._path), dump(document))
        self._shown_rows = self._written_rows


class _ChecksumWriter:
    """The array of an array's checksums, one of each full chunk, and their digest."""

    def __init__(self, files: Files, paths: ArrayPaths) -> None:
        spec = checksums_spec(paths.dimension)
        self._array = ArrayWriter(files, ArrayPaths(paths.checksums, checksums=""), spec)
        self._digest = 0

    def append(self, checksum: int) -> None:
        """Add the checksum of the next full chunk."""
        entry = np.array([checksum], dtype=_LITTLE_UINT32)
        self._array.append(entry)
        self._digest = google_crc32c.extend(self._digest, entry.tobytes())

    def flush(self) -> int:
        """Write what is new and return the digest."""
        self._array.flush()
        return self._digest

    def write_shape(self) -> None:
        """Write the number of checksums into the metadata."""
        self._array.write_shape()


@dataclass(frozen=True)
class CommittedArray:
    """The committed entries of one array; each chunk is checked when it is read.

    Attributes
    ----------
    files
        Where the store lies.
    paths
        Of the array and of its chunks' checksums.
    spec
        What the array is.
    commit
        What the part's record says of it.
    attributes
        The array's tsstore attributes.
    """

    files: Files
    paths: ArrayPaths
    spec: ArraySpec
    commit: ArrayCommit
    attributes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        files: Files,
        paths: ArrayPaths,
        commit: ArrayCommit,
        dtype: str | None = None,
        row_shape: tuple[int, ...] = (),
    ) -> CommittedArray:
        """Read and check the array's metadata.

        Parameters
        ----------
        files, paths, commit
            See the class.
        dtype, row_shape
            What the entries must be; any dtype of format 1 unless given.

        Raises
        ------
        FormatError
            If the metadata is not of format 1, or the entries are others.
        DamageError
            If the metadata is missing or no JSON, or disagrees with the commit record.
        """
        where = f"{files.location}/{metadata_key(paths.values)}"
        spec, attributes = _read_spec(files, paths.values, dtype, row_shape)
        if commit.rows % spec.chunk_rows != commit.tail_rows:
            raise damaged(
                where, f"chunks of {spec.chunk_rows} leave no tail of the record's length"
            )
        return cls(files, paths, spec, commit, attributes)

    @property
    def rows(self) -> int:
        """Number of committed entries."""
        return self.commit.rows

    def __len__(self) -> int:
        return self.rows

    def read(
        self,
        start: int,
        stop: int,
        out: npt.NDArray[Any] | None = None,
        room: ChunkRoom | None = None,
    ) -> npt.NDArray[Any]:
        """Return entries `start` to `stop`, decoded into `out` where it is given.

        Who reads on with the same room takes memory for chunks once, and decodes none of them twice
        in a row.

        Raises
        ------
        DamageError
            If a chunk is missing, or is not what was committed.
        StoreError
            If there is not enough memory.
        """
        if stop <= start:
            return chunks.empty_entries(self.spec, 0) if out is None else out
        self.check_extent()
        if out is None:
            count = (stop - start) * (self.spec.entry_bytes or _POINTER_BYTES)
            with taking_memory(f"{self.files.location}/{self.paths.values}", count):
                out = chunks.empty_entries(self.spec, stop - start)
        size, room = self.spec.chunk_rows, room or ChunkRoom()
        for index in range(start // size, -(-stop // size)):
            first, last = max(start, index * size), min(stop, (index + 1) * size)
            target = out[first - start : last - start]
            if last - first == size and not self.spec.is_text:
                self._chunk(index, target, room)
            else:
                part = slice(first - index * size, last - index * size)
                target[:] = room.whole_chunk(self, index)[part]
        return out

    def take(self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Decode entries into `out`: `rows` ascend, and a chunk that holds some is decoded once.

        Raises
        ------
        DamageError
            If a chunk is missing, or is not what was committed.
        """
        size, room = self.spec.chunk_rows, ChunkRoom()
        chunk = rows // size
        edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(rows)]
        for first, last in pairwise(edges):
            index = int(chunk[first])
            out[first:last] = room.whole_chunk(self, index)[rows[first:last] - index * size]

    def check_extent(self) -> None:
        """Raise DamageError where the last committed chunk is missing.

        A hostile record may claim any number of entries: ask before taking memory for them.
        """
        last = (self.rows - 1) // self.spec.chunk_rows
        if self.rows and not self._stored.exists(last):
            raise damaged(self._stored.where(last), "it is missing")

    def _chunk(self, index: int, out: npt.NDArray[Any] | None, room: ChunkRoom) -> npt.NDArray[Any]:
        where = self._stored.where(index)
        data = self._stored.read(index, room.encoded)
        full = index < self.rows // self.spec.chunk_rows
        # Of the unfinished chunk the commit vouches for a part only.
        entries = chunks.decode(self.spec, data, where, out, vouched=room.once and full)
        committed = entries if full else entries[: self.commit.tail_rows]
        expected = self._checksums[index] if full else self.commit.tail_checksum
        if chunks.checksum(self.spec, committed) != expected:
            raise damaged(where, "its entries are not those that were committed")
        return entries

    @cached_property
    def _stored(self) -> ChunkReader:
        return ChunkReader(self.files, self.paths.values, self.spec)

    @cached_property
    def _checksums(self) -> npt.NDArray[np.uint32]:
        """Checksums of all full chunks; the record's digest covers them in their turn."""
        path = self.paths.checksums
        where = f"{self.files.location}/{path}"
        spec, _ = _read_spec(self.files, path, "uint32", ())
        stored = ChunkReader(self.files, path, spec)
        count = self.rows // self.spec.chunk_rows
        parts = [
            chunks.decode(spec, stored.read(index), where)
            for index in range(-(-count // spec.chunk_rows))
        ]
        checksums = np.concatenate(parts)[:count] if parts else np.empty(0, dtype=_LITTLE_UINT32)
        if google_crc32c.value(checksums.tobytes()) != self.commit.digest:
            raise damaged(where, "the checksums are not those that were committed")
        return checksums


class ChunkRoom:
    """Memory for reading chunks one after another, of one thread.

    It holds an encoded chunk, and the decoded one that was last wanted in part: often its other
    part is wanted next.

    Parameters
    ----------
    once
        Whether a full chunk's entries are compared with the checksum that the commit vouches for,
        and nothing else: they are as certain, and what is damaged of a file besides is left to
        `verify`. Not for text.
    """

    def __init__(self, once: bool = False) -> None:
        self.once = once
        self._encoded = np.empty(0, np.uint8)
        self._held: tuple[CommittedArray, int] | None = None
        self._entries = np.empty(0)

    def encoded(self, count: int) -> memoryview:
        """Return room for so many bytes; what was there before is lost."""
        if len(self._encoded) < count:
            # A little more, as the next one may be a little larger.
            self._encoded = np.empty(count + count // 16, np.uint8)
        return self._encoded[:count].data

    def whole_chunk(self, array: CommittedArray, index: int) -> npt.NDArray[Any]:
        """Return all entries of a chunk, which are valid until the next call."""
        if self._held is None or self._held[0] is not array or self._held[1] != index:
            self._held = None
            self._entries = array._chunk(index, self._fitting(array.spec), self)
            self._held = array, index
        return self._entries

    def _fitting(self, spec: ArraySpec) -> npt.NDArray[Any] | None:
        """Return the memory of the chunk before if it is of the size of this one."""
        held, shape = self._entries, (spec.chunk_rows, *spec.row_shape)
        fits = not spec.is_text and held.shape == shape and held.dtype == spec.numpy_dtype
        return held if fits else None


def _read_spec(
    files: Files, path: str, dtype: str | None, row_shape: tuple[int, ...]
) -> tuple[ArraySpec, dict[str, Any]]:
    """Read an array's metadata and check what its entries are."""
    spec, attributes = read_array(files, path)
    if spec.dtype != (dtype or spec.dtype) or spec.row_shape != row_shape:
        raise FormatError(
            f"{files.location}/{path}: entries are {spec.dtype} {spec.row_shape}; "
            f"expected {dtype or 'any type'} {row_shape}"
        )
    return spec, attributes
