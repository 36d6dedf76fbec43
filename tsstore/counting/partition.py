"""Scattering records by bits of their hash: equal keys meet in one partition.

A partition that is counted in memory is scattered again, into subpartitions whose tables fit the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

from tsstore.counting.arena import Empty
from tsstore.counting.hashing import HashRange, Place, Width, copy_key, width_of
from tsstore.counting.records import (
    LATER,
    TAG_SHIFT,
    Buffers,
    Groups,
    Records,
    SampleKeys,
    checked_groups,
    counted_columns,
)
from tsstore.numba_tools.arrays import I64, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

SUBPARTITION_RECORDS: Final = 1 << 15
"""Of a subpartition whose tables fit the processor's cache well."""
MOST_RECORDS: Final = (1 << 16) - 1
"""Of a subpartition that is counted in such tables: they have 16 bits for a number of records."""

_HASH_BITS: Final = 64
_HALF: Final = np.uint64(32)
_LOWER: Final = np.uint64((1 << 32) - 1)
_ONE: Final = np.uint64(1)
_LARGEST_BITS: Final = 24
_MOST_SUBPARTITION_BITS: Final = 12


def scatter_rows(rows: SampleKeys, bits: int, empty: Empty = np.empty) -> tuple[Records, I64]:
    """Order rows by the top bits of their hash, 1 to 24, as bare records; see :func:`scatter`.

    Each partition begins with a tag, as its first row is of a later sample than none.
    """
    _check_bits(bits, 1, 0)
    shift = np.uint64(_HASH_BITS - bits)
    offsets = _count_rows([rows.keys], bits, shift)
    records = Records.empty(rows.keys.shape[1], True, rows.group_bytes, len(rows), empty)
    cursors = offsets[:-1].astype(np.uint64)
    with _ordering(rows, records.keys) as moved:
        _tag_rows(
            rows.keys, rows.ends, rows.group, moved, records.group, shift, cursors,
            width_of(moved),
        )  # fmt: skip
    return records, offsets


def number_rows(rows: SampleKeys, bits: int, empty: Empty = np.empty) -> tuple[U64, I64]:
    """Order rows by the top bits of their hash, in whose place the sample's number is then.

    There are no more samples than so many bits can tell. Returns the keys, uint64 (rows, words),
    and where each of 2**bits parts begins, and the last one ends: for
    :class:`tsstore.counting.parts.PartPiece`.
    """
    _check_bits(bits, 1, 0)
    if rows.ends is None or len(rows.ends) > 1 << bits:
        raise ValueError(f"expected {1 << bits} samples at most, and where they end")
    shift = np.uint64(_HASH_BITS - bits)
    offsets = _count_rows([rows.keys], bits, shift)
    keys = Records.empty(rows.keys.shape[1], count=len(rows), empty=empty).keys
    cursors = offsets[:-1].astype(np.uint64)
    with _ordering(rows, keys) as moved:
        _number_rows(rows.keys, rows.ends, moved, shift, cursors, width_of(moved))
    return keys, offsets


@contextmanager
def _ordering(rows: SampleKeys, keys: U64) -> Iterator[U64]:
    """Yield where the keys of rows are put in order, from where they go to the new `keys`.

    Memory that was not used for a while takes writes here and there in twice the time of a copy.
    """
    if rows.spare is None:
        yield keys
    else:
        ordered = rows.spare[: len(rows)]
        yield ordered
        keys[:] = ordered


def scatter(
    pieces: Sequence[Records], bits: int, skipped_bits: int = 0, buffers: Buffers | None = None
) -> tuple[Records, I64]:
    """Order records by some of the top bits of their hash, and keep the order within those.

    Parameters
    ----------
    pieces
        Records, at least one piece: all bare or none, all with groups or none.
    bits
        How many bits to order by, 0 to 24.
    skipped_bits
        How many top bits come before these: those that the records have in common; of bare records
        at least 1, in whose place there is a tag.
    buffers
        Where the records are to lie until the next ones of their kind; None takes new memory.

    Returns
    -------
    records
        Those of partition 0, then of partition 1, and so on.
    offsets
        int64 (2**bits + 1,): partition p is ``records[offsets[p] : offsets[p + 1]]``.
    """
    kind = pieces[0]
    _check_bits(bits, 0, skipped_bits)
    if kind.is_bare and not skipped_bits:
        raise ValueError("bare records have a tag in the first bit; skip that, and scatter rows")
    # No shift by 64 bits, which is not defined: one partition takes all.
    shift = np.uint64(min(_HASH_BITS - skipped_bits - bits, _HASH_BITS - 1))
    offsets = _count_rows([piece.keys for piece in pieces], bits, shift)
    count, sort = int(offsets[-1]), (kind.words, kind.is_bare, kind.group_bytes)
    if buffers is None:
        scattered = Records.empty(*sort, count)
    else:
        name = f"scattered {'bare' if kind.is_bare else 'counted'}"
        scattered = buffers.records(name, count, *sort)
    cursors, width = offsets[:-1].astype(np.uint64), width_of(scattered.keys)
    mask, sample = np.uint64((1 << bits) - 1), np.uint64(0)
    for piece in pieces:
        if kind.is_bare:
            sample = np.uint64(_move_bare(
                piece.keys, piece.group, scattered.keys, scattered.group, sample, shift, mask,
                cursors, width,
            ))  # fmt: skip
        else:
            _move_counted(
                *counted_columns(piece), *counted_columns(scattered), shift, mask, cursors, width
            )
    return scattered, offsets


