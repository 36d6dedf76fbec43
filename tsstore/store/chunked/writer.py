"""Appending to one array: its unfinished chunk in memory, its full ones encoded and written."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsstore.errors import FormatError, TsstoreError
from tsstore.store.chunked.chunk import checksum, empty_entries, encode
from tsstore.store.chunked.shard import ShardWriter
from tsstore.store.files.base import Files
from tsstore.store.format.arrays import CODECS, ArraySpec, checksums_spec
from tsstore.store.format.documents import dump, metadata_key
from tsstore.store.format.paths import ArrayPaths
from tsstore.store.format.record import ArrayCommit

_THREADS = "tsstore encoder"


@dataclass(frozen=True)
class Compression:
    """How the states of a part are compressed.

    Attributes
    ----------
    codec
        A name of :data:`tsstore.store.format.arrays.CODECS`; others are refused with TsstoreError.
    level
        From 1 to 9; the codec's usual one unless given.
    threads
        How many chunks are encoded at a time; with one, on the thread that appends.
    """

    codec: str = "lz4"
    level: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise TsstoreError(f"codec is {self.codec!r}; expected one of {', '.join(CODECS)}")
        if self.level is not None and not 1 <= self.level <= 9:
            raise FormatError(f"compression level is {self.level!r}; expected 1 to 9")


class Encoder:
    """Encodes chunks on threads of its own; whoever puts them in writes them, in their order.

    What is done on the disk, and in which order, does not depend on how fast the threads are. There
    are never more chunks on the way than threads: a copy of each, in memory that is used again.

    After an error, of encoding or of writing, every later call raises it: a chunk is missing, and
    nothing that comes after it may be committed.

    Parameters
    ----------
    threads
        How many chunks are encoded at a time; with one, at once on the thread that puts them in.
    """

    def __init__(self, threads: int = 1) -> None:
        self._limit = threads
        self._executor = ThreadPoolExecutor(threads, _THREADS) if threads > 1 else None
        self._pending: deque[_Pending] = deque()
        self._error: BaseException | None = None

    def put(
        self, spec: ArraySpec, entries: npt.NDArray[Any], write: Callable[[bytes], object]
    ) -> None:
        """Encode a whole chunk; write the oldest that waits first if there are enough.

        Parameters
        ----------
        spec
            What the chunk is.
        entries
            Its entries, shape (chunk_rows, *row_shape); they may be changed afterwards.
        write
            Takes the encoded bytes, on the thread that calls a method here.
        """
        if self._executor is None:
            write(encode(spec, entries))
            return
        with self._keeping_errors():
            oldest = self._pending.popleft() if len(self._pending) == self._limit else None
            encoded = oldest.encoded.result() if oldest else b""
            # The next chunk is being encoded while the oldest is written.
            memory, copy = _copied(entries, oldest.memory if oldest else None)
            encoding = _submit(self._executor, spec, copy)
            self._pending.append(_Pending(encoding, memory, write))
            if oldest:
                oldest.write(encoded)

    def drain(self) -> None:
        """Return when all chunks have been written."""
        with self._keeping_errors():
            while self._pending:
                oldest = self._pending.popleft()
                oldest.write(oldest.encoded.result())

    def close(self) -> None:
        """End the threads, each after the chunk at hand, and drop what has not been written."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        self._pending.clear()

    @contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        if self._error is not None:
            raise self._error
        try:
            yield
        except BaseException as error:
            self._error = error
            raise


class _Pending(NamedTuple):
    """A chunk on its way: its encoded bytes, the memory of its copy, and what writes it."""

    encoded: Future[bytes]
    memory: npt.NDArray[np.uint8]
    write: Callable[[bytes], object]


def _copied(
    entries: npt.NDArray[Any], memory: npt.NDArray[np.uint8] | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """Copy entries into memory that is used again where it is large enough; return both."""
    if memory is None or len(memory) < entries.nbytes:
        memory = np.empty(entries.nbytes, np.uint8)
    copy = memory[: entries.nbytes].view(entries.dtype).reshape(entries.shape)
    copy[...] = entries
    return memory, copy


def _submit(
    executor: ThreadPoolExecutor, spec: ArraySpec, entries: npt.NDArray[Any]
) -> Future[bytes]:
    try:
        return executor.submit(encode, spec, entries)
    except RuntimeError:
        # The last chunks may come at the interpreter's end, when no executor takes any more.
        done: Future[bytes] = Future()
        done.set_result(encode(spec, entries))
        return done


def is_encoder_thread(thread: threading.Thread) -> bool:
    """Whether a thread is one on which chunks are encoded."""
    return thread.name.startswith(_THREADS)


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
        Encodes its chunks, of numbers, which are on disk when that has been drained; at once
        unless given.
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
        self._buffer = empty_entries(spec, spec.chunk_rows)
        self._filled = 0
        self._written_rows = 0
        self._digest = 0
        self._checksums = None
        if paths.checksums:
            own = ArrayPaths(paths.checksums, checksums="")
            self._checksums = ArrayWriter(files, own, checksums_spec(paths.dimension))
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
            self._encoder.drain()
            self._shards.flush()
        self._written_rows = self.rows
        if self._checksums:
            self._checksums.flush()
        return ArrayCommit(self.rows, self._digest, self._filled, checksum(self.spec, tail))

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
            entry = np.array([checksum(self.spec, self._buffer)], dtype="<u4")
            self._checksums.append(entry)
            self._digest = google_crc32c.extend(self._digest, entry.tobytes())
        self._filled = 0

    def _write_chunk(self, index: int) -> None:
        if self._shards:
            write = partial(self._shards.put, index)
        else:
            write = partial(self._files.write, self.spec.chunk_key(self._path, index))
        self._encoder.put(self.spec, self._buffer, write)

    def _write_metadata(self) -> None:
        document = self.spec.document(self._written_rows, self._path, self._attributes)
        self._files.write(metadata_key(self._path), dump(document))
        self._shown_rows = self._written_rows
