"""Subpartitions by group to spectra and changes: one loop over all of them, in tables of its own.

A subpartition takes a fraction of a millisecond, as long as the Python around it would: only what
is too large for the tables, or for what comes of them, is handed back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from tsstore.counting.hashing import ALL_HASHES, Place, Width, slots_for, width_for
from tsstore.counting.partition import Parts, count_in_groups, sort_by_group
from tsstore.counting.records import (
    Groups,
    Records,
    checked_groups,
    counted_columns,
    group_dtype,
)
from tsstore.counting.tables.group_changes import (
    add_up_states,
    list_by_group,
    list_by_set,
    small_delta,
)
from tsstore.counting.tables.grouped import absorb, count_codes, index_states
from tsstore.counting.tables.singletons import PAYS_FROM, marks_for, settle
from tsstore.counting.tables.spectra import (
    DeltaEntries,
    Tally,
    add_deltas,
    cells_of,
    count_pairs,
    count_spectra,
    narrow,
    singleton_entries,
    small_side,
)
from tsstore.numba_tools.arrays import I64, U8, U32, U64
from tsstore.numba_tools.decorators import kernel

_LOG_COLUMNS: Final = 3
_FIRST_SLOTS: Final = np.int64(1 << 10)
_MOST_ENDS: Final = 1 << 14


class _Tables(NamedTuple):
    """What a subpartition of so many records at most is counted in.

    Attributes
    ----------
    marks
        uint8 (marks,): see :mod:`tsstore.counting.tables.singletons`.
    left, left_group
        uint64 (records, words) and (records,): bare records that are not settled.
    bare, keys, multiplicity, incidence
        (records, words) and (records,): bare records and others, in the order of groups.
    places
        int64 (2, 2, codes): where each group of either begins and ends.
    states, table, log
        As states, index and log of a :class:`~tsstore.counting.tables.grouped.GroupedTable`.
    counts
        int64 (2, records): multiplicity and incidence of each state.
    ends
        int64 (codes,): where each group ends in the log.
    own, touched
        int64 (records, 2) and (records,): room for :func:`list_by_set`; none without sets.
    """

    marks: U8
    left: U64
    left_group: Groups
    bare: U64
    keys: U64
    multiplicity: U32
    incidence: U32
    places: I64
    states: U64
    table: U32
    log: I64
    counts: I64
    ends: I64
    own: I64
    touched: I64


class _Found(NamedTuple):
    """What is found in subpartitions, added up as far as it is small.

    Attributes
    ----------
    settled
        int64 (codes,): singletons of each group that were settled.
    dense
        int64 (side, side): states by multiplicity and incidence.
    beyond
        int64 (2, records): multiplicity and incidence of the others.
    small, columns, changed
        What leaving groups out changes; see :func:`list_by_group`. What is listed of a spectrum in
        a part ends where `changed`, int64 (parts, spectra), tells.
    """

    settled: I64
    dense: I64
    beyond: I64
    small: I64
    columns: I64
    changed: I64


class GroupedParts:
    """Counts subpartitions of keys of so many words by group, of so many records each at most.

    Groups may be of sets, as in a :class:`tsstore.counting.tables.grouped.GroupedTable`.
    """

    def __init__(self, words: int, groups: int, sets: int, most: int) -> None:
        codes, spectra = count_codes(groups, sets), count_spectra(groups, sets)
        self._groups, self._sets = groups, sets
        self._width, self._side = width_for(words), small_side(groups, sets)
        # What was never written is never resident.
        ordered = Records.empty(words, True, 0, most), Records.empty(words, False, 0, most)
        self._tables = _Tables(
            np.empty(marks_for(most), np.uint8),
            np.empty((most, words), np.uint64), np.empty(most, group_dtype(codes)),
            ordered[0].keys, *counted_columns(ordered[1])[:3],
            np.empty((2, 2, codes), np.int64),
            np.empty((most, words + 1), np.uint64),
            np.empty(slots_for(most), np.uint32),
            np.empty((most, _LOG_COLUMNS), np.int64),
            np.empty((2, most), np.int64),
            np.empty(codes, np.int64),
            np.zeros((most if sets else 0, 2), np.int64),
            np.empty(most if sets else 0, np.int64),
        )  # fmt: skip
        self._changes_of_a_record = 5 if sets else 2
        self._small = np.zeros((spectra, cells_of(self._side)), np.int64)
        self._columns = np.empty((3, self._changes_of_a_record * most), np.int64)
        self._beyond = np.empty((2, most), np.int64)
        self._settled = np.zeros(codes, np.int64)
        # Of no more subpartitions at a time than have few ends of spectra in all.
        self._changed = np.empty((max(_MOST_ENDS // spectra, 1), spectra), np.int64)
        # How many states the last subpartition had, and whether settling what occurs once paid.
        self._learnt = np.array([0, 1], np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, were they written all over, and of what is found in them."""
        found = self._small, self._columns, self._beyond, self._changed
        return sum(array.nbytes for array in (*self._tables, *found))

    def count(
        self, bare: Parts, others: Parts, tally: Tally, deltas: list[DeltaEntries]
    ) -> Iterator[Place]:
        """Count subpartitions; yield the numbers of those that are too large, and leave them out.

        States are added to the tally, and what leaving groups out changes to the deltas.
        """
        self._settled[:], self._small[:], self._tables.own[:] = 0, 0, 0
        found = _Found(
            self._settled, tally.dense, self._beyond, self._small, self._columns, self._changed
        )
        codes = self._settled.size
        bare_group, group = (checked_groups(kind.records, codes) for kind in (bare, others))
        keys, multiplicity, incidence, _ = counted_columns(others.records)
        part: Place = 0
        while part < len(bare):
            first = part
            part, beyond, large = _count_parts(
                part, bare.records.keys, bare_group, bare.ends,
                keys, multiplicity, incidence, group, others.ends, self._groups, self._sets,
                self._tables, found, np.int64(self._side), self._learnt, self._width,
            )  # fmt: skip
            tally.add_large(self._beyond[:, :beyond])
            add_deltas(deltas, self._listed(int(part - first)))
            if large:
                yield part
                part += 1
        tally.add_once(int(self._settled.sum()))
        deltas += [
            singleton_entries(self._settled, self._sets),
            small_delta(self._small, self._side),
        ]

    def _listed(self, parts: int) -> list[DeltaEntries]:
        """Return what has been listed of so many subpartitions."""
        if not parts:
            return []
        listed = narrow(self._columns[:, : self._changed[parts - 1, -1]])
        starts = [0, *self._changed[: parts - 1, -1].tolist()]
        return [
            DeltaEntries(ends - start, *listed[:, start : ends[-1]])
            for start, ends in zip(starts, self._changed[:parts], strict=True)
            if ends[-1] > start
        ]


