"""Settling what occurs once without searching for it.

Where nearly every key of a subpartition occurs once, a table is too much: marks of one byte, most
of which one key has set alone, settle those, and only the rest is searched for. Whether it is so,
each subpartition tells the next one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import Place, Width, copy_key
from tsstore.counting.records import Groups
from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import kernel

PAYS_FROM: Final = 0.6
"""Share of the keys that occur once from which on settling those first pays."""

_MARKS_OF_A_KEY: Final = 4
_SHIFT: Final = np.uint64(18)
_ONE: Final = np.uint8(1)
_SEVERAL: Final = np.uint8(2)


@kernel
def marks_for(keys: int) -> int:
    """Return how many marks, a power of two, tell most of so many keys that occur once."""
    marks = 1
    while marks <= _MARKS_OF_A_KEY * keys:
        marks *= 2
    return marks


@kernel
def settle(
    keys: U64,
    group: Groups | None,
    others: U64,
    marks: U8,
    left: U64,
    left_group: Groups | None,
    settled: I64 | None,
    width: Width,
) -> Place:
    """Write the keys that may occur several times; return how many.

    Keys of `others` occur several times. What is settled is counted by group, if groups are told
    apart. Of the marks so many are used as tell the keys.
    """
    own = marks[: marks_for(keys.shape[0])]
    own[:] = 0
    _mark(others, own, _SEVERAL)
    _mark(keys, own, _ONE)
    return _settle_marked(keys, group, own, left, left_group, settled, width)


@kernel
def _mark(keys: U64, marks: U8, least: np.uint8) -> None:
    """Raise the mark of each key: to `least` at the first time, and beyond 1 at the second."""
    mask = np.uint64(marks.size - 1)
    for row in range(keys.shape[0]):
        slot = (keys[row, 0] >> _SHIFT) & mask
        marks[slot] = (marks[slot] << _ONE) | least


@kernel
def _settle_marked(
    keys: U64,
    group: Groups | None,
    marks: U8,
    left: U64,
    left_group: Groups | None,
    settled: I64 | None,
    width: Width,
) -> Place:
    """Write the keys that are not alone in their mark; return how many.

    The others occur once: they are counted by group, if groups are told apart.
    """
    mask = np.uint64(marks.size - 1)
    count = np.int64(0)
    for row in range(keys.shape[0]):
        is_left = np.int64(marks[(keys[row, 0] >> _SHIFT) & mask] > _ONE)
        copy_key(keys, row, left, count, width)
        if group is not None and left_group is not None and settled is not None:
            left_group[count] = group[row]
            settled[group[row]] += 1 - is_left
        count += is_left
    return count
