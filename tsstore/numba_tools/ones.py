"""Counting the bits of a word that are 1."""

from __future__ import annotations

import numpy as np

from tsstore.numba_tools.decorators import inlined


@inlined
def count_ones(word: np.uint64) -> np.int64:
    """Return how many bits of a word are 1; LLVM makes one instruction of it."""
    pairs = word - ((word >> np.uint64(1)) & np.uint64(0x5555_5555_5555_5555))
    quads = (pairs & np.uint64(0x3333_3333_3333_3333)) + (
        (pairs >> np.uint64(2)) & np.uint64(0x3333_3333_3333_3333)
    )
    bytes_ = (quads + (quads >> np.uint64(4))) & np.uint64(0x0F0F_0F0F_0F0F_0F0F)
    return np.int64((bytes_ * np.uint64(0x0101_0101_0101_0101)) >> np.uint64(56))
