"""Mixing words that nobody crafts: the constants and the function of SplitMix64.

References
----------
G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.numba_tools.decorators import inlined

GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, made odd: multiples of it lie far apart."""
FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))


@inlined
def splitmix(word: np.uint64) -> np.uint64:
    """Spread each bit of a word over all 64; a bijection, and the same in NumPy's arrays."""
    word = (word ^ (word >> SHIFTS[0])) * FACTORS[0]
    word = (word ^ (word >> SHIFTS[1])) * FACTORS[1]
    return word ^ (word >> SHIFTS[2])
