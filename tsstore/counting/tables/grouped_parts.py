"""Subpartitions by group to spectra and changes: one loop over all of them, in tables of its own.

A subpartition takes a fraction of a millisecond, as long as the Python around it would: only what
is too large for the tables, or for what comes of them, is handed back. What a state has in the
group at hand is counted in its slot; when that group has been counted it becomes an entry of a
*log*, so that nothing is searched for but the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from tsstore.counting.hashing import Place, Width, width_for
from tsstore.counting.partition import sort_by_group
from tsstore.counting.parts import PartColumns, Parts, count_part, gather_part
from tsstore.counting.records import (
    TAG_SHIFT,
    Buffers,
    Groups,
    Records,
    counted_columns,
    group_dtype,
)
from tsstore.counting.tables.buckets import (
    BOTH,
    BUCKET,
    FIELD,
    INCIDENCE_SHIFT,
    Buckets,
    count_bare,
    enter,
    new_buckets,
    room_of,
    slots_with_room,
)
from tsstore.counting.tables.group_changes import (
    HALF,
    NUMBER,
    list_by_group,
    list_by_set,
)
from tsstore.counting.tables.grouped import count_codes
from tsstore.counting.tables.singletons import PAYS_FROM, marks_for, settle
from tsstore.counting.tables.spectra import (
    DeltaTally,
    Tally,
    add_up_listed,
    cells_of,
    changes_of_singletons,
    count_pairs,
    count_spectra,
    small_side,
)
from tsstore.numba_tools.arrays import I64, U8, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

LOG_COLUMNS: Final = 3
"""Of an entry: a group above the number of a state, its multiplicity and its incidence there."""

_MOST_ENDS: Final = 1 << 14
_ONCE: Final = 2
"""The cell of what occurs once: see :func:`tsstore.counting.tables.spectra.cell_of`."""
_NONE: Final = np.uint64(0)
_ONE: Final = np.uint64(1)


class _Columns(NamedTuple):
    """Room for records: keys, bare ones before others, and the counts of those others."""

    keys: U64
    multiplicity: U32
    incidence: U32


class _Tables(NamedTuple):
    """What a subpartition of so many records at most is counted in.

    Attributes
    ----------
    marks
        uint8 (marks,): see :mod:`tsstore.counting.tables.singletons`.
    gathered, ordered
        Its records, as they come and in the order of groups.
    group
        (records,): groups of those that are gathered.
    places, cursors
        int64 (2, 2, codes) and uint64 (codes,): where each group of either begins and ends, and
        where the next record goes.
    buckets
        Its states, of which there is none between subpartitions: in a word of counts is what a
        state has in the group at hand, in bare records; in the next one 1 more than the state's
        number, or 0, and above that 1 more than its last entry in the log.
    log
        int64 (records + 1, 3): what each state has in each group, in the order of groups.
    counts
        int64 (2, records): multiplicity and incidence of each state; zeros between subpartitions.
    ends, pairs
        int64 (codes,): where each group ends in the log, and its pairs of equal rows of one sample.
    of_states, touched
        int64 (records, 2) and (records,): room for :func:`list_by_set`; none without sets.
    """

    marks: U8
    gathered: _Columns
    ordered: _Columns
    group: Groups
    places: I64
    cursors: U64
    buckets: Buckets
    log: I64
    counts: I64
    ends: I64
    pairs: I64
    of_states: I64
    touched: I64


class _Found(NamedTuple):
    """What is found in subpartitions, added up as far as it is small.

    Attributes
    ----------
    settled, equal_pairs
        int64 (codes,): singletons of each group that were settled, and pairs of rows of one sample
        that are equal.
    dense
        int64 (side, side): states by multiplicity and incidence.
    beyond
        int64 (2, records): multiplicity and incidence of the others.
    small, columns, changed
        What leaving groups out changes; see :func:`list_by_group`. What is listed of a spectrum in
        a part ends where `changed`, int64 (parts, spectra), tells.
    """

    settled: I64
    equal_pairs: I64
    dense: I64
    beyond: I64
    small: I64
    columns: I64
    changed: I64


class GroupedParts:
    """Counts subpartitions of keys of so many words by group, of so many records each at most.

    Groups may be of sets, as in a :class:`tsstore.counting.tables.grouped.GroupedTable`. The memory
    for it is that of the buffers.
    """

    def __init__(self, words: int, groups: int, sets: int, most: int, buffers: Buffers) -> None:
        codes, spectra = count_codes(groups, sets), count_spectra(groups, sets)
        self._groups, self._sets = groups, sets
        self._width, self._side = width_for(words), small_side(groups, sets)
        empty, zeros = buffers.empty, buffers.zeros

        def columns() -> _Columns:
            return _Columns(*counted_columns(Records.empty(words, False, 0, most, empty))[:3])

        self._tables = _Tables(
            marks=empty((marks_for(most),), np.uint8),
            gathered=columns(),
            ordered=columns(),
            group=np.empty(most, group_dtype(codes)),
            places=np.empty((2, 2, codes), np.int64),
            cursors=np.empty(codes, np.uint64),
            buckets=new_buckets(words, most, 1, zeros),
            log=empty((most + 1, LOG_COLUMNS), np.int64),
            counts=zeros((2, most), np.int64),
            ends=np.empty(codes, np.int64),
            pairs=np.empty(codes, np.int64),
            of_states=zeros((most if sets else 0, 2), np.int64),
            touched=empty((most if sets else 0,), np.int64),
        )
        self._small = zeros((spectra, cells_of(self._side)), np.int64)
        self._columns = empty((3, (5 if sets else 2) * most), np.int64)
        self._beyond = empty((2, most), np.int64)
        # Of no more subpartitions at a time than have few ends of spectra in all.
        self._changed = np.empty((max(_MOST_ENDS // spectra, 1), spectra), np.int64)
        self._settled = np.zeros(codes, np.int64)
        # How many states the last subpartition had, and whether settling what occurs once paid.
        self._learnt, self._is_clear = np.array([0, 1], np.int64), True

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, were they written all over, and of what is found in them."""
        tables, found = self._tables, (self._small, self._columns, self._beyond, self._changed)
        held = *tables, *tables.gathered, *tables.ordered, *tables.buckets, *found
        return sum(array.nbytes for array in held if isinstance(array, np.ndarray))

    def count(
        self,
        bare: Parts,
        others: Parts,
        span: range,
        tally: Tally,
        pairs: I64,
        deltas: DeltaTally,
    ) -> Iterator[Place]:
        """Count subpartitions of a span; yield numbers of too large ones, which are left out.

        States are added to the tally, equal rows of one sample to `pairs`, (codes,), and what
        leaving groups out changes to the deltas.
        """
        if not self._is_clear:  # after an error
            for array in (*self._tables.buckets, self._tables.counts):
                array[:] = 0
        self._is_clear = False
        self._settled[:], self._small[:], self._tables.of_states[:] = 0, 0, 0
        found = _Found(
            self._settled,
            pairs,
            tally.dense,
            self._beyond,
            self._small,
            self._columns,
            self._changed,
        )
        columns = bare.columns, others.columns
        part: Place = span.start
        is_last = False
        while not is_last:
            first = part
            part, beyond, large = _count_parts(
                part, span.stop, *columns, self._groups, self._sets, self._tables, found,
                np.int64(self._side), self._learnt, self._width,
            )  # fmt: skip
            tally.add_large(self._beyond[:, :beyond])
            is_last = part + large >= span.stop
            if is_last:
                tally.add_once(int(self._settled.sum()))
                self._small[:, _ONCE] += changes_of_singletons(self._settled, self._sets)
                self._small[:, 0] = 0  # what is in no row any more
            small = self._small if is_last else None
            listed = self._columns, self._changed[: part - first]
            deltas.add(add_up_listed(*listed, small, self._side))
            if large:
                yield part
                part += 1
        self._is_clear = True


