"""Where an array's encoded chunks lie: each in a file of its own, or many in a shard.

A shard is a file of Zarr's codec ``sharding_indexed``: chunks one after another, then an index of
them. In those of format 1 the chunks lie in their order, with nothing between them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsstore.store.files.base import Allocate, Bytes, Files, damaged
from tsstore.store.format.arrays import ArraySpec

ABSENT = (1 << 64) - 1
"""Offset and length of a chunk that a shard does not hold."""
HELD_INDEXES = 16
_ENTRY = np.dtype("<u8")
_ENTRY_BYTES = 16
_CHECKSUM_BYTES = 4


class ChunkReader:
    """Reads encoded chunks of the array at `path`, from files of their own or from shards.

    It may be used by several threads, and sent to other processes. A bounded number of shards'
    indexes are kept.
    """

    def __init__(self, files: Files, path: str, spec: ArraySpec) -> None:
        self._files = files
        self._path = path
        self._spec = spec
        self._index = lru_cache(HELD_INDEXES)(self._read_index)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._files, self._path, self._spec)

    def where(self, chunk: int) -> str:
        """Return the name of a chunk for messages: its file's, and its number in a shard."""
        file = f"{self._files.location}/{self._spec.chunk_key(self._path, chunk)}"
        return file if self._is_plain else f"{file}: chunk {chunk % self._spec.file_chunks}"

    def exists(self, chunk: int) -> bool:
        """Whether a chunk is there; DamageError if the index of its shard is damaged."""
        if self._is_plain:
            return self._files.exists(self._spec.chunk_key(self._path, chunk))
        try:
            self._span(chunk)
        except FileNotFoundError:
            return False
        return True

    def read(self, chunk: int, allocate: Allocate | None = None) -> Bytes:
        """Return the bytes of a chunk, not checked yet; `allocate` may give the memory for them."""
        key = self._spec.chunk_key(self._path, chunk)
        try:
            span = None if self._is_plain else self._span(chunk)
            return self._files.read(key, span, allocate, self._spec.most_encoded_bytes)
        except FileNotFoundError:
            raise self._files.missing(key, self.where(chunk)) from None

    def check_index(self, file: int) -> None:
        """Check the index of a shard; FileNotFoundError where there is no such shard."""
        if not self._is_plain:
            self._index(file)

    @property
    def _is_plain(self) -> bool:
        return self._spec.shard_chunks is None

    def _span(self, chunk: int) -> tuple[int, int]:
        """Return where in its shard a chunk begins, and its length."""
        file, place = divmod(chunk, self._spec.file_chunks)
        offsets = self._index(file)
        if place + 1 >= len(offsets):
            raise FileNotFoundError
        return int(offsets[place]), int(offsets[place + 1] - offsets[place])

    def _read_index(self, file: int) -> npt.NDArray[np.int64]:
        key = self._spec.file_key(self._path, file)
        where = f"{self._files.location}/{key}"
        length = self._spec.file_chunks * _ENTRY_BYTES + _CHECKSUM_BYTES
        size = self._files.size(key)
        if size < length:
            raise damaged(where, f"its {size} bytes are too few")
        data = self._files.read(key, (size - length, length))
        return parse_index(data, size, where)


class ShardWriter:
    """Collects the encoded chunks of one array and writes them a shard at a time."""

    def __init__(self, files: Files, path: str, spec: ArraySpec) -> None:
        self._files = files
        self._path = path
        self._spec = spec
        self._file = 0
        self._data = bytearray()
        self._lengths: list[int] = []
        self._is_written = False

    def put(self, chunk: int, data: bytes) -> None:
        """Add the next chunk, or the last one once more; the shard before it is written."""
        if chunk // self._spec.file_chunks != self._file:
            self.flush()
            self._file = chunk // self._spec.file_chunks
            self._data, self._lengths, self._is_written = bytearray(), [], False
        if self._is_written:
            del self._lengths[chunk % self._spec.file_chunks :]
            # A copy without the index: what was sent may still be held on to.
            self._data = self._data[: sum(self._lengths)]
            self._is_written = False
        self._data += data
        self._lengths.append(len(data))

    def flush(self) -> None:
        """Write the shard that is not finished, or not written yet."""
        if self._lengths and not self._is_written:
            # Also where an earlier try has failed: the index goes behind the chunks, once.
            index = build_index(self._lengths, self._spec.file_chunks)
            self._data[sum(self._lengths) :] = index
            self._files.write(self._spec.file_key(self._path, self._file), self._data)
            self._is_written = True


def build_index(lengths: list[int], count: int) -> bytes:
    """Return the index of a shard with room for `count` chunks, of which the first are there."""
    entries = np.full((count, 2), ABSENT, dtype=_ENTRY)
    entries[: len(lengths), 1] = lengths
    entries[: len(lengths), 0] = np.cumsum([0, *lengths[:-1]])
    data = entries.tobytes()
    return data + struct.pack("<I", google_crc32c.value(data))


def parse_index(data: Bytes, size: int, where: str) -> npt.NDArray[np.int64]:
    """Check the index of a shard of `size` bytes, given with its crc32c.

    Returns
    -------
    numpy.ndarray
        Where each chunk begins that is there, and where the last one ends.

    Raises
    ------
    DamageError
        If the bytes do not match their crc32c, or chunks do not lie one after another from the
        beginning of the shard to its index.
    """
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if google_crc32c.value(body) != struct.unpack("<I", checksum)[0]:
        raise damaged(where, "its index does not match its crc32c")
    entries = np.frombuffer(body, dtype=_ENTRY).reshape(-1, 2)
    missing = (entries == ABSENT).any(axis=1)
    present = entries[: int(missing.argmax()) if missing.any() else len(entries)]
    end = size - len(data)
    if (entries[len(present) :] != ABSENT).any() or (present > end).any():
        raise damaged(where, f"its index leads out of the {end} bytes of its chunks")
    offsets = np.append(0, np.cumsum(present[:, 1].astype(np.int64)))
    if (offsets[:-1] != present[:, 0]).any() or offsets[-1] != end:
        raise damaged(where, "its chunks do not lie one after another")
    return offsets
