"""What takes many requests to an object store: to send a large file, and to list all objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import obstore

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

SAID_AGAIN_SECONDS = 30.0
"""How long it is until it is said again how far a request is, or that it fails."""
MOST_AT_ONCE = 1000
"""Objects that one request lists, or deletes."""
_PIECE_BYTES = 1 << 20


class SentFile:
    """A file that is sent; how much of it has been is said every half minute."""

    def __init__(self, path: Path, say: Callable[[float, str], None]) -> None:
        self._path = path
        self._say = say
        self._count = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> SentFile:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def pieces(self) -> Iterator[bytes]:
        """Yield the file from its beginning: between pieces, an interrupt is heeded."""
        self._count = 0
        with open(self._path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
                self._count += len(piece)

    def _report(self) -> None:
        size = self._path.stat().st_size
        while not self._ended.wait(SAID_AGAIN_SECONDS):
            self._say(float("-inf"), f"{self._count:,} of {size:,} bytes are sent")


class Pages:
    """All objects below a key, a page at a time; a page that failed can be asked for.

    It goes on after the last key that came.
    """

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._prefix = key or None
        self._last: str | None = None
        self._begin()

    def next_page(self) -> Sequence[ObjectMeta]:
        """Return the next objects' keys, sizes and times; none at the end."""
        try:
            page = next(self._pages, [])
        except Exception:
            self._begin()
            raise
        self._last = page[-1]["path"] if page else self._last
        return page

    def _begin(self) -> None:
        self._pages = iter(
            obstore.list(self._store, self._prefix, offset=self._last, chunk_size=MOST_AT_ONCE)
        )
