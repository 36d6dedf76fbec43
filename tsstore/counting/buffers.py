"""Memory that tasks use again and again, so that it is taken from the system once."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tsstore.counting.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_Kept = TypeVar("_Kept")


class Buffers(threading.local):
    """Arrays by name, and other things: each thread has its own, and one task at a time.

    What is sent to another process is empty there.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.uint8]] = {}
        self._kept: dict[object, Any] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return an array of a name, C-contiguous and of any contents; what was there is lost."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        held = self._arrays.get(name)
        if held is None or held.size < size:
            self._arrays.pop(name, None)
            # A little more, as the next one may be a little larger.
            held = self._arrays[name] = np.empty(size + size // 16, np.uint8)
        return held[:size].view(dtype).reshape(shape)

    def records(self, name: str, count: int, words: int, bare: bool, grouped: bool) -> Records:
        """Return arrays for so many records, with keys of so many words; see :meth:`array`."""

        def column(of: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
            return self.array(f"{name} {of}", (count, *shape), dtype)

        return Records(
            column("keys", np.uint64, words),
            None if bare else column("multiplicity", np.uint32),
            None if bare else column("incidence", np.uint32),
            column("group", np.uint8) if grouped else None,
        )

    def kept(self, name: object, make: Callable[[], _Kept]) -> _Kept:
        """Return what was made under a name, as it was left, or make it."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
