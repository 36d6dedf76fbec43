"""A run as a group of zarr-python that shows what is committed, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore

from tsstore.store.chunked import chunk as chunks
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.files.base import Bytes, Files
from tsstore.store.format.arrays import ArraySpec, checksums_spec
from tsstore.store.format.documents import (
    ZARR_JSON,
    attributes_of,
    dump,
    group_document,
    metadata_key,
    read_document,
)
from tsstore.store.format.paths import commit_path, layer_path, seal_path
from tsstore.store.format.record import CommitRecord
from tsstore.store.reading.part import CONTAINERS, Part


def zarr_group(files: Files, parts: tuple[Part, ...]) -> zarr.Group:
    """Return a read-only group of a run's parts as they are committed."""
    store = CommittedStore(files, parts)
    return zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)


class CommittedStore(Store):
    """What is committed of a run, as a store of zarr-python that cannot be written.

    All metadata are made anew, shapes as the commit records say; of shards, each chunk is shown in
    a file of its own. Each chunk is checked against the record before zarr sees it, and the last
    one holds no rows past the commit. What is damaged or missing is an error, never fill values.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, files: Files, parts: tuple[Part, ...]) -> None:
        super().__init__(read_only=True)
        self._files = files
        self._parts = {part.directory: _PartNodes(part) for part in parts}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CommittedStore)
            and self._files.is_same_place(other._files)
            and self._records() == other._records()
        )

    def __repr__(self) -> str:
        return f"<CommittedStore {self._files.location}>"

    def with_read_only(self, read_only: bool = False) -> CommittedStore:
        """Return the store itself; ValueError where it shall be written to."""
        if not read_only:
            raise ValueError(f"{self!r} shows what is committed, and cannot be written to")
        return self

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return what is under a key, or a range of it; None where there is nothing."""
        # Files are read in threads, several at a time: they know no event loop.
        data = await asyncio.to_thread(self._read, key)
        if data is None:
            return None
        whole = default_buffer_prototype().buffer.from_bytes(bytes(data))
        return await MemoryStore({key: whole}).get(key, prototype, byte_range)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return what is under keys, or ranges of it."""
        return list(await asyncio.gather(*(self.get(key, prototype, r) for key, r in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is something under a key."""
        nodes = self._nodes(key)
        if nodes is None:
            return key == ZARR_JSON
        return await asyncio.to_thread(nodes.holds, key)

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: nothing can be written."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse: nothing can be deleted."""
        self._check_writable()

    def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield all keys that begin so."""
        keys = (key for nodes in self._parts.values() for key in nodes.keys_of_files())
        for key in chain([ZARR_JSON], keys):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a path."""
        path = prefix.rstrip("/")
        nodes = self._nodes(path)
        names = [] if path else [ZARR_JSON, *self._parts]
        if nodes is not None:
            names = sorted(await asyncio.to_thread(nodes.names, path))
        for name in names:
            yield name

    def _records(self) -> dict[str, CommitRecord]:
        return {directory: nodes.part.record for directory, nodes in self._parts.items()}

    def _read(self, key: str) -> Bytes | None:
        if key == ZARR_JSON:
            return dump(_stored_group(self._files, ""))
        nodes = self._nodes(key)
        return None if nodes is None else nodes.read(key)

    def _nodes(self, key: str) -> _PartNodes | None:
        return self._parts.get(key.partition("/")[0])


@dataclass(frozen=True)
class _ShownArray:
    """What is shown of an array: each chunk in a file of its own."""

    array: CommittedArray
    spec: ArraySpec
    rows: int
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.spec.chunk_rows)

    def encoded_chunk(self, index: int) -> Bytes:
        return self.array.encoded_chunk(index)


class _ShownChecksums(_ShownArray):
    """The checksums of an array's committed full chunks."""

    def encoded_chunk(self, index: int) -> Bytes:
        size = self.spec.chunk_rows
        entries = chunks.empty_entries(self.spec, size)
        held = self.array.checksums[index * size : (index + 1) * size]
        entries[: len(held)] = held
        return chunks.encode(self.spec, entries)


