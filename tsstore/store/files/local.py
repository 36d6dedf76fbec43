"""A store in a directory: atomic writes by renaming, exclusive creation by linking."""

from __future__ import annotations

import builtins
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from tsstore.errors import StoreError
from tsstore.store.files.base import MAX_FILE_BYTES, Allocate, Bytes, Files, partial_name

_Result = TypeVar("_Result")

_PAUSES = 0.05, 0.5
"""Seconds before what failed for a passing reason is tried again."""
_PASSING = {errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}
"""What network file systems get over; a first EIO as well."""
_MAY_NOT = "get the permission to read it, for this user"
_TOO_MANY = "let this process have more files open (ulimit -n), or let it do less at a time"
_REMEDIES = {
    errno.EACCES: _MAY_NOT,
    errno.EPERM: _MAY_NOT,
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
}


class LocalFiles(Files):
    """A store in a local (or mounted) directory.

    The root may be a symbolic link; below it none is followed, since whoever made the store may
    have planted it. Whatever changes the disk goes through :meth:`_step`.

    Parameters
    ----------
    root
        The directory of the store; it need not exist yet.
    durable
        Sync each file before it takes its name, and directories in :meth:`sync`. Without it a
        loss of power may undo late commits; a killed process never does.
    """

    def __init__(self, root: str | os.PathLike[str], durable: bool = True) -> None:
        super().__init__(os.fspath(root))
        self.durable = durable
        # Absolute, so that neither a change of directory nor another process means another place.
        self.root = Path(root).absolute()
        self._root = os.fspath(self.root)
        self._plain_directories: set[str] = set()
        self._dirty_directories: set[Path] = set()

    def is_same_place(self, other: object) -> bool:
        """Whether another one's root is the same directory."""
        return isinstance(other, LocalFiles) and self.root.resolve() == other.root.resolve()

    def read(
        self,
        key: str,
        span: tuple[int, int] | None = None,
        allocate: Allocate | None = None,
        most: int = MAX_FILE_BYTES,
    ) -> Bytes:
        """Return bytes of a regular file; DamageError where it is something else."""
        return self._reading(key, lambda: self._read(key, span, allocate, most))

    def size(self, key: str) -> int:
        """Return the number of bytes of a regular file."""
        descriptor, size = self._reading(key, lambda: self._open(key))
        os.close(descriptor)
        return size

    def exists(self, key: str) -> bool:
        """Whether the file or directory is there."""
        try:
            self._reading(key, lambda: os.lstat(self._place(key)) if key else os.stat(self.root))
        except FileNotFoundError:
            return False
        return True

    def list(self, key: str) -> list[str]:
        """Return the sorted names in a directory; AccessError where it cannot be read."""
        try:
            return self._reading(key, lambda: self._names(key))
        except FileNotFoundError:
            return []

    def walk(self, key: str = "") -> Iterator[str]:
        """Yield the keys of all that is no directory below `key`, symbolic links included."""
        self.check_key(key)
        # With a slash at their ends, directories come where their files come in sorted keys.
        is_link = os.path.islink(self.root / key)
        waiting = [key + "/"] if not key or self._is_directory(key) or is_link else []
        while waiting:
            child = waiting.pop()
            if child.endswith("/"):
                waiting += sorted(self._children(child[:-1]), reverse=True)
            else:
                yield child

    def write(self, key: str, data: Bytes) -> None:
        """Write a file under a temporary name beside its own, then rename it."""
        path = self._path_to_write(key)
        temporary = path.with_name(partial_name(path.name))
        self._write_new(temporary, data)
        try:
            self._step("rename", path, os.replace, temporary, path)
        except BaseException:
            self._discard(temporary)
            raise
        self._mark_dirty(path.parent)

    def create(self, key: str, data: Bytes) -> None:
        """Write a file that must not exist: a hard link fails where a rename would replace.

        On a file system without hard links it is still exclusive, but a reader may see the file
        while it is being written.
        """
        path = self._path_to_write(key)
        temporary = path.with_name(partial_name(path.name))
        self._write_new(temporary, data)
        try:
            self._link(temporary, path, data)
        finally:
            self._discard(temporary)
        self._mark_dirty_down_to(path, key)

    def settle(self, key: str) -> None:
        """Sync a file that another process wrote; there may be none."""
        with suppress(FileNotFoundError):
            path = Path(self._place(key))
            if self.durable:
                self._step("sync", path, sync_directory, path)
            self._mark_dirty_down_to(path, key)

    def remove(self, key: str) -> None:
        """Remove a file, or a symbolic link itself."""
        path = Path(self._place(key))
        self._step("unlink", path, os.unlink, path)
        self._mark_dirty(path.parent)

    def remove_tree(self, key: str = "") -> None:
        """Remove a file, or a directory and all in it; a root that is a link stays, empty."""
        if not self._is_directory(key):
            with suppress(FileNotFoundError):
                self.remove(key)
            return
        directories = [key]
        for directory in directories:  # which grows on the way
            children = self._children(directory)
            directories += [child[:-1] for child in children if child.endswith("/")]
            for file in (child for child in children if not child.endswith("/")):
                self.remove(file)
        self._plain_directories.clear()
        for path in (self.root / directory for directory in reversed(directories)):
            self._dirty_directories.discard(path)
            if not path.is_symlink():
                self._step("remove_directory", path, os.rmdir, path)
                self._mark_dirty(path.parent)

    def sync(self) -> None:
        """Sync the directories in which names have changed since the last call."""
        while self._dirty_directories:
            directory = self._dirty_directories.pop()
            try:
                self._step("sync_directory", directory, sync_directory, directory)
            except BaseException:
                self._dirty_directories.add(directory)
                raise

    def _step(
        self, operation: str, path: Path, call: Callable[..., _Result], *arguments: object
    ) -> _Result:
        """Do one elementary operation by a call; a subclass may count it, watch it, or let it fail.

        The `operation` is ``open`` (a new, empty file), ``write`` (the arguments are a raw file and
        the bytes), ``sync``, ``rename`` or ``link`` (source and target), ``unlink``,
        ``make_directory``, ``remove_directory`` or ``sync_directory``. The `path` is what it
        changes or syncs; of two paths the target.
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

    def _discard(self, path: Path) -> None:
        """Remove a temporary file; one that stays harms nobody, and hides no other error."""
        with suppress(OSError):
            self._step("unlink", path, os.unlink, path)

    def _reading(self, key: str, call: Callable[[], _Result]) -> _Result:
        """Do what only reads, again where it failed for a passing reason."""
        pauses = iter(_PAUSES)
        failed = False
        while True:
            try:
                return call()
            except StoreError:
                raise
            except (FileNotFoundError, NotADirectoryError):
                raise FileNotFoundError(f"no {self.where(key)}") from None
            except OSError as error:
                passing = error.errno in _PASSING or (error.errno == errno.EIO and not failed)
                pause, failed = next(pauses, None), True
                if not passing or pause is None:
                    cause = error.strerror or str(error)
                    remedy = _REMEDIES.get(error.errno or 0, "")
                    raise self.refusal(key, cause, remedy) from error
            time.sleep(pause)

    def _read(
        self, key: str, span: tuple[int, int] | None, allocate: Allocate | None, most: int
    ) -> Bytes:
        descriptor, size = self._open(key)
        with FileIO(descriptor) as file:
            start, count = span or (0, size)
            if count > most:
                raise self.damage(key, f"{count} bytes, expected at most {most}")
            if not 0 <= start <= start + count <= size:
                raise self.damage(key, f"bytes {start}+{count} were asked for, of {size}")
            if start:
                file.seek(start)
            data: Bytes
            if allocate is None:
                data = file.read(count)
                found = len(data)
            else:
                data = allocate(count)
                found = file.readinto(data)
        if found != count:
            raise self.damage(key, "it was cut short while it was read")
        return data

    def _names(self, key: str) -> builtins.list[str]:
        place = self._place(key)
        self._refuse_links(key)
        try:
            return sorted(os.listdir(place))
        except NotADirectoryError:
            if not key:
                raise
            raise self.damage(key, "found a file, expected a directory") from None

    def _open(self, key: str) -> tuple[int, int]:
        """Open a regular file to be read; return its descriptor and size."""
        try:
            # A pipe must not keep its reader waiting.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._place(key), flags)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self.damage(key, "found a symbolic link, expected a regular file") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise self.damage(key, "found something else, expected a regular file")
        return descriptor, status.st_size

    def _place(self, key: str) -> str:
        """Return where `key` lies, in directories that are no symbolic links.

        As text: thousands of files are read, and a Path takes as long as one.
        """
        self.check_key(key)
        self._refuse_links(key.rpartition("/")[0])
        return f"{self._root}/{key}"

    def _path_to_write(self, key: str) -> Path:
        """Return where `key` lies, in directories that are made where they are missing."""
        try:
            return Path(self._place(key))
        except FileNotFoundError:
            path = self.root / key
            self._make_directories(path.parent)
            return path

    def _make_directories(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directories(directory.parent)
        try:
            self._step("make_directory", directory, os.mkdir, directory)
        except FileExistsError:
            if not directory.is_dir():
                raise
        self._mark_dirty(directory.parent)

    def _refuse_links(self, directory: str) -> None:
        """Raise where a directory is missing; or where it, or one on its way, is a link."""
        if not directory:
            with suppress(NotADirectoryError):
                if stat.S_ISDIR(os.stat(self.root).st_mode):
                    return
            raise FileNotFoundError(f"{self.location} is no directory")
        parent = directory.rpartition("/")[0]
        # Only parents are remembered: each chunk has a directory of its own, but few have others.
        if parent not in self._plain_directories:
            self._refuse_links(parent)
            self._plain_directories.add(parent)
        if stat.S_ISLNK(os.lstat(f"{self._root}/{directory}").st_mode):
            raise self.damage(directory, "found a symbolic link, expected a directory")

    def _is_directory(self, key: str) -> bool:
        path = self.root / key
        return os.path.isdir(path) and not (key and os.path.islink(path))

    def _children(self, key: str) -> builtins.list[str]:
        """Return the keys of what is in a directory, those of directories with a slash behind."""
        keys = [f"{key}/{name}" if key else name for name in self.list(key)]
        return [child + "/" * self._is_directory(child) for child in keys]

    def _mark_dirty(self, directory: Path) -> None:
        if self.durable:
            self._dirty_directories.add(directory)

    def _mark_dirty_down_to(self, path: Path, key: str) -> None:
        """Mark all directories on the way to `path`, from that of the root on.

        Whoever made them may have been stopped before it synced them.
        """
        for directory in path.parents[: key.count("/") + 2]:
            if os.access(directory, os.R_OK):
                self._mark_dirty(directory)


def _write_all(file: FileIO, data: Bytes) -> None:
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
