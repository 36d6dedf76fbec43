"""The one place that writes and reads bytes of a store.

Every write is atomic: a reader sees the old bytes or the new ones. Keys are relative, with ``/``
between their components, and are made by :mod:`tsstore.store.layout` alone.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from tsstore.errors import NotAStoreError

Bytes = bytes | bytearray | memoryview

MAX_FILE_BYTES = 512 << 20
"""Twice what the largest decoded chunk takes: no file of a store is as large."""


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
        # Absolute, so that neither a change of directory nor another process means another place.
        self.root = Path(root).absolute()
        self.durable = durable
        self._given = os.fspath(root)
        self._dirty_directories: set[Path] = set()

    @property
    def location(self) -> str:
        """The directory's path, as it was given."""
        return self._given

    def read(self, key: str) -> bytes:
        """Return the bytes of a file.

        Raises
        ------
        FileNotFoundError
            If there is none.
        OSError
            If it is no regular file, or larger than any of a store: reading may never end.
        """
        path = self.root / key
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise OSError(f"expected a regular file of at most {MAX_FILE_BYTES} bytes")
        return path.read_bytes()

    def write(self, key: str, data: Bytes) -> None:
        """Write a file under a temporary name beside its own, then rename it."""
        path = self.root / key
        temporary = self._write_temporary(path, data)
        try:
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._mark_dirty(path.parent)

    def create(self, key: str, data: Bytes) -> None:
        """Write a file that must not exist: a hard link fails where a rename would replace.

        On a file system without hard links it is still exclusive, but a reader may see the file
        while it is being written.
        """
        path = self.root / key
        temporary = self._write_temporary(path, data)
        try:
            self._link(temporary, path, data)
        finally:
            temporary.unlink(missing_ok=True)
        self._mark_dirty(path.parent)

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
            directory = self._dirty_directories.pop()
            try:
                _sync_directory(directory)
            except BaseException:
                self._dirty_directories.add(directory)
                raise

    def _write_temporary(self, path: Path, data: Bytes) -> Path:
        """Write a file beside `path`, under a name that no process on any host has."""
        self._make_directories(path.parent)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        self._write_new(temporary, data)
        return temporary

    def _write_new(self, path: Path, data: Bytes) -> None:
        """Write and sync a file that must not exist; leave nothing where that fails."""
        with open(path, "xb") as file:
            try:
                file.write(data)
                file.flush()
                if self.durable:
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def _link(self, temporary: Path, path: Path, data: Bytes) -> None:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network file system repeats a request whose reply was lost: the link may be ours.
            if not os.path.samefile(temporary, path):
                raise
        except OSError:
            self._write_new(path, data)

    def _mark_dirty(self, directory: Path) -> None:
        if self.durable:
            self._dirty_directories.add(directory)

    def _make_directories(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directories(directory.parent)
        directory.mkdir(exist_ok=True)
        self._mark_dirty(directory.parent)


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