@kernel
def _order(
    bare: PartColumns,
    others: PartColumns,
    part: Place,
    tables: _Tables,
    settled: I64,
    is_settling: bool,
    width: Width,
) -> Place:
    """Bring the records of a subpartition into the order of groups; return how many are bare then.

    Bare ones that occur once are counted as settled, by group, and left out, if that pays.
    """
    gathered, ordered, one_each = tables.gathered, tables.ordered, bool(bare.one_each.all())
    places, room = tables.places, tables.cursors
    k, q = gathered.multiplicity, gathered.incidence
    left = count = gather_part(bare, part, gathered.keys, None, None, tables.group, width)
    keys, group = gathered.keys[count:], tables.group[count:]
    many = gather_part(others, part, keys, k, q, group, width)
    keys, group = keys[:many], group[:many]
    own, own_group = gathered.keys[:count], tables.group[:count]
    if is_settling:
        left = settle(own, own_group, keys, tables.marks, settled, one_each, width)
        own, own_group = own[:left], own_group[:left]
    sort_by_group(
        own, None, None, own_group, None, ordered.keys, None, None, places[0], room, width
    )
    sort_by_group(
        keys, k, q, group, None, ordered.keys[left:], ordered.multiplicity, ordered.incidence,
        places[1], room, width,
    )  # fmt: skip
    return left


