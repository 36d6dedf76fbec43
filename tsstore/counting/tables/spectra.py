"""Spectra, and what leaving a group out changes in them, added up while they are counted.

An *entry* is a place in the spectrum without a group: the group, a multiplicity, an incidence, and
how many distinct states are added there. Thousands of states share few of them, so that they are
added up at once, and only the sums go on. It is done group by group, because the entries of one
group stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tsstore.counting.hashing import LONG_PROBE, PROBE_LIMIT, Place, slots_for
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64, U32
from tsstore.numba_tools.decorators import inlined, kernel
from tsstore.numba_tools.words import GOLDEN

#: Bytes of what one state or pair adds to an entry.
ENTRY_BYTES: Final = 24

#: Entries that are added up at once: of more, group after group, so that there is no second copy
#: of all of them.
AT_ONCE: Final = 1 << 17

_ENTRY_COLUMNS: Final = 3
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_OTHER_FACTOR: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_DENSE_SIDE: Final = 64
_MOST_WAITING: Final = 1 << 14
_SMALL_CELLS: Final = 1 << 18
_MOST_SMALL, _LEAST_SMALL = 64, 4

Integers = NDArray[np.signedinteger[Any]]

Spectrum = tuple[I64, I64, I64]
"""k, q, states, int64 (pairs,) each, sorted by k, then by q: so many distinct states occur in
k rows and q samples."""


def count_spectra(groups: int, sets: int) -> int:
    """Return how many spectra entries are of: the whole's without each group, and of sets two more.

    They are in this order: the whole without each group; then, set after set, that of the set
    without each group, and that of the set.
    """
    return groups + sets * (groups + 1)


def small_side(groups: int, sets: int) -> int:
    """Return below which multiplicity changes of all spectra are added up at once."""
    side = _MOST_SMALL
    while side > _LEAST_SMALL and cells_of(side) * count_spectra(groups, sets) > _SMALL_CELLS:
        side //= 2
    return side


def small_bytes(groups: int, sets: int) -> int:
    """Bytes of what is added up at once of all spectra."""
    return 8 * cells_of(small_side(groups, sets)) * count_spectra(groups, sets)


def cells_of(side: int) -> int:
    """Return how many pairs of a multiplicity below `side` and an incidence no larger there are."""
    return side * (side + 1) // 2


@inlined
def cell_of(k: np.int64, q: np.int64) -> np.uint64:
    """Return the place of a pair among these: row after row of a triangle."""
    return np.uint64((k * (k + 1) >> 1) + q)


class Tally:
    """Counts pairs of multiplicity and incidence: small ones in a square, others in a list.

    Attributes
    ----------
    dense
        int64 (side, side): how many states have each small pair.
    """

    def __init__(self) -> None:
        self.dense = np.zeros((_DENSE_SIDE, _DENSE_SIDE), np.int64)
        self._large: list[Spectrum] = []
        self._waiting = 0
        self._added_up = 0

    def add(self, multiplicity: I64, incidence: I64) -> None:
        """Count distinct states, int64 (n,) each; a multiplicity of 0 is none."""
        beyond = np.empty((2, len(multiplicity)), np.int64)
        count: Place = count_pairs(multiplicity, incidence, self.dense, beyond, 0)
        self.add_large(beyond[:, :count])

    def add_large(self, pairs: I64) -> None:
        """Count distinct states by multiplicity and incidence, int64 (2, n)."""
        if pairs.shape[1]:
            k, q = pairs.copy()
            self.add_spectrum((k, q, np.ones_like(k)))

    def add_once(self, states: int) -> None:
        """Count so many states that occur in one row."""
        self.dense[1, 1] += states

    def add_spectrum(self, spectrum: Spectrum) -> None:
        """Add what has been counted elsewhere, of other states."""
        self._large.append(spectrum)
        self._waiting += len(spectrum[0])
        if self._waiting > max(_MOST_WAITING, self._added_up):
            self._large = [add_up_spectra(self._large)]
            self._waiting, self._added_up = 0, len(self._large[0][0])

    def spectrum(self) -> Spectrum:
        """Return how many distinct states have each pair of multiplicity and incidence."""
        k, q = np.nonzero(self.dense)
        return add_up_spectra([(k, q, self.dense[k, q]), *self._large])


def add_up_spectra(spectra: Sequence[Spectrum]) -> Spectrum:
    """Add up the spectra, at least one, of disjoint sets of states."""
    k, q, states = (np.concatenate(columns) for columns in zip(*spectra, strict=True))
    order = np.lexsort((q, k))
    k, q, states = k[order], q[order], states[order]
    is_new = np.ones(len(k), np.bool_)
    is_new[1:] = (k[1:] != k[:-1]) | (q[1:] != q[:-1])
    starts = np.flatnonzero(is_new)
    return k[starts], q[starts], np.add.reduceat(states, starts)


@kernel
def count_pairs(multiplicity: I64, incidence: I64, dense: I64, beyond: I64, first: Place) -> Place:
    """Count pairs in a square histogram, and list those beyond it after so many others.

    Returns how many are listed then.
    """
    count = np.int64(first)
    for state in range(multiplicity.size):
        k, q = multiplicity[state], incidence[state]
        if k >= dense.shape[0] or q >= dense.shape[1]:
            beyond[0, count], beyond[1, count] = k, q
            count += 1
        elif k > 0:
            dense[k, q] += 1
    return count


@dataclass(frozen=True, eq=False)
class DeltaEntries:
    """Entries, group after group, each once if they have been added up.

    Signed integers are no wider than they need be.

    Attributes
    ----------
    ends
        int64 (groups,): where the entries of each group end.
    multiplicity, incidence
        int32 or int64 (entries,): where the spectrum changes, in no particular order.
    states
        int32 or int64 (entries,): added to the distinct states there; also 0, where losses and
        gains are equal.
    """

    ends: I64
    multiplicity: Integers
    incidence: Integers
    states: Integers

    def __len__(self) -> int:
        return len(self.states)

    @property
    def columns(self) -> tuple[Integers, ...]:
        """Multiplicity, incidence and states: (entries,) each."""
        return self.multiplicity, self.incidence, self.states

    def of(self, first: int, stop: int) -> DeltaEntries:
        """Return those of the groups from the first on, as if there were no others; views."""
        before = self.ends[first - 1] if first else 0
        ends = self.ends[first:stop] - before
        own = slice(before, before + ends[-1])
        return DeltaEntries(ends, *(column[own] for column in self.columns))

    def in_order(self) -> DeltaEntries:
        """Return them by multiplicity, then by incidence, in each group; without those of 0."""
        k, q, states = self.columns
        chosen, start = [], 0
        for end in self.ends.tolist():
            own = np.flatnonzero(states[start:end]) + start
            chosen.append(own[_sorting(k[own], q[own])])
            start = end
        order = np.concatenate(chosen)
        ends = np.cumsum([len(own) for own in chosen])
        return DeltaEntries(ends, k[order], q[order], states[order])

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.ends.nbytes + sum(column.nbytes for column in self.columns)


class DeltaTally:
    """Entries of disjoint sets of states, which are added up whenever there are many more."""

    def __init__(self) -> None:
        self._parts: list[DeltaEntries] = []
        self._waiting = self._added_up = 0

    def add(self, delta: DeltaEntries) -> None:
        """Add entries of the same groups as all others."""
        self._parts.append(delta)
        self._waiting += len(delta)
        if self._waiting > max(AT_ONCE, self._added_up):
            self._parts = [add_up_entries(self._parts)]
            self._waiting, self._added_up = 0, len(self._parts[0])

    def total(self) -> DeltaEntries:
        """Return all entries, each once."""
        return add_up_entries(self._parts)


def add_up_entries(parts: Sequence[DeltaEntries]) -> DeltaEntries:
    """Add up the entries, of at least one part, of disjoint sets of states and the same groups.

    Those of one part alone are returned as they are.
    """
    if len(parts) == 1:
        return parts[0]
    return join_entries([_add_up_together(own) for own in _by_groups(parts)])


def add_up_in_order(parts: Sequence[DeltaEntries]) -> DeltaEntries:
    """Do the same, in order: some groups after others, so that there is no second copy of all."""
    return join_entries([add_up_entries(own).in_order() for own in _by_groups(parts)])


def _by_groups(parts: Sequence[DeltaEntries]) -> Iterator[list[DeltaEntries]]:
    """Yield the parts' entries of some groups after those of others: no more than are small."""
    ends = np.sum([part.ends for part in parts], axis=0)
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        stop = max(int(np.searchsorted(ends, before + AT_ONCE, side="right")), first + 1)
        yield [part.of(first, stop) for part in parts]
        first = stop


