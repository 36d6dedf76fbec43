"""How the values of a tensor lie in the CPU's memory."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Words = npt.NDArray[np.unsignedinteger[Any]]
"""Bit patterns of a tensor's values."""

_SHORTEST: Final = 16
_SIGNED: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Positions(NamedTuple):
    """Where positions are, in words: `size` of them, every `step`, from each of `starts`, int64."""

    starts: npt.NDArray[np.int64]
    size: int
    step: int


# A layer gives the same shape batch after batch, and NumPy is slow when a convolution has just
# filled the processor's caches: 70 microseconds instead of 5.
@lru_cache(maxsize=256)
def positions_of(shape: tuple[int, ...], strides: tuple[int, ...]) -> Positions:
    """Return where positions of (samples, neurons, …), not empty, are, in the fewest blocks.

    It is the same object for the same shape and strides: not to be changed.
    """
    axes: list[tuple[int, int]] = []
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        if axis == 1 or size == 1:
            continue
        if axes and axes[-1][1] == size * step:
            axes[-1] = axes[-1][0] * size, step
        else:
            axes.append((size, step))
    *outer, (size, step) = axes or [(1, 1)]
    starts = np.zeros(1, np.int64)
    for blocks, block_step in outer:
        starts = (starts[:, np.newaxis] + np.arange(blocks) * block_step).reshape(-1)
    return Positions(starts, size, step)


def is_worth_reading(lines: int, size: int, step: int) -> bool:
    """Whether to read lines of `size` words where they lie: short ones are copied together."""
    return size >= _SHORTEST or lines == 1 or step == size


def extent(tensor: torch.Tensor) -> int:
    """Return how many words a tensor, not empty, spans from its first value to its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * step for size, step in steps)


def words_of(tensor: torch.Tensor) -> Words:
    """Return a tensor's memory from its first value to its last, gaps included, without a copy."""
    size = tensor.itemsize
    # torch, too, calls them by other types, but as unsigned ones NumPy alone knows them all.
    words = tensor.as_strided((extent(tensor),), (1,)).view(_SIGNED[size]).numpy()
    return words.view(UNSIGNED[size])


_FORMATS: Final = {torch.float64: "<d", torch.float32: "<f", torch.float16: "<e"}
"""How `struct` calls them; bfloat16 is the upper half of float32."""


class Patterns(NamedTuple):
    """A range of bit patterns, unsigned, which wraps around: the first, and how many follow."""

    first: int
    following: int


@lru_cache(maxsize=256)
def patterns_on(dtype: torch.dtype, threshold: float) -> tuple[Patterns, ...]:
    """Return the patterns of all numbers greater than a threshold of `dtype`; NaN is none of them.

    Integers are in one range, which goes from negative numbers to others by wrapping around. The
    patterns of floating-point numbers grow with their distance from zero up to infinity, which NaN
    follows; a sign is added on top (IEEE 754-2019, section 3.4, and bfloat16 likewise). So there
    are at most two ranges, none of which is empty. Types are bool, integers, and floats of at least
    16 bits.
    """
    if not dtype.is_floating_point:
        return _integers_on(dtype, threshold)
    infinity, distance = _pattern(math.inf, dtype), _pattern(abs(threshold), dtype)
    if threshold >= 0:
        return (Patterns(distance + 1, infinity - distance - 1),)
    minus_zero = 1 << (8 * dtype.itemsize - 1)
    return Patterns(0, infinity), Patterns(minus_zero, distance - 1)


def _integers_on(dtype: torch.dtype, threshold: float) -> tuple[Patterns, ...]:
    # True is whatever byte is not 0.
    limits = torch.iinfo(torch.uint8 if dtype == torch.bool else dtype)
    first = max(int(threshold) + 1, limits.min)
    if (dtype == torch.bool and threshold >= 1) or first > limits.max:
        return ()
    return (Patterns(first % (1 << limits.bits), limits.max - first),)


def _pattern(number: float, dtype: torch.dtype) -> int:
    """Return the bit pattern of a floating-point number, as an unsigned integer."""
    if dtype == torch.bfloat16:
        return _pattern(number, torch.float32) >> 16
    return int.from_bytes(struct.pack(_FORMATS[dtype], number), "little")
