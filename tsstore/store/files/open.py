"""Where a store lies: what it needs of the place, and the way from a path to one.

Every write is atomic: a reader sees the old bytes or the new ones. Keys are relative, with ``/``
between their components, and are made by :mod:`tsstore.store.format.attributes` alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tsstore.errors import StoreError
from tsstore.store.files.base import MAX_FILE_BYTES, AccessError, Bytes, Room
from tsstore.store.files.local import LocalFiles

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = [
    "MAX_FILE_BYTES",
    "AccessError",
    "Bytes",
    "Files",
    "LocalFiles",
    "Room",
    "StorePath",
    "is_url",
    "open_files",
]

_URL = re.compile("://|^(s3|gs|az):/")  # pathlib makes one slash of two
StorePath: TypeAlias = "str | os.PathLike[str] | ObjectStore"
"""A local path; a URL such as ``s3://bucket/run.zarr``; or a store object of obstore."""


class Files(Protocol):
    """What a store needs of the place where it lies."""

    @property
    def location(self) -> str:
        """The place, as a person would write it."""

    def is_same_place(self, other: Files) -> bool:
        """Whether another one's files are the same ones."""

    def read(self, key: str) -> bytes:
        """Return the bytes under `key`; FileNotFoundError where there is none."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`; OSError where there are not as many."""

    def fetch(self, key: str, room: Room, start: int = 0, length: int | None = None) -> Bytes:
        """Return the same as :meth:`read_range`, or :meth:`read` without `length`, in the room."""

    def size(self, key: str) -> int:
        """Return the number of bytes under `key`; FileNotFoundError where there is none."""

    def write(self, key: str, data: Bytes) -> None:
        """Put `data` under `key`, replacing what is there, in one step."""

    def create(self, key: str, data: Bytes) -> None:
        """Put `data` under `key`; FileExistsError where there is something, also in a race.

        Two that create the same bytes may both succeed: put something random into them.
        """

    def exists(self, key: str) -> bool:
        """Whether there is something under `key`, or below it."""

    def list(self, key: str) -> list[str]:
        """Return the sorted names directly below `key`, none where it does not exist."""

    def walk(self, key: str = "") -> Iterator[str]:
        """Yield the keys of all files below `key`, in the order of their characters."""

    def remove(self, key: str) -> None:
        """Remove the file under `key`; FileNotFoundError where there is none."""

    def remove_tree(self, key: str = "") -> None:
        """Remove what is under `key` and all below it; nothing may be there.

        Files go before the directories beside them: a run or a part that is removed by half has
        lost its own metadata, and is not taken for a smaller one.
        """

    def settle(self, key: str) -> None:
        """Make :meth:`sync` answer for what is under `key`, whoever put it there."""

    def sync(self) -> None:
        """Return once everything done so far survives a loss of power."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, such as of an object store."""
    return _URL.search(os.fspath(path)) is not None


def open_files(path: StorePath, durable: bool = True) -> Files:
    """Return the files of a store at `path`.

    Parameters
    ----------
    path
        See :data:`StorePath`.
    durable
        Whether :meth:`Files.sync` waits for the disk; an object store always does.

    Raises
    ------
    NotAStoreError
        If `path` is no path, no URL of an object store, and no store object.
    StoreError
        If it is a URL, and obstore is not installed.
    """
    if isinstance(path, str | os.PathLike) and not is_url(path):
        return LocalFiles(path, durable)
    try:
        from tsstore.store.files.objects import ObjectFiles
    except ModuleNotFoundError as error:
        raise StoreError(
            f"a store in an object store needs the package {error.name}, which is not installed; "
            "install tsstore[s3]"
        ) from error
    return ObjectFiles(path)
