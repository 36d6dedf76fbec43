"""What all hash tables here have in common: open addressing, at most half full.

A key's search begins at the slot that the *low* bits of its hash name and goes on to the next
until the key or an empty slot is found. Partitions and passes take the *top* bits, so that keys
of one partition spread over a table as evenly as any others.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsstore.numba_tools.arrays import U64
from tsstore.numba_tools.decorators import inlined, kernel

Place = int | np.integer[Any]
"""A row or a slot: Numba has 64-bit integers, signed or not, for what Python has one type."""

_MOST_KNOWN_WORDS: Final = 8

#: No search in a table of mixed keys at most half full comes near this many slots.
PROBE_LIMIT: Final = 4096

LONG_PROBE: Final = (
    "a hash table was searched for more than 4096 slots, where a few dozen are expected: the hash "
    "was attacked by crafted states or the key scheme is broken; analyse again with another seed"
)

Width = tuple[None, ...] | NDArray[np.bool_]
"""As long as a key has words: a tuple's length, unlike an array's, is known to who compiles a loop.

The loops over words, which most keys have one or two of, then cost nothing. Those over many gain
nothing by it, and all such keys share what is compiled.
"""


class HashRange(NamedTuple):
    """Keys whose hash, shifted and masked, is a number: those that one pass counts."""

    shift: np.uint64
    mask: np.uint64
    number: np.uint64

    @classmethod
    def of(cls, partition_bits: int = 0, pass_bits: int = 0, number: int = 0) -> HashRange:
        """Return the keys that have a number in so many bits after those of the partition."""
        # Without pass bits the mask is 0: any shift will do, but one by 64 bits is not defined.
        shift = (64 - partition_bits - pass_bits) % 64
        return cls(np.uint64(shift), np.uint64((1 << pass_bits) - 1), np.uint64(number))


ALL_HASHES: Final = HashRange.of()


def slots_for(keys: int) -> int:
    """Return the smallest power of two, at least 2, of which `keys` fill no more than half."""
    return 1 << (2 * max(keys, 1) - 1).bit_length()


def width_for(words: int) -> Width:
    """Return the width of keys of so many words."""
    return (None,) * words if words <= _MOST_KNOWN_WORDS else np.empty(words, np.bool_)


def width_of(keys: U64) -> Width:
    """Return the width of keys, uint64 (n, words)."""
    return width_for(int(keys.shape[1]))


@inlined
def is_same(keys: U64, row: Place, others: U64, other: Place, width: Width) -> bool:
    """Whether two keys are equal."""
    same = keys[row, 0] == others[other, 0]
    for word in range(1, len(width)):
        same &= keys[row, word] == others[other, word]
    return same  # type: ignore[no-any-return]


@inlined
def copy_key(keys: U64, row: Place, others: U64, other: Place, width: Width) -> None:
    """Write a key in the place of another."""
    for word in range(len(width)):
        others[other, word] = keys[row, word]


@kernel
def rehash(slots: U64, larger: U64, column: int, shift: np.uint64) -> None:
    """Move what a table's slots hold into a larger one, which is empty.

    A slot is empty if it is 0 in one column; the hash in its first word begins at a bit, `shift`.
    """
    mask = np.uint64(larger.shape[0] - 1)
    for old in range(slots.shape[0]):
        if slots[old, column] != 0:
            slot = (slots[old, 0] >> shift) & mask
            while larger[slot, column] != 0:
                slot = (slot + np.uint64(1)) & mask
            for word in range(slots.shape[1]):
                larger[slot, word] = slots[old, word]