def _add_up_together(parts: Sequence[DeltaEntries]) -> DeltaEntries:
    """Add up the entries of the same groups."""
    columns = [
        np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)
    ]
    before = np.cumsum([0, *(len(part) for part in parts[:-1])])
    stops = np.stack([part.ends for part in parts]) + before[:, None]
    return add_up_listed(columns, stops)


def add_up_listed(
    columns: Sequence[Integers] | Integers, stops: I64, small: I64 | None = None, side: int = 0
) -> DeltaEntries:
    """Add up entries that are listed part after part, and in each group after group.

    Columns are multiplicity, incidence and states, (entries,) each; those of a part and group end
    at `stops`, int64 (parts, groups). Beside them may be what has been added up already, int64
    (groups, cells) of multiplicities below `side`, none of which is listed: that is forgotten.
    """
    starts = np.append(0, stops)[:-1].reshape(stops.shape)
    sizes = (stops - starts).sum(axis=0)
    if small is None:
        small, side = np.zeros((len(sizes), 0), np.int64), 0
    # Of one width, so that the loop is compiled for two kinds of integers, not for eight.
    k, q, states = (column.astype(np.result_type(*columns), copy=False) for column in columns)
    rows = np.empty((int(sizes.max()), _ENTRY_COLUMNS), np.int64)
    index = np.zeros(slots_for(int(sizes.max(initial=1))), np.uint32)
    most, ends = len(states) + np.count_nonzero(small), np.empty(len(sizes), np.int64)
    added_up = np.empty(most, k.dtype), np.empty(most, q.dtype), np.empty(most, np.int64)
    count = _add_up_parts(k, q, states, starts, stops, small, side, rows, index, *added_up, ends)
    return DeltaEntries(ends, *(narrow(column[:count]) for column in added_up))


