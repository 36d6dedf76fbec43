"""Merging early: the equal rows of each sample become one record, which counts one sample.

Hot keys are absorbed first. Of the other rows, most of a late layer occur once in their sample; a
table of marks settles those without a branch, and only what may be a repeat is searched for. All
this is done for one sample after the other, while it is in the processor's cache.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tsstore.counting.hashing import (
    LONG_PROBE,
    PROBE_LIMIT,
    Place,
    Width,
    copy_key,
    is_same,
    slots_for,
    width_of,
)
from tsstore.counting.premerge.hot_keys import HotKeys, HotTable, absorb_sample, merge_hot_rows
from tsstore.counting.premerge.samples import check_groups, check_positions
from tsstore.counting.records import Buffers, Groups, Records, counted_columns
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I32, I64, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

_ONE: Final = np.uint64(1)
_MARKS_OF_A_ROW: Final = 32
_LEAST_MARKS, _MOST_MARKS = 1 << 12, 1 << 16
_MARK_SHIFT: Final = np.uint64(20)


class _Workspace(NamedTuple):
    """What merging one sample after the other writes to.

    Attributes
    ----------
    touched
        uint64 (rows,): slots of hot keys.
    cold, suspects, own
        uint64 (rows, words): the keys that are not hot, those of them that may be repeated, and
        the distinct ones of these.
    times
        int64 (rows,): how often each of the latter occurs.
    marks
        uint32 (marks,), a power of two: twice the number of the sample that set it last, and odd
        if it set it again.
    table
        int32 (slots,), a power of two: which distinct key is there.
    """

    touched: U64
    cold: U64
    suspects: U64
    own: U64
    times: I64
    marks: U32
    table: I32


def merge_samples(
    keys: U64,
    positions: I64,
    hot: HotKeys,
    group: Groups | None = None,
    buffers: Buffers | None = None,
) -> tuple[list[Records], I64]:
    """Turn the equal keys of each sample into one record, unless they are hot: those are counted.

    Parameters
    ----------
    keys
        uint64 (n, words), C-contiguous: the keys of whole samples, sample after sample.
    positions
        int64 (samples,): the number of rows of each sample, zero or more; their sum is n.
    hot
        The hot keys, which know how many groups are told apart.
    group
        uint8 or uint16 (samples,): the group of each sample, if groups are told apart.
    buffers
        Where the records lie until the next call. None takes new ones.

    Returns
    -------
    records
        Bare ones of keys that a sample has once, then others, if any sample has several rows.
    equal_pairs
        int64 (groups,): the number of pairs of rows of one sample that are equal, by group: the
        sum of m (m - 1) / 2 over the multiplicities m of the keys of each sample.
    """
    check_positions(positions, len(keys))
    if group is not None:
        check_groups(group, len(positions), hot.groups)
    buffers = buffers or Buffers()
    equal_pairs = np.zeros(hot.groups, np.int64)
    if positions.max(initial=0) <= 1:
        bare = Records(keys, group=None if group is None else group[positions > 0])
        return [merge_hot_rows(bare, hot, buffers)], equal_pairs
    words, group_bytes = keys.shape[1], 0 if group is None else group.itemsize
    has_hot = hot.serve(keys)
    bare = buffers.records("bare", len(keys), words, True, group_bytes)
    # Two rows or more are one record here.
    counted = buffers.records("counted", len(keys) // 2 + 1, words, False, group_bytes)
    work = _workspace(int(positions.max()), words, buffers)
    once, repeated, hot_rows = _merge(
        keys, positions, group, has_hot, hot.table, work, bare.keys, bare.group,
        *counted_columns(counted), equal_pairs, width_of(keys),
    )  # fmt: skip
    if has_hot:
        hot.learn(int(hot_rows), len(keys))
    return [bare[: int(once)], counted[: int(repeated)]], equal_pairs


def merge_bytes(words: int, positions: int) -> int:
    """Bytes of the workspace for samples of so many rows at most of keys of so many words."""
    tables = 4 * _marks_for(positions) + 4 * slots_for(positions)
    return tables + positions * (3 * 8 * words + 2 * 8)


def _workspace(largest: int, words: int, buffers: Buffers) -> _Workspace:
    """Return a workspace for samples of so many rows at most, with no mark set."""
    cold, suspects, own = buffers.array("sample", (3, largest, words), np.uint64)
    marks = buffers.array("marks", (_marks_for(largest),), np.uint32)
    table = buffers.array("table", (slots_for(largest),), np.int32)
    marks[:], table[:] = 0, -1
    touched = buffers.array("touched", (largest,), np.uint64)
    times = buffers.array("times", (largest,), np.int64)
    return _Workspace(touched, cold, suspects, own, times, marks, table)


def _marks_for(positions: int) -> int:
    """Return how many marks tell most rows of a sample that occur once."""
    wanted = 1 << (_MARKS_OF_A_ROW * positions - 1).bit_length()
    return min(max(wanted, _LEAST_MARKS), _MOST_MARKS)


@kernel
def _merge(
    keys: U64,
    positions: I64,
    group: Groups | None,
    has_hot: bool,
    hot: HotTable,
    work: _Workspace,
    bare: U64,
    bare_group: Groups | None,
    counted: U64,
    multiplicity: U32,
    incidence: U32,
    counted_group: Groups | None,
    equal_pairs: I64,
    width: Width,
) -> tuple[Place, Place, Place]:
    """Merge the samples of a piece.

    Returns how many keys a sample has once, and repeated ones, and how many rows were hot.
    """
    once: Place
    repeated: Place
    left: Place
    cold: Place
    pairs: Place
    once = repeated = before = start = own = cold = np.int64(0)
    for sample in range(positions.size):
        stop = start + positions[sample]
        if group is not None:
            own = np.int64(group[sample])
        source, first = keys, start
        left, pairs = positions[sample], np.int64(0)
        if has_hot:
            left, pairs = absorb_sample(keys, start, stop, own, hot, work.touched, work.cold, width)
            source, first = work.cold, np.int64(0)
        cold += left
        mark = np.uint32(2 * sample + 2)
        settled, suspects = _settle(source, first, left, mark, work, bare, once, width)
        records = _count_suspects(suspects, before, work, width)
        # What the table holds of this sample is free for the next one: no need to clear it.
        before += records
        singles, others, equal = _part(
            records, work, bare, settled, counted, multiplicity, incidence, repeated, width
        )
        _fill(bare_group, once, singles, own)
        _fill(counted_group, repeated, others, own)
        equal_pairs[own] += pairs + equal
        once, repeated, start = singles, others, stop
    return once, repeated, start - cold


@inlined
def _settle(
    keys: U64,
    first: Place,
    count: Place,
    mark: np.uint32,
    work: _Workspace,
    once: U64,
    settled: Place,
    width: Width,
) -> tuple[Place, Place]:
    """Part keys that have their mark to themselves from others; return how far either are filled.

    A mark is even if one key of the sample has set it, and odd if another one has, too.
    """
    # Unsigned: whether rows count from an array's end need not be asked.
    start, stop, single = np.uint64(first), np.uint64(first + count), np.uint64(settled)
    mask = np.uint64(work.marks.size - 1)
    for row in range(start, stop):
        slot = (keys[row, 0] >> _MARK_SHIFT) & mask
        again = work.marks[slot] >= mark
        work.marks[slot] = mark + np.uint32(again)
    suspects = np.uint64(0)
    for row in range(start, stop):
        is_single = np.uint64(work.marks[(keys[row, 0] >> _MARK_SHIFT) & mask] == mark)
        copy_key(keys, row, once, single, width)
        copy_key(keys, row, work.suspects, suspects, width)
        single += is_single
        suspects += _ONE - is_single
    return np.int64(single), np.int64(suspects)


@inlined
def _find(
    table: I32, mask: np.uint64, own: U64, first: Place, keys: U64, row: Place, width: Width
) -> np.uint64:
    """Return the slot of a row's record, or else the free slot that is due to it.

    A slot with a record before `first`, the sample's first one, is free.
    """
    slot: np.uint64 = keys[row, 0] & mask
    for _ in range(PROBE_LIMIT):
        record = table[slot] - first
        if record < 0 or is_same(keys, row, own, record, width):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def _count_suspects(count: Place, before: Place, work: _Workspace, width: Width) -> Place:
    """Count how often the sample has each key that may be repeated; return how many there are.

    `before` are the records of earlier samples, whose places in the table are free.
    """
    record: Place
    records = record = np.int64(0)
    mask = _ONE  # of a small part of the table for a small sample, which stays in the cache
    while mask < 2 * count - 1:
        mask = mask + mask + _ONE
    for row in range(np.uint64(count)):
        # Neighbours are often equal.
        if row == 0 or not is_same(work.suspects, row, work.own, np.uint64(record), width):
            slot = _find(work.table, mask, work.own, before, work.suspects, row, width)
            record = np.int64(work.table[slot]) - before
            if record < 0:
                record = records
                work.table[slot] = before + record
                copy_key(work.suspects, row, work.own, record, width)
                work.times[record] = 0
                records += 1
        work.times[record] += 1
    return records


@inlined
def _part(
    records: Place,
    work: _Workspace,
    bare: U64,
    once: Place,
    counted: U64,
    multiplicity: U32,
    incidence: U32,
    repeated: Place,
    width: Width,
) -> tuple[Place, Place, Place]:
    """Part counted keys into those that occur once and others.

    Returns how far either are filled then, and the number of equal pairs of rows.
    """
    pairs = np.int64(0)
    for record in range(records):
        times = work.times[record]
        if times == 1:
            copy_key(work.own, record, bare, once, width)
            once += 1
        else:
            copy_key(work.own, record, counted, repeated, width)
            multiplicity[repeated], incidence[repeated] = times, 1
            repeated += 1
            pairs += (times * (times - 1)) >> 1
    return once, repeated, pairs


@inlined
def _fill(groups: Groups | None, first: Place, end: Place, own: Place) -> None:
    """Write the group of some records, if there are groups."""
    if groups is not None:
        for record in range(first, end):
            groups[record] = own
