"""Packing large tensors on the threads that torch's own operations run on.

They have just computed the tensor, each a part of it that is still in its cache. Until the next
operation they wait busily, so that threads of our own would have no core to run on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from tsstore.recording.packing.kernels import CALL, pack_channels_first, packing_parts

WORTH_BYTES: Final = 4 << 20
"""Bytes of a tensor from which on to meet takes less time than it saves."""

TRY_EVERY: Final = 32
"""So many calls use the way that was faster of late; then the other one is tried again."""

Call = tuple[int, npt.NDArray[np.int64], int, int, Any, Any]
"""What a kernel takes between the tensor's address and the rows."""


@cache
def find_team() -> Callable[[int, int, int, int], None] | None:
    """Return what lets torch's threads call a C function; None where torch has other threads.

    It is OpenMP's entry point of the library that torch itself is linked to: a C function, its
    argument, the number of threads, and flags.
    """
    try:
        run = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    run.restype = None
    return run


class Parts:
    """How a tensor, and all of its shape, strides and dtype, is packed part by part.

    Where other programs want the cores, too, a team waits for the last of its threads. So `seconds`
    are to be noted: what packing took the last time by one thread, and by the team.
    """

    def __init__(
        self, kernel: object, call: Call, shape: tuple[int, ...], itemsize: int, threads: int
    ) -> None:
        is_first = kernel is pack_channels_first
        extent, starts, neurons, step, first, following = call
        samples, positions, width = shape
        rows, blocks = samples * positions, len(starts)
        # Whole blocks of neighbours, or some positions of the only one.
        unit, advance = rows // blocks if blocks > 1 else 1, 1 if is_first else step
        ends = [rows // unit * part // threads * unit for part in range(threads + 1)]
        numbers = np.zeros((len(ends), CALL), np.uint64)
        used = [(begin, end) for begin, end in pairwise(ends) if end > begin]
        for call_of_part, (begin, end) in zip(numbers[1:], used, strict=False):
            shift = begin * advance if blocks == 1 else 0
            own = starts[begin // unit : end // unit] if blocks > 1 else starts
            call_of_part[:] = (
                *(shift * itemsize, extent - shift, own.ctypes.data, len(own), neurons, step),
                *(first, following, begin * width, end - begin, width),
            )
        numbers[0, 1] = len(used)
        self.seconds = [0.0, 0.0]
        self._calls = 0
        # Kept: `numbers` have its address.
        self._starts = starts
        self._threads = threads
        self._numbers = numbers
        self._pack = packing_parts(is_first, itemsize)

    def is_next(self) -> bool:
        """Return whether the team is to pack the next tensor."""
        self._calls += 1
        by_one, by_team = self.seconds
        return (by_team <= by_one) != (self._calls % TRY_EVERY == 0)

    def pack(self, run: Callable[..., None], address: int, rows: npt.NDArray[np.uint8]) -> None:
        """Pack the tensor at an address by a team of threads."""
        task = self._numbers.copy()
        task[1:, 0] += np.uint64(address)
        task[1:, 8] += np.uint64(rows.ctypes.data)
        run(self._pack, task.ctypes.data, self._threads, 0)
