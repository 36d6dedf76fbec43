"""The elementary operations that change a disk, each at one place where it may be watched."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tsstore.store.files.base import Bytes

_Result = TypeVar("_Result")


class DiskSteps:
    """The steps that change something on a disk, each through :meth:`_step`.

    Parameters
    ----------
    durable
        Whether files are synced before they take their names.
    """

    def __init__(self, durable: bool) -> None:
        self.durable = durable

    def _step(
        self, operation: str, path: Path, call: Callable[..., _Result], *arguments: object
    ) -> _Result:
        """Do one elementary operation; a subclass may count it, watch it, or let it fail.

        Parameters
        ----------
        operation
            ``open`` (a new, empty file), ``write`` (the arguments are a raw file and the bytes),
            ``sync``, ``rename`` (source and target), ``link`` (source and target), ``unlink``,
            ``make_directory``, ``remove_directory``, or ``sync_directory``.
        path
            What it changes or syncs; of two paths the target.
        call, arguments
            ``call(*arguments)`` does it.
        """
        return call(*arguments)

    def _write_new(self, path: Path, data: Bytes) -> None:
        """Write and sync a file that must not exist; leave nothing where that fails."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = self._step("open", path, os.open, path, flags, 0o666)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                self._step("write", path, _write_all, file, data)
                if self.durable:
                    self._step("sync", path, os.fsync, file.fileno())
        except BaseException:
            self._discard(path)
            raise

    def _sync_file(self, path: Path) -> None:
        self._step("sync", path, sync_directory, path)

    def _rename(self, source: Path, target: Path) -> None:
        self._step("rename", target, os.replace, source, target)

    def _link(self, source: Path, target: Path, data: Bytes) -> None:
        """Give a file another name that must be free; where links cannot be had, write anew."""
        try:
            self._step("link", target, os.link, source, target)
        except FileExistsError:
            # A network file system repeats a request whose reply was lost: the link may be ours.
            if not os.path.samefile(source, target):
                raise
        except OSError:
            self._write_new(target, data)

    def _unlink(self, path: Path) -> None:
        self._step("unlink", path, os.unlink, path)

    def _discard(self, path: Path) -> None:
        """Remove a temporary file; one that stays harms nobody, and hides no other error."""
        with suppress(OSError):
            self._unlink(path)

    def _make_directory(self, path: Path) -> None:
        try:
            self._step("make_directory", path, os.mkdir, path)
        except FileExistsError:
            if not path.is_dir():
                raise

    def _remove_directory(self, path: Path) -> None:
        self._step("remove_directory", path, os.rmdir, path)

    def _sync_directory(self, path: Path) -> None:
        self._step("sync_directory", path, sync_directory, path)


def _write_all(file: io.FileIO, data: Bytes) -> None:
    """Write all of `data`: near the end of a disk the system takes less at a time."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def sync_directory(path: Path) -> None:
    """Let new names in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
