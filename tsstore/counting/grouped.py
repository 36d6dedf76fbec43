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

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.counting.aggregate import add_up_spectra, spectrum_counts
from tsstore.counting.changes import CELL_BYTES, add_up_changes, add_up_rows
from tsstore.counting.grouped_kernels import (
    INCIDENCE,
    MANY,
    absorb,
    count_changes,
    index_pairs,
    index_states,
    list_changes,
)
from tsstore.counting.in_passes import count_in_passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tsstore.counting.aggregate import Spectrum
    from tsstore.counting.changes import Changes
    from tsstore.counting.records import Records

#: Groups are numbered from 0 to at most one less than this.
LARGEST_GROUPS: Final = MANY

_PAIR_COLUMNS: Final = 3
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
    counted as :class:`tsstore.counting.aggregate.Table` does.

    Parameters
    ----------
    words
        uint64 words of a key: 1 or 2.
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
        if records.group is None:
            raise ValueError("the records do not tell groups apart; count them in a Table")
        if records.group.max(initial=0) >= self._groups:
            raise ValueError(f"a record is of group {records.group.max()} of {self._groups}")
        row = 0
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
                records.group,
                row,
                self._shift,
                self._mask,
                self._index,
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

    def spectrum(self) -> Spectrum:
        """Return :func:`tsstore.counting.aggregate.spectrum_counts` of all keys."""
        multiplicity, tagged = self._states[: self._distinct, -2:].T
        return spectrum_counts(multiplicity.view(np.int64), (tagged & INCIDENCE).view(np.int64))

    def changes(self) -> Changes:
        """Return what leaving each group out changes in the spectrum."""
        states, pairs = self._states[: self._distinct], self._pairs[: self._held]
        counts = np.zeros(self._groups, np.int64)
        count_changes(states, pairs, counts)
        rows = np.empty((counts.sum(), CELL_BYTES // 8), np.int64)
        ends = np.cumsum(counts)
        list_changes(states, pairs, ends - counts, rows)
        return add_up_rows(rows, ends)

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
            index_states(self._states, self._distinct, index)
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
        As for :func:`tsstore.counting.aggregate.aggregate`, with at least :func:`least_slots`; all
        records tell groups apart.
    groups
        Number of groups, at most 255.
    initial_slots
        What each table begins with, if there may be as many.

    Returns
    -------
    spectrum
        k, q, states, as :func:`tsstore.counting.aggregate.spectrum_counts` gives them.
    changes
        By group.

    Raises
    ------
    ValueError, CountingError
        As :func:`tsstore.counting.aggregate.aggregate`.
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
    counted = [(table.spectrum(), table.changes()) for table in tables]
    spectra, changes = zip(*counted, strict=True)
    return add_up_spectra(spectra), add_up_changes(changes)