@dataclass(frozen=True)
class _PartNodes:
    """The groups and arrays of one part, by path."""

    part: Part

    @cached_property
    def groups(self) -> dict[str, dict[str, Any] | None]:
        """Attributes of each group; None of one that is shown as it is stored."""
        directory, record = self.part.directory, self.part.record
        groups: dict[str, dict[str, Any] | None] = {directory: None}
        if self.part.seal is not None:
            groups[seal_path(directory)] = None
        if record.generation:
            groups |= {f"{directory}/{name}": {} for name in CONTAINERS}
            groups |= {commit_path(directory): record.to_json()}
        return groups | {layer_path(directory, layer): None for layer in record.layers}

    @cached_property
    def arrays(self) -> dict[str, _ShownArray]:
        """All arrays, those of checksums included."""
        layers = [(layer.states, layer.positions) for layer in self.part.layers.values()]
        arrays: dict[str, _ShownArray] = {}
        for array in (*chain.from_iterable(layers), *self.part.columns.values()):
            if array is not None:
                paths, spec = array.paths, replace(array.spec, shard_chunks=None)
                arrays[paths.values] = _ShownArray(array, spec, array.rows, array.attributes)
                spec = checksums_spec(paths.dimension)
                arrays[paths.checksums] = _ShownChecksums(array, spec, array.full_chunks)
        return arrays

    def read(self, key: str) -> Bytes | None:
        """Return what is under a key; None where there is nothing."""
        path = _metadata_path(key)
        if path in self.groups:
            if (attributes := self.groups[path]) is not None:
                return dump(group_document(path, attributes))
            return dump(_stored_group(self.part.files, path))
        if path in self.arrays:
            array = self.arrays[path]
            return dump(array.spec.document(array.rows, path, array.attributes))
        return found[0].encoded_chunk(found[1]) if (found := self._chunk(key)) else None

    def holds(self, key: str) -> bool:
        """Whether there is something under a key."""
        node = _metadata_path(key)
        return node in self.groups or node in self.arrays or self._chunk(key) is not None

    def names(self, path: str) -> set[str]:
        """Return the names directly below a path."""
        if path in self.arrays:
            return {ZARR_JSON, "c"} if self.arrays[path].chunks else {ZARR_JSON}
        array = path.removesuffix("/c")
        if array in self.arrays:
            return set(map(str, range(self.arrays[array].chunks)))
        if path not in self.groups:
            return {"0"} if self.holds(f"{path}/0") else set()
        below = f"{path}/"
        nodes = (node for node in (*self.groups, *self.arrays) if node.startswith(below))
        return {ZARR_JSON, *(node.removeprefix(below).partition("/")[0] for node in nodes)}

    def keys_of_files(self) -> Iterator[str]:
        """Yield the keys of all files."""
        yield from map(metadata_key, self.groups)
        for path, array in self.arrays.items():
            yield metadata_key(path)
            yield from (array.spec.chunk_key(path, index) for index in range(array.chunks))

    def _chunk(self, key: str) -> tuple[_ShownArray, int] | None:
        """Return the array and the index of the chunk that is under a key, if one is."""
        # From the right: a column may be called "c".
        path, _, chunk = key.rpartition("/c/")
        number = chunk.partition("/")[0]
        if path not in self.arrays or not number.isdecimal() or len(number) > 16:
            return None
        array, index = self.arrays[path], int(number)
        if index < array.chunks and key == array.spec.chunk_key(path, index):
            return array, index
        return None


def _metadata_path(key: str) -> str:
    """Return the path of the node whose metadata a key is of; one that no node has if of none."""
    return key.removesuffix(f"/{ZARR_JSON}") if key.endswith(f"/{ZARR_JSON}") else f"{key}/"


def _stored_group(files: Files, path: str) -> dict[str, Any]:
    """Return the metadata of a group that never changes, checked."""
    document = read_document(files, path)
    attributes_of(document, path, files.where(path))
    return document
