"""Counting a partition by state and group, so that every group can be left out afterwards.

Most states of a large layer occur in one group of samples only: of such a state the group's number
stands in the top bits of its incidence. When a second group comes, what has been counted
moves to a second table, of pairs of a state and a group, and the state is marked as one of many
groups: from then on its records count in both tables. So states that are all distinct need no
second table, and a state that is everywhere has one entry a group there.

Either table keeps what it counts as rows in the order of first appearance, and an index of their
numbers to search in: in the end the rows are read one after another, and a pair knows its state's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.counting.buffers import Buffers
from tsstore.counting.hashing import Place, slots_for, width_for
from tsstore.counting.partition import (
    SUBPARTITION_RECORDS,
    is_large,
    subpartition_bits,
    subpartitions,
)
from tsstore.counting.records import checked_groups
from tsstore.counting.tables.group_changes import (
    AT_ONCE,
    CELL_BYTES,
    Changes,
    add_up_changes,
    narrow_rows,
    once_by_group,
)
from tsstore.counting.tables.grouped_kernels import (
    INCIDENCE,
    MANY,
    absorb,
    count_changes,
    index_pairs,
    index_states,
    list_changes,
)
from tsstore.counting.tables.plain import count_in_passes
from tsstore.counting.tables.singletons import AloneFilter
from tsstore.counting.tables.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from tsstore.counting.records import Records
    from tsstore.counting.tables.tally import Spectrum

#: Groups are numbered from 0 to at most one less than this.
LARGEST_GROUPS: Final = MANY

_PAIR_COLUMNS: Final = 3
_SMALL: Final = 64
_SMALLEST_TABLE: Final = 2
_LARGEST_TABLE: Final = 2**32


def grouped_slot_bytes(words: int) -> int:
    """Bytes of one slot of a table of states by group, at most.

    There are 2 to 4 slots for each distinct key and for each pair of a key and a group. A slot is
    a place in an index, of which there is one of half the size as well while it doubles, half a
    row, and half of the two changes that a pair makes in the end.
    """
    return 4 + 2 + 4 * words + 8 + CELL_BYTES


def least_slots(groups: int) -> int:
    """Slots with which any partition can be counted: a state may be in all groups."""
    return 8 * max(groups, 1)


class GroupedTable:
    """Hash tables of distinct keys, and of pairs of a key and a group where a key has several.

    They grow with what they hold, and are never more than half full. A share of a partition is
    counted as :class:`tsstore.counting.tables.plain.Table` does.

    Parameters
    ----------
    words
        uint64 words of a key, at least 1.
    groups
        Number of groups.
    maximum_slots
        Slots of both tables together, at least 4; see :func:`least_slots`.
    partition_bits, pass_bits, pass_index
        The share to count; 0 pass bits: everything.
    initial_slots
        What each table begins with, if there may be as many.

    Raises
    ------
    ValueError
        If there may be less than two slots in each table.
    """

    def __init__(
        self,
        words: int,
        groups: int,
        maximum_slots: int,
        *,
        partition_bits: int = 0,
        pass_bits: int = 0,
        pass_index: int = 0,
        initial_slots: int = 1024,
    ) -> None:
        slots = min(initial_slots, maximum_slots // 2)
        if slots < _SMALLEST_TABLE:
            raise ValueError(
                f"tables of {slots} slots; expected at least {_SMALLEST_TABLE} in each"
            )
        self._groups = groups
        self._width = width_for(words)
        self._maximum_slots = min(maximum_slots, _LARGEST_TABLE)
        # Without pass bits the mask is 0: any shift will do, but one by 64 bits is not defined.
        self._shift = np.uint64((64 - partition_bits - pass_bits) % 64)
        self._mask = np.uint64((1 << pass_bits) - 1)
        self._index = np.uint64(pass_index)
        self._distinct = self._held = 0
        slots = 1 << (slots.bit_length() - 1)
        # As many rows as there may ever be: what was never written is never resident.
        rows = self._maximum_slots // 2
        # A state is its key, its multiplicity, and its incidence below a tag: group or MANY.
        self._states = np.empty((rows, words + 2), np.uint64)
        # A pair is its state's number above its group, its multiplicity and its incidence.
        self._pairs = np.empty((rows, _PAIR_COLUMNS), np.uint64)
        # Changes by group, multiplicity and incidence, where these are small.
        self._small = np.zeros((groups, _SMALL, _SMALL), np.int64)
        self._state_index = np.zeros(slots, np.uint32)
        self._pair_index = np.zeros(slots, np.uint32)

    def add(self, records: Records) -> bool:
        """Count those records, which tell groups apart, that belong to the tables' share.

        Returns
        -------
        False if the tables would have to grow beyond their maximum. They have then counted some of
        the records and are of no further use.

        Raises
        ------
        ValueError
            If the records do not tell groups apart, or one is of a group beyond the last.
        CountingError
            If keys meet in one place of a table as mixed keys do not.
        """
        group = checked_groups(records, self._groups)
        row: Place = 0
        while True:
            row, self._distinct, self._held = absorb(
                self._states,
                self._state_index,
                self._pairs,
                self._pair_index,
                self._distinct,
                self._held,
                records.keys,
                records.multiplicity,
                records.incidence,
                group,
                row,
                self._shift,
                self._mask,
                self._index,
                self._width,
            )
            if row == len(records):
                return True
            if not self._grow():
                return False

    @property
    def distinct(self) -> int:
        """Number of distinct keys."""
        return self._distinct

    @property
    def entries(self) -> int:
        """Number of rows in use, in both tables."""
        return self._distinct + self._held

    @property
    def nbytes(self) -> int:
        """Bytes of both tables, as far as they are in use."""
        rows = self._states[: self._distinct].nbytes + self._pairs[: self._held].nbytes
        return rows + self._state_index.nbytes + self._pair_index.nbytes

    def begin(self) -> None:
        """Forget all that has been counted."""
        self.clear()
        self._small[:] = 0

    def clear(self) -> None:
        """Forget all keys, but not how large the tables were."""
        self._distinct = self._held = 0
        self._state_index[:] = 0
        self._pair_index[:] = 0

    @property
    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Multiplicity and incidence of each key, int64 (keys,); the former is a view."""
        multiplicity, tagged = self._states[: self._distinct, -2:].T
        return multiplicity.view(np.int64), (tagged & INCIDENCE).view(np.int64)

    def changes(self) -> Changes:
        """Return what leaving each group out changes in the spectrum."""
        large = self.large_changes()
        return add_up_changes([large, self.small_changes()])

    def large_changes(self) -> Changes:
        """Return what leaving each group out changes of states in many rows; add up the rest.

        Of few states hardly any change the same cell: these are not added up yet.
        """
        states, pairs = self._states[: self._distinct], self._pairs[: self._held]
        counts = np.zeros(self._groups, np.int64)
        count_changes(states, pairs, self._small, counts)
        rows = np.empty((counts.sum(), CELL_BYTES // 8), np.int64)
        ends = np.cumsum(counts)
        list_changes(states, pairs, self._small, ends - counts, rows)
        return narrow_rows(rows, ends)

    def small_changes(self) -> Changes:
        """Return the rest, as far as it has been added up; it is then forgotten."""
        cells = np.flatnonzero(self._small)
        group, k, q = np.unravel_index(cells, self._small.shape)
        ends = np.searchsorted(group, np.arange(self._groups), side="right")
        found = Changes(ends, k, q, self._small.reshape(-1)[cells])
        self._small[:] = 0
        return found

    def _grow(self) -> bool:
        """Double the table that is full, unless both would be too much; say whether it was done."""
        pairs_full = 2 * (self._held + 2) > len(self._pair_index)
        full = self._pair_index if pairs_full else self._state_index
        if len(self._state_index) + len(self._pair_index) + len(full) > self._maximum_slots:
            return False
        index = np.zeros(2 * len(full), np.uint32)
        if pairs_full:
            index_pairs(self._pairs, self._held, index)
            self._pair_index = index
        else:
            index_states(self._states, self._distinct, index, self._width)
            self._state_index = index
        return True


def aggregate_groups(
    slices: Callable[[], Iterable[Records]],
    words: int,
    groups: int,
    partition_bits: int,
    maximum_slots: int,
    initial_slots: int = 1024,
) -> tuple[Spectrum, Changes]:
    """Count the distinct states of one partition, and what leaving each group out changes.

    Parameters
    ----------
    slices, words, partition_bits, maximum_slots
        As for :func:`tsstore.counting.tables.plain.aggregate`, with at least :func:`least_slots`;
        all records tell groups apart.
    groups
        Number of groups, at most 255.
    initial_slots
        What each table begins with, if there may be as many.

    Returns
    -------
    spectrum
        k, q, states, as :func:`tsstore.counting.tables.plain.aggregate` gives them.
    changes
        By group.

    Raises
    ------
    ValueError, CountingError
        As :func:`tsstore.counting.tables.plain.aggregate`.
    """

    def new_table(bits: int, index: int) -> GroupedTable:
        return GroupedTable(
            words,
            groups,
            maximum_slots,
            partition_bits=partition_bits,
            pass_bits=bits,
            pass_index=index,
            initial_slots=initial_slots,
        )

    tables = count_in_passes(new_table, slices, partition_bits, maximum_slots)
    tally, changes = Tally(), []
    for table in tables:
        tally.add(*table.counts)
        changes.append(table.changes())
    return tally.spectrum(), add_up_changes(changes)


def aggregate_groups_gathered(
    pieces: Sequence[Records],
    words: int,
    groups: int,
    partition_bits: int,
    maximum_slots: int,
    subpartition_records: int = SUBPARTITION_RECORDS,
    buffers: Buffers | None = None,
) -> tuple[Spectrum, Changes]:
    """Do the same for a partition whose records are all in memory.

    Parameters
    ----------
    pieces
        The partition's records, bare ones and others; all tell groups apart.
    words, groups, partition_bits
        As for :func:`aggregate_groups`.
    maximum_slots
        Slots of the tables for a share that is far larger than others.
    subpartition_records
        Records of a share, about: what its tables take grows with them.
    buffers
        Where the tables of other partitions are; None takes new ones.

    Returns
    -------
    spectrum, changes
        As :func:`aggregate_groups` gives them.

    Raises
    ------
    ValueError, CountingError
        As :func:`aggregate_groups`.
    """
    for piece in pieces:
        checked_groups(piece, groups)
    bits = subpartition_bits(sum(map(len, pieces)), partition_bits, subpartition_records)
    prefix_bits = partition_bits + bits
    # A record takes a state and two pairs at most: a state's first pair comes with its second.
    buffers, slots = buffers or Buffers(), 8 * slots_for(2 * subpartition_records)
    table = buffers.kept(
        ("grouped", words, groups, slots), lambda: GroupedTable(words, groups, slots)
    )
    alone = buffers.kept(("alone", words, groups), lambda: AloneFilter(words, groups))
    table.begin()
    alone.begin()
    tally, changes = Tally(), []
    for bare, others in subpartitions(
        pieces, words, partition_bits, bits, grouped=True, buffers=buffers
    ):
        if is_large(len(bare) + len(others), subpartition_records):
            whole = (partial(iter, (bare, others)), words, groups, prefix_bits, maximum_slots)
            found, own = aggregate_groups(*whole)
            tally.add_spectrum(found)
            changes.append(own)
            continue
        left = alone.part(bare, others)
        table.add(left)
        table.add(others)
        before = tally.once
        tally.add(*table.counts)
        changes.append(table.large_changes())
        if sum(map(len, changes)) > max(AT_ONCE, 2 * len(changes[0])):
            changes = [add_up_changes(changes)]
        table.clear()
        alone.learn(tally.once - before + len(bare) - len(left), len(bare))
    tally.add_once(int(alone.alone.sum()))
    changes += [once_by_group(alone.alone), table.small_changes()]
    return tally.spectrum(), add_up_changes(changes)
