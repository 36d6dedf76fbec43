"""Records that are divided: those of one subpartition lie together, in one piece or in several.

What a block has scattered by enough bits of the hash at once needs no further division. In place of
these bits, which are the same in all keys of a subpartition, is then the number that each row's
sample has in its piece: the tag and the group of a record follow from it, and take no place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from tsstore.counting.arena import Empty
from tsstore.counting.hashing import Place, Width, copy_key, width_of
from tsstore.counting.partition import number_rows, scatter, scatter_rows
from tsstore.counting.records import LATER, TAG_SHIFT, Buffers, Groups, Records, SampleKeys
from tsstore.numba_tools.arrays import I64, U8, U32, U64
from tsstore.numba_tools.decorators import kernel
from tsstore.numba_tools.intrinsics import array_at, copy_from, item_at

NO_SAMPLE: Final = np.uint64(2**64 - 1)
"""The number of none."""


class PartPiece(NamedTuple):
    """Records of one kind, subpartition after subpartition.

    Attributes
    ----------
    records
        Of subpartition p they are ``records[ends[p] : ends[p + 1]]``.
    ends
        int64 (parts + 1,).
    is_numbered
        Whether bare records have the numbers of samples in place of the bits that divide them.
    group_of
        uint8 or uint16 (samples,): then, their groups, where these are told apart.
    one_each
        Whether bare records are of a sample each: what tags would tell is known.
    """

    records: Records
    ends: I64
    is_numbered: bool = False
    group_of: Groups | None = None
    one_each: bool = False


class PartColumns(NamedTuple):
    """Where the records of each piece are, for loops.

    Attributes
    ----------
    keys, multiplicity, incidence, group
        int64 (pieces,): addresses of columns, or of the groups of samples; 0 where there is none.
    is_numbered, one_each
        uint8 (pieces,): see :class:`PartPiece`.
    ends
        int64 (pieces, parts + 1): where each subpartition begins, and the last one ends.
    shift
        Where in the hash the number of a subpartition begins.
    """

    keys: I64
    multiplicity: I64
    incidence: I64
    group: I64
    is_numbered: U8
    one_each: U8
    ends: I64
    shift: np.uint64

    def of_pieces(self, first: int, stop: int) -> PartColumns:
        """Return those of some pieces."""
        own = slice(first, stop)
        addresses = self.keys[own], self.multiplicity[own], self.incidence[own], self.group[own]
        kinds = self.is_numbered[own], self.one_each[own]
        return PartColumns(*addresses, *kinds, self.ends[own], self.shift)


class Parts:
    """Records of one kind in so many subpartitions, by so many bits of their hash."""

    def __init__(self, pieces: Sequence[PartPiece], bits: int) -> None:
        self._pieces, self._bits = pieces, bits

    def __len__(self) -> int:
        return 1 << self._bits

    def of(self, part: Place) -> list[Records]:
        """Return the records of one subpartition, as they are or with tags and groups."""
        held = []
        for piece in self._pieces:
            records = piece.records[int(piece.ends[part]) : int(piece.ends[part + 1])]
            if piece.is_numbered:
                like = Records.empty(records.words, True, getattr(piece.group_of, "itemsize", 0))
                records = gather(Parts([piece], self._bits).columns, int(part), like)
            held.append(records)
        return held

    @property
    def tells_groups(self) -> bool:
        """Whether each record has a group, if there are any."""
        return bool(self.columns.group.all())

    @cached_property
    def columns(self) -> PartColumns:
        """Where the columns are; the parts must be kept as long as these are read."""
        addresses = np.zeros((4, len(self._pieces)), np.int64)
        for number, piece in enumerate(self._pieces):
            *columns, own_group = piece.records.columns
            groups = piece.group_of if piece.is_numbered else own_group
            for kind, column in enumerate([*columns, groups]):
                if column is not None:
                    addresses[kind, number] = column.__array_interface__["data"][0]
        kinds = np.array([[one.is_numbered, one.one_each] for one in self._pieces], np.uint8)
        numbered, one_each = np.ascontiguousarray(kinds.reshape(-1, 2).T)
        ends = [piece.ends for piece in self._pieces]
        all_ends = np.stack(ends) if ends else np.zeros((0, len(self) + 1), np.int64)
        shift = np.uint64(min(64 - self._bits, 63))
        keys, k, q, group = addresses
        return PartColumns(keys, k, q, group, numbered, one_each, all_ends, shift)


def gather(columns: PartColumns, part: int, like: Records) -> Records:
    """Return the records of a subpartition as new ones, of the kind of others."""
    count = int((columns.ends[:, part + 1] - columns.ends[:, part]).sum())
    records = Records.empty(like.words, like.is_bare, like.group_bytes, count)
    gather_part(columns, part, *records.columns, width_of(records.keys))
    return records


def subpartitions_of(partition: int, bits: int) -> range:
    """Return the numbers of the subpartitions of a partition, which is divided by so many bits."""
    return range(partition << bits, (partition + 1) << bits)


def tag_rows(rows: SampleKeys, bits: int, empty: Empty = np.empty) -> PartPiece:
    """Order rows by the top bits of their hash, with tags."""
    return PartPiece(*scatter_rows(rows, bits, empty), one_each=rows.ends is None)


def divide_rows(rows: SampleKeys, bits: int, empty: Empty = np.empty) -> PartPiece:
    """Order rows by the top bits of their hash, with numbers of samples if these bits can tell."""
    if rows.ends is None or len(rows.ends) > 1 << bits:
        return tag_rows(rows, bits, empty)
    keys, ends = number_rows(rows, bits, empty)
    return PartPiece(Records(keys), ends, True, rows.group)


def subpartitions(
    pieces: Sequence[Records], partition_bits: int, bits: int, buffers: Buffers | None = None
) -> tuple[Parts, Parts]:
    """Divide the records of a partition, all in memory: bare ones, and others.

    The keys of the partition have the top `partition_bits` of their hash in common; it is divided
    by so many further `bits`. Records lie in the buffers, if there are any, until the next ones.
    """
    kinds = [[piece for piece in pieces if piece.is_bare == bare] for bare in (True, False)]
    bare, others = ([scatter(own, bits, partition_bits, buffers)] if own else [] for own in kinds)
    one_each = all(count_tags(piece.keys) == len(piece) for piece in kinds[0])
    return (
        Parts([PartPiece(*own, one_each=one_each) for own in bare], bits),
        Parts([PartPiece(*own) for own in others], bits),
    )


@kernel
def count_tags(keys: U64) -> Place:
    """Return how many bare records are of a later sample than the record before."""
    tags = np.uint64(0)
    for row in range(np.uint64(keys.shape[0])):
        tags += keys[row, 0] >> TAG_SHIFT
    return np.int64(tags)


@kernel
def count_part(columns: PartColumns, part: Place) -> Place:
    """Return the number of records of a subpartition."""
    count = np.int64(0)
    for piece in range(columns.ends.shape[0]):
        count += columns.ends[piece, part + 1] - columns.ends[piece, part]
    return count


@kernel
def gather_part(
    columns: PartColumns,
    part: Place,
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    group: Groups | None,
    width: Width,
) -> Place:
    """Write the records of a subpartition, piece after piece; return how many there are.

    Bare ones get tags, and groups.
    """
    count = np.int64(0)
    words, shift = np.int64(len(width)), columns.shift
    lower, prefix = (np.uint64(1) << shift) - np.uint64(1), (np.uint64(part) << shift) & ~LATER
    for piece in range(columns.ends.shape[0]):
        first = columns.ends[piece, part]
        own = columns.ends[piece, part + 1] - first
        if own == 0:
            continue
        if multiplicity is not None and incidence is not None:
            at = multiplicity.itemsize * first
            copy_from(columns.multiplicity[piece] + at, multiplicity, count, own)
            copy_from(columns.incidence[piece] + at, incidence, count, own)
        at = columns.keys[piece] + keys.itemsize * words * first
        if not columns.is_numbered[piece]:
            copy_from(at, keys, words * count, words * own)
            if group is not None:
                copy_from(columns.group[piece] + group.itemsize * first, group, count, own)
        else:
            numbered, start = array_at(at, keys), np.uint64(count)
            for row in range(np.uint64(own)):
                word = numbered[row, 0]
                # The sample of the first one is of no other row before: its tag is set below.
                is_later = word >> shift != numbered[row - np.uint64(row > 0), 0] >> shift
                copy_key(numbered, row, keys, start + row, width)
                keys[start + row, 0] = (word & lower) | prefix | (np.uint64(is_later) << TAG_SHIFT)
            keys[start, 0] |= LATER
            if group is not None:
                for row in range(np.uint64(own)):
                    sample = np.int64(numbered[row, 0] >> shift)
                    group[start + row] = item_at(columns.group[piece], sample, group)
        count += own
    return count
