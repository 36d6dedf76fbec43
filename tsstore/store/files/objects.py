"""A store in an object store, such as S3, Google Cloud Storage or Azure, through obstore.

Writes are atomic PUTs, which replace an object in one step; creation is a PUT on the condition that
there is no object yet. There are no directories: one exists where an object lies below it.
"""

from __future__ import annotations

import builtins
import itertools
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store, from_url

from tsstore.errors import AccessError, NotAStoreError
from tsstore.store.files.base import MAX_FILE_BYTES, Allocate, Bytes, Files

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

_SCHEMES = {S3Store: "s3", GCSStore: "gs", AzureStore: "az", MemoryStore: "memory"}
_URL = re.compile(r"(s3|gs|az)://[^/@?#\s]+(/[^?#]*)?")
_RETRY: RetryConfig = {
    "max_retries": 8,
    "retry_timeout": timedelta(minutes=2),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}
_CREATE_ATTEMPTS = 4
_DELETED_AT_ONCE = 1000
_PROCESS = os.getpid()
"""The process that imported this module: obstore's threads do not follow into forked ones."""


class ObjectFiles(Files):
    """A store in an object store.

    Failed requests are repeated for two minutes, unless a store object says otherwise. An instance
    can be sent to another process where obstore can send its store.

    Parameters
    ----------
    path
        A URL, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``, with
        credentials and endpoint from the usual environment variables; or a store object of obstore,
        which has its own. Anything else is refused with NotAStoreError.
    """

    def __init__(self, path: object) -> None:
        self._store, location = _open(path)
        super().__init__(location)

    def is_same_place(self, other: object) -> bool:
        """Whether another one's files are the same ones."""
        if not isinstance(other, ObjectFiles):
            return False
        named = self.location == other.location and not isinstance(self._store, MemoryStore)
        return named or self._store is other._store

    def read(
        self, key: str, span: tuple[int, int] | None = None, allocate: Allocate | None = None
    ) -> Bytes:
        """Return bytes of an object, in memory of obstore's."""
        with _translated(self, key):
            if span is None:
                found = obstore.get(self._store, key)
                size = found.meta["size"]
                if size > MAX_FILE_BYTES:
                    what = f"it has {size} bytes, and no object of a store as many"
                    raise self.refusal(key, what)
                return bytes(found.bytes())
            start, length = span
            if not length and 0 <= start <= self.size(key):
                return b""
            if length > MAX_FILE_BYTES:
                raise self.refusal(key, f"{length} bytes were asked for at once")
            data = bytes(obstore.get_range(self._store, key, start=start, length=length))
            if len(data) != length:
                raise self.refusal(key, f"{length} bytes were asked for, {len(data)} came")
            return data

    def size(self, key: str) -> int:
        """Return the number of bytes of an object; FileNotFoundError where there is none."""
        with _translated(self, key):
            return obstore.head(self._store, key)["size"]

    def write(self, key: str, data: Bytes) -> None:
        """Put an object, replacing what is there."""
        with _translated(self, key):
            # In parts, a killed process would leave some behind, unseen and to be paid for.
            obstore.put(self._store, key, data, use_multipart=False)

    def create(self, key: str, data: Bytes) -> None:
        """Put an object where there is none.

        A request whose reply is lost may have been done, and its repetition then finds what it
        put itself: the bytes tell whose they are.
        """
        for attempt in range(_CREATE_ATTEMPTS):
            time.sleep(0.1 * attempt)
            try:
                with _translated(self, key):
                    obstore.put(self._store, key, data, mode="create", use_multipart=False)
                return
            except AccessError as error:
                failure = error
            try:
                found = self.read(key)
            except FileNotFoundError:
                continue
            if found != data:
                raise FileExistsError(f"{self.where(key)} exists already") from None
            return
        raise failure

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`, or any below it."""
        with _translated(self, key):
            if key and self._is_object(key):
                return True
            return any(len(page) for page in obstore.list(self._store, key or None, chunk_size=1))

    def list(self, key: str) -> list[str]:
        """Return the sorted names directly below `key`, of objects and of what holds objects."""
        with _translated(self, key):
            found = obstore.list_with_delimiter(self._store, key or None)
            paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
            return sorted({path.rpartition("/")[2] for path in paths})

    def walk(self, key: str = "") -> Iterator[str]:
        """Yield the keys of all objects below `key`, in the order of the object store."""
        with _translated(self, key):
            for page in obstore.list(self._store, key or None, chunk_size=_DELETED_AT_ONCE):
                for item in page:
                    yield item["path"]

    def remove(self, key: str) -> None:
        """Remove an object."""
        with _translated(self, key):
            # Most object stores do not say whether there was something to remove.
            obstore.head(self._store, key)
            obstore.delete(self._store, key)

    def remove_tree(self, key: str = "") -> None:
        """Remove the object under `key`, then those directly below, then all others below."""
        with _translated(self, key):
            if key and self._is_object(key):
                obstore.delete(self._store, key)
            beside = obstore.list_with_delimiter(self._store, key or None)["objects"]
            self._delete(item["path"] for item in beside)
            self._delete(self.walk(key))

    def settle(self, key: str) -> None:
        """Do nothing, like :meth:`sync`."""

    def sync(self) -> None:
        """Do nothing: an object store has replied only when it will not lose what was put."""

    def _is_object(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def _delete(self, keys: Iterator[str]) -> None:
        while batch := builtins.list(itertools.islice(keys, _DELETED_AT_ONCE)):
            obstore.delete(self._store, batch)


@contextmanager
def _translated(files: Files, key: str) -> Iterator[None]:
    """Let no exception of obstore pass; its text may show what a URL must not."""
    files.check_key(key)
    if os.getpid() != _PROCESS:
        raise files.refusal(
            key,
            "this process was forked from one that uses object stores already; start it by the "
            "method 'spawn' or 'forkserver'",
        )
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"no {files.where(key)}, or no such bucket") from None
    except (AccessError, MemoryError):
        raise
    except Exception as error:
        raise files.refusal(key, _brief(error)) from None


def _open(path: object) -> tuple[ObjectStore, str]:
    """Return an object store, and how a person would write it."""
    if isinstance(path, str | os.PathLike):
        url: str = os.fspath(path)
        if not _URL.fullmatch(url):
            raise NotAStoreError(
                f"{_without_secrets(url)}: found a URL, expected a local path, or s3://, gs:// or "
                "az:// with a bucket and a path; what else an object store needs is given by "
                "environment variables or by a store object of obstore"
            )
        return from_url(url, retry_config=_RETRY), url.rstrip("/")
    if isinstance(path, S3Store | GCSStore | AzureStore | MemoryStore):
        return path, _location(path)
    raise NotAStoreError(
        f"found {type(path).__name__}, expected a path, a URL such as s3://bucket/run.zarr, or a "
        f"store object of obstore: {', '.join(cls.__name__ for cls in _SCHEMES)}"
    )


def _location(store: S3Store | GCSStore | AzureStore | MemoryStore) -> str:
    """Return where a store object is, without the credentials that it may hold."""
    scheme = next(scheme for cls, scheme in _SCHEMES.items() if isinstance(store, cls))
    if isinstance(store, MemoryStore):
        return f"{scheme}://"
    name = "container_name" if isinstance(store, AzureStore) else "bucket"
    return f"{scheme}://{store.config.get(name, '')}/{store.prefix or ''}".rstrip("/")


def _brief(error: Exception) -> str:
    """Return what an error says on one line, without the debugging text that obstore appends."""
    text = " ".join(str(error).partition("\n\nDebug source")[0].split())
    return "".join(filter(str.isprintable, _without_secrets(text)))[:400]


def _without_secrets(text: str) -> str:
    """Leave users and passwords, and the queries of signed requests, out of URLs."""
    return re.sub(r"\?\S*", "?…", re.sub(r"//[^/\s]*@", "//", text))
