"""Counting a partition by state and group, so that every group can be left out afterwards.

Records are counted group after group. What a state has in the group at hand is an entry of a *log*;
its first record in another group begins the next entry, so that nothing is searched for but the
state. In the end the log has the counts of each state in each group, in the order of groups, and
what leaving one out changes is read off it one entry after another.

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
    width_for,
)
from tsstore.counting.partition import order_by_group
from tsstore.counting.records import LATER, TAG_SHIFT, Buffers, Records, counted_columns
from tsstore.counting.tables.group_changes import (
    HALF,
    NUMBER,
    add_up_states,
    list_by_group,
    list_by_set,
)
from tsstore.counting.tables.plain import count_row
from tsstore.counting.tables.spectra import (
    ENTRY_BYTES,
    DeltaEntries,
    add_up_listed,
    cells_of,
    count_spectra,
    small_side,
)
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

LARGEST_GROUPS: Final = 2**16 - 1
"""Groups of all sets together, at most."""

LOG_COLUMNS: Final = 4
"""Of an entry: group and state, multiplicity, incidence, last sample and its rows."""

_SMALLEST_TABLE, _SMALLEST_INDEX = 8, 2
_LARGEST_TABLE: Final = 2**32
_ONE: Final = np.uint64(1)
_NO_ENTRY: Final = NUMBER << HALF


def grouped_slot_bytes(words: int, sets: int = 0) -> int:
    """Bytes of one slot of a table of states by group, at most.

    Half of the slots are places in an index of states, of which there is one of half the size as
    well while it doubles; there are a quarter as many states, and entries of the log. To a state
    belong its key, its last entry and its counts, to an entry its four numbers and what it changes
    in the end, with sets besides what is added up of a state, and where that is.
    """
    changes = 5 * ENTRY_BYTES + 24 if sets else 2 * ENTRY_BYTES
    return 3 + (8 * words + 8 + 16 + 8 * LOG_COLUMNS + changes) // 4


def least_slots(groups: int) -> int:
    """Slots with which any partition can be counted: a state may be in all groups."""
    return _SMALLEST_TABLE * max(groups, 1)


def count_codes(groups: int, sets: int) -> int:
    """Return how many numbers records tell apart: one for each of so many groups of each set.

    Where there are sets, samples may be in none, which are one more.
    """
    return groups * (sets + 1)


class GroupedTable:
    """A hash table of distinct keys, and a log of what each group has of each.

    Half of `maximum_slots` (see :func:`least_slots`) are the most of an index of the states, which
    begins with `first_slots` and is never more than half full; the log has room for a quarter as
    many entries. Of keys of so many words those are counted whose hashes are in a range. Records
    are of so many groups, or of so many of each set: their number is then ``set * groups + group``,
    and that of samples in no set is one more than of the last.

    Attributes
    ----------
    distinct
        Number of distinct keys.
    equal_pairs
        int64 (codes,): pairs of bare records of one sample that are equal, by group.
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
        if maximum_slots < _SMALLEST_TABLE or first_slots < _SMALLEST_INDEX:
            raise ValueError(
                f"a table of {first_slots} to {maximum_slots} slots; expected at least "
                f"{_SMALLEST_INDEX} and {_SMALLEST_TABLE}"
            )
        maximum_slots = min(maximum_slots, _LARGEST_TABLE)
        self._groups, self._sets, self._codes = groups, sets, count_codes(groups, sets)
        self._words, self._width, self._hashes = words, width_for(words), hashes
        self._most_states, self._buffers = maximum_slots // 4, Buffers()
        self.distinct: Place = 0
        self.equal_pairs = np.zeros(self._codes, np.int64)
        self._entries: Place = 0
        self._sample = np.uint64(0)
        # Whether the log is, with one entry of each state in each group, and the last one's group.
        self._is_ordered, self._last_group = True, 0
        self._counted: tuple[I64, I64] | None = None
        # As many rows as there may ever be: what was never written is never resident.
        # A state is its key, and the group and the number of its last entry.
        self._states = np.empty((self._most_states, words + 1), np.uint64)
        # An entry is a group above the number of a state, its multiplicity and its incidence, and
        # the last sample with the rows of that.
        self._log = np.empty((maximum_slots // 4, LOG_COLUMNS), np.int64)
        # An index holds the number of a state and 1, or 0.
        slots = min(first_slots, maximum_slots // 2)
        self._index = np.zeros(1 << (slots.bit_length() - 1), np.uint32)

    def add(self, records: Records) -> bool:
        """Count records, bare ones or others.

        Bare ones are of whole samples, of which no others have been counted. Returns False if there
        is no room: it has then counted some of the records and is of no further use.
        """
        if not len(records):
            return True
        self._counted = None
        places = np.zeros((2, 2, self._codes), np.int64)
        own = places[0 if records.is_bare else 1]
        ordered = order_by_group(records, self._codes, self._hashes, self._buffers, own)
        none = Records.empty(self._words, not records.is_bare)
        bare, others = (ordered, none) if records.is_bare else (none, ordered)
        held = np.flatnonzero((places[:, 1] > places[:, 0]).any(axis=0))
        if len(held):
            self._is_ordered &= bool(held[0] >= self._last_group)
            self._last_group = int(held[-1])
        is_done = False
        while not is_done:
            self.distinct, self._entries, sample, is_done = absorb(
                self._states, self._index, self._log, self.distinct, self._entries, self._sample,
                bare.keys, *counted_columns(others)[:3], places, self.equal_pairs, self._width,
            )  # fmt: skip
            self._sample = np.uint64(sample)
            if not is_done and not self._make_room(places):
                return False
        return True

    def _make_room(self, places: I64) -> bool:
        """Double the index if it is full, or add up the log; say whether that was enough.

        The log's entries of the first group that has records at `places` still go on.
        """
        if self._entries == len(self._log):
            self._add_up_log()
            # What comes of the group at hand begins further entries.
            self._is_ordered = False
            group = np.flatnonzero((places[:, 1] > places[:, 0]).any(axis=0))[0]
            word = self._log[: self._entries, 0].view(np.uint64)
            own = np.flatnonzero(word >> HALF == np.uint64(group))
            state = word[own] & NUMBER
            self._states[state, -1] = np.uint64(group) << HALF | own.astype(np.uint64)
            return 2 * self._entries <= len(self._log)
        if len(self._index) > self._most_states:
            return False
        self._index = np.zeros(2 * len(self._index), np.uint32)
        index_states(self._states, self.distinct, self._index, self._width)
        return True

    def _add_up_log(self) -> None:
        """Bring the log into the order of groups, with one entry of each state in each."""
        log = self._log[: self._entries]
        log = log[np.argsort(log[:, 0])]
        is_first = np.ones(len(log), np.bool_)
        is_first[1:] = log[1:, 0] != log[:-1, 0]
        firsts = np.flatnonzero(is_first)
        self._entries = len(firsts)
        self._log[: self._entries, 0] = log[firsts, 0]
        self._log[: self._entries, 1:3] = np.add.reduceat(log[:, 1:3], firsts, axis=0)
        self._log[: self._entries, 3] = np.maximum.reduceat(log[:, 3], firsts)
        self._states[: self.distinct, -1] = _NO_ENTRY
        self._is_ordered, self._last_group = True, self._codes

    def _settle(self) -> tuple[I64, I64, I64]:
        """Return the log, by group and state; counts of states; and where groups end in the log."""
        if not self._is_ordered:
            self._add_up_log()
        log = self._log[: self._entries]
        if self._counted is None:
            counts, ends = np.zeros((2, self.distinct), np.int64), np.zeros(self._codes, np.int64)
            add_up_states(log, counts, ends)
            self._counted = counts, np.maximum.accumulate(ends)
        return log, *self._counted

    @property
    def used(self) -> int:
        """Number of slots in use."""
        return int(2 * max(self._entries, self.distinct))

    @property
    def nbytes(self) -> int:
        """Bytes of keys, index and log, as far as they are in use."""
        rows = self._states[: self.distinct].nbytes + self._log[: self._entries].nbytes
        return rows + self._index.nbytes

    @property
    def counts(self) -> tuple[I64, I64]:
        """Multiplicity and incidence of each key, int64 (keys,)."""
        _, (multiplicity, incidence), _ = self._settle()
        return multiplicity, incidence

    @property
    def keys(self) -> U64:
        """The distinct keys, uint64 (keys, words): a view.

        In place of the first bit of each is a tag: see
        :func:`tsstore.counting.partition.restore_hashes`.
        """
        return self._states[: self.distinct, :-1]

    @property
    def entries(self) -> tuple[I64, I64, I64, I64]:
        """What each group has of each key: number of the key, group, multiplicity and incidence.

        int64 (entries,) each, by group.
        """
        word, multiplicity, incidence, _ = self._settle()[0].T
        return word & np.int64(NUMBER), word >> np.int64(HALF), multiplicity, incidence

    def find(self, keys: U64) -> I64:
        """Return the number of each key, uint64 (n, words), in their order; -1 of unknown ones."""
        found = np.empty(len(keys), np.int64)
        _look_up(self._states, self._index, keys, found, self._width)
        return found

    def delta(self) -> DeltaEntries:
        """Return what leaving each group out changes in the spectrum."""
        log, (k, q), ends = self._settle()
        side = small_side(self._groups, self._sets)
        # What is added to states by spectrum, multiplicity and incidence, where these are small.
        small = np.zeros((count_spectra(self._groups, self._sets), cells_of(side)), np.int64)
        most = (5 if self._sets else 2) * len(log)
        columns = self._buffers.array("changes", (3, most), np.int64)
        spectra = np.zeros(len(small), np.int64)
        to = small, np.int64(side), columns, spectra, 0
        if self._sets:
            own, touched = np.zeros((self.distinct, 2), np.int64), np.empty(self.distinct, np.int64)
            count = list_by_set(log, ends, self._groups, k, q, own, touched, *to)
        else:
            count = list_by_group(log, ends, k, q, *to)
        small[:, 0] = 0  # what is in no row any more
        return add_up_listed(columns[:, :count], spectra[None], small, side)


@inlined
def _find(states: U64, index: U32, keys: U64, row: Place, width: Width) -> np.uint64:
    """Return the place in the index of a key, or else the empty one that is due to it."""
    mask, first = np.uint64(index.size - 1), keys[row, 0] | LATER
    slot: np.uint64 = keys[row, 0] & mask
    for _ in range(PROBE_LIMIT):
        found = index[slot]
        if found == 0:
            return slot
        state = np.uint64(found) - _ONE
        same = states[state, 0] == first
        for word in range(1, len(width)):
            same &= states[state, word] == keys[row, word]
        if same:
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@kernel
def _look_up(states: U64, index: U32, keys: U64, found: I64, width: Width) -> None:
    """Write the number of each key's state, or -1."""
    for row in range(keys.shape[0]):
        found[row] = np.int64(index[_find(states, index, keys, row, width)]) - 1


@kernel
def index_states(states: U64, used: Place, index: U32, width: Width) -> None:
    """Enter so many states into an index, which is empty."""
    for state in range(np.int64(used)):
        index[_find(states, index, states, state, width)] = state + 1


@inlined
def _find_entry(
    states: U64,
    index: U32,
    log: I64,
    distinct: Place,
    entries: Place,
    keys: U64,
    row: Place,
    group: Place,
    width: Width,
) -> tuple[np.uint64, Place, Place]:
    """Return the entry of a key in a group, and how many states and entries there are then.

    There is no branch on whether the state's last entry is of the group: nobody could guess it. A
    new entry has no counts.
    """
    words = len(width)
    slot = _find(states, index, keys, row, width)
    state = np.uint64(index[slot]) - _ONE
    if index[slot] == 0:
        state = np.uint64(distinct)
        distinct += 1
        index[slot] = distinct
        copy_key(keys, row, states, state, width)
        states[state, 0] |= LATER
        states[state, words] = _NO_ENTRY
    last = states[state, words]
    goes_on = last >> HALF == group
    entry = last & NUMBER if goes_on else np.uint64(entries)
    kept = np.int64(goes_on)
    states[state, words] = (group << HALF) | entry
    log[entry, 0] = np.int64((group << HALF) | state)
    log[entry, 1] *= kept
    log[entry, 2] *= kept
    log[entry, 3] *= kept
    return entry, distinct, entries + 1 - kept


@kernel
def absorb(
    states: U64,
    index: U32,
    log: I64,
    distinct: Place,
    entries: Place,
    sample: np.uint64,
    bare: U64,
    keys: U64,
    multiplicity: U32,
    incidence: U32,
    places: I64,
    equal_pairs: I64,
    width: Width,
) -> tuple[Place, Place, np.uint64, bool]:
    """Count records group after group, bare ones after those of so many samples.

    Returns how many states, entries and samples there are then, and the end: whether all were
    counted, or there is no room; `places` are then what is left of bare records and of others, by
    group.
    """
    last = np.uint64(sample)
    for group in range(np.uint64(places.shape[2])):
        pairs = np.uint64(0)
        for row in range(np.uint64(places[0, 0, group]), np.uint64(places[0, 1, group])):
            if 2 * distinct >= index.size or entries == log.shape[0]:
                places[0, 0, group] = row
                equal_pairs[group] += np.int64(pairs)
                return distinct, entries, last, False
            entry, distinct, entries = _find_entry(
                states, index, log, distinct, entries, bare, row, group, width
            )
            last += bare[row, 0] >> TAG_SHIFT
            shown, more, equal = count_row(np.uint64(log[entry, 3]), last)
            log[entry, 1] += 1
            log[entry, 2] += np.int64(more)
            log[entry, 3] = np.int64(shown)
            pairs += equal
        equal_pairs[group] += np.int64(pairs)
        places[0, 0, group] = places[0, 1, group]
        for row in range(np.uint64(places[1, 0, group]), np.uint64(places[1, 1, group])):
            if 2 * distinct >= index.size or entries == log.shape[0]:
                places[1, 0, group] = row
                return distinct, entries, last, False
            entry, distinct, entries = _find_entry(
                states, index, log, distinct, entries, keys, row, group, width
            )
            log[entry, 1] += np.int64(multiplicity[row])
            log[entry, 2] += np.int64(incidence[row])
        places[1, 0, group] = places[1, 1, group]
    return distinct, entries, last, True
