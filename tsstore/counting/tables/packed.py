"""Bare records to spectra: a table of one word a key less than any other.

Bare records make up most of what is counted, and their counts are small: all keys of a
subpartition have the first bits of their hash in common, and a count takes the place of these
bits. What does not fit there goes to a table of whole counts, which holds the other records as
well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from tsstore.counting.hashing import (
    ALL_HASHES,
    LONG_PROBE,
    PROBE_LIMIT,
    Place,
    Width,
    copy_key,
    width_for,
)
from tsstore.counting.partition import Parts
from tsstore.counting.records import counted_columns
from tsstore.counting.tables.plain import absorb
from tsstore.counting.tables.singletons import PAYS_FROM, marks_for, settle
from tsstore.counting.tables.spectra import Tally
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64, U8, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

MOST_COUNT_BITS: Final = 10
"""Of a slot."""

_ONE: Final = np.uint64(1)
_SPILL_RECORDS: Final = 1 << 10
_LEAST_SLOTS: Final = 1 << 14
_WHOLE_SLOTS: Final = 1 << 9
_LEAST_PAIRS: Final = 1 << 12
_LANES: Final = 4
_TOO_LARGE, _WHOLE_FULL = 1, 2


class _Tables(NamedTuple):
    """What a subpartition of so many records at most is counted in.

    Attributes
    ----------
    marks, left
        uint8 (marks,) and uint64 (records, words): see
        :mod:`tsstore.counting.tables.singletons`.
    slots
        uint64 (slots, words): of the packed table; 0 between subpartitions.
    whole
        uint64 (slots, words + 2): of a table of whole counts; likewise.
    spilled, full
        uint64 (keys, words) and uint32 (keys,): keys whose counts are full, and these counts.
    """

    marks: U8
    left: U64
    slots: U64
    whole: U64
    spilled: U64
    full: U32


class _Found(NamedTuple):
    """What is found in subpartitions.

    Attributes
    ----------
    times
        int64 (lanes, counts): how many keys occur how often; lanes, so that no addition waits for
        the one before.
    dense, beyond
        int64 (side, side) and (2, pairs): states of whole counts by multiplicity and incidence.
    """

    times: I64
    dense: I64
    beyond: I64


class PackedParts:
    """Counts subpartitions of keys of so many words, of so many records each at most.

    The `count_bits` top bits of the hash are the same in all keys of a part: a count takes their
    place.
    """

    def __init__(self, words: int, count_bits: int, most: int) -> None:
        self._width, self._count_bits = width_for(words), np.uint64(count_bits)
        self._times = np.zeros((_LANES, 1 << count_bits), np.int64)
        # What was never written is never resident.
        self._tables = _Tables(
            np.empty(marks_for(most), np.uint8),
            np.empty((most, words), np.uint64),
            np.zeros((max(1 << (4 * most).bit_length() - 1, _LEAST_SLOTS), words), np.uint64),
            np.zeros((_WHOLE_SLOTS, words + 2), np.uint64),
            np.empty((_SPILL_RECORDS, words), np.uint64),
            np.full(_SPILL_RECORDS, (1 << count_bits) - 1, np.uint32),
        )
        # How many states the last subpartition had, and whether settling what occurs once paid.
        self._learnt = np.array([0, 1], np.int64)
        self._most, self._is_clear = most, True

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, were they written all over."""
        return sum(array.nbytes for array in self._tables)

    def count(self, bare: Parts, others: Parts, tally: Tally) -> Iterator[Place]:
        """Count subpartitions; yield the numbers of those that are too large, and leave them out.

        States are added to the tally.
        """
        self._begin()
        part: Place = 0
        singletons: Place = 0
        columns = *counted_columns(others.records)[:3], others.ends
        while part < len(bare):
            room = max(_LEAST_PAIRS, len(self._tables.whole) // 2)
            found = _Found(self._times, tally.dense, np.empty((2, room), np.int64))
            part, settled, beyond, why = _count_parts(
                part, bare.records.keys, bare.ends, *columns, self._most, self._tables, found,
                self._count_bits, self._learnt, self._width,
            )  # fmt: skip
            singletons += settled
            tally.add_large(found.beyond[:, :beyond])
            if why == _TOO_LARGE:
                yield part
                part += 1
            elif why == _WHOLE_FULL:
                whole = self._tables.whole
                larger = np.zeros((2 * len(whole), whole.shape[1]), np.uint64)
                self._tables = self._tables._replace(whole=larger)
        self._is_clear = True
        states = self._times.sum(axis=0)
        states[0] = 0
        times = np.flatnonzero(states)
        tally.add_once(int(singletons))
        tally.add_spectrum((times, times.copy(), states[times]))

    def _begin(self) -> None:
        """Forget all counts, but not what has been learnt."""
        self._times[:] = 0
        if not self._is_clear:  # after an error
            self._tables.slots[:], self._tables.whole[:] = 0, 0
        self._is_clear = False


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
    share: int,
    count_bits: np.uint64,
    spilled: U64,
    width: Width,
) -> tuple[Place, Place, Place]:
    """Count keys from `first` on; return the first without room, distinct keys, and spilled ones.

    A key is spilled when its count is full: it stands for so many rows, and counts from 0 again.
    There is room for one key in a `share` of the slots.
    """
    most = (_ONE << count_bits) - _ONE
    room = np.int64(slots.shape[0] // share)
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


@kernel
def _count_part(
    keys: U64, distinct: Place, size: Place, tables: _Tables, count_bits: np.uint64, width: Width
) -> tuple[Place, Place, bool]:
    """Count the bare keys of a part in so many slots, and what spills in the table of whole counts.

    That has so many keys. Returns the number of distinct keys, and how many keys are left if there
    was no room for them, and whether that was in the table of whole counts.
    """
    slots = tables.slots[:size]
    share = 2 if size == tables.slots.shape[0] else 4
    row: Place
    own: Place
    row = own = np.int64(0)
    while row < keys.shape[0]:
        row, own, spilled = _absorb(keys, row, slots, own, share, count_bits, tables.spilled, width)
        if spilled > 0:
            full = tables.full[:spilled]
            place, distinct = absorb(
                tables.whole, distinct, tables.spilled[:spilled], full, full, 0, ALL_HASHES, width
            )
            if place < spilled:
                return own, 1, True
        elif row < keys.shape[0]:
            return own, keys.shape[0] - row, False
    return own, 0, False


@kernel
def _take_whole(whole: U64, found: _Found, beyond: Place) -> Place:
    """Count states of whole counts, and forget them; return how many are listed beyond."""
    words = whole.shape[1] - 2
    for slot in range(whole.shape[0]):
        k, q = np.int64(whole[slot, words]), np.int64(whole[slot, words + 1])
        if k >= found.dense.shape[0]:
            found.beyond[0, beyond], found.beyond[1, beyond] = k, q
            beyond += 1
        elif k > 0:
            found.dense[k, q] += 1
    whole[:] = 0
    return beyond


@kernel
def _count_parts(
    part: Place,
    bare: U64,
    bare_ends: I64,
    keys: U64,
    multiplicity: U32,
    incidence: U32,
    ends: I64,
    most: int,
    tables: _Tables,
    found: _Found,
    count_bits: np.uint64,
    learnt: I64,
    width: Width,
) -> tuple[Place, Place, Place, int]:
    """Count subpartitions from one on, until one is too large or does not find room.

    Returns the first that is left, how many singletons were settled, how many pairs are listed
    beyond the square, and why.
    """
    settled: Place
    beyond: Place
    left: Place
    lacks: Place
    settled = beyond = np.int64(0)
    while part < ends.size - 1:
        own, those = slice(bare_ends[part], bare_ends[part + 1]), slice(ends[part], ends[part + 1])
        count, others = own.stop - own.start, those.stop - those.start
        if count + others > most:
            return part, settled, beyond, _TOO_LARGE
        if 2 * others > tables.whole.shape[0]:
            return part, settled, beyond, _WHOLE_FULL
        if beyond + tables.whole.shape[0] // 2 > found.beyond.shape[1]:
            break
        source, left = bare[own], count
        if learnt[1]:
            left = settle(source, None, keys[those], tables.marks, tables.left, None, None, width)
            source = tables.left[:left]
        size = np.int64(_LEAST_SLOTS)
        while size < 5 * learnt[0] and 2 * size <= tables.slots.shape[0]:
            size *= 2
        once = found.times[:, 1].sum()
        lacks = np.int64(1)
        while lacks > 0:
            _, distinct = absorb(
                tables.whole, 0, keys[those], multiplicity[those], incidence[those], 0, ALL_HASHES,
                width,
            )  # fmt: skip
            learnt[0], lacks, is_full = _count_part(
                source, distinct, size, tables, count_bits, width
            )
            if lacks > 0:
                tables.slots[:size], tables.whole[:] = 0, 0
                if is_full:
                    return part, settled, beyond, _WHOLE_FULL
                size *= 2
        slots = tables.slots[:size]
        _move_counts(slots, count_bits, found.times, tables.whole, width)
        _sweep(slots, count_bits, found.times)
        beyond = _take_whole(tables.whole, found, beyond)
        settled += count - left
        once = found.times[:, 1].sum() - once + count - left
        learnt[1] = once > PAYS_FROM * count
        part += 1
    return part, settled, beyond, 0
