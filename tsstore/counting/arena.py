"""Memory that is used again: new memory costs more than most of what is done with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

LEAST_BYTES: Final = 1 << 16
"""Of an array whose memory is kept: smaller ones the allocator keeps by itself."""

_SPARE: Final = 4
"""An array may lie in memory that is larger by one part in so many."""


Empty = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]
"""Makes arrays of a shape and a type, as :func:`numpy.empty` does."""


class Arena:
    """Lends memory to arrays, and has it back when nothing refers to them any more.

    Where memory has to be new, what is kept gives way to it, but for what may be kept in any case.
    What is sent to another process is empty there.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = Lock()
        self._most_bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of any contents, C-contiguous."""
        return self._array(shape, dtype, np.empty)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of zeros; of new memory, what is never written is never resident."""
        return self._array(shape, dtype, np.zeros)

    def _array(self, shape: tuple[int, ...], dtype: DTypeLike, new: Empty) -> NDArray[Any]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < LEAST_BYTES:
            return new(shape, dtype)
        slab = self._take(size)
        if slab is None:
            slab = new((size,), np.uint8)
        elif new is np.zeros:
            slab[:size] = 0
        lent: NDArray[Any] = np.asarray(_Lent(self._free, slab))
        array: NDArray[Any] = lent[:size].view(dtype).reshape(shape)
        return array

    @property
    def free_bytes(self) -> int:
        """Bytes that are kept for arrays to come."""
        return sum(slab.nbytes for slab in self._free)

    def trim(self, most_bytes: int = 0) -> None:
        """Keep no more than so many bytes for arrays to come, now and beside new memory."""
        with self._lock:
            self._most_bytes = most_bytes
            self._drop(most_bytes)

    def _take(self, size: int) -> NDArray[np.uint8] | None:
        """Return what is kept and fits best; if nothing does, drop as much as is to be new."""
        with self._lock:
            best = None
            for number, slab in enumerate(self._free):
                fits = size <= slab.nbytes <= size + size // _SPARE
                if fits and (best is None or slab.nbytes < self._free[best].nbytes):
                    best = number
            if best is not None:
                return self._free.pop(best)
            self._drop(max(self._most_bytes, self.free_bytes) - size)
            return None

    def _drop(self, most_bytes: int) -> None:
        """Drop what has been kept longest until no more than so many bytes are left."""
        while self._free and self.free_bytes > most_bytes:
            self._free.pop(0)

    def __reduce__(self) -> tuple[Any, ...]:
        return Arena, ()


class _Lent:
    """Memory that an array and all its views refer to; it goes back to the others in the end."""

    def __init__(self, free: list[NDArray[np.uint8]], slab: NDArray[np.uint8]) -> None:
        self.__array_interface__ = slab.__array_interface__
        self._free, self._slab = free, slab

    def __del__(self) -> None:
        # The lock is not for this: it may be held by this very thread.
        self._free.append(self._slab)
