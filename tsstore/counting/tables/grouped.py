"""Counting a partition by state and group, so that every group can be left out afterwards.

Most states of a large layer occur in one group of samples only: of such a state the group's number
stands in the top bits of its incidence. When a second group comes, what has been counted
moves to a second table, of pairs of a state and a group, and the state is marked as one of many
groups: from then on its records count in both tables. So states that are all distinct need no
second table, and a state that is everywhere has one entry a group there.

Either table keeps what it counts as rows in the order of first appearance, and an index of their
numbers to search in: in the end the rows are read one after another, and a pair knows its state's.

Samples may be in several *sets* as well, each of which is also counted by itself: records then tell
which group of which set they are of, and one count gives the changes of the whole, and the spectrum
and the changes of each set.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import (
    ALL_HASHES,
    LONG_PROBE,
    PROBE_LIMIT,
    HashRange,
    Place,
    Width,
    copy_key,
    is_same,
    width_for,
)
from tsstore.counting.records import Groups, Records, checked_groups
from tsstore.counting.tables.plain import CountingTable
from tsstore.counting.tables.spectra import (
    ENTRY_BYTES,
    DeltaEntries,
    add_up_entries,
    count_spectra,
    entries_of_rows,
    small_side,
)
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64, U16, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.mixing import GOLDEN

LARGEST_GROUPS: Final = 2**16 - 1
"""Groups of all sets are numbered from 0 to at most one less: this number stands for several."""
_INCIDENCE: Final = np.uint64(2**48 - 1)
"""The bits of a state's last column that are not its group."""

_PAIR_COLUMNS: Final = 3
_SMALLEST_TABLE: Final = 2
_LARGEST_TABLE: Final = 2**32
_ONE: Final = np.uint64(1)
_MANY: Final = np.uint64(LARGEST_GROUPS)
_GROUP_BITS: Final = np.uint64(16)
_GROUP_MASK: Final = np.uint64(LARGEST_GROUPS)
_TAG_SHIFT: Final = np.uint64(48)
_HALF: Final = np.uint64(32)


def grouped_slot_bytes(words: int, sets: int = 0) -> int:
    """Bytes of one slot of a table of states by group, at most.

    There are 2 to 4 slots for each distinct key and for each pair of a key and a group. A slot is
    a place in an index, of which there is one of half the size as well while it doubles, half a
    row, and half of the two changes that a pair makes in the end. With sets there are five of them,
    and the order of the pairs by state.
    """
    changes = 5 * ENTRY_BYTES // 2 + 8 if sets else ENTRY_BYTES
    return 4 + 2 + 4 * words + 8 + changes


def least_slots(groups: int) -> int:
    """Slots with which any partition can be counted: a state may be in all groups."""
    return 8 * max(groups, 1)


def count_codes(groups: int, sets: int) -> int:
    """Return how many numbers records tell apart: one for each of so many groups of each set.

    Where there are sets, samples may be in none, which are one more.
    """
    return groups * (sets + 1)


