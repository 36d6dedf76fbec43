"""A store in an object store, such as S3, Google Cloud Storage or Azure, through obstore.

Writes are atomic PUTs, which replace an object in one step; creation is a PUT on the condition that
there is no object yet. There are no directories: one exists where an object lies below it.
"""

from __future__ import annotations

import builtins
import itertools
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.store import MemoryStore

from tsstore.errors import AccessError, StoreError, TsstoreWarning
from tsstore.store.files.base import MAX_FILE_BYTES, Allocate, Bytes, Files
from tsstore.store.files.object_store import (
    MOST_AT_ONCE,
    NO_BUCKET,
    SAID_AGAIN_SECONDS,
    Pages,
    SentFile,
    failure_of,
    open_object_store,
)

if TYPE_CHECKING:
    from obstore import ListResult, ObjectMeta
    from obstore.store import ObjectStore, RetryConfig

_Result = TypeVar("_Result")

PATIENCE_SECONDS = 120.0
"""How long a request that fails for a passing reason is repeated: time counts, not a number."""
ANSWER_SECONDS = 20.0
"""How long an answer, or the next piece of one, is waited for."""
SAID_AFTER_SECONDS = 5.0
"""How long a failing request is repeated before that is said."""
LARGE_BYTES = 4 << 20
"""What is larger may take PATIENCE_SECONDS to be sent: the answer comes only afterwards."""
_LONGEST_PAUSE = 5.0
_PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 2
_PROCESS = os.getpid()
"""The process that imported this module: obstore's threads do not follow into forked ones."""


