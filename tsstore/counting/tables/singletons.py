"""What occurs once in a subpartition, settled before its table is asked.

Where nearly every key occurs once, a table is too much: marks of one byte, most of which one key
has set alone, settle those, and only the rest is searched for. Whether it is so, each subpartition
tells the next one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import Place, Width, copy_key
from tsstore.counting.partition import with_tag
from tsstore.counting.records import TAG_SHIFT, Groups
from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import inlined, kernel

PAYS_FROM: Final = 0.6
"""Share of the keys that occur once from which on settling those first pays."""

_MARKS_OF_A_KEY: Final = 8
_SHIFT: Final = np.uint64(18)
_ONE: Final = np.uint8(1)
_SEVERAL: Final = np.uint8(2)


@kernel
def marks_for(keys: Place) -> int:
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
    settled: I64 | None,
    one_each: bool,
    width: Width,
) -> Place:
    """Leave out bare keys that are alone in their mark; return how many are left.

    Those left out are counted as `settled`, by group, if there are groups; the others get the tags
    that they have without them, unless they are of a sample each. Keys of `others` are never alone.
    """
    marks = marks[: marks_for(keys.shape[0])]
    marks[:] = 0
    _mark(others, marks, _SEVERAL)
    _mark(keys, marks, _ONE)
    left, sample, last = np.uint64(0), np.uint64(0), np.uint64(0)
    for row in range(np.uint64(keys.shape[0])):
        first = keys[row, 0]
        # Without a branch: nobody could guess which are left.
        is_left = np.uint64(marks[_mark_of(first, marks)] > _ONE)
        copy_key(keys, row, keys, left, width)
        if not one_each:
            sample += first >> TAG_SHIFT
            keys[left, 0] = with_tag(first, sample != last)
            last = sample if is_left > 0 else last
        if group is not None and settled is not None:
            settled[group[row]] += np.int64(is_left == 0)
            group[left] = group[row]
        left += is_left
    return np.int64(left)


@inlined
def _mark(keys: U64, marks: U8, least: np.uint8) -> None:
    """Raise the mark of each key: to `least` at the first time, and beyond 1 at the second."""
    for row in range(np.uint64(keys.shape[0])):
        slot = _mark_of(keys[row, 0], marks)
        marks[slot] = (marks[slot] << _ONE) | least


@inlined
def _mark_of(first: np.uint64, marks: U8) -> np.uint64:
    """Return which mark is a key's, of such a first word."""
    return (first >> _SHIFT) & np.uint64(marks.size - 1)
