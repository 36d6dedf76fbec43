"""A store in a directory: atomic writes by renaming, exclusive creation by linking."""

from __future__ import annotations

import builtins
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from tsstore.store.files.base import MAX_FILE_BYTES, AccessError, Bytes, Place, Room
from tsstore.store.files.disk import DiskSteps

_CUT_SHORT = "it was cut short while it was read"


class LocalReader(Place):
    """Reads a directory that others have made.

    The root may be a symbolic link; below it none is followed, since whoever made the store may
    have planted it.

    Parameters
    ----------
    root
        The directory of the store; it need not exist yet.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(os.fspath(root))
        # Absolute, so that neither a change of directory nor another process means another place.
        self.root = Path(root).absolute()
        self._plain_directories: set[str] = set()

    def is_same_place(self, other: object) -> bool:
        """Whether another one's files are the same ones."""
        return isinstance(other, LocalReader) and self.root.resolve() == other.root.resolve()

    def read(self, key: str) -> bytes:
        """Return the bytes of a file.

        Raises
        ------
        FileNotFoundError
            If there is none.
        OSError
            If it is no regular file, or larger than any of a store: reading may never end.
        """
        descriptor, size = self._open(key)
        with open(descriptor, "rb", buffering=0) as file:
            if size > MAX_FILE_BYTES:
                raise self.refusal(key, f"it has {size} bytes, and no file of a store as many")
            return file.read(size)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes of a file from `start` on.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        OSError
            If it is no regular file, or shorter than ``start + length`` bytes.
        """
        with self._open_at(key, start, length) as (file, _):
            data = file.read(length)
        if len(data) != length:
            raise self.refusal(key, _CUT_SHORT)
        return data

    def fetch(self, key: str, room: Room, start: int = 0, length: int | None = None) -> Bytes:
        """Return bytes of a file from `start` on, all unless `length` is given.

        Parameters
        ----------
        key
            Of the file.
        room
            Gives the memory where they are.
        start, length
            Which bytes.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        OSError
            If it is no regular file, larger than any of a store, or shorter than
            ``start + length`` bytes.
        """
        with self._open_at(key, start, length) as (file, count):
            data = room(count)
            read = file.readinto(data)
        if read != count:
            raise self.refusal(key, _CUT_SHORT)
        return data

    def size(self, key: str) -> int:
        """Return the number of bytes of a file; FileNotFoundError where there is none."""
        descriptor, size = self._open(key)
        os.close(descriptor)
        return size

    def exists(self, key: str) -> bool:
        """Whether the file or directory is there; AccessError where that cannot be told."""
        try:
            if key:
                os.lstat(self._path(key))
            else:
                os.stat(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except AccessError:
            raise
        except OSError as error:
            raise self.refusal(key, str(error)) from error
        return True

    def list(self, key: str) -> list[str]:
        """Return the sorted names in a directory; AccessError where it cannot be read."""
        try:
            path = self._path(key)
            self._refuse_links(key)
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except AccessError:
            raise
        except OSError as error:
            raise self.refusal(key, str(error)) from error

    def walk(self, key: str = "") -> Iterator[str]:
        """Yield the keys of all that is no directory below `key`, symbolic links included."""
        # With a slash at their ends, directories come where their files come in sorted keys.
        waiting = [key + "/"]
        while waiting:
            child = waiting.pop()
            if child.endswith("/"):
                waiting += sorted(self._children(child[:-1]), reverse=True)
            else:
                yield child

    @contextmanager
    def _open_at(self, key: str, start: int, length: int | None) -> Iterator[tuple[FileIO, int]]:
        """Open a file that has so many bytes from `start` on; yield it there, and their number."""
        descriptor, size = self._open(key)
        with FileIO(descriptor) as file:
            count = size - start if length is None else length
            if not 0 <= start <= start + count <= size or count > MAX_FILE_BYTES:
                raise self.refusal(key, f"bytes {start}+{count} were asked for, of {size}")
            file.seek(start)
            yield file, count

    def _open(self, key: str) -> tuple[int, int]:
        """Open a regular file to be read; return its descriptor and size."""
        try:
            # A pipe must not keep its reader waiting.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path(key), flags)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self.refusal(key, "found a symbolic link, expected a regular file") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise self.refusal(key, "found something else, expected a regular file")
        return descriptor, status.st_size

    def _path(self, key: str) -> Path:
        """Return where `key` lies, in directories that are no symbolic links."""
        self.check_key(key)
        self._refuse_links(key.rpartition("/")[0])
        return self.root / key

    def _refuse_links(self, directory: str) -> None:
        """Raise where a directory is missing; or where it, or one on its way, is a link."""
        if not directory:
            if not self.root.is_dir():
                raise FileNotFoundError(f"{self.location} is no directory")
            return
        parent = directory.rpartition("/")[0]
        # Only parents are remembered: each chunk has a directory of its own, but few have others.
        if parent not in self._plain_directories:
            self._refuse_links(parent)
            self._plain_directories.add(parent)
        if stat.S_ISLNK(os.lstat(self.root / directory).st_mode):
            raise self.refusal(directory, "found a symbolic link, expected a directory")

    def _is_directory(self, key: str) -> bool:
        path = self.root / key
        return os.path.isdir(path) and not (key and os.path.islink(path))

    def _children(self, key: str) -> builtins.list[str]:
        """Return the keys of what is in a directory, those of directories with a slash behind."""
        keys = [f"{key}/{name}" if key else name for name in self.list(key)]
        return [child + "/" * self._is_directory(child) for child in keys]


class LocalFiles(LocalReader, DiskSteps):
    """A store in a local (or mounted) directory, to be read and written.

    Each elementary operation goes through ``_step``: see
    :class:`tsstore.store.files.disk.DiskSteps`.

    Parameters
    ----------
    root
        The directory of the store; it need not exist yet.
    durable
        Sync each file before it takes its name, and directories in :meth:`sync`. Without it a
        loss of power may undo late commits; a killed process never does.
    """

    def __init__(self, root: str | os.PathLike[str], durable: bool = True) -> None:
        LocalReader.__init__(self, root)
        DiskSteps.__init__(self, durable)
        self._dirty_directories: set[Path] = set()

    def write(self, key: str, data: Bytes) -> None:
        """Write a file under a temporary name beside its own, then rename it."""
        path = self._path_to_write(key)
        temporary = self._write_temporary(path, data)
        try:
            self._rename(temporary, path)
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
        temporary = self._write_temporary(path, data)
        try:
            self._link(temporary, path, data)
        finally:
            self._discard(temporary)
        self._mark_dirty_down_to(path, key)

    def settle(self, key: str) -> None:
        """Make :meth:`sync` answer for a file that another process wrote; there may be none."""
        with suppress(FileNotFoundError):
            path = self._path(key)
            if self.durable:
                self._sync_file(path)
            self._mark_dirty_down_to(path, key)

    def remove(self, key: str) -> None:
        """Remove a file, or a symbolic link itself; FileNotFoundError where there is none."""
        path = self._path(key)
        self._unlink(path)
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
        for directory in reversed(directories):
            self._remove_empty(self.root / directory)

    def sync(self) -> None:
        """Sync the directories in which names have changed since the last call."""
        while self._dirty_directories:
            directory = self._dirty_directories.pop()
            try:
                self._sync_directory(directory)
            except BaseException:
                self._dirty_directories.add(directory)
                raise

    def _path_to_write(self, key: str) -> Path:
        """Return where `key` lies, in directories that are made where they are missing."""
        try:
            return self._path(key)
        except FileNotFoundError:
            path = self.root / key
            self._make_directories(path.parent)
            return path

    def _write_temporary(self, path: Path, data: Bytes) -> Path:
        """Write a file beside `path`, under a name that no process on any host has."""
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        self._write_new(temporary, data)
        return temporary

    def _make_directories(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directories(directory.parent)
        self._make_directory(directory)
        self._mark_dirty(directory.parent)

    def _mark_dirty_down_to(self, path: Path, key: str) -> None:
        """Mark all directories on the way to `path`, from that of the root on.

        Whoever made them may have been stopped before it synced them.
        """
        for directory in path.parents[: key.count("/") + 2]:
            if os.access(directory, os.R_OK):
                self._mark_dirty(directory)

    def _remove_empty(self, directory: Path) -> None:
        self._dirty_directories.discard(directory)
        if not directory.is_symlink():
            self._remove_directory(directory)
            self._mark_dirty(directory.parent)

    def _mark_dirty(self, directory: Path) -> None:
        if self.durable:
            self._dirty_directories.add(directory)
