"""A table of distinct states as a Zarr group, which zarr-python writes: whole files, synced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from tsstore.analysis.states.tables import CODEC, Numbers, Rows, StatesTable, TableFile
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import CODECS

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer


class DurableStore(LocalStore):
    """A folder whose files are written whole or not at all, and synced, as those of a run are.

    Zarr writes in a thread of its own, which goes on where an interrupt comes: once the folder is
    removed, it writes nothing more.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.files = LocalFiles(path)
        self._lock = Lock()
        self._removed = False

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a file."""
        with self._lock:
            if not self._removed:
                self.files.write(key, value.to_bytes())

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file."""
        self.set_sync(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a file unless it is there."""
        if not await self.exists(key):
            self.set_sync(key, value)

    def remove(self) -> None:
        """Remove the folder."""
        with self._lock:
            self._removed = True
            shutil.rmtree(self.root, ignore_errors=True)


class ZarrGroup(TableFile):
    """A Zarr v3 group of three arrays, written by zarr-python in whole chunks."""

    def __init__(self, path: Path, table: StatesTable) -> None:
        super().__init__(table, max(1, table.chunk_bytes // table.entry_bytes))
        self._arrays: dict[str, Any] = {}
        os.mkdir(path)
        self._store = DurableStore(path)
        try:
            self._group = zarr.create_group(self._store, zarr_format=3, attributes=table.attributes)
            axis = ("neuron", table.neurons) if table.decoded else ("byte", table.row_bytes)
            self._create("state", "bool" if table.decoded else "uint8", axis)
            self._create("multiplicity", "int64")
            self._create("incidence", "int64")
        except BaseException:
            self.discard()
            raise

    def finish(self) -> None:
        """Write the last chunks, and sync all."""
        super().finish()
        self._store.files.sync()

    def discard(self) -> None:
        """Remove the group; Zarr's threads write nothing any more."""
        self._store.remove()

    def _write(self, rows: Rows, multiplicity: Numbers, incidence: Numbers) -> None:
        self._arrays["state"].append(self._table.written(rows))
        self._arrays["multiplicity"].append(multiplicity)
        self._arrays["incidence"].append(incidence)

    def _create(self, name: str, dtype: str, *axes: tuple[str, int]) -> None:
        sizes = tuple(size for _, size in axes)
        self._arrays[name] = self._group.create_array(
            name,
            shape=(0, *sizes),
            chunks=(self._chunk_rows, *sizes),
            dtype=dtype,
            serializer=BytesCodec(),
            compressors=[
                BloscCodec(cname="zstd", clevel=CODECS[CODEC], shuffle="noshuffle", typesize=1),
                Crc32cCodec(),
            ],
            dimension_names=("distinct_state", *(axis for axis, _ in axes)),
        )
