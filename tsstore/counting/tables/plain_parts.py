"""Subpartitions to spectra: one loop over all of them, in a table that fits the processor's cache.

Bare records make up most of what is counted. Others are counted in a small table of whole counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from tsstore.counting.hashing import ALL_HASHES, Place, Width, width_for
from tsstore.counting.parts import NO_SAMPLE, PartColumns, Parts, count_part, gather_part
from tsstore.counting.records import (
    LATER,
    TAG_SHIFT,
    Buffers,
    Records,
    counted_columns,
    record_bytes,
)
from tsstore.counting.tables.buckets import (
    BOTH,
    BUCKET,
    FIELD,
    INCIDENCE_SHIFT,
    ONCE,
    Buckets,
    columns_of,
    count_bare,
    enter,
    enter_as,
    find,
    new_buckets,
    room_of,
    slots_with_room,
)
from tsstore.counting.tables.plain import COUNTS, absorb
from tsstore.counting.tables.singletons import PAYS_FROM, marks_for, settle
from tsstore.counting.tables.spectra import Tally
from tsstore.numba_tools.arrays import I64, U8, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.intrinsics import array_at

_WHOLE_SLOTS: Final = 1 << 9
_LEAST_PAIRS: Final = 1 << 12
_SLOTS_AT_ONCE: Final = 64
_TOO_LARGE, _WHOLE_FULL = 1, 2

_NONE: Final = np.uint64(0)


class _Tables(NamedTuple):
    """What a subpartition is counted in.

    Attributes
    ----------
    keys, multiplicity, incidence
        (records, words) and (records,): its records that are not bare; bare ones after them, while
        those that occur once are settled.
    marks
        uint8 (marks,): see :mod:`tsstore.counting.tables.singletons`.
    buckets
        Its states, of which there is none between subpartitions.
    whole
        uint64 (slots, words + 3): of a table of whole counts; 0 between subpartitions.
    """

    keys: U64
    multiplicity: U32
    incidence: U32
    marks: U8
    buckets: Buckets
    whole: U64


class PlainParts:
    """Counts subpartitions of keys of so many words, of so many records each at most.

    The memory for it is that of the buffers.
    """

    def __init__(self, words: int, most: int, buffers: Buffers) -> None:
        self._width, self._most, self._is_clear = width_for(words), most, True
        self._tables = _Tables(
            *counted_columns(Records.empty(words, False, 0, most, buffers.empty))[:3],
            buffers.empty((marks_for(most),), np.uint8),
            new_buckets(words, most, 0, buffers.zeros),
            np.zeros((_WHOLE_SLOTS, words + COUNTS), np.uint64),
        )
        # How many states the last subpartition had, and whether settling what occurs once pays.
        self._learnt = np.zeros(2, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, were they written all over."""
        arrays = [each for each in self._tables if isinstance(each, np.ndarray)]
        return sum(array.nbytes for array in (*arrays, *self._tables.buckets))

    def count(
        self, bare: Parts, others: Parts, span: range, tally: Tally, pairs: I64
    ) -> Iterator[Place]:
        """Count subpartitions of a span; yield numbers of too large ones, which are left out.

        States are added to the tally, and equal rows of one sample to `pairs`, (1,).
        """
        if not self._is_clear:  # after an error
            for array in (*self._tables.buckets, self._tables.whole):
                array[:] = 0
        self._is_clear = False
        part: Place = span.start
        columns = bare.columns, others.columns
        while part < span.stop:
            room = max(_LEAST_PAIRS, len(self._tables.whole)) + self._most // len(tally.dense)
            pairs_beyond = np.empty((2, room), np.int64)
            part, beyond, why = _count_parts(
                part, span.stop, *columns, self._tables, tally.dense, pairs_beyond, pairs,
                self._learnt, self._width,
            )  # fmt: skip
            tally.add_large(pairs_beyond[:, : int(beyond)])
            if why == _TOO_LARGE:
                yield part
                part += 1
            elif why == _WHOLE_FULL:
                whole = self._tables.whole
                larger = np.zeros((2 * len(whole), whole.shape[1]), np.uint64)
                self._tables = self._tables._replace(whole=larger)
        self._is_clear = True


def table_bytes(words: int, most: int) -> int:
    """Bytes of what subpartitions of so many records at most take."""
    return (
        most * record_bytes(words, False, 0)
        + marks_for(most)
        + slots_with_room(most) * 8 * (1 + columns_of(words))
        + _WHOLE_SLOTS * 8 * (words + COUNTS)
    )


