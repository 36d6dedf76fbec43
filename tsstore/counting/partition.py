"""Scattering records by bits of their hash: equal keys meet in one partition.

A partition that is counted in memory is scattered again, into subpartitions whose tables fit the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tsstore.counting.hashing import HashRange, Place, Width, copy_key, width_of
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
_WHOLE_BYTES: Final = 1 << 14


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


def most_records(subpartition_records: int) -> int:
    """Return how many records a subpartition has at most, if its states are many and not crafted.

    What is larger does not go into the tables of the others.
    """
    return 2 * subpartition_records


def subpartition_bits(
    records: int, partition_bits: int, subpartition_records: int = SUBPARTITION_RECORDS
) -> int:
    """Return by how many bits a partition of so many records is divided."""
    wanted = ((max(records, 1) - 1) // subpartition_records).bit_length()
    return max(min(wanted, _MOST_SUBPARTITION_BITS), LEAST_PREFIX_BITS - partition_bits)


@dataclass(frozen=True)
class Parts:
    """Records of one kind, subpartition after subpartition.

    Attributes
    ----------
    ends
        int64 (parts + 1,): subpartition p is ``records[ends[p] : ends[p + 1]]``.
    """

    records: Records
    ends: I64

    def __len__(self) -> int:
        return len(self.ends) - 1

    def of(self, part: Place) -> Records:
        """Return the records of one subpartition, as views."""
        return self.records[int(self.ends[part]) : int(self.ends[part + 1])]


def subpartitions(
    pieces: Sequence[Records],
    words: int,
    partition_bits: int,
    bits: int,
    group_bytes: int = 0,
    buffers: Buffers | None = None,
) -> tuple[Parts, Parts]:
    """Divide the records of a partition, all in memory: bare ones, and others.

    The keys of the partition have the top `partition_bits` of their hash in common; it is divided
    by so many further `bits`. Records lie in the buffers, if there are any, until the next ones.
    """
    kinds = []
    for bare in (True, False):
        own = [piece for piece in pieces if piece.is_bare == bare]
        own = own or [Records.empty(words, bare, group_bytes)]
        kinds.append(Parts(*scatter(own, bits, partition_bits, buffers)))
    return kinds[0], kinds[1]


def order_by_group(
    records: Records, groups: int, hashes: HashRange, buffers: Buffers, places: I64
) -> Records:
    """Return those in a range of hashes in the order of groups, without these, in buffers.

    Where each group begins and ends is written to `places`, zeros (2, groups).
    """
    group, (starts, ends) = checked_groups(records, groups), places
    name = f"ordered {'bare' if records.is_bare else 'counted'}"
    ordered = buffers.records(name, len(records), records.words, records.is_bare, 0)
    count_in_groups(records.keys, group, hashes, starts)
    starts[:] = np.cumsum(starts) - starts
    ends[:] = starts
    sort_by_group(
        records.keys, records.multiplicity, records.incidence, group, hashes,
        ordered.keys, ordered.multiplicity, ordered.incidence, ends, width_of(ordered.keys),
    )  # fmt: skip
    return ordered


def subpartition_table_bytes(
    words: int, groups: int, subpartition_records: int, sets: int = 0
) -> int:
    """Bytes of all tables of a subpartition that is not large, at most.

    Of each record marks, and the record if it is no singleton. By group, the record in the order of
    groups, a state with its counts, places in an index, an entry of the log, and what it changes,
    twice while that is handed on; and what is added up at once. Else slots of a packed table, and a
    small one of whole counts.
    """
    codes = groups * (sets + 1)
    key = 8 * words
    size = 8 + key + bytes_of_group(codes)
    if groups:
        changes = (5 if sets else 2) * ENTRY_BYTES
        size += (key + 8) + (key + 8 + 16 + 16) + 16 + 24 + (24 if sets else 0) + 2 * changes
        fixed = small_bytes(groups, sets)
    else:
        size += 4 * key
        fixed = _WHOLE_BYTES * (words + 1)
    return most_records(subpartition_records) * size + fixed


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
def count_in_groups(keys: U64, group: Groups, hashes: HashRange, counts: I64) -> None:
    """Add the number of keys of each group, those in a range of hashes."""
    for row in range(group.size):
        if (keys[row, 0] >> hashes.shift) & hashes.mask == hashes.number:
            counts[group[row]] += 1


@kernel
def sort_by_group(
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
