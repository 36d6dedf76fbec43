"""Settling what occurs once without searching for it.

Where nearly every key of a subpartition occurs once, a table is too much: marks of one byte, most
of which one key has set alone, settle those, and only the rest is searched for. Whether it is so,
each subpartition tells the next one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import Place, Width, copy_key, width_of
from tsstore.counting.records import Groups, Records, bytes_of_group
from tsstore.numba_tools.arrays import I64, U8, U64
from tsstore.numba_tools.decorators import kernel

PAYS_FROM: Final = 0.6
"""Share of the keys that occur once from which on settling those first pays."""

_MARKS_OF_A_KEY: Final = 4
_SHIFT: Final = np.uint64(18)
_ONE: Final = np.uint8(1)


class SingletonFilter:
    """Settles singletons of one subpartition after the other; its arrays serve them all.

    Attributes
    ----------
    pays
        Whether singletons have been many.
    settled
        int64 (groups or 1,): how many singletons have been settled.
    """

    def __init__(self, words: int, groups: int = 0) -> None:
        self.pays = True  # until the first subpartition has told
        self.settled = np.zeros(max(groups, 1), np.int64)
        self._marks = np.zeros(0, np.uint8)
        self._left = Records.empty(words, group_bytes=bytes_of_group(groups))

    def begin(self) -> None:
        """Forget what has been settled, but not whether that pays."""
        self.settled[:] = 0

    def settle(self, bare: Records, others: Records) -> Records:
        """Settle keys that occur once, if that pays, and return the other bare records.

        These are valid until the next call. Keys of the subpartition's `others` occur several
        times.
        """
        if not self.pays:
            return bare
        marks = self._empty_marks(len(bare))
        _mark(others.keys, marks, np.uint8(2))
        _mark(bare.keys, marks, _ONE)
        if len(self._left) < len(bare):
            self._left = Records.empty(bare.words, True, self._left.group_bytes, 2 * len(bare))
        left = self._left
        count = _settle(
            bare.keys, bare.group, marks, left.keys, left.group, self.settled, width_of(left.keys)
        )
        return left[:count]

    def learn(self, singletons: int, records: int) -> None:
        """Decide by a subpartition of so many bare records whether it pays."""
        self.pays = singletons > PAYS_FROM * records

    def _empty_marks(self, keys: int) -> U8:
        slots = 1 << (_MARKS_OF_A_KEY * keys).bit_length()
        if slots > len(self._marks):
            self._marks = np.empty(slots, np.uint8)
        marks = self._marks[:slots]
        marks[:] = 0
        return marks


@kernel
def _mark(keys: U64, marks: U8, least: np.uint8) -> None:
    """Raise the mark of each key: to `least` at the first time, and beyond 1 at the second."""
    mask = np.uint64(marks.size - 1)
    for row in range(keys.shape[0]):
        slot = (keys[row, 0] >> _SHIFT) & mask
        marks[slot] = (marks[slot] << _ONE) | least


@kernel
def _settle(
    keys: U64,
    group: Groups | None,
    marks: U8,
    left: U64,
    left_group: Groups | None,
    settled: I64,
    width: Width,
) -> Place:
    """Write the keys that are not alone in their mark; return how many, and count the others."""
    mask = np.uint64(marks.size - 1)
    count = np.int64(0)
    for row in range(keys.shape[0]):
        is_left = np.int64(marks[(keys[row, 0] >> _SHIFT) & mask] > _ONE)
        copy_key(keys, row, left, count, width)
        if group is not None and left_group is not None:
            left_group[count] = group[row]
            settled[group[row]] += 1 - is_left
        count += is_left
    if group is None:
        settled[0] += keys.shape[0] - count
    return count