class GroupedTable(CountingTable):
    """Hash tables of distinct keys, and of pairs of a key and a group where a key has several.

    They grow with what they hold, from `first_slots` each, if there may be as many, to no more than
    `maximum_slots` together (see :func:`least_slots`), and are never more than half full. Of keys
    of so many words those are counted whose hashes are in a range. Records are of so many groups,
    or of so many of each set: their number is then ``set * groups + group``, and that of samples in
    no set is one more than of the last.
    """

    def __init__(
        self,
        words: int,
        groups: int,
        maximum_slots: int,
        first_slots: int = 1024,
        hashes: HashRange = ALL_HASHES,
        sets: int = 0,
    ) -> None:
        slots = min(first_slots, maximum_slots // 2)
        if slots < _SMALLEST_TABLE:
            raise ValueError(f"tables of {slots} slots; expected at least 2 in each")
        self._groups, self._sets = groups, sets
        self._codes = count_codes(groups, sets)
        self._width = width_for(words)
        self._maximum_slots = min(maximum_slots, _LARGEST_TABLE)
        self._hashes = hashes
        self._held = 0
        slots = 1 << (slots.bit_length() - 1)
        # As many rows as there may ever be: what was never written is never resident.
        rows = self._maximum_slots // 2
        # A state is its key, its multiplicity, and its incidence below a tag: a group, or several.
        self._states = np.empty((rows, words + 2), np.uint64)
        # A pair is its state's number above its group, its multiplicity and its incidence.
        self._pairs = np.empty((rows, _PAIR_COLUMNS), np.uint64)
        # An index holds the number of a state or pair and 1, or 0.
        self._state_index = np.zeros(slots, np.uint32)
        self._pair_index = np.zeros(slots, np.uint32)
        # What is added to states by spectrum, multiplicity and incidence, where these are small.
        side = small_side(groups, sets)
        self._small = np.zeros((count_spectra(groups, sets), side, side), np.int64)

    def _count_from(self, records: Records, row: Place) -> Place:
        columns = records.keys, records.multiplicity, records.incidence
        group = checked_groups(records, self._codes)
        # Numba takes longer to look at a tuple of arrays than at each of them.
        row, self.distinct, self._held = _absorb(
            self._states, self._state_index, self._pairs, self._pair_index, self.distinct,
            self._held, *columns, group, row, self._hashes, self._width,
        )  # fmt: skip
        return row

    @property
    def used(self) -> int:
        """Number of rows in use, in both tables."""
        return self.distinct + self._held

    @property
    def nbytes(self) -> int:
        """Bytes of both tables, as far as they are in use."""
        rows = self._states[: self.distinct].nbytes + self._pairs[: self._held].nbytes
        return rows + self._state_index.nbytes + self._pair_index.nbytes

    def begin(self) -> None:
        """Forget all that has been counted."""
        self.clear()
        self._small[:] = 0

    def clear(self) -> None:
        """Forget all keys, but not how large the tables were."""
        self.distinct = self._held = 0
        self._state_index[:] = 0
        self._pair_index[:] = 0

    @property
    def counts(self) -> tuple[I64, I64]:
        """Multiplicity and incidence of each key, int64 (keys,).

        Copies: a column of one key alone would be contiguous, which loops are compiled for anew.
        """
        multiplicity, tagged = self._states[: self.distinct, -2:].T
        return multiplicity.astype(np.int64), (tagged & _INCIDENCE).view(np.int64)

    @property
    def keys(self) -> U64:
        """The distinct keys, uint64 (keys, words): a view."""
        return self._states[: self.distinct, :-2]

    @property
    def only_group(self) -> U16:
        """The group of each key, uint16 (keys,); `LARGEST_GROUPS` of one that several have."""
        return (self._states[: self.distinct, -1] >> _TAG_SHIFT).astype(np.uint16)

    @property
    def pairs(self) -> tuple[I64, U16, I64, I64]:
        """Of keys that several groups have: their numbers, and in each group its own counts.

        Number of the key, group, multiplicity and incidence, (pairs,) each, in no order.
        """
        pair, multiplicity, incidence = self._pairs[: self._held].T
        number, group = (pair >> _GROUP_BITS).astype(np.int64), (pair & _GROUP_MASK)
        counts = multiplicity.astype(np.int64), incidence.astype(np.int64)
        return number, group.astype(np.uint16), *counts

    def find(self, keys: U64) -> I64:
        """Return the number of each key, uint64 (n, words), in their order; -1 of unknown ones."""
        found = np.empty(len(keys), np.int64)
        _look_up(self._states, self._state_index, keys, found, self._width)
        return found

    def delta(self) -> DeltaEntries:
        """Return what leaving each group out changes in the spectrum."""
        large = self.large_delta()
        return add_up_entries([large, self.small_delta()])

    def large_delta(self) -> DeltaEntries:
        """Return what leaving each group out changes of states in many rows; add up the rest.

        Of few states hardly any change the same entry: these are not added up yet.
        """
        states, pairs = self._states[: self.distinct], self._pairs[: self._held]
        most = 2 * (self.distinct + self._held)
        if self._sets:
            order, ends = np.empty(self._held, np.uint32), np.zeros(self.distinct, np.int64)
            _order_by_state(pairs, ends, order)
            most = 3 * self.distinct + 5 * self._held
        rows = np.empty((most, ENTRY_BYTES // 8), np.int64)
        if self._sets:
            own, by_set, by_group = np.zeros((3, self._codes, 4), np.uint64)
            room = own, by_set[: self._sets + 1], by_group[: self._groups]
            count = _list_by_set(states, pairs, order, ends, *room, self._small, rows)
        else:
            count = _list_entries(states, pairs, self._small, rows)
        return entries_of_rows(rows[:count], len(self._small))

    def small_delta(self) -> DeltaEntries:
        """Return the rest, as far as it has been added up; it is then forgotten."""
        places = np.flatnonzero(self._small)
        group, k, q = np.unravel_index(places, self._small.shape)
        ends = np.searchsorted(group, np.arange(len(self._small)), side="right")
        found = DeltaEntries(ends, k, q, self._small.reshape(-1)[places])
        self._small[:] = 0
        return found

    def _grow(self) -> bool:
        pairs_full = 2 * (self._held + 2) > len(self._pair_index)
        full = self._pair_index if pairs_full else self._state_index
        if len(self._state_index) + len(self._pair_index) + len(full) > self._maximum_slots:
            return False
        index = np.zeros(2 * len(full), np.uint32)
        if pairs_full:
            _index_pairs(self._pairs, self._held, index)
            self._pair_index = index
        else:
            _index_states(self._states, self.distinct, index, self._width)
            self._state_index = index
        return True


@inlined
def _find_state(states: U64, index: U32, keys: U64, row: int, width: Width) -> np.uint64:
    """Return the place in the index of a key, or else the empty one that is due to it."""
    mask = np.uint64(index.size - 1)
    slot: np.uint64 = keys[row, 0] & mask
    for _ in range(PROBE_LIMIT):
        state = index[slot]
        if state == 0 or is_same(keys, row, states, np.uint64(state) - _ONE, width):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def _find_pair(pairs: U64, index: U32, pair: np.uint64) -> np.uint64:
    """Return the place in the index of a pair, or else the empty one that is due to it."""
    mask = np.uint64(index.size - 1)
    word = pair * GOLDEN
    slot = ((word ^ (word >> _HALF)) * GOLDEN >> _HALF) & mask
    for _ in range(PROBE_LIMIT):
        held = index[slot]
        if held == 0 or pairs[np.uint64(held) - _ONE, 0] == pair:
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def _add_pair(
    pairs: U64,
    index: U32,
    held: int,
    pair: np.uint64,
    multiplicity: np.uint64,
    incidence: np.uint64,
) -> int:
    """Count in the second table, which must have room; return the number of pairs it holds."""
    slot = _find_pair(pairs, index, pair)
    row = np.uint64(index[slot]) - _ONE
    if index[slot] == 0:
        row = np.uint64(held)
        held += 1
        index[slot] = held
        pairs[row, 0] = pair
        pairs[row, 1] = pairs[row, 2] = 0
    pairs[row, 1] += multiplicity
    pairs[row, 2] += incidence
    return held


@kernel
def _absorb(
    states: U64,
    state_index: U32,
    pairs: U64,
    pair_index: U32,
    distinct: int,
    held: int,
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    group: Groups,
    row: Place,
    hashes: HashRange,
    width: Width,
) -> tuple[Place, int, int]:
    """Add records from `row` on; return the first that finds no room, distinct keys and pairs."""
    words = len(width)
    k = q = _ONE
    # Unsigned: whether rows count from an array's end need not be asked.
    for record in range(np.uint64(row), np.uint64(keys.shape[0])):
        if (keys[record, 0] >> hashes.shift) & hashes.mask != hashes.number:
            continue
        slot = _find_state(states, state_index, keys, record, width)
        state = np.uint64(state_index[slot]) - _ONE
        own = np.uint64(group[record])
        if state_index[slot] == 0:
            if 2 * distinct == state_index.size:
                return np.int64(record), distinct, held
            state = np.uint64(distinct)
            distinct += 1
            state_index[slot] = distinct
            copy_key(keys, record, states, state, width)
            states[state, words], states[state, words + 1] = 0, own << _TAG_SHIFT
        if multiplicity is not None and incidence is not None:
            k, q = np.uint64(multiplicity[record]), np.uint64(incidence[record])
        tag = states[state, words + 1] >> _TAG_SHIFT
        if tag != own:
            if 2 * (held + 2) > pair_index.size:
                return np.int64(record), distinct, held
            pair = state << _GROUP_BITS
            if tag != _MANY:
                so_far = states[state, words + 1] & _INCIDENCE
                held = _add_pair(pairs, pair_index, held, pair | tag, states[state, words], so_far)
                states[state, words + 1] = so_far | (_MANY << _TAG_SHIFT)
            held = _add_pair(pairs, pair_index, held, pair | own, k, q)
        states[state, words] += k
        states[state, words + 1] += q
    return np.int64(keys.shape[0]), distinct, held


@kernel
def _look_up(states: U64, index: U32, keys: U64, found: I64, width: Width) -> None:
    """Write the number of each key's state, or -1."""
    for row in range(keys.shape[0]):
        slot = _find_state(states, index, keys, row, width)
        found[row] = np.int64(index[slot]) - 1


@kernel
def _index_states(states: U64, used: int, index: U32, width: Width) -> None:
    """Enter so many states into an index, which is empty."""
    for state in range(used):
        index[_find_state(states, index, states, state, width)] = state + 1


@kernel
def _index_pairs(pairs: U64, used: int, index: U32) -> None:
    """Enter so many pairs into an index, which is empty."""
    for pair in range(used):
        index[_find_pair(pairs, index, pairs[pair, 0])] = pair + 1


@inlined
def _change(
    small: I64,
    rows: I64,
    count: Place,
    spectrum: np.uint64,
    k: np.uint64,
    q: np.uint64,
    states: int,
) -> Place:
    """Write what is added to a spectrum's states after so many rows; return how many there are.

    At small multiplicities, where most are, it is added up at once.
    """
    if k < np.uint64(small.shape[1]):
        small[spectrum, k, q] += states
        return count
    rows[count, 0], rows[count, 1], rows[count, 2], rows[count, 3] = spectrum, k, q, states
    return count + 1


@kernel
def _list_entries(states: U64, pairs: U64, small: I64, rows: I64) -> Place:
    """Write what leaving a group out changes: see :func:`_change`.

    A state of one group is gone without it; one of many moves to where it is without each.
    """
    words = states.shape[1] - 2
    state: Place
    count: Place
    count = np.int64(0)
    for state in range(states.shape[0]):
        tag = states[state, words + 1] >> _TAG_SHIFT
        if tag != _MANY:
            q = states[state, words + 1] & _INCIDENCE
            count = _change(small, rows, count, tag, states[state, words], q, -1)
    for pair in range(pairs.shape[0]):
        group = pairs[pair, 0] & _GROUP_MASK
        state = np.int64(pairs[pair, 0] >> _GROUP_BITS)
        k, q = states[state, words], states[state, words + 1] & _INCIDENCE
        count = _change(small, rows, count, group, k, q, -1)
        count = _change(small, rows, count, group, k - pairs[pair, 1], q - pairs[pair, 2], 1)
    return count


@kernel
def _order_by_state(pairs: U64, ends: I64, order: U32) -> None:
    """Order pairs by their states, and write where those of each end: all zeros before."""
    state: Place
    for pair in range(pairs.shape[0]):
        ends[pairs[pair, 0] >> _GROUP_BITS] += 1
    before = np.int64(0)
    for state in range(ends.size):
        before += ends[state]
        ends[state] = before - ends[state]
    for pair in range(pairs.shape[0]):
        state = np.int64(pairs[pair, 0] >> _GROUP_BITS)
        order[ends[state]] = pair
        ends[state] += 1


@inlined
def _add_to(sums: U64, many: Place, place: np.uint64, k: np.uint64, q: np.uint64) -> Place:
    """Add to the sums of a place; return how many places have been touched."""
    if sums[place, 0] == 0:
        sums[many, 2] = place
        many += 1
    sums[place, 0] += k
    sums[place, 1] += q
    return many


@inlined
def _list_without(
    small: I64,
    rows: I64,
    count: Place,
    spectrum: np.uint64,
    k: np.uint64,
    q: np.uint64,
    less_k: np.uint64,
    less_q: np.uint64,
) -> Place:
    """Write what leaving so much out changes of a state with so many rows and samples."""
    count = _change(small, rows, count, spectrum, k, q, -1)
    if k > less_k:
        count = _change(small, rows, count, spectrum, k - less_k, q - less_q, 1)
    return count


@kernel
def _list_by_set(
    states: U64,
    pairs: U64,
    order: U32,
    ends: I64,
    own: U64,
    by_set: U64,
    by_group: U64,
    small: I64,
    rows: I64,
) -> Place:
    """Write what is in the spectra of all sets, and what leaving a group out changes in any.

    For the spectra's order see :func:`tsstore.counting.tables.spectra.count_spectra`; for how it is
    written, :func:`_change`. There is room for a state's pairs, `own`, and its sums by set and by
    group, with columns for rows and samples, zeros before and after, and the places that are not
    zeros. Of one group there are no changes.
    """
    words = states.shape[1] - 2
    groups, none = np.uint64(by_group.shape[0]), np.uint64(by_set.shape[0] - 1)
    start = np.int64(0)
    count: Place
    sets: Place
    held: Place
    count = np.int64(0)
    for state in range(states.shape[0]):
        tag = states[state, words + 1] >> _TAG_SHIFT
        k, q = states[state, words], states[state, words + 1] & _INCIDENCE
        if tag != _MANY:
            of = tag // groups
            group = tag - of * groups
            first = groups + of * (groups + _ONE)
            if groups > _ONE:
                count = _change(small, rows, count, group, k, q, -1)
            if of < none:
                count = _change(small, rows, count, first + groups, k, q, 1)
                if groups > _ONE:
                    count = _change(small, rows, count, first + group, k, q, -1)
            continue
        sets = held = np.int64(0)
        many = ends[state] - start
        for place in range(many):
            pair = order[start + place]
            code, less_k, less_q = pairs[pair, 0] & _GROUP_MASK, pairs[pair, 1], pairs[pair, 2]
            of = code // groups
            group = code - of * groups
            own[place, 0], own[place, 1], own[place, 2], own[place, 3] = of, group, less_k, less_q
            sets = _add_to(by_set, sets, of, less_k, less_q)
            held = _add_to(by_group, held, group, less_k, less_q)
        start = ends[state]
        if groups > _ONE:
            for place in range(many):
                of, group = own[place, 0], own[place, 1]
                if of < none:
                    spectrum = groups + of * (groups + _ONE) + group
                    all_k, all_q = by_set[of, 0], by_set[of, 1]
                    less_k, less_q = own[place, 2], own[place, 3]
                    count = _list_without(
                        small, rows, count, spectrum, all_k, all_q, less_k, less_q
                    )
            for place in range(held):
                group = by_group[place, 2]
                less_k, less_q = by_group[group, 0], by_group[group, 1]
                count = _list_without(small, rows, count, group, k, q, less_k, less_q)
        for place in range(sets):
            of = by_set[place, 2]
            if of < none:
                spectrum = groups + of * (groups + _ONE) + groups
                count = _change(small, rows, count, spectrum, by_set[of, 0], by_set[of, 1], 1)
            by_set[of, 0] = by_set[of, 1] = 0
        for place in range(held):
            group = by_group[place, 2]
            by_group[group, 0] = by_group[group, 1] = 0
    return count
