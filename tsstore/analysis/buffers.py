"""Memory that block tasks use again and again, so that it is taken from the system once."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt


class Buffers(threading.local):
    """Arrays of rows and of keys: each thread has its own, and one task at a time.

    What is sent to another process is empty there.
    """

    def __init__(self) -> None:
        self._rows = np.empty(0, np.uint8)
        self._keys = np.empty(0, np.uint64)

    def rows(self, count: int, row_bytes: int) -> npt.NDArray[np.uint8]:
        """Return room for rows, uint8 (count, row_bytes); what was there before is lost."""
        if self._rows.size < count * row_bytes:
            self._rows = np.empty(count * row_bytes, np.uint8)
        return self._rows[: count * row_bytes].reshape(count, row_bytes)

    def keys(self, count: int, words: int) -> npt.NDArray[np.uint64]:
        """Return room for keys, uint64 (count, words); what was there before is lost."""
        if self._keys.size < count * words:
            self._keys = np.empty(count * words, np.uint64)
        return self._keys[: count * words].reshape(count, words)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
