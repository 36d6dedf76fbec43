"""The records of a subpartition in the order of groups, without those that occur once.

Where nearly every key occurs once, a table is too much: marks of one byte, most of which one key
has set alone, settle those, and only the rest is searched for. Whether it is so, each subpartition
tells the next one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import Place, Width
from tsstore.counting.partition import next_place, with_tag
from tsstore.counting.parts import NO_SAMPLE, PartColumns
from tsstore.counting.records import LATER, TAG_SHIFT, Groups
from tsstore.numba_tools.arrays import I64, U8, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.intrinsics import item_at

PAYS_FROM: Final = 0.6
"""Share of the keys that occur once from which on settling those first pays."""

_MARKS_OF_A_KEY: Final = 4
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
def mark_part(
    bare: PartColumns, others: PartColumns, part: Place, marks: U8, keys: U64, width: Width
) -> None:
    """Mark the keys of a subpartition, uint64 as `keys` are: 1 where one bare key is alone."""
    marks[:] = 0
    _mark(others, part, marks, _SEVERAL, keys, width)
    _mark(bare, part, marks, _ONE, keys, width)


@inlined
def _mark(
    columns: PartColumns, part: Place, marks: U8, least: np.uint8, keys: U64, width: Width
) -> None:
    """Raise the mark of each key: to `least` at the first time, and beyond 1 at the second."""
    for piece in range(columns.ends.shape[0]):
        at = columns.keys[piece]
        for record in range(columns.ends[piece, part], columns.ends[piece, part + 1]):
            slot = _mark_of(item_at(at, len(width) * record, keys), marks)
            marks[slot] = (marks[slot] << _ONE) | least


@inlined
def _mark_of(first: np.uint64, marks: U8) -> np.uint64:
    """Return which mark is a key's, of such a first word."""
    return (first >> _SHIFT) & np.uint64(marks.size - 1)


@inlined
def _group_of(
    at: np.int64, is_numbered: bool, record: Place, sample: np.uint64, like: Groups
) -> np.int64:
    """Return the group of a record, one of those from an address on: its own, or its sample's."""
    place = np.int64(sample) if is_numbered else np.int64(record)
    return np.int64(item_at(at, place, like))


@kernel
def sort_part(
    columns: PartColumns,
    part: Place,
    marks: U8,
    settled: I64,
    places: I64,
    cursors: U64,
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    like: Groups,
    width: Width,
) -> Place:
    """Write the records of a subpartition in the order of groups, whose numbers are `like` some.

    Keys that are alone in their mark are counted as `settled`, by group, instead; there may be no
    marks. Where each group begins and ends is written to `places`, (2, groups); `cursors`,
    (groups,), are room. Bare records get the tags that they have in this order. Returns how many
    are written.
    """
    places[:] = 0
    words, is_marked, shift = np.int64(len(width)), marks.size > 0, columns.shift
    for piece in range(columns.ends.shape[0]):
        # Read once, not for each record: a compiler cannot know that nothing overwrites them.
        at, groups = columns.keys[piece], columns.group[piece]
        is_numbered = columns.is_numbered[piece] > 0
        for record in range(columns.ends[piece, part], columns.ends[piece, part + 1]):
            first = item_at(at, words * record, keys)
            group = _group_of(groups, is_numbered, record, first >> shift, like)
            is_left = np.int64(1)
            if is_marked:
                is_left = np.int64(marks[_mark_of(first, marks)] > _ONE)
                settled[group] += 1 - is_left
            places[1, group] += is_left
    start = np.int64(0)
    for own in range(places.shape[1]):
        places[0, own], cursors[own] = start, start
        start += places[1, own]
        places[1, own] = start
    sample = np.uint64(0)
    lower, prefix = (np.uint64(1) << shift) - np.uint64(1), (np.uint64(part) << shift) & ~LATER
    for piece in range(columns.ends.shape[0]):
        at, groups, last = columns.keys[piece], columns.group[piece], NO_SAMPLE
        is_numbered = columns.is_numbered[piece] > 0
        for record in range(columns.ends[piece, part], columns.ends[piece, part + 1]):
            first = item_at(at, words * record, keys)
            is_settled = is_marked and marks[_mark_of(first, marks)] == _ONE
            group = _group_of(groups, is_numbered, record, first >> shift, like)
            if is_numbered:
                sample += np.uint64(first >> shift != last)
                last = first >> shift
                first = (first & lower) | prefix
            elif multiplicity is None:
                sample += first >> TAG_SHIFT
            if is_settled:
                continue
            place, is_later = next_place(cursors, np.uint64(group), sample)
            if multiplicity is None:
                first = with_tag(first, is_later)
            keys[place, 0] = first
            for word in range(1, len(width)):
                keys[place, word] = item_at(at, words * record + word, keys)
            if multiplicity is not None and incidence is not None:
                multiplicity[place] = item_at(columns.multiplicity[piece], record, multiplicity)
                incidence[place] = item_at(columns.incidence[piece], record, incidence)
    return start
