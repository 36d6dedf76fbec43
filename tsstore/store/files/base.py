"""What a store needs of the place where it lies, and what all such places have in common.

Every write is atomic: a reader sees the old bytes or the new ones. Keys are relative, with ``/``
between their components, and are made by :mod:`tsstore.store.format.paths` alone.
"""

from __future__ import annotations

import builtins
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from tsstore.errors import AccessError, DamageError, StoreError

Bytes = bytes | bytearray | memoryview

Allocate = Callable[[int], memoryview]
"""Gives memory for so many bytes, to be written to; what it gave before may be lost."""

MAX_FILE_BYTES = 512 << 20
"""Twice what the largest decoded chunk takes: nothing that is read at once is as large."""

PARTIAL = ".partial"
"""Ends the name of a file that is still being written; a process that is stopped leaves it."""

_NO_NAMES = frozenset(("", ".", ".."))


def damaged(where: str, what: str) -> DamageError:
    """Return the error that names a damaged file."""
    return DamageError(f"{where} is damaged: {what}; restore the file from a copy")


def partial_name(name: str) -> str:
    """Return a name for a file while it is written, which no process on any host has."""
    return f"{name}.{secrets.token_hex(8)}{PARTIAL}"


class Files(ABC):
    """The files of a store.

    Damage is what was read and is wrong, or what storage says is not there. Whatever else keeps
    bytes from being read is an AccessError with its cause and its remedy, after another try where
    that may help: nobody shall throw away what only cannot be read just now.

    Parameters
    ----------
    location
        The place, as a person would write it, without credentials.
    """

    readers = 8
    """So many files are read at a time where many are wanted: what is far away answers late."""

    def __init__(self, location: str) -> None:
        self.location = location

    @abstractmethod
    def is_same_place(self, other: object) -> bool:
        """Whether another one's files are the same ones."""

    @abstractmethod
    def read(
        self,
        key: str,
        span: tuple[int, int] | None = None,
        allocate: Allocate | None = None,
        most: int = MAX_FILE_BYTES,
    ) -> Bytes:
        """Return the bytes under `key`.

        Parameters
        ----------
        key
            Of the file.
        span
            Where to begin, and how many bytes; all unless given.
        allocate
            May give the memory where they are; they are in new memory unless given.
        most
            How many bytes there may be; of more, none is read.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        DamageError
            If it is no regular file, has more bytes than it may have, or ends before the span does.
        AccessError
            If it cannot be read just now.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Return the number of bytes under `key`; FileNotFoundError where there is none."""

    @abstractmethod
    def write(self, key: str, data: Bytes) -> None:
        """Put `data` under `key`, replacing what is there, in one step."""

    def upload(self, key: str, path: Path) -> None:
        """Put a local file under `key`, replacing what is there, in one step."""
        self.write(key, path.read_bytes())

    @abstractmethod
    def create(self, key: str, data: Bytes) -> None:
        """Put `data` under `key`; FileExistsError where there is something, also in a race.

        Two that create the same bytes may both succeed: put something random into them.
        """

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is something under `key`, or below it; AccessError where none can tell."""

    @abstractmethod
    def list(self, key: str) -> list[str]:
        """Return the sorted names directly below `key`, none where it does not exist.

        DamageError where it is a file, and not the root.
        """

    @abstractmethod
    def walk(self, key: str = "") -> Iterator[str]:
        """Yield the keys of all files below `key`, in the order of their characters."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove the file under `key`; FileNotFoundError where there is none."""

    @abstractmethod
    def remove_tree(self, key: str = "") -> None:
        """Remove what is under `key` and all below it; nothing may be there.

        Files go before the directories beside them: a run or a part that is removed by half has
        lost its own metadata, and is not taken for a smaller one.
        """

    @abstractmethod
    def settle(self, key: str) -> None:
        """Make :meth:`sync` answer for what is under `key`, whoever put it there."""

    @abstractmethod
    def sync(self) -> None:
        """Return once everything done so far survives a loss of power."""

    def where(self, key: str) -> str:
        """Return the name of what lies under `key`, for messages."""
        return f"{self.location}/{key}" if key else self.location

    def refusal(self, key: str, cause: str, remedy: str = "") -> AccessError:
        """Return the error that what lies under `key` cannot be used just now."""
        remedy = remedy or "try again later, and look after the disk or the network"
        return AccessError(f"{self.where(key)} cannot be used: {cause}; {remedy}")

    def damage(self, key: str, found: str) -> DamageError:
        """Return the error that what lies under `key` is not what was written."""
        return damaged(self.where(key), found)

    def missing(self, key: str, where: str = "") -> StoreError:
        """Return the error that nothing is under `key`, called `where` in messages, or anywhere.

        Where the whole store is not there, its place is not seen from here, or no longer.
        """
        if self.exists(""):
            error = damaged(where or self.where(key), "it is missing")
            error.missing = key
            return error
        return AccessError(
            f"{self.location} is not there, as seen from {socket.gethostname()}; mount the file "
            "system there, or put the store where all processes see it under this path"
        )

    def check_key(self, key: str) -> None:
        """Raise AccessError where a key leads out of the store, or has an empty component."""
        if key and not _NO_NAMES.isdisjoint(key.split("/")):
            raise AccessError(
                f"{self.location}: {key!r:.200} is no key; expected names with / between them"
            )

    def names(self, key: str) -> builtins.list[str]:
        """Return :meth:`list` without what is being written, or was when its process stopped."""
        return [name for name in self.list(key) if not name.endswith(PARTIAL)]