@kernel
def _order(
    bare: U64,
    bare_group: Groups,
    keys: U64,
    multiplicity: U32,
    incidence: U32,
    group: Groups,
    tables: _Tables,
    width: Width,
) -> None:
    """Write records in the order of groups, and where each of these begins and ends."""
    places = tables.places
    places[:] = 0
    count_in_groups(bare, bare_group, ALL_HASHES, places[0, 1])
    count_in_groups(keys, group, ALL_HASHES, places[1, 1])
    for kind in range(2):
        start = np.int64(0)
        for code in range(places.shape[2]):
            places[kind, 0, code] = start
            start += places[kind, 1, code]
            places[kind, 1, code] = places[kind, 0, code]
    sort_by_group(
        bare, None, None, bare_group, ALL_HASHES, tables.bare, None, None, places[0, 1], width
    )
    sort_by_group(
        keys, multiplicity, incidence, group, ALL_HASHES,
        tables.keys, tables.multiplicity, tables.incidence, places[1, 1], width,
    )  # fmt: skip


@kernel
def _count_states(tables: _Tables, slots: Place, width: Width) -> tuple[Place, Place, Place]:
    """Count ordered records; return how many states, entries and slots of the index there are."""
    distinct: Place
    entries: Place
    distinct = entries = np.int64(0)
    is_done = False
    while not is_done:
        index = tables.table[:slots]
        distinct, entries, is_done = absorb(
            tables.states, index, tables.log, distinct, entries, tables.bare,
            tables.keys, tables.multiplicity, tables.incidence, tables.places, width,
        )  # fmt: skip
        if not is_done:
            slots *= 2
            index = tables.table[:slots]
            index[:] = 0
            index_states(tables.states, distinct, index, width)
    return distinct, entries, slots


@kernel
def _count_parts(
    part: Place,
    bare: U64,
    bare_group: Groups,
    bare_ends: I64,
    keys: U64,
    multiplicity: U32,
    incidence: U32,
    group: Groups,
    ends: I64,
    groups: int,
    sets: int,
    tables: _Tables,
    found: _Found,
    side: np.int64,
    learnt: I64,
    width: Width,
) -> tuple[Place, Place, bool]:
    """Count subpartitions from one on; return the first that is left, and pairs beyond the square.

    And whether that one is too large; else there is no room for what may be found in it.
    """
    changes_of_a_record = 5 if sets else 2
    beyond: Place
    changes: Place
    left: Place
    slots: Place
    beyond = changes = np.int64(0)
    first = part
    while part < ends.size - 1 and part - first < found.changed.shape[0]:
        own, those = slice(bare_ends[part], bare_ends[part + 1]), slice(ends[part], ends[part + 1])
        count = own.stop - own.start
        records = count + those.stop - those.start
        if records > tables.log.shape[0]:
            return part, beyond, True
        if (
            beyond + records > found.beyond.shape[1]
            or changes + changes_of_a_record * records > found.columns.shape[1]
        ):
            break
        once = found.dense[1, 1]
        source, source_group, left = bare[own], bare_group[own], count
        if learnt[1]:
            left = settle(
                source, source_group, keys[those], tables.marks, tables.left, tables.left_group,
                found.settled, width,
            )  # fmt: skip
            source, source_group = tables.left[:left], tables.left_group[:left]
        _order(
            source, source_group, keys[those], multiplicity[those], incidence[those], group[those],
            tables, width,
        )  # fmt: skip
        slots = _FIRST_SLOTS
        while slots < 2 * learnt[0] and 2 * slots <= tables.table.size:
            slots *= 2
        tables.table[:slots] = 0
        distinct, entries, slots = _count_states(tables, slots, width)
        k, q = tables.counts[0, :distinct], tables.counts[1, :distinct]
        k[:], q[:], tables.ends[:] = 0, 0, 0
        log = tables.log[:entries]
        add_up_states(log, tables.counts, tables.ends)
        for code in range(1, tables.ends.size):
            tables.ends[code] = max(tables.ends[code], tables.ends[code - 1])
        beyond = count_pairs(k, q, found.dense, found.beyond, beyond)
        ends_of_spectra = found.changed[part - first]
        ends_of_spectra[:] = changes  # also of a group that is not left out, as there is no other
        to = found.small, side, found.columns, ends_of_spectra, changes
        if sets:
            changes = list_by_set(log, tables.ends, groups, k, q, tables.own, tables.touched, *to)
        else:
            changes = list_by_group(log, tables.ends, k, q, *to)
        once = found.dense[1, 1] - once + count - left
        learnt[0], learnt[1] = distinct, once > PAYS_FROM * count
        part += 1
    return part, beyond, False
