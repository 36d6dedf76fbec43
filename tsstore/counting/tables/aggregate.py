"""The whole count of one partition: records to a spectrum, and to what each group changes in it.

Records that are all in memory are counted subpartition by subpartition, in tables that stay in the
processor's cache. Others stream through one table; if they outgrow it, in several passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

import numpy as np

from tsstore.counting.hashing import HashRange, Place
from tsstore.counting.partition import (
    SUBPARTITION_RECORDS,
    most_records,
    subpartition_bits,
)
from tsstore.counting.parts import Parts, subpartitions
from tsstore.counting.records import Buffers, Records, checked_groups
from tsstore.counting.tables.buckets import columns_of, slots_with_room
from tsstore.counting.tables.grouped import GroupedTable, count_codes
from tsstore.counting.tables.grouped_parts import LOG_COLUMNS, GroupedParts
from tsstore.counting.tables.plain import Table
from tsstore.counting.tables.plain_parts import PlainParts, table_bytes
from tsstore.counting.tables.spectra import (
    ENTRY_BYTES,
    DeltaEntries,
    DeltaTally,
    Spectrum,
    Tally,
    add_up_entries,
    small_bytes,
)
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64

Counted = tuple[Spectrum, I64, DeltaEntries | None]
"""The spectrum; pairs of bare records of one sample that are equal, int64 (groups or 1,); and what
leaving each group out changes in the spectrum, None without groups."""

FIRST_SLOTS: Final = 1024
"""That a table begins with, if there may be as many."""

_LARGEST_PREFIX_BITS: Final = 48


def aggregate(
    slices: Callable[[], Iterable[Records]],
    words: int,
    partition_bits: int,
    maximum_slots: int,
    groups: int = 0,
    sets: int = 0,
) -> Counted:
    """Count the distinct states of one partition, slice by slice.

    If they outgrow the table, several passes over the same slices count one range of hashes each,
    half as wide as the one that was too much.

    Parameters
    ----------
    slices
        Gives the partition's records, piece by piece; called once for each pass.
    words
        uint64 words of a key, at least 1.
    partition_bits
        How many top bits of the hash all keys of the partition have in common, at least 1.
    maximum_slots
        Slots of the largest table allowed, at least 2; with groups at least
        :func:`tsstore.counting.tables.grouped.least_slots`.
    groups, sets
        Number of groups that the records tell apart, 0 for none; in each of so many sets, if there
        are any. Both together no more than
        :data:`tsstore.counting.tables.grouped.LARGEST_GROUPS`.

    Returns
    -------
    spectrum
        k, q, states, int64 (pairs,), sorted by k, then by q: `states` distinct states occur in k
        rows and q samples.
    equal_pairs
        int64 (groups or 1,): pairs of bare records of one sample that are equal, by group.
    delta
        What leaving each group out changes in it; None without groups. With sets, more spectra: see
        :func:`tsstore.counting.tables.spectra.count_spectra`.

    Raises
    ------
    ValueError
        If there are too few slots, or records do not tell groups apart where there are any.
    CountingError
        If keys meet in one place of the table as mixed keys do not, or if more of them than fit
        into the table have their first 48 bits in common.
    """
    tally, equal_pairs = Tally(), np.zeros(count_codes(groups, sets) or 1, np.int64)
    if not groups:
        for table in count_tables(slices, words, partition_bits, maximum_slots):
            tally.add(*table.counts)
            equal_pairs += table.equal_pairs
        return tally.spectrum(), equal_pairs, None

    def new_table(hashes: HashRange) -> GroupedTable:
        return GroupedTable(words, groups, maximum_slots, FIRST_SLOTS, hashes, sets)

    deltas = []
    for grouped in count_in_passes(new_table, slices, partition_bits, maximum_slots):
        tally.add(*grouped.counts)
        equal_pairs += grouped.equal_pairs
        deltas.append(grouped.delta())
    return tally.spectrum(), equal_pairs, add_up_entries(deltas)


def aggregate_gathered(
    pieces: Sequence[Records],
    words: int,
    partition_bits: int,
    maximum_slots: int,
    subpartition_records: int = SUBPARTITION_RECORDS,
    buffers: Buffers | None = None,
    groups: int = 0,
    sets: int = 0,
) -> Counted:
    """Do the same for a partition whose records, bare ones and others, are all in memory.

    Parameters
    ----------
    pieces, words, partition_bits, groups, sets
        As for :func:`aggregate`.
    maximum_slots
        Slots of the table for a subpartition that is far larger than others.
    subpartition_records
        Records of a subpartition, about: what its tables take grows with them.
    buffers
        Where the tables of other partitions are; None takes new ones.
    """
    bits = subpartition_bits(sum(map(len, pieces)), subpartition_records)
    buffers = buffers or Buffers()
    if groups:
        for piece in pieces:
            checked_groups(piece, count_codes(groups, sets))
    parts = subpartitions(pieces, partition_bits, bits, buffers)
    return aggregate_parts(
        parts, range(1 << bits), words, partition_bits + bits, maximum_slots, subpartition_records,
        buffers, groups, sets,
    )  # fmt: skip


def aggregate_parts(
    parts: tuple[Parts, Parts],
    span: range,
    words: int,
    prefix_bits: int,
    maximum_slots: int,
    subpartition_records: int = SUBPARTITION_RECORDS,
    buffers: Buffers | None = None,
    groups: int = 0,
    sets: int = 0,
) -> Counted:
    """Do the same for a span of subpartitions, of bare records and others.

    The hashes of each have so many top bits in common.
    """
    if groups and not all(kind.tells_groups for kind in parts):
        raise ValueError("the records do not tell groups apart; count them without groups")
    buffers = buffers or Buffers()
    codes, most = count_codes(groups, sets), most_records(subpartition_records)
    tally, equal_pairs = Tally(), np.zeros(codes or 1, np.int64)
    deltas = DeltaTally()
    of = words, groups, sets, most
    if groups:
        grouped = buffers.kept(("grouped", *of), lambda: GroupedParts(*of, buffers))
        large = grouped.count(*parts, span, tally, equal_pairs, deltas)
    else:
        plain = buffers.kept(("plain", *of), lambda: PlainParts(words, most, buffers))
        large = plain.count(*parts, span, tally, equal_pairs)
    for part in large:
        slices = partial(iter, [piece for kind in parts for piece in kind.of(part)])
        found, pairs, delta = aggregate(slices, words, prefix_bits, maximum_slots, groups, sets)
        tally.add_spectrum(found)
        equal_pairs += pairs
        if delta is not None:
            deltas.add(delta)
    return tally.spectrum(), equal_pairs, deltas.total() if groups else None


def subpartition_table_bytes(
    words: int, groups: int, subpartition_records: int, sets: int = 0
) -> int:
    """Bytes of all tables of a subpartition that is not large, at most.

    By group, of each record marks, the record twice with its group, an entry of the log, the counts
    of a state, and what it changes, twice while that is handed on; slots for states; and what is
    added up at once.
    """
    most = most_records(subpartition_records)
    if not groups:
        return table_bytes(words, most)
    key, changes = 8 * words, (5 if sets else 2) * ENTRY_BYTES
    record = 16 + 2 * (key + 8) + 2 + 8 * LOG_COLUMNS + 16 + 16 + (24 if sets else 0) + 2 * changes
    slot = 8 + 8 * columns_of(words, 1)
    return most * record + slots_with_room(most) * slot + small_bytes(groups, sets)


class CountingTable(Protocol):
    """Counts records whose hashes are in a range, until it is full."""

    @property
    def distinct(self) -> Place:
        """Number of distinct keys."""

    @property
    def used(self) -> int:
        """Number of slots in use."""

    def add(self, records: Records, /) -> bool:
        """Count those that it is for; return whether there was room."""


_Table = TypeVar("_Table", bound=CountingTable)


def count_tables(
    slices: Callable[[], Iterable[Records]], words: int, partition_bits: int, maximum_slots: int
) -> Iterator[Table]:
    """Yield tables that hold the counts of one partition between them; see :func:`aggregate`."""

    def new_table(hashes: HashRange) -> Table:
        return Table(words, maximum_slots, FIRST_SLOTS, hashes)

    return count_in_passes(new_table, slices, partition_bits, maximum_slots)


def count_in_passes(
    new_table: Callable[[HashRange], _Table],
    slices: Callable[[], Iterable[Records]],
    partition_bits: int,
    maximum_slots: int,
) -> Iterator[_Table]:
    """Yield tables that hold the counts of a partition between them, one for each pass.

    `new_table` makes an empty one for a range of the hashes that the partition has.
    """
    bits = number = 0  # what is counted: the hashes below number / 2**bits of their range
    while number < 1 << bits:
        table = new_table(HashRange.of(partition_bits, bits, number))
        if all(table.add(piece) for piece in slices()):
            yield table
            number += 1
            # Larger steps again after a dense spot: the next pass may take twice as much.
            if number % 2 == 0 and table.used <= maximum_slots // 8:
                bits, number = bits - 1, number // 2
        else:
            bits, number = bits + 1, 2 * number
            _check_prefix(partition_bits + bits, table)


def _check_prefix(bits: int, table: CountingTable) -> None:
    if bits > _LARGEST_PREFIX_BITS:
        raise CountingError(
            f"more than {table.distinct} distinct keys, all that fit into the table, share the "
            f"first {_LARGEST_PREFIX_BITS} bits of their hash: it was attacked by crafted states "
            "or the key scheme is broken; analyse again with another seed"
        )
