"""Where zarr-python writes a table of distinct states: whole files, synced."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from tsstore.store.files.local import LocalFiles

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
