"""Bare records to spectra: a table of one word a key less than any other.

Bare records make up most of what is counted, and their counts are small: all keys of a
subpartition have the first bits of their hash in common, and a count takes the place of these
bits. What does not fit there goes to a table of whole counts, which holds the other records as
well.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import (
    LONG_PROBE,
    PROBE_LIMIT,
    Place,
    Width,
    copy_key,
    rehash,
    slots_for,
    width_for,
)
from tsstore.counting.records import Records
from tsstore.counting.tables.plain import Table
from tsstore.counting.tables.spectra import Spectrum
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64, U64
from tsstore.numba_tools.decorators import inlined, kernel

MOST_COUNT_BITS: Final = 10
"""Of a slot."""

_ONE: Final = np.uint64(1)
_SPILL_RECORDS: Final = 1 << 10
_LEAST_SLOTS: Final = 1 << 14
_LANES: Final = 4


class PackedTable:
    """Counts how often keys occur, part after part, in slots of no more words than a key has.

    The `count_bits` top bits of the hash are the same in all keys of a part: a count takes their
    place.
    """

    def __init__(self, words: int, count_bits: int) -> None:
        self._words, self._width = words, width_for(words)
        self._count_bits = np.uint64(count_bits)
        # How many keys occur how often; lanes, so that no addition waits for the one before.
        self._times = np.zeros((_LANES, 1 << count_bits), np.int64)
        self._memory = self._slots = np.zeros((_LEAST_SLOTS, words), np.uint64)
        self._spilled = np.empty((_SPILL_RECORDS, words), np.uint64)
        self._distinct: Place = 0
        self._is_clear = True

    def begin(self) -> None:
        """Begin with a partition: forget all counts, but not how many keys a part has."""
        self._times[:] = 0
        if not self._is_clear:  # after an error
            self._memory[:] = 0

    def add(self, keys: U64, whole: Table) -> None:
        """Count the keys of a part here, and what is too much for a slot in the other table."""
        self._take_slots()
        self._is_clear = False
        row: Place = 0
        self._distinct = 0
        while row < len(keys):
            row, self._distinct, spilled = _absorb(
                keys, row, self._slots, self._distinct, self._count_bits, self._spilled, self._width
            )
            if spilled:
                times = np.full(spilled, self._times.shape[1] - 1, np.uint32)
                whole.add(Records(self._spilled[:spilled], times, times))
            elif row < len(keys):
                self._grow()

    def move_counts(self, whole: Table) -> None:
        """Add the counts of keys that are in both tables to those of the other one."""
        _move_counts(self._slots, self._count_bits, self._times, whole.slots, self._width)

    def sweep(self) -> int:
        """Add the counts of this part to those of earlier ones; return how many are 1."""
        before = self._times[:, 1].sum()
        _sweep(self._slots, self._count_bits, self._times)
        self._is_clear = True
        return int(self._times[:, 1].sum() - before)

    def spectrum(self, singletons: int) -> Spectrum:
        """Return the spectrum of all subpartitions, with so many more keys that occur once."""
        states = self._times.sum(axis=0)
        states[0] = 0
        states[1] += singletons
        times = np.flatnonzero(states)
        return times, times.copy(), states[times]

    def _take_slots(self) -> None:
        """Take so many slots, empty ones, as the last part would have needed."""
        slots = max(_LEAST_SLOTS, 2 * slots_for(5 * int(self._distinct) // 4))
        if slots > len(self._memory):
            self._memory = np.zeros((slots, self._words), np.uint64)
        self._slots = self._memory[:slots]

    def _grow(self) -> None:
        larger = np.zeros((2 * len(self._slots), self._words), np.uint64)
        rehash(self._slots, larger, 0, self._count_bits)
        self._memory = self._slots = larger


@inlined
def _differs(
    slots: U64,
    slot: np.uint64,
    found: np.uint64,
    count_bits: np.uint64,
    keys: U64,
    row: Place,
    width: Width,
) -> bool:
    """Whether a slot, whose first word or else the one due to it was found, holds another key."""
    differs: bool = (found ^ (keys[row, 0] << count_bits)) >> count_bits != 0
    is_empty = slots[slot, 0] == 0
    for word in range(1, len(width)):
        differs |= (slots[slot, word] != keys[row, word]) & (not is_empty)
    return differs


@inlined
def _find(
    slots: U64, count_bits: np.uint64, keys: U64, row: Place, width: Width
) -> tuple[np.uint64, np.uint64]:
    """Return the slot of a key, or else the empty one that is due to it, and its first word.

    An empty slot's first word is that of a key that has not been counted yet. It is chosen without
    a branch: whether a key is new is what a processor cannot guess.
    """
    mask = np.uint64(slots.shape[0] - 1)
    packed = keys[row, 0] << count_bits
    slot = keys[row, 0] & mask
    found = slots[slot, 0]
    found = packed if found == 0 else found
    probes = 0
    while _differs(slots, slot, found, count_bits, keys, row, width):
        slot = (slot + _ONE) & mask
        found = slots[slot, 0]
        found = packed if found == 0 else found
        probes += 1
        if probes == PROBE_LIMIT:
            raise CountingError(LONG_PROBE)
    return slot, found


@kernel
def _absorb(
    keys: U64,
    first: Place,
    slots: U64,
    distinct: Place,
    count_bits: np.uint64,
    spilled: U64,
    width: Width,
) -> tuple[Place, Place, Place]:
    """Count keys from `first` on; return the first without room, distinct keys, and spilled ones.

    A key is spilled when its count is full: it stands for so many rows, and counts from 0 again.
    """
    most = (_ONE << count_bits) - _ONE
    room = np.int64(slots.shape[0] // 4)
    spills = np.int64(0)
    distinct = np.int64(distinct)
    row = np.int64(first)
    while row < keys.shape[0] and distinct < room and spills < spilled.shape[0]:
        # As many as there is room for, were they all distinct.
        stop = min(keys.shape[0], row + min(room - distinct, spilled.shape[0] - spills))
        # Unsigned: whether rows count from an array's end need not be asked.
        for record in range(np.uint64(row), np.uint64(stop)):
            slot, found = _find(slots, count_bits, keys, record, width)
            count = found & most
            distinct += np.int64(count == 0)
            if count == most:
                copy_key(keys, record, spilled, spills, width)
                spills += 1
                found -= most
            slots[slot, 0] = found + _ONE
            for word in range(1, len(width)):
                slots[slot, word] = keys[record, word]
        row = stop
    return row, distinct, spills


@kernel
def _move_counts(slots: U64, count_bits: np.uint64, times: I64, others: U64, width: Width) -> None:
    """Add the counts of keys that are in both tables to those of the other one.

    They stay where they are, because a search goes over them; `times` counts them once less.
    """
    words = len(width)
    most = (_ONE << count_bits) - _ONE
    for other in range(others.shape[0]):
        if others[other, words] != 0:
            _, found = _find(slots, count_bits, others, other, width)
            count = found & most
            times[0, count] -= 1
            others[other, words] += count
            others[other, words + 1] += count


@kernel
def _sweep(slots: U64, count_bits: np.uint64, times: I64) -> None:
    """Count how many keys occur how often, and clear the table."""
    most = (_ONE << count_bits) - _ONE
    for first in range(0, slots.shape[0], _LANES):
        for lane in range(_LANES):
            times[lane, slots[first + lane, 0] & most] += 1
            slots[first + lane, 0] = 0
