"""A table of bare keys for one subpartition: slots in buckets, which a processor compares at once.

Whether a state is new, which nobody can guess, is no branch. No subpartition has more records than
16 bits can number: one word holds all counts of a state, and the last sample that has shown it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsstore.counting.arena import Empty
from tsstore.counting.hashing import LONG_PROBE, PROBE_LIMIT, Place, Width
from tsstore.counting.records import LATER
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.intrinsics import compare_bucket, count_trailing_zeros

BUCKET: Final = 8
"""Slots that are compared at once: their first words are a line of the processor's cache."""
LEAST_SLOTS: Final = 1 << 11

# In a word of counts: the multiplicity, the incidence, the last sample's rows, its number.
FIELD: Final = np.uint64((1 << 16) - 1)
INCIDENCE_SHIFT: Final = np.uint64(16)
BOTH: Final = np.uint64((1 << 32) - 1)
"""Multiplicity and incidence."""
ONCE: Final = np.uint64((1 << 16) + 1)
"""Multiplicity and incidence of what occurs once."""

_ROWS_SHIFT: Final = np.uint64(32)
_SAMPLE_SHIFT: Final = np.uint64(48)
_ROW: Final = np.uint64((1 << 32) + 1)
_FIRST_ROW: Final = np.uint64(1 << 32)

_LINE_BYTES: Final = 64
_NONE: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_SLOTS: Final = np.uint64(BUCKET)
_TOP_BIT: Final = np.uint64(63)


class Buckets(NamedTuple):
    """Slots of states; all of them are 0 while there is none.

    Attributes
    ----------
    first
        uint64 (slots + 1,): the first word of each key, its tag set.
    rest
        uint64 (slots + 1, columns): the other words of the key, a word of counts, and what else
        belongs to a state: a search meets one line of the processor's cache for each of both. What
        need not be written goes to the last slot.
    """

    first: U64
    rest: U64


def new_buckets(words: int, states: int, more: int, zeros: Empty) -> Buckets:
    """Return slots for so many states of keys of so many words, and so many more words of each."""
    slots, columns = slots_with_room(states), columns_of(words, more)
    first, rest = _aligned(slots + 1, zeros), _aligned((slots + 1) * columns, zeros)
    return Buckets(first, rest.reshape(-1, columns))


def columns_of(words: int, more: int = 0) -> int:
    """Return the words of what belongs to a state besides the first: no row is in two lines."""
    columns = words + more
    return 1 << (columns - 1).bit_length() if columns <= BUCKET else columns


def _aligned(words: int, zeros: Empty) -> NDArray[Any]:
    """Return so many words, 0, that begin with a line of the processor's cache."""
    held = zeros((words + _LINE_BYTES // 8,), np.uint64)
    start = -held.ctypes.data % _LINE_BYTES // 8
    return held[start : start + words]


@kernel
def room_of(slots: Place) -> Place:
    """Return how many states so many slots take without long searches."""
    return 5 * slots // 8


@kernel
def slots_with_room(states: Place) -> Place:
    """Return the slots of a table that has room for so many states."""
    slots = LEAST_SLOTS
    while room_of(slots) < states:
        slots *= 2
    return slots


@inlined
def _has_others(buckets: Buckets, slot: np.uint64, keys: U64, row: Place, width: Width) -> bool:
    """Whether a slot has the words of a key after the first."""
    same = True
    for word in range(1, len(width)):
        same &= buckets.rest[slot, word - 1] == keys[row, word]
    return same


@inlined
def find(
    buckets: Buckets, mask: np.uint64, first: np.uint64, keys: U64, row: Place, width: Width
) -> tuple[np.uint64, np.uint64]:
    """Return the slot of a key of such a first word, or else the empty one that is due to it.

    And 1 if it is new. The mask is the number of buckets in use, a power of two, less 1.
    """
    bucket = first & mask
    same, empty = compare_bucket(buckets.first, bucket * _SLOTS, first)
    probes = 0
    while True:
        while same != _NONE:
            slot = bucket * _SLOTS + count_trailing_zeros(same)
            if len(width) == 1 or _has_others(buckets, slot, keys, row, width):
                return slot, _NONE
            same &= same - _ONE
        if empty != _NONE:
            return bucket * _SLOTS + count_trailing_zeros(empty), _ONE
        bucket = (bucket + _ONE) & mask
        probes += BUCKET
        if probes == PROBE_LIMIT:
            raise CountingError(LONG_PROBE)
        same, empty = compare_bucket(buckets.first, bucket * _SLOTS, first)


@inlined
def enter(
    buckets: Buckets, mask: np.uint64, keys: U64, row: Place, width: Width
) -> tuple[np.uint64, np.uint64]:
    """Return the slot of a key, which is entered if it is new, and 1 in that case."""
    return enter_as(buckets, mask, keys[row, 0] | LATER, keys, row, width)


@inlined
def enter_as(
    buckets: Buckets, mask: np.uint64, first: np.uint64, keys: U64, row: Place, width: Width
) -> tuple[np.uint64, np.uint64]:
    """Return the same, of a key that has another first word."""
    bucket = first & mask
    same, empty = compare_bucket(buckets.first, bucket * _SLOTS, first)
    # A compiler would make branches of choices; of arithmetic it cannot.
    is_new = (same - _ONE) >> _TOP_BIT
    found = same | (empty & (_NONE - is_new))
    slot = bucket * _SLOTS + (count_trailing_zeros(found) & (_SLOTS - _ONE))
    differs = np.uint64(found == _NONE)
    if len(width) > 1:
        differs |= (is_new ^ _ONE) & np.uint64(not _has_others(buckets, slot, keys, row, width))
    if differs != _NONE:
        slot, is_new = find(buckets, mask, first, keys, row, width)
    # Written only where it is new: what was just written takes longer to compare.
    unused = np.uint64(buckets.first.size - 1)
    place = (slot & (_NONE - is_new)) | (unused & (is_new - _ONE))
    buckets.first[place] = first
    for word in range(1, len(width)):
        buckets.rest[place, word - 1] = keys[row, word]
    return slot, is_new


@inlined
def count_bare(
    counts: np.uint64, before: np.uint64, sample: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Count a row of a sample: return the counts then, and how many rows of it are equal.

    Of another sample than the last one it is the first row: multiplicity and incidence were
    `before`, those of the counts or 0.
    """
    is_same = counts >> _SAMPLE_SHIFT == sample
    equal = (counts >> _ROWS_SHIFT) & FIELD if is_same else _NONE
    begun = (sample << _SAMPLE_SHIFT) | _FIRST_ROW | (before + ONCE)
    return counts + _ROW if is_same else begun, equal