def join_entries(some: Sequence[DeltaEntries], dtype: DTypeLike | None = None) -> DeltaEntries:
    """Return the entries of some groups after those of others as one, of such integers."""
    if len(some) == 1 and dtype is None:
        return some[0]
    before = np.cumsum([0, *(len(own) for own in some[:-1])])
    ends = np.concatenate([own.ends + start for own, start in zip(some, before, strict=True)])
    columns = zip(*(own.columns for own in some), strict=True)
    return DeltaEntries(ends, *(np.concatenate(column, dtype=dtype) for column in columns))


def _sorting(multiplicity: Integers, incidence: Integers) -> I64:
    """Return the order by multiplicity, then by incidence: as one integer, if it fits.

    That is sorted in half of the time that the order of integers takes.
    """
    bits, place_bits = (int(top).bit_length() for top in (incidence.max(initial=0), len(incidence)))
    if int(multiplicity.max(initial=0)).bit_length() + bits + place_bits > 63:
        return np.lexsort((incidence, multiplicity))
    keys = multiplicity.astype(np.int64) << bits | incidence
    placed: I64 = keys << place_bits | np.arange(len(keys))
    placed.sort()
    return placed & ((1 << place_bits) - 1)


def changes_of_singletons(states: I64, sets: int = 0) -> I64:
    """Return what is added to the singletons of each spectrum, given how many each group has.

    With sets, states are of each group of each, and of none; see :func:`count_spectra` for the
    order of what is returned.
    """
    if not sets:
        return -states
    by_set = states.reshape(sets + 1, -1)
    own = np.concatenate([-by_set, by_set.sum(axis=1, keepdims=True)], axis=1)[:-1]
    return np.concatenate([-by_set.sum(axis=0), own.ravel()])


def narrow(values: Integers) -> Integers:
    """Return a copy of the values, of half the width where that is enough."""
    fits = -(2**31) < values.min(initial=0) <= values.max(initial=0) < 2**31
    return values.astype(np.int32 if fits else np.int64)


@inlined
def _find(rows: I64, index: U32, before: int, k: np.int64, q: np.int64) -> np.uint64:
    """Return the slot of an entry in the index, or else the free one that is due to it.

    A slot of one of the first `before` numbers is free.
    """
    mask = np.uint64(index.size - 1)
    word = np.uint64(k) * GOLDEN + np.uint64(q) * _OTHER_FACTOR
    slot = ((word ^ (word >> _HALF)) * GOLDEN >> _HALF) & mask
    for _ in range(PROBE_LIMIT):
        entry = np.int64(index[slot]) - 1 - before
        if entry < 0 or (rows[entry, 0] == k and rows[entry, 1] == q):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def _add(
    rows: I64, index: U32, before: int, entries: int, k: np.int64, q: np.int64, states: np.int64
) -> int:
    """Add to an entry, which may be new; return how many of the group's there are.

    `before` numbers have been given to entries of earlier groups, whose slots are free.
    """
    slot = _find(rows, index, before, k, q)
    entry = np.int64(index[slot]) - 1 - before
    if entry < 0:
        rows[entries, 0], rows[entries, 1], rows[entries, 2] = k, q, states
        entries += 1
        index[slot] = before + entries
    else:
        rows[entry, 2] += states
    return entries


@kernel
def _add_up_parts(
    multiplicity: Integers,
    incidence: Integers,
    states: Integers,
    starts: I64,
    stops: I64,
    small: I64,
    side: int,
    rows: I64,
    index: U32,
    added_multiplicity: Integers,
    added_incidence: Integers,
    added_states: Integers,
    ends: I64,
) -> int:
    """Write the sums of all parts, group after group, and their ends; return how many.

    See :func:`add_up_listed`.
    """
    total = before = 0
    for group in range(ends.size):
        cell = np.uint64(0)
        for k in range(side):
            for q in range(k + 1):
                if small[group, cell] != 0:
                    added_multiplicity[total], added_incidence[total] = k, q
                    added_states[total], small[group, cell] = small[group, cell], 0
                    total += 1
                cell += _ONE
        entries = 0
        for part in range(starts.shape[0]):
            for own in range(starts[part, group], stops[part, group]):
                at = np.int64(multiplicity[own]), np.int64(incidence[own])
                entries = _add(rows, index, before, entries, *at, np.int64(states[own]))
        for entry in range(entries):
            added_multiplicity[total], added_incidence[total] = rows[entry, 0], rows[entry, 1]
            added_states[total] = rows[entry, 2]
            total += 1
        before += entries
        ends[group] = total
    return total
