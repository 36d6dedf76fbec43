"""The one place that writes and reads bytes of a store.

Every write is atomic: a reader sees the old bytes or the new ones. Keys are relative, with ``/``
between their components, and are made by :mod:`tsstore.store.layout` alone.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Protocol

from tsstore.errors import NotAStoreError

Bytes = bytes | bytearray | memoryview

_serial = itertools.count()


class Files(Protocol):
    """What a store needs of the place where it lies."""

    @property
    def location(self) -> str:
        """The place, as a person would write it."""

    def read(self, key: str) -> bytes:
        """Return the bytes under `key`; FileNotFoundError where there is none."""

    def write(self, key: str, data: Bytes) -> None:
        """Put `data` under `key`, replacing what is there, in one step."""

    def create(self, key: str, data: Bytes) -> None:
        """Put `data` under `key`; FileExistsError where there is something, also in a race."""

    def exists(self, key: str) -> bool:
        """Whether there is something under `key`."""

    def list(self, key: str) -> list[str]:
        """Return the sorted names directly below `key`, none where it does not exist."""

    def sync(self) -> None:
        """Return once everything written so far survives a loss of power."""


class LocalFiles:
    """A store in a local (or mounted) directory.

    Parameters
    ----------
    root
        The directory of the store; it need not exist yet.
    durable
        Sync each file before it takes its name, and directories in :meth:`sync`. Without it a
        loss of power may undo late commits; a killed process never does.
    """

    def __init__(self, root: str | os.PathLike[str], durable: bool = True) -> None:
        self.root = Path(root)
        self.durable = durable
        self._dirty_directories: set[Path] = set()

    @property
    def location(self) -> str:
        """The directory's path."""
        return str(self.root)

    def read(self, key: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError where there is none."""
        return (self.root / key).read_bytes()

    def write(self, key: str, data: Bytes) -> None:
        """Write a file under a temporary name beside its own, then rename it."""
        path = self.root / key
        temporary = self._write_temporary(path, data)
        os.replace(temporary, path)

    def create(self, key: str, data: Bytes) -> None:
        """Write a file that must not exist: a hard link fails where a rename would replace."""
        path = self.root / key
        temporary = self._write_temporary(path, data)
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()

    def exists(self, key: str) -> bool:
        """Whether the file or directory is there."""
        return (self.root / key).exists()

    def list(self, key: str) -> list[str]:
        """Return the sorted names in a directory."""
        try:
            return sorted(os.listdir(self.root / key))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sync(self) -> None:
        """Sync the directories in which files have taken a name since the last call."""
        while self._dirty_directories:
            _sync_directory(self._dirty_directories.pop())

    def _write_temporary(self, path: Path, data: Bytes) -> Path:
        self._make_directories(path.parent)
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{next(_serial)}.partial")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                if self.durable:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if self.durable:
            self._dirty_directories.add(path.parent)
        return temporary

    def _make_directories(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directories(directory.parent)
        directory.mkdir(exist_ok=True)
        if self.durable:
            self._dirty_directories.add(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_files(path: str | os.PathLike[str], durable: bool = True) -> Files:
    """Return the files of a store at `path`.

    Raises
    ------
    NotAStoreError
        If `path` is a URL: only local paths are supported by this version.
    """
    text = os.fspath(path)
    if "://" in text:
        raise NotAStoreError(
            f"{text}: found a URL, but this version of tsstore reads and writes local paths only; "
            "copy the store to a local directory"
        )
    return LocalFiles(text, durable)
