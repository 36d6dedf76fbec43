"""What a store needs of the place where it lies, and what all such places have in common.

Every write is atomic: a reader sees the old bytes or the new ones. Keys are relative, with ``/``
between their components, and are made by :mod:`tsstore.store.format.paths` alone.
"""

from __future__ import annotations

import builtins
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from tsstore.errors import AccessError

Bytes = bytes | bytearray | memoryview

Allocate = Callable[[int], memoryview]
"""Gives memory for so many bytes, to be written to; what it gave before may be lost."""

MAX_FILE_BYTES = 512 << 20
"""Twice what the largest decoded chunk takes: nothing that is read at once is as large."""

PARTIAL = ".partial"
"""Ends the name of a file that is still being written; a process that is stopped leaves it."""


def partial_name(name: str) -> str:
    """Return a name for a file while it is written, which no process on any host has."""
    return f"{name}.{secrets.token_hex(8)}{PARTIAL}"


class Files(ABC):
    """The files of a store.

    Parameters
    ----------
    location
        The place, as a person would write it, without credentials.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    @abstractmethod
    def is_same_place(self, other: object) -> bool:
        """Whether another one's files are the same ones."""

    @abstractmethod
    def read(
        self, key: str, span: tuple[int, int] | None = None, allocate: Allocate | None = None
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

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        AccessError
            If it cannot be read, is larger than any of a store, or ends before the span does:
            reading what others have made must end.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Return the number of bytes under `key`; FileNotFoundError where there is none."""

    @abstractmethod
    def write(self, key: str, data: Bytes) -> None:
        """Put `data` under `key`, replacing what is there, in one step."""

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
        """Return the sorted names directly below `key`, none where it does not exist."""

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

    def refusal(self, key: str, found: str) -> AccessError:
        """Return the error that what lies under `key` cannot be used."""
        return AccessError(f"{self.where(key)} cannot be used: {found}")

    def check_key(self, key: str) -> None:
        """Raise AccessError where a key leads out of the store, or has an empty component."""
        if key and any(component in ("", ".", "..") for component in key.split("/")):
            raise AccessError(
                f"{self.location}: {key!r:.200} is no key; expected names with / between them"
            )

    def names(self, key: str) -> builtins.list[str]:
        """Return :meth:`list` without what is being written, or was when its process stopped."""
        return [name for name in self.list(key) if not name.endswith(PARTIAL)]
