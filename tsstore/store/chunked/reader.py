"""The committed part of one array, each chunk checked when it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError
from tsstore.store.chunked.chunk import (
    checksum,
    decode,
    empty_entries,
    encode,
    taking_memory,
)
from tsstore.store.chunked.shard import ChunkReader
from tsstore.store.files.base import Bytes, Files, damaged
from tsstore.store.format.arrays import ArraySpec, read_array
from tsstore.store.format.documents import metadata_key
from tsstore.store.format.paths import ArrayPaths
from tsstore.store.format.record import ArrayCommit

_POINTER_BYTES = 8


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
    _found: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        files: Files,
        paths: ArrayPaths,
        commit: ArrayCommit,
        dtype: str | None = None,
        row_shape: tuple[int, ...] = (),
    ) -> CommittedArray:
        """Read and check the array's metadata; DamageError where it disagrees with the commit.

        Parameters
        ----------
        files, paths, commit
            See the class.
        dtype, row_shape
            What the entries must be; any dtype of format 1 unless given.
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
        workspace: ChunkWorkspace | None = None,
    ) -> npt.NDArray[Any]:
        """Return entries `start` to `stop`, decoded into `out` where it is given.

        Who reads on with the same workspace takes memory for chunks once, and decodes none of them
        twice in a row. DamageError where a chunk is missing, or is not what was committed.
        """
        if stop <= start:
            return empty_entries(self.spec, 0) if out is None else out
        size, workspace = self.spec.chunk_rows, workspace or ChunkWorkspace()
        if out is None:
            self.check_extent()
            count = (stop - start) * (self.spec.entry_bytes or _POINTER_BYTES)
            with taking_memory(f"{self.files.location}/{self.paths.values}", count):
                if self.spec.is_text:
                    return self._read_text(start, stop, workspace)
                out = empty_entries(self.spec, stop - start)
        for index in range(start // size, -(-stop // size)):
            first, last = max(start, index * size), min(stop, (index + 1) * size)
            target = out[first - start : last - start]
            if last - first == size and not self.spec.is_text:
                self._chunk(index, target, workspace)
            else:
                part = slice(first - index * size, last - index * size)
                target[:] = workspace.whole_chunk(self, index)[part]
        return out

    def _read_text(
        self, start: int, stop: int, workspace: ChunkWorkspace
    ) -> npt.NDArray[np.object_]:
        """Return entries of text: memory is taken for what there is, not for what is claimed."""
        size, pieces = self.spec.chunk_rows, []
        for index in range(start // size, -(-stop // size)):
            entries = workspace.whole_chunk(self, index)
            pieces.append(entries[max(start - index * size, 0) : stop - index * size])
        return np.concatenate(pieces)

    def take(self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Decode entries into `out`: `rows` ascend, and a chunk that holds some is decoded once."""
        size, workspace = self.spec.chunk_rows, ChunkWorkspace()
        chunk = rows // size
        edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(rows)]
        for first, last in pairwise(edges):
            index = int(chunk[first])
            out[first:last] = workspace.whole_chunk(self, index)[rows[first:last] - index * size]

    def check_extent(self) -> None:
        """Raise DamageError where the last committed chunk is missing.

        A hostile record may claim any number of entries: ask before taking memory for them. Once
        it was there it is not looked for again.
        """
        last = (self.rows - 1) // self.spec.chunk_rows
        if self.rows and last not in self._found:
            if not self.stored.exists(last):
                key = self.spec.chunk_key(self.paths.values, last)
                raise self.files.missing(key, self.stored.where(last))
            self._found.add(last)

    @property
    def full_chunks(self) -> int:
        """Number of chunks of which every entry is committed."""
        return self.rows // self.spec.chunk_rows

    @cached_property
    def stored(self) -> ChunkReader:
        """Reads the encoded chunks."""
        return ChunkReader(self.files, self.paths.values, self.spec)

    def decode(
        self,
        index: int,
        data: Bytes,
        checksums: npt.NDArray[np.uint32] | None,
        out: npt.NDArray[Any] | None = None,
        *,
        vouched: bool = False,
    ) -> npt.NDArray[Any]:
        """Decode a chunk, and compare what is committed of it with its checksum.

        Parameters
        ----------
        index
            Of the chunk.
        data
            The bytes of its file.
        checksums
            Of the full chunks; None where they are not known, and full chunks are not compared.
        out, vouched
            See :func:`tsstore.store.chunked.chunk.decode`.
        """
        where = self.stored.where(index)
        entries = decode(self.spec, data, where, out, vouched=vouched)
        if index == self.full_chunks:
            # Of the unfinished chunk the commit vouches for a part only.
            committed, expected = entries[: self.commit.tail_rows], self.commit.tail_checksum
        elif checksums is not None:
            committed, expected = entries, int(checksums[index])
        else:
            return entries
        if checksum(self.spec, committed) != expected:
            raise damaged(where, "its entries are not those that were committed")
        return entries

    def joined_checksums(self, pieces: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.uint32]:
        """Return the checksums of all full chunks, which the record's digest covers in its turn."""
        checksums = np.concatenate([np.empty(0, "<u4"), *pieces])[: self.full_chunks]
        if google_crc32c.value(checksums.tobytes()) != self.commit.digest:
            where = f"{self.files.location}/{self.paths.checksums}"
            raise damaged(where, "the checksums are not those that were committed")
        return checksums

    def encoded_chunk(self, index: int) -> Bytes:
        """Return a chunk as a file of its own would hold it, checked, with nothing uncommitted."""
        data, full = self.stored.read(index), index < self.full_chunks
        entries = self.decode(index, data, self.checksums if full else None)
        if full:
            return data
        committed = empty_entries(self.spec, self.spec.chunk_rows)
        committed[: self.commit.tail_rows] = entries[: self.commit.tail_rows]
        return encode(self.spec, committed)

    def _chunk(
        self, index: int, out: npt.NDArray[Any] | None, workspace: ChunkWorkspace
    ) -> npt.NDArray[Any]:
        data = self.stored.read(index, workspace.encoded)
        full = index < self.full_chunks
        checksums = self.checksums if full else None
        return self.decode(index, data, checksums, out, vouched=workspace.once and full)

    @cached_property
    def checksums(self) -> npt.NDArray[np.uint32]:
        """Checksums of all full chunks."""
        path = self.paths.checksums
        spec, _ = _read_spec(self.files, path, "uint32", ())
        stored = ChunkReader(self.files, path, spec)
        files = range(-(-self.full_chunks // spec.chunk_rows))
        where = f"{self.files.location}/{path}"
        return self.joined_checksums([decode(spec, stored.read(file), where) for file in files])


class ChunkWorkspace:
    """Memory for reading chunks one after another, of one thread.

    It holds an encoded chunk, and the decoded one that was last wanted in part: often its other
    part is wanted next.

    Parameters
    ----------
    once
        Whether a full chunk's entries are compared with the checksum that the commit vouches for,
        and nothing else: they are as certain, and what is damaged of a file besides is left to
        `verify`. Not for text.
    empty
        Makes its arrays, as :func:`numpy.empty` does.
    """

    def __init__(
        self, once: bool = False, empty: Callable[..., npt.NDArray[Any]] = np.empty
    ) -> None:
        self.once, self._empty = once, empty
        self._encoded = np.empty(0, np.uint8)
        self._held: tuple[CommittedArray, int] | None = None
        self._entries = np.empty(0)

    def encoded(self, count: int) -> memoryview:
        """Return memory for so many bytes; what was there before is lost."""
        if len(self._encoded) < count:
            # A little more, as the next one may be a little larger.
            self._encoded = self._empty((count + count // 16,), np.uint8)
        return self._encoded[:count].data

    def whole_chunk(self, array: CommittedArray, index: int) -> npt.NDArray[Any]:
        """Return all entries of a chunk, which are valid until the next call."""
        if self._held is None or self._held[0] is not array or self._held[1] != index:
            self._held = None
            self._entries = array._chunk(index, self._fitting(array.spec), self)
            self._held = array, index
        return self._entries

    def _fitting(self, spec: ArraySpec) -> npt.NDArray[Any] | None:
        """Return memory for a chunk: that of the one before if it is of its size; none for text."""
        held, shape = self._entries, (spec.chunk_rows, *spec.row_shape)
        if spec.is_text:
            return None
        fits = held.shape == shape and held.dtype == spec.numpy_dtype
        return held if fits else self._empty(shape, spec.numpy_dtype)


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
