"""Scattering records by bits of their hash: equal keys meet in one partition.

A partition that is counted in memory is scattered again, into subpartitions whose tables fit the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from tsstore.counting.hashing import HashRange, Width, copy_key, width_of
from tsstore.counting.records import Buffers, Groups, Records, bytes_of_group, checked_groups
from tsstore.counting.tables.spectra import ENTRY_BYTES, small_bytes
from tsstore.numba_tools.arrays import I64, U32, U64
from tsstore.numba_tools.decorators import kernel

SUBPARTITION_RECORDS: Final = 1 << 16
"""Of a subpartition whose tables fit the processor's cache well."""
LEAST_PREFIX_BITS: Final = 6
"""Of the hash that all keys of a subpartition have in common, at least: counts take their place."""

_HASH_BITS: Final = 64
_LARGEST_BITS: Final = 24
_MOST_SUBPARTITION_BITS: Final = 12


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
        How many top bits come before these: those that the records have in common.
    buffers
        Where the records are to lie until the next ones of their kind; None takes new memory.

    Returns
    -------
    records
        Those of partition 0, then of partition 1, and so on.
    offsets
        int64 (2**bits + 1,): partition p is ``records[offsets[p] : offsets[p + 1]]``.
    """
    if not 0 <= bits <= min(_LARGEST_BITS, _HASH_BITS - skipped_bits):
        raise ValueError(
            f"{bits} bits to scatter by after {skipped_bits}; expected 0 to {_LARGEST_BITS}, "
            "within the hash"
        )
    # No shift by 64 bits, which is not defined: one partition takes all.
    shift = np.uint64(min(_HASH_BITS - skipped_bits - bits, _HASH_BITS - 1))
    mask = np.uint64((1 << bits) - 1)
    offsets = np.zeros(2**bits + 1, np.int64)
    for piece in pieces:
        _count(piece.keys, shift, mask, offsets[1:])
    np.cumsum(offsets, out=offsets)
    count, kind = int(offsets[-1]), pieces[0]
    sort = kind.words, kind.is_bare, kind.group_bytes
    if buffers is None:
        scattered = Records.empty(*sort, count)
    else:
        name = f"scattered {'bare' if kind.is_bare else 'counted'}"
        scattered = buffers.records(name, count, *sort)
    cursors, width = offsets[:-1].copy(), width_of(scattered.keys)
    for piece in pieces:
        _move(*piece.columns, *scattered.columns, shift, mask, cursors, width)
    return scattered, offsets


def is_large(records: int, subpartition_records: int) -> bool:
    """Whether a subpartition is far larger than others: its states were crafted, or are few."""
    return records > 2 * subpartition_records


def subpartition_bits(
    records: int, partition_bits: int, subpartition_records: int = SUBPARTITION_RECORDS
) -> int:
    """Return by how many bits a partition of so many records is divided."""
    wanted = ((max(records, 1) - 1) // subpartition_records).bit_length()
    return max(min(wanted, _MOST_SUBPARTITION_BITS), LEAST_PREFIX_BITS - partition_bits)


def subpartitions(
    pieces: Sequence[Records],
    words: int,
    partition_bits: int,
    bits: int,
    group_bytes: int = 0,
    buffers: Buffers | None = None,
) -> Iterator[tuple[Records, Records]]:
    """Yield the records of a partition, all in memory, part by part: bare ones, and others.

    The keys of the partition have the top `partition_bits` of their hash in common; it is divided
    by so many further `bits`. Records lie in the buffers, if there are any, until the next one.
    """
    kinds = []
    for bare in (True, False):
        own = [piece for piece in pieces if piece.is_bare == bare]
        own = own or [Records.empty(words, bare, group_bytes)]
        kinds.append(scatter(own, bits, partition_bits, buffers))
    for part in range(1 << bits):
        bare_ones, others = (records[ends[part] : ends[part + 1]] for records, ends in kinds)
        yield bare_ones, others


def order_by_group(
    records: Records, groups: int, hashes: HashRange, buffers: Buffers, places: I64
) -> Records:
    """Return those in a range of hashes in the order of groups, without these, in buffers.

    Where each group begins and ends is written to `places`, zeros (2, groups).
    """
    group, (starts, ends) = checked_groups(records, groups), places
    name = f"ordered {'bare' if records.is_bare else 'counted'}"
    ordered = buffers.records(name, len(records), records.words, records.is_bare, 0)
    _count_groups(records.keys, group, hashes, starts)
    starts[:] = np.cumsum(starts) - starts
    ends[:] = starts
    _sort_by_group(
        records.keys, records.multiplicity, records.incidence, group, hashes,
        ordered.keys, ordered.multiplicity, ordered.incidence, ends, width_of(ordered.keys),
    )  # fmt: skip
    return ordered


def subpartition_table_bytes(
    words: int, groups: int, subpartition_records: int, sets: int = 0
) -> int:
    """Bytes of all tables of a subpartition that is not large, at most.

    By group, of each record a state with its counts and two places in an index, and two more while
    that doubles; an entry, and what it changes; the record in the order of groups; and what is
    added up at once. Else four slots of a packed table, one and a half of it while it doubles. In
    both, marks, and the records that are no singletons.
    """
    codes = groups * (sets + 1)
    left = 8 + 2 * (8 * words + bytes_of_group(codes))
    if groups:
        changes = 5 * ENTRY_BYTES + 24 if sets else 2 * ENTRY_BYTES
        left += 8 * words + 24 + 16 + 8 * words + 8 + 24 + changes
        return 2 * subpartition_records * left + small_bytes(groups, sets)
    return 2 * subpartition_records * (left + 48 * words)


@kernel
def _count(keys: U64, shift: np.uint64, mask: np.uint64, counts: I64) -> None:
    """Add the number of keys of each partition to `counts`."""
    for row in range(keys.shape[0]):
        counts[(keys[row, 0] >> shift) & mask] += 1


@kernel
def _move(
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    group: Groups | None,
    moved: U64,
    moved_multiplicity: U32 | None,
    moved_incidence: U32 | None,
    moved_group: Groups | None,
    shift: np.uint64,
    mask: np.uint64,
    cursors: I64,
    width: Width,
) -> None:
    """Write each record where the cursor of its partition is, and advance that.

    Rows and places are unsigned: whether they count from an array's end need not be asked.
    """
    for row in range(np.uint64(keys.shape[0])):
        partition = (keys[row, 0] >> shift) & mask
        cursor = cursors[partition]
        cursors[partition] = cursor + 1
        place = np.uint64(cursor)
        copy_key(keys, row, moved, place, width)
        if multiplicity is not None and moved_multiplicity is not None:
            moved_multiplicity[place] = multiplicity[row]
        if incidence is not None and moved_incidence is not None:
            moved_incidence[place] = incidence[row]
        if group is not None and moved_group is not None:
            moved_group[place] = group[row]


@kernel
def _count_groups(keys: U64, group: Groups, hashes: HashRange, counts: I64) -> None:
    """Add the number of keys of each group, those in a range of hashes."""
    for row in range(group.size):
        if (keys[row, 0] >> hashes.shift) & hashes.mask == hashes.number:
            counts[group[row]] += 1


@kernel
def _sort_by_group(
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    group: Groups,
    hashes: HashRange,
    sorted_keys: U64,
    sorted_multiplicity: U32 | None,
    sorted_incidence: U32 | None,
    cursors: I64,
    width: Width,
) -> None:
    """Write each record in a range of hashes where the cursor of its group is, and advance that."""
    # Unsigned: whether rows count from an array's end need not be asked.
    for row in range(np.uint64(group.size)):
        if (keys[row, 0] >> hashes.shift) & hashes.mask != hashes.number:
            continue
        place = np.uint64(cursors[group[row]])
        cursors[group[row]] += 1
        copy_key(keys, row, sorted_keys, place, width)
        if multiplicity is not None and sorted_multiplicity is not None:
            sorted_multiplicity[place] = multiplicity[row]
        if incidence is not None and sorted_incidence is not None:
            sorted_incidence[place] = incidence[row]