def restore_hashes(keys: U64, partition: int, bits: int) -> U64:
    """Return keys of a partition of so many bits with the first bit of the hash, not a tag."""
    restored = keys.copy()
    restored[:, 0] &= ~LATER
    restored[:, 0] |= np.uint64(partition >> (bits - 1) << (_HASH_BITS - 1))
    return restored


def _check_bits(bits: int, least: int, skipped_bits: int) -> None:
    if not least <= bits <= min(_LARGEST_BITS, _HASH_BITS - skipped_bits):
        raise ValueError(
            f"{bits} bits to scatter by after {skipped_bits}; expected {least} to {_LARGEST_BITS}, "
            "within the hash"
        )


def _count_rows(pieces: Sequence[U64], bits: int, shift: np.uint64) -> I64:
    """Return where each of 2**bits partitions of keys begins, and where the last one ends."""
    offsets = np.zeros(2**bits + 1, np.int64)
    for keys in pieces:
        _count(keys, shift, np.uint64((1 << bits) - 1), offsets[1:])
    return np.cumsum(offsets, out=offsets)


def most_records(subpartition_records: int) -> int:
    """Return how many records a subpartition has at most, if its states are many and not crafted.

    What is larger does not go into the tables of the others.
    """
    return min(2 * subpartition_records, MOST_RECORDS)