@kernel
def _absorb(tables: _Tables, count: Place, slots: Place, width: Width) -> tuple[Place, Place, bool]:
    """Count ordered records in so many slots, group after group, and log what states have in each.

    So many are bare, and come before the others. Returns how many states and entries there are, and
    whether there was room for all.
    """
    buckets, log, rest, words = tables.buckets, tables.log, tables.buckets.rest, len(width)
    bare, others = tables.ordered.keys[:count], tables.ordered.keys[count:]
    mask, room = np.uint64(slots // BUCKET - 1), np.int64(room_of(slots))
    distinct = entries = numbered = np.int64(0)
    last = _NONE
    for group in range(np.uint64(tables.ends.size)):
        begin, pairs = entries, _NONE
        first, stop = tables.places[0, 0, group], tables.places[0, 1, group]
        for row in range(np.uint64(first), np.uint64(stop)):
            if distinct == room:
                return distinct, entries, False
            last += bare[row, 0] >> TAG_SHIFT
            slot, is_new = enter(buckets, mask, bare, row, width)
            distinct += np.int64(is_new)
            counts = rest[slot, words - 1]
            # Without a branch: nobody could guess whether a state was seen in this group before.
            log[entries, 0] = np.int64(slot)
            entries += np.int64(counts == _NONE)
            rest[slot, words - 1], equal = count_bare(counts, counts & BOTH, last)
            pairs += equal
        tables.pairs[group] = pairs
        for own in range(begin, entries):
            slot = np.uint64(log[own, 0])
            counts, rest[slot, words - 1] = rest[slot, words - 1], _NONE
            k, q = np.int64(counts & FIELD), np.int64((counts >> INCIDENCE_SHIFT) & FIELD)
            numbered = _log(tables, np.int64(own), group, slot, numbered, words)
            _add(tables, np.int64(own), k, q)
        first, stop = tables.places[1, 0, group], tables.places[1, 1, group]
        for row in range(np.uint64(first), np.uint64(stop)):
            if distinct == room:
                return distinct, entries, False
            slot, is_new = enter(buckets, mask, others, row, width)
            distinct += np.int64(is_new)
            entry = np.int64(rest[slot, words] >> HALF) - 1
            if entry < begin:
                entry = entries
                entries += 1
                numbered = _log(tables, entry, group, slot, numbered, words)
            own_k, own_q = tables.ordered.multiplicity[row], tables.ordered.incidence[row]
            _add(tables, entry, np.int64(own_k), np.int64(own_q))
        tables.ends[group] = entries
    return distinct, entries, True


@inlined
def _log(
    tables: _Tables, entry: Place, group: Place, slot: np.uint64, states: Place, words: int
) -> np.int64:
    """Begin an entry of the log, that of a slot; return how many states have a number then."""
    number = tables.buckets.rest[slot, words] & NUMBER
    is_first = number == _NONE
    many = np.int64(states) + np.int64(is_first)
    number = np.uint64(many) if is_first else number
    tables.buckets.rest[slot, words] = (np.uint64(entry + 1) << HALF) | number
    tables.log[entry, 0] = np.int64((np.uint64(group) << HALF) | (number - _ONE))
    tables.log[entry, 1] = tables.log[entry, 2] = 0
    return many


@inlined
def _add(tables: _Tables, entry: Place, k: np.int64, q: np.int64) -> None:
    """Add multiplicity and incidence to an entry of the log, and to its state."""
    state = np.uint64(tables.log[entry, 0]) & NUMBER
    tables.log[entry, 1] += k
    tables.log[entry, 2] += q
    tables.counts[0, state] += k
    tables.counts[1, state] += q


@kernel
def _forget(tables: _Tables, slots: Place, states: Place) -> None:
    """Leave so many slots and states as if there had been none."""
    tables.buckets.first[:slots], tables.buckets.rest[:slots] = 0, 0
    tables.counts[0, :states], tables.counts[1, :states] = 0, 0


@kernel
def _count_parts(
    part: Place,
    stop: Place,
    bare: PartColumns,
    others: PartColumns,
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
    slots: Place
    entries: Place
    beyond = changes = np.int64(0)
    first = part
    while part < stop and part - first < found.changed.shape[0]:
        count = count_part(bare, part)
        records = count + count_part(others, part)
        if records > tables.group.size:
            return part, beyond, True
        if (
            beyond + records > found.beyond.shape[1]
            or changes + changes_of_a_record * records > found.columns.shape[1]
        ):
            break
        once = found.dense[1, 1]
        left = _order(bare, others, part, tables, found.settled, learnt[1] != 0, width)
        slots = slots_with_room(min(records, learnt[0] + learnt[0] // 8))
        distinct, entries, is_done = _absorb(tables, left, slots, width)
        while not is_done:
            # Too many for this table: from the beginning, in a larger one.
            _forget(tables, slots, distinct)
            slots *= 2
            distinct, entries, is_done = _absorb(tables, left, slots, width)
        log, ends = tables.log[:entries], tables.ends
        all_k, all_q = tables.counts[0, :distinct], tables.counts[1, :distinct]
        for code in range(ends.size):
            found.equal_pairs[code] += tables.pairs[code]
        beyond = count_pairs(all_k, all_q, found.dense, found.beyond, beyond)
        ends_of_spectra = found.changed[part - first]
        ends_of_spectra[:] = changes  # also of a group that is not left out, as there is no other
        spectra = found.small, side, found.columns, ends_of_spectra, changes
        if sets:
            changes = list_by_set(
                log, ends, groups, all_k, all_q, tables.of_states, tables.touched, *spectra
            )
        else:
            changes = list_by_group(log, ends, all_k, all_q, *spectra)
        _forget(tables, slots, distinct)
        once = found.dense[1, 1] - once + count - left
        learnt[0], learnt[1] = distinct, once > PAYS_FROM * count
        part += 1
    return part, beyond, False
