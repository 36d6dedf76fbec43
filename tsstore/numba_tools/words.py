"""Words: mixing those that nobody crafts, by SplitMix64, and counting the bits that are 1.

References
----------
G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from tsstore.numba_tools.decorators import inlined

GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, made odd: multiples of it lie far apart."""

_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))

_Words = TypeVar("_Words", np.uint64, npt.NDArray[np.uint64])


def splitmix_words(words: _Words) -> _Words:
    """Spread each bit of a word over all 64, a bijection: of one word, or of each of an array."""
    words = (words ^ (words >> _SHIFTS[0])) * _FACTORS[0]
    words = (words ^ (words >> _SHIFTS[1])) * _FACTORS[1]
    return words ^ (words >> _SHIFTS[2])


splitmix: Callable[[np.uint64], np.uint64] = inlined(splitmix_words)
"""The same, for compiled functions to call."""


@inlined
def count_ones(word: np.uint64) -> np.int64:
    """Return how many bits of a word are 1; LLVM makes one instruction of it."""
    pairs = word - ((word >> np.uint64(1)) & np.uint64(0x5555_5555_5555_5555))
    quads = (pairs & np.uint64(0x3333_3333_3333_3333)) + (
        (pairs >> np.uint64(2)) & np.uint64(0x3333_3333_3333_3333)
    )
    bytes_ = (quads + (quads >> np.uint64(4))) & np.uint64(0x0F0F_0F0F_0F0F_0F0F)
    return np.int64((bytes_ * np.uint64(0x0101_0101_0101_0101)) >> np.uint64(56))
