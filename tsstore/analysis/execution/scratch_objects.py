"""Scratch files that are far away: read by spans, some bytes ahead; as objects, by parts."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from tsstore.analysis.planning.cost import FRAME_BYTES, PART_BYTES
from tsstore.errors import AccessError, CountingError, DamageError, StoreError
from tsstore.store.files.open import open_files

if TYPE_CHECKING:
    from tsstore.store.files.objects import ObjectFiles

_SETTINGS = ("AWS_", "AZURE_", "GOOGLE_")
"""What object stores take from the environment begins so."""


def scratch_files(url: str) -> ObjectFiles:
    """Return the objects below a URL of scratch; by this process's environment as it is now."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith(_SETTINGS))
    return _files(url, tuple(settings))


@lru_cache(maxsize=4)
def _files(url: str, settings: tuple[tuple[str, str], ...]) -> ObjectFiles:
    """Open a place once in a process: that takes half a second, and each has its connections."""
    return cast("ObjectFiles", open_files(url))


def split_url(url: str) -> tuple[ObjectFiles, str]:
    """Return the scratch that a URL is below, and its key there: that of an analysis, or a file."""
    parent, name = url.rsplit("/tsstore-scratch-", 1)
    return scratch_files(parent), f"tsstore-scratch-{name}"


class ObjectWriter:
    """Writes a scratch file as objects of so many bytes, of which one is held at a time."""

    def __init__(self, file: str) -> None:
        self._files, self._key = split_url(file)
        self._held = bytearray()
        self._sent = 0

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._sent * PART_BYTES + len(self._held)

    def write(self, data: bytes | memoryview) -> int:
        """Add bytes."""
        left = memoryview(data)
        while len(left):
            taken = left[: PART_BYTES - len(self._held)]
            self._held += taken
            left = left[len(taken) :]
            if len(self._held) == PART_BYTES:
                self.send()
        return len(data)

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Add pieces one after the other."""
        for piece in pieces:
            self.write(piece)

    def send(self) -> None:
        """Put what is held as the next object."""
        if self._held:
            with _from_here():
                self._files.write(_part(self._key, self._sent), bytes(self._held))
            self._held = bytearray()
            self._sent += 1

    def discard(self) -> None:
        """Remove what was put; the end of the analysis removes what is left."""
        with suppress(StoreError):
            self._files.remove_tree(self._key)


class SpanReader(ABC):
    """Reads spans of a scratch file, each from its beginning, some bytes ahead within the span."""

    def __init__(self) -> None:
        self._ahead = b""
        self._at = self._stop = 0

    def go_to(self, start: int, size: int) -> None:
        """Begin a span of so many bytes."""
        self._ahead = b""
        self._at, self._stop = start, start + size

    def read(self, size: int) -> bytes:
        """Return the next bytes of the span; fewer at its end, or where the file is shorter."""
        if len(self._ahead) < size:
            self._fetch(size - len(self._ahead))
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def look_ahead(self) -> None:
        """Let the first bytes of the span come now."""
        self._fetch(1)

    def _fetch(self, least: int) -> None:
        wanted = min(max(least, FRAME_BYTES), self._stop - self._at)
        self._ahead = b"".join([self._ahead, *self._fetched(wanted)])

    @abstractmethod
    def _fetched(self, size: int) -> Iterator[bytes | memoryview]:
        """Yield the next bytes, and go on by as many; fewer where the file is shorter."""


class ObjectReader(SpanReader):
    """Reads spans of a scratch file of objects."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = file
        self._files, self._key = split_url(file)

    def _fetched(self, size: int) -> Iterator[bytes]:
        while size > 0:
            number, start = divmod(self._at, PART_BYTES)
            length = min(size, PART_BYTES - start)
            try:
                with _from_here():
                    data = bytes(self._files.read(_part(self._key, number), (start, length)))
            except FileNotFoundError:
                raise CountingError(
                    f"scratch file {self._file} cannot be read (an object of it is not there); was "
                    "it removed? Analyse again"
                ) from None
            except DamageError:  # It is shorter than what was written.
                return
            yield data
            self._at += length
            size -= length


@contextmanager
def written_objects(file: str) -> Iterator[ObjectWriter]:
    """Yield what writes a scratch file, which is there when the block has ended, or not at all."""
    out = ObjectWriter(file)
    try:
        yield out
        out.send()
    except BaseException:
        out.discard()
        raise


@contextmanager
def _from_here() -> Iterator[None]:
    """Let an error that a place cannot be used say from which host."""
    try:
        yield
    except AccessError as error:
        raise AccessError(f"{error} (tried from {socket.gethostname()})") from error


def _part(key: str, number: int) -> str:
    return f"{key}/{number}"