@inlined
def _count_tagged(
    keys: U64,
    start: Place,
    stop: Place,
    one_each: bool,
    sample: np.uint64,
    buckets: Buckets,
    mask: np.uint64,
    width: Width,
) -> tuple[Place, np.uint64, np.uint64]:
    """Count some bare records, after so many samples, in buckets that have room for all.

    Returns how many states are new, how many pairs of rows of one sample are equal, and how many
    samples there are then; of records of a sample each nothing but the first.
    """
    words, last, pairs, distinct = len(width), np.uint64(sample), _NONE, _NONE
    # Unsigned: whether rows count from an array's end need not be asked.
    if one_each:
        for row in range(np.uint64(start), np.uint64(stop)):
            slot, is_new = enter(buckets, mask, keys, row, width)
            distinct += is_new
            buckets.rest[slot, words - 1] += ONCE
    else:
        for row in range(np.uint64(start), np.uint64(stop)):
            last += keys[row, 0] >> TAG_SHIFT
            slot, is_new = enter(buckets, mask, keys, row, width)
            distinct += is_new
            counts = buckets.rest[slot, words - 1]
            buckets.rest[slot, words - 1], equal = count_bare(counts, counts & BOTH, last)
            pairs += equal
    return np.int64(distinct), pairs, last


@kernel
def _absorb(
    columns: PartColumns, part: Place, buckets: Buckets, slots: Place, like: U64, width: Width
) -> tuple[Place, Place, bool]:
    """Count the bare records of a subpartition in so many slots; their keys are `like` some.

    Returns how many states there are, how many pairs of rows of one sample are equal, and whether
    there was room for all.
    """
    mask, words, room = np.uint64(slots // BUCKET - 1), len(width), np.int64(room_of(slots))
    shift, last, pairs = columns.shift, _NONE, _NONE
    lower, prefix = (np.uint64(1) << shift) - np.uint64(1), np.uint64(part) << shift
    distinct = np.int64(0)
    for piece in range(columns.ends.shape[0]):
        start, is_numbered = columns.ends[piece, part], columns.is_numbered[piece] != 0
        count, before = columns.ends[piece, part + 1] - start, NO_SAMPLE
        keys = array_at(columns.keys[piece] + like.itemsize * words * start, like)
        one_each, row = columns.one_each[piece] != 0, np.int64(0)
        while row < count:
            if distinct == room:
                return distinct, np.int64(pairs), False
            # As many as there is room for, were they all distinct.
            stop = min(count, row + room - distinct)
            if is_numbered:
                for record in range(np.uint64(row), np.uint64(stop)):
                    first = keys[record, 0]
                    last += np.uint64(first >> shift != before)
                    before, first = first >> shift, (first & lower) | prefix
                    slot, is_new = enter_as(buckets, mask, first | LATER, keys, record, width)
                    distinct += np.int64(is_new)
                    counts = buckets.rest[slot, words - 1]
                    buckets.rest[slot, words - 1], equal = count_bare(counts, counts & BOTH, last)
                    pairs += equal
            else:
                new, equal, last = _count_tagged(
                    keys, row, stop, one_each, last, buckets, mask, width
                )
                distinct += new
                pairs += equal
            row = stop
    return distinct, np.int64(pairs), True


@kernel
def _count_in_place(
    bare: PartColumns, part: Place, expected: Place, tables: _Tables, width: Width
) -> tuple[Place, Place, Place]:
    """Count the bare records of a subpartition, of which so many or a few more may be distinct.

    Returns the slots that took, how many states there are, and how many pairs of rows of one sample
    are equal.
    """
    buckets = tables.buckets
    slots = slots_with_room(min(count_part(bare, part), expected + expected // 8))
    distinct, equal, is_done = _absorb(bare, part, buckets, slots, tables.keys, width)
    while not is_done:
        # Too many for this table: from the beginning, in a larger one.
        buckets.first[:slots], buckets.rest[:slots] = 0, 0
        slots *= 2
        distinct, equal, is_done = _absorb(bare, part, buckets, slots, tables.keys, width)
    return slots, distinct, equal


@kernel
def _count_settled(
    bare: PartColumns,
    part: Place,
    count: Place,
    others: U64,
    one_each: bool,
    tables: _Tables,
    dense: I64,
    width: Width,
) -> tuple[Place, Place, Place]:
    """Do the same of so many records, after those that occur once have been settled: in `dense`.

    The keys of the `others`, uint64 (n, words), are known; bare ones are gathered behind them,
    where there is room for all records of a subpartition.
    """
    keys = tables.keys[others.shape[0] : others.shape[0] + count]
    gather_part(bare, part, keys, None, None, None, width)
    left = settle(keys, None, others, tables.marks, None, one_each, width)
    dense[1, 1] += count - left
    slots = slots_with_room(left)
    mask = np.uint64(slots // BUCKET - 1)
    of = keys, 0, left, one_each, _NONE
    distinct, equal, _ = _count_tagged(*of, tables.buckets, mask, width)
    return slots, distinct + count - left, np.int64(equal)


@kernel
def _move_counts(tables: _Tables, slots: Place, width: Width) -> None:
    """Add the counts of keys that are in both tables to those of the other one; forget them here.

    The keys stay where they are, because a search goes over them.
    """
    words, mask, whole, buckets = (
        len(width),
        np.uint64(slots // BUCKET - 1),
        tables.whole,
        tables.buckets,
    )
    for row in range(whole.shape[0]):
        if whole[row, words] != 0:
            slot, is_new = find(buckets, mask, whole[row, 0], whole, row, width)
            if is_new == _NONE:
                whole[row, words] += buckets.rest[slot, words - 1] & FIELD
                whole[row, words + 1] += (buckets.rest[slot, words - 1] >> INCIDENCE_SHIFT) & FIELD
                buckets.rest[slot, words - 1] = 0


@kernel
def _take_counts(
    buckets: Buckets, slots: Place, words: int, dense: I64, beyond: I64, listed: Place
) -> Place:
    """Count states by multiplicity and incidence, and forget them; return how many are listed."""
    once = np.int64(0)
    for start in range(0, slots, _SLOTS_AT_ONCE):
        # Most states occur once, where there are many: those are counted by vectors.
        ones, others = _NONE, _NONE
        for slot in range(np.uint64(start), np.uint64(start + _SLOTS_AT_ONCE)):
            counts = buckets.rest[slot, words - 1] & BOTH
            ones += np.uint64(counts == ONCE)
            others += np.uint64(counts > ONCE)
        once += np.int64(ones)
        if others != _NONE:
            for slot in range(np.uint64(start), np.uint64(start + _SLOTS_AT_ONCE)):
                counts = buckets.rest[slot, words - 1] & BOTH
                if counts > ONCE:
                    k, q = np.int64(counts & FIELD), np.int64(counts >> INCIDENCE_SHIFT)
                    if k < dense.shape[0]:
                        dense[k, q] += 1
                    else:
                        beyond[0, listed], beyond[1, listed] = k, q
                        listed += 1
    dense[1, 1] += once
    buckets.first[:slots], buckets.rest[:slots] = 0, 0
    return listed


@kernel
def _take_whole(whole: U64, words: int, dense: I64, beyond: I64, listed: Place) -> Place:
    """Do the same for states of whole counts."""
    for slot in range(whole.shape[0]):
        k, q = np.int64(whole[slot, words]), np.int64(whole[slot, words + 1])
        if k >= dense.shape[0]:
            beyond[0, listed], beyond[1, listed] = k, q
            listed += 1
        elif k > 0:
            dense[k, q] += 1
    whole[:] = 0
    return listed


@kernel
def _count_parts(
    part: Place,
    stop: Place,
    bare: PartColumns,
    others: PartColumns,
    tables: _Tables,
    dense: I64,
    beyond: I64,
    pairs: I64,
    learnt: I64,
    width: Width,
) -> tuple[Place, Place, int]:
    """Count subpartitions from one on, until one is too large or does not find room.

    Returns the first that is left, how many pairs are listed beyond the square, and why.
    """
    listed: Place
    slots: Place
    listed = np.int64(0)
    whole, buckets = tables.whole, tables.buckets
    words, most = len(width), tables.keys.shape[0]
    one_each = bool(bare.one_each.all())
    while part < stop:
        count, counted = count_part(bare, part), count_part(others, part)
        if count + counted > most:
            return part, listed, _TOO_LARGE
        if 2 * counted > whole.shape[0]:
            return part, listed, _WHOLE_FULL
        if listed + most // dense.shape[0] + whole.shape[0] // 2 > beyond.shape[1]:
            break
        once, k, q = dense[1, 1], tables.multiplicity[:counted], tables.incidence[:counted]
        others_keys = tables.keys[:counted]
        gather_part(others, part, others_keys, k, q, None, width)
        if learnt[1]:
            slots, distinct, equal = _count_settled(
                bare, part, count, others_keys, one_each, tables, dense, width
            )
        else:
            slots, distinct, equal = _count_in_place(bare, part, learnt[0], tables, width)
        if counted > 0:
            absorb(whole, 0, _NONE, others_keys, k, q, 0, ALL_HASHES, width)
            _move_counts(tables, slots, width)
            listed = _take_whole(whole, words, dense, beyond, listed)
        listed = _take_counts(buckets, slots, words, dense, beyond, listed)
        learnt[0], learnt[1] = distinct, dense[1, 1] - once > PAYS_FROM * count
        pairs[0] += equal
        part += 1
    return part, listed, 0