class ObjectFiles(Files):
    """A store in an object store.

    Requests that fail for a passing reason are repeated for two minutes, which a TsstoreWarning
    says; one attempt is enough while the last request has failed so. A store object that says how
    often to repeat them is believed. An instance can be sent to another process where obstore can
    send its store.

    Parameters
    ----------
    path
        A URL, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``, with
        credentials and endpoint from the usual environment variables; or a store object of obstore,
        which has its own. Anything else is refused with NotAStoreError.
    """

    readers = 32

    def __init__(self, path: object) -> None:
        self._given = path
        self._store, location = open_object_store(path, ANSWER_SECONDS)
        self._slow_store, _ = open_object_store(path, PATIENCE_SECONDS)
        self._repeats = isinstance(path, str | os.PathLike) or not getattr(
            self._store, "retry_config", None
        )
        self._is_down = False
        self._said = float("-inf")
        super().__init__(location)

    def is_same_place(self, other: object) -> bool:
        """Whether another one's files are the same ones."""
        if not isinstance(other, ObjectFiles):
            return False
        named = self.location == other.location and not isinstance(self._store, MemoryStore)
        return named or self._store is other._store

    def read(
        self,
        key: str,
        span: tuple[int, int] | None = None,
        allocate: Allocate | None = None,
        most: int = MAX_FILE_BYTES,
    ) -> Bytes:
        """Return bytes of an object, in memory of obstore's."""
        if span is None:
            return self._request(key, lambda: self._get(key, most))
        start, length = span
        if length > most:
            raise self.damage(key, f"{length} bytes, expected at most {most}")
        if length <= 0 or start < 0:
            if start < 0 or length < 0 or start > self.size(key):
                raise self.damage(key, f"bytes {start}+{length} were asked for")
            return b""
        try:
            get = partial(obstore.get_range, self._store, key, start=start, length=length)
            data = bytes(self._request(key, get))
        except AccessError:
            # Most object stores refuse what begins after the end.
            if self._is_down or start + length <= self.size(key):
                raise
            data = b""
        if len(data) != length:
            raise self.damage(key, f"{length} bytes were asked for, {len(data)} came")
        return data

    def size(self, key: str) -> int:
        """Return the number of bytes of an object; FileNotFoundError where there is none."""
        return self._request(key, lambda: obstore.head(self._store, key)["size"])

    def write(self, key: str, data: Bytes) -> None:
        """Put an object, replacing what is there."""
        with self._sending(data) as store:
            # In parts, a killed process would leave some behind, unseen and to be paid for.
            self._request(key, lambda: obstore.put(store, key, data, use_multipart=False), True)

    def upload(self, key: str, path: Path) -> None:
        """Put a file in parts, which are an object once all are there.

        Each part is repeated by itself; how far it is, is said. Where it is interrupted, the parts
        are removed: only a killed process leaves some, unseen.
        """
        size = path.stat().st_size
        if size <= LARGE_BYTES:
            super().upload(key, path)
            return
        patience: RetryConfig = {
            "max_retries": 1000,
            "retry_timeout": timedelta(seconds=PATIENCE_SECONDS),
            "backoff": {
                "init_backoff": timedelta(seconds=_LONGEST_PAUSE / 50),
                "max_backoff": timedelta(seconds=_LONGEST_PAUSE),
            },
        }
        store, _ = open_object_store(self._given, PATIENCE_SECONDS, patience)
        part = max(_PART_BYTES, -(-size // _MOST_PARTS))
        with SentFile(path, self._say) as sent:
            self._request(
                key,
                lambda: obstore.put(
                    store, key, sent.pieces(), chunk_size=part, max_concurrency=_PARTS_AT_ONCE
                ),
                True,
            )

    def create(self, key: str, data: Bytes) -> None:
        """Put an object where there is none.

        A request whose reply is lost may have been done, and its repetition then finds what it
        put itself: the bytes tell whose they are.
        """
        if not self._request(key, lambda: self._create(key, data), True):
            raise FileExistsError(f"{self.where(key)} exists already")

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`, or any below it."""
        return self._request(key, lambda: self._holds(key))

    def list(self, key: str) -> list[str]:
        """Return the sorted names directly below `key`, of objects and of what holds objects."""
        names = self._request(key, lambda: self._names(key))
        if not names and key and self._request(key, lambda: self._is_object(key)):
            raise self.damage(key, "found a file, expected a directory")
        return names

    def walk(self, key: str = "") -> Iterator[str]:
        """Yield the keys of all objects below `key`, in the order of the object store."""
        self.check_key(key)
        pages = Pages(self._store, key)
        while page := self._request(key, pages.next_page):
            yield from (item["path"] for item in page)

    def newest(self, key: str, enough: float = float("inf")) -> float | None:
        """Return when the newest object below `key` was put, in seconds since 1970; None of none.

        Where one was put as late as `enough`, no newer one is looked for.
        """
        newest = float("-inf")
        pages = Pages(self._store, key)
        while newest < enough and (page := self._request(key, pages.next_page)):
            newest = max(newest, *(item["last_modified"].timestamp() for item in page))
        return None if newest == float("-inf") else newest

    def remove(self, key: str) -> None:
        """Remove an object."""
        # Most object stores do not say whether there was something to remove.
        self.size(key)
        self._request(key, lambda: obstore.delete(self._store, key))

    def remove_tree(self, key: str = "") -> None:
        """Remove the object under `key`, then those directly below, then all others below."""
        if key and self._request(key, lambda: self._is_object(key)):
            self._delete(key, iter([key]))
        directly = self._request(key, lambda: self._listed(key)["objects"])
        self._delete(key, iter([item["path"] for item in directly]))
        self._delete(key, self.walk(key))

    def settle(self, key: str) -> None:
        """Do nothing, like :meth:`sync`."""

    def sync(self) -> None:
        """Do nothing: an object store has replied only when it will not lose what was put."""

    def _request(self, key: str, call: Callable[[], _Result], writes: bool = False) -> _Result:
        """Do a request, again while it fails for a passing reason; no error of obstore passes.

        Their texts may show what a URL must not.
        """
        self.check_key(key)
        if os.getpid() != _PROCESS:
            raise self.refusal(
                key,
                "this process was forked from one that uses object stores already",
                "start it by the method 'spawn' or 'forkserver'",
            )
        begun = time.monotonic()
        for attempt in itertools.count():
            try:
                result = call()
            except FileNotFoundError as error:
                if writes or NO_BUCKET.search(str(error)):
                    failure = failure_of(FileNotFoundError("NoSuchBucket"))
                    raise self.refusal(key, failure.cause, failure.remedy) from None
                raise FileNotFoundError(f"no {self.where(key)}, or no such bucket") from None
            except (StoreError, MemoryError):
                raise
            except Exception as error:
                failure = failure_of(error)
            else:
                self._is_down = False
                return result
            pause = min(0.1 * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            left = begun + PATIENCE_SECONDS - time.monotonic()
            if not failure.passes or self._is_down or not self._repeats or left < pause:
                self._is_down = failure.passes
                raise self.refusal(key, failure.cause, failure.remedy) from None
            self._say(begun, f"{failure.cause}; trying again, for {left:.0f} seconds at most")
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _say(self, begun: float, what: str) -> None:
        """Say that something takes long, unless that was said just now."""
        now = time.monotonic()
        if now - begun >= SAID_AFTER_SECONDS and now - self._said >= SAID_AGAIN_SECONDS:
            self._said = now
            warnings.warn(f"{self.location}: {what}", TsstoreWarning, stacklevel=4)

    @contextmanager
    def _sending(self, data: Bytes) -> Iterator[ObjectStore]:
        """Give the store through which to send some bytes, and say it where that takes long."""
        size = memoryview(data).nbytes
        if size <= LARGE_BYTES:
            yield self._store
            return
        what = f"{size} bytes are not written after 25 seconds; waiting for two minutes at most"
        watch = threading.Timer(25.0, self._say, (float("-inf"), what))
        watch.daemon = True
        watch.start()
        try:
            yield self._slow_store
        finally:
            watch.cancel()

    def _get(self, key: str, most: int) -> bytes:
        found = obstore.get(self._store, key)
        size = found.meta["size"]
        if size > most:
            raise self.damage(key, f"{size} bytes, expected at most {most}")
        data = bytes(found.bytes())
        if len(data) != size:
            raise ConnectionError("the answer was cut short")
        return data

    def _create(self, key: str, data: Bytes) -> bool:
        """Try to create an object once; return whether what is there then is this one's."""
        try:
            obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except FileNotFoundError:
            raise
        except Exception as error:
            failure = error
        else:
            return True
        try:
            found = obstore.get(self._store, key)
            return found.meta["size"] == len(data) and bytes(found.bytes()) == data
        except FileNotFoundError:
            raise failure from None

    def _holds(self, key: str) -> bool:
        if key and self._is_object(key):
            return True
        return any(len(page) for page in obstore.list(self._store, key or None, chunk_size=1))

    def _names(self, key: str) -> builtins.list[str]:
        found = self._listed(key)
        paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
        return sorted({path.rpartition("/")[2] for path in paths})

    def _listed(self, key: str) -> ListResult[Sequence[ObjectMeta]]:
        return obstore.list_with_delimiter(self._store, key or None)

    def _is_object(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def _delete(self, key: str, keys: Iterator[str]) -> None:
        while batch := builtins.list(itertools.islice(keys, MOST_AT_ONCE)):
            self._request(key, partial(obstore.delete, self._store, batch))
