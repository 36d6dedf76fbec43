"""Which bit patterns are those of numbers greater than a threshold."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Final, NamedTuple

import torch

_FORMATS: Final = {torch.float64: "<d", torch.float32: "<f", torch.float16: "<e"}
"""How `struct` calls them; bfloat16 is the upper half of float32."""


class Patterns(NamedTuple):
    """A range of bit patterns, as unsigned integers that wrap around.

    Attributes
    ----------
    first
        The first pattern.
    following
        How many patterns follow it.
    """

    first: int
    following: int


@lru_cache(maxsize=256)
def patterns_on(dtype: torch.dtype, threshold: float) -> tuple[Patterns, ...]:
    """Return the patterns of all numbers greater than a threshold; NaN is none of them.

    Integers are in one range, which goes from negative numbers to others by wrapping around. The
    patterns of floating-point numbers grow with their distance from zero up to infinity, which NaN
    follows; a sign is added on top (IEEE 754-2019, section 3.4, and bfloat16 likewise).

    Parameters
    ----------
    dtype
        bool, an integer type, or floating point of at least 16 bits.
    threshold
        As `dtype` holds it; for integers, any whole number.

    Returns
    -------
    tuple of Patterns
        At most two ranges, none of which is empty.
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