def subpartition_bits(records: int, subpartition_records: int = SUBPARTITION_RECORDS) -> int:
    """Return by how many bits a partition of so many records is divided."""
    wanted = ((max(records, 1) - 1) // subpartition_records).bit_length()
    return min(wanted, _MOST_SUBPARTITION_BITS)


def order_by_group(
    records: Records, groups: int, hashes: HashRange, buffers: Buffers, places: I64
) -> Records:
    """Return those in a range of hashes in the order of groups, without these, in buffers.

    Where each group begins and ends is written to `places`, int64 (2, groups).
    """
    group = checked_groups(records, groups)
    name = f"ordered {'bare' if records.is_bare else 'counted'}"
    ordered = buffers.records(name, len(records), records.words, records.is_bare, 0)
    cursors = np.empty(groups, np.uint64)
    sort_by_group(
        records.keys, records.multiplicity, records.incidence, group, hashes,
        ordered.keys, ordered.multiplicity, ordered.incidence, places, cursors,
        width_of(ordered.keys),
    )  # fmt: skip
    return ordered


@kernel
def _count(keys: U64, shift: np.uint64, mask: np.uint64, counts: I64) -> None:
    """Add the number of keys of each partition to `counts`."""
    for row in range(keys.shape[0]):
        counts[(keys[row, 0] >> shift) & mask] += 1


@inlined
def next_place(cursors: U64, partition: np.uint64, sample: np.uint64) -> tuple[np.uint64, bool]:
    """Return the next place of a partition, and whether the sample is its last one's no more.

    In the upper half of a cursor is the last sample: one word is read and written a row.
    """
    cursor = cursors[partition]
    cursors[partition] = (sample << _HALF) | ((cursor + _ONE) & _LOWER)
    return cursor & _LOWER, cursor >> _HALF != sample


@inlined
def with_tag(first: np.uint64, is_later: bool) -> np.uint64:
    """Return the first word of a key with the tag of a row of a later sample, or of the same."""
    return (first & ~LATER) | (np.uint64(is_later) << TAG_SHIFT)


@inlined
def _write_bare(
    keys: U64, row: Place, moved: U64, place: Place, is_later: bool, width: Width
) -> None:
    """Write a key with a tag."""
    copy_key(keys, row, moved, place, width)
    moved[place, 0] = with_tag(keys[row, 0], is_later)


@kernel
def _tag_rows(
    keys: U64,
    ends: I64 | None,
    group: Groups | None,
    moved: U64,
    moved_group: Groups | None,
    shift: np.uint64,
    cursors: U64,
    width: Width,
) -> None:
    """Write each row as a record where the cursor of its partition is, and advance that.

    Rows and places are unsigned: whether they count from an array's end need not be asked.
    """
    start = np.uint64(0)
    if ends is None:
        for row in range(np.uint64(keys.shape[0])):
            place, _ = next_place(cursors, keys[row, 0] >> shift, start)
            _write_bare(keys, row, moved, place, True, width)
            if group is not None and moved_group is not None:
                moved_group[place] = group[row]
    else:
        for sample in range(np.uint64(ends.size)):
            stop = np.uint64(ends[sample])
            for row in range(start, stop):
                place, is_later = next_place(cursors, keys[row, 0] >> shift, sample + _ONE)
                _write_bare(keys, row, moved, place, is_later, width)
                if group is not None and moved_group is not None:
                    moved_group[place] = group[sample]
            start = stop


@kernel
def _number_rows(
    keys: U64, ends: I64, moved: U64, shift: np.uint64, cursors: U64, width: Width
) -> None:
    """Write each row likewise, with the number of its sample in place of the bits that order it."""
    start, lower = np.uint64(0), (_ONE << shift) - _ONE
    for sample in range(np.uint64(ends.size)):
        number, stop = sample << shift, np.uint64(ends[sample])
        for row in range(start, stop):
            partition = keys[row, 0] >> shift
            place = cursors[partition]
            cursors[partition] = place + _ONE
            copy_key(keys, row, moved, place, width)
            moved[place, 0] = (keys[row, 0] & lower) | number
        start = stop


@kernel
def _move_bare(
    keys: U64,
    group: Groups | None,
    moved: U64,
    moved_group: Groups | None,
    sample: np.uint64,
    shift: np.uint64,
    mask: np.uint64,
    cursors: U64,
    width: Width,
) -> np.uint64:
    """Write bare records likewise, after those of so many samples; return how many there are then.

    Each gets the tag that it has among those of its new partition.
    """
    last = np.uint64(sample)
    for row in range(np.uint64(keys.shape[0])):
        last += keys[row, 0] >> TAG_SHIFT
        place, is_later = next_place(cursors, (keys[row, 0] >> shift) & mask, last)
        _write_bare(keys, row, moved, place, is_later, width)
        if group is not None and moved_group is not None:
            moved_group[place] = group[row]
    return last


@kernel
def _move_counted(
    keys: U64,
    multiplicity: U32,
    incidence: U32,
    group: Groups | None,
    moved: U64,
    moved_multiplicity: U32,
    moved_incidence: U32,
    moved_group: Groups | None,
    shift: np.uint64,
    mask: np.uint64,
    cursors: U64,
    width: Width,
) -> None:
    """Write records with counts likewise."""
    for row in range(np.uint64(keys.shape[0])):
        place, _ = next_place(cursors, (keys[row, 0] >> shift) & mask, np.uint64(0))
        copy_key(keys, row, moved, place, width)
        moved_multiplicity[place], moved_incidence[place] = multiplicity[row], incidence[row]
        if group is not None and moved_group is not None:
            moved_group[place] = group[row]


@inlined
def _is_in(first: np.uint64, hashes: HashRange | None) -> bool:
    """Whether a key of such a first word is in a range of hashes; None is all."""
    return hashes is None or bool((first >> hashes.shift) & hashes.mask == hashes.number)


@kernel
def sort_by_group(
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    group: Groups,
    hashes: HashRange | None,
    sorted_keys: U64,
    sorted_multiplicity: U32 | None,
    sorted_incidence: U32 | None,
    places: I64,
    cursors: U64,
    width: Width,
) -> None:
    """Write each record in a range of hashes, None is all, in the order of groups.

    Where each group begins and ends is written to `places`, (2, groups); `cursors`, (groups,), are
    room. Bare records get the tags that they have in this order.
    """
    places[:] = 0
    # Unsigned: whether rows count from an array's end need not be asked.
    for row in range(np.uint64(group.size)):
        if _is_in(keys[row, 0], hashes):
            places[1, group[row]] += 1
    start = np.int64(0)
    for own in range(places.shape[1]):
        places[0, own], cursors[own] = start, start
        start += places[1, own]
        places[1, own] = start
    last = np.uint64(0)
    for row in range(np.uint64(group.size)):
        if multiplicity is None:
            last += keys[row, 0] >> TAG_SHIFT
        if not _is_in(keys[row, 0], hashes):
            continue
        place, is_later = next_place(cursors, np.uint64(group[row]), last)
        if multiplicity is None:
            _write_bare(keys, row, sorted_keys, place, is_later, width)
        else:
            copy_key(keys, row, sorted_keys, place, width)
        if multiplicity is not None and sorted_multiplicity is not None:
            sorted_multiplicity[place] = multiplicity[row]
        if incidence is not None and sorted_incidence is not None:
            sorted_incidence[place] = incidence[row]
