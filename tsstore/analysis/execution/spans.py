"""Reading spans of a scratch file that is far away: some bytes ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from tsstore.analysis.planning.cost import FRAME_BYTES


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
