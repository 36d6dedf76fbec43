"""What leaving a group out changes in spectra, added up while it is counted.

A *cell* is an entry of the spectrum without a group: the group, a multiplicity and an incidence.
Thousands of states share few cells, so that they are added up at once, and only the cells go on.
It is done group by group, because the cells of one group stay in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tsstore.compiling import inlined, kernel
from tsstore.counting.probing import LONG_PROBE, PROBE_LIMIT, slots_for
from tsstore.errors import CountingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Bytes of a cell while it is added up, or of what one state or pair adds to it.
CELL_BYTES: Final = 24

#: More cells are added up group by group: all the while they take twice what they take in the end.
AT_ONCE: Final = 1 << 16

_CELL_COLUMNS: Final = 3
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_OTHER_FACTOR: Final = np.uint64(0xC2B2AE3D27D4EB4F)


@dataclass(frozen=True, eq=False)
class Changes:
    """Cells, group after group, each once; signed integers no wider than they need be.

    Attributes
    ----------
    ends
        int64 (groups,): where the cells of each group end.
    multiplicity, incidence
        int32 or int64 (cells,): which entry of the spectrum changes, in no particular order.
    states
        int32 or int64 (cells,): added to its distinct states; also 0, where losses and gains are
        equal.
    """

    ends: NDArray[np.int64]
    multiplicity: NDArray[np.signedinteger[Any]]
    incidence: NDArray[np.signedinteger[Any]]
    states: NDArray[np.signedinteger[Any]]

    def __len__(self) -> int:
        return len(self.states)

    @property
    def columns(self) -> tuple[NDArray[np.signedinteger[Any]], ...]:
        """The group that is left out, multiplicity, incidence and states: (cells,) each."""
        group = np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))
        return group, *self.entries

    @property
    def entries(self) -> tuple[NDArray[np.signedinteger[Any]], ...]:
        """Multiplicity, incidence and states: (cells,) each."""
        return self.multiplicity, self.incidence, self.states

    def of(self, group: int) -> Changes:
        """Return those of one group, as if it were the only one; views."""
        start, stop = self.ends[group - 1] if group else 0, self.ends[group]
        return Changes(np.array([stop - start]), *(column[start:stop] for column in self.entries))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.ends.nbytes + sum(column.nbytes for column in self.entries)


def add_up_rows(rows: NDArray[np.int64], ends: NDArray[np.int64]) -> Changes:
    """Add up what single states change.

    Parameters
    ----------
    rows
        int64 (n, 3), group after group: multiplicity, incidence, and what is added to the
        distinct states there. They are of no use afterwards.
    ends
        int64 (groups,): where the rows of each group end.

    Raises
    ------
    CountingError
        If cells meet in one place of a table as mixed ones do not.
    """
    index = np.zeros(slots_for(int(np.diff(ends, prepend=0).max(initial=1))), np.uint32)
    cell_ends = ends.copy()
    cells = rows[: _add_up(rows, cell_ends, index)]
    return Changes(cell_ends, *(_narrow(column) for column in cells.T))


def add_up_changes(parts: Sequence[Changes]) -> Changes:
    """Add up the changes, at least one, of disjoint sets of states and the same groups.

    Raises
    ------
    CountingError
        As :func:`add_up_rows`.
    """
    if len(parts) == 1:
        return parts[0]
    groups = len(parts[0].ends)
    if groups > 1 and sum(map(len, parts)) > AT_ONCE:
        by_group = ([part.of(group) for part in parts] for group in range(groups))
        return _join([add_up_changes(own) for own in by_group])
    ends = np.sum([part.ends for part in parts], axis=0)
    cursors = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    rows = np.empty((sum(map(len, parts)), _CELL_COLUMNS), np.int64)
    for part in parts:
        _place(part.ends, part.multiplicity, part.incidence, part.states, cursors, rows)
    return add_up_rows(rows, ends)


def _join(groups: Sequence[Changes]) -> Changes:
    """Return the changes of all groups, each of which is alone in its own."""
    entries = zip(*(own.entries for own in groups), strict=True)
    return Changes(np.cumsum([len(own) for own in groups]), *map(np.concatenate, entries))


def once_by_group(states: NDArray[np.int64]) -> Changes:
    """Return what leaving each group out changes of so many states by group that occur once.

    Parameters
    ----------
    states
        int64 (groups,).
    """
    ones = np.ones(len(states), np.int64)
    return Changes(np.arange(1, len(states) + 1), ones, ones, -states)


def _narrow(values: NDArray[np.int64]) -> NDArray[np.signedinteger[Any]]:
    """Return a copy of the values, of half the width where that is enough."""
    fits = -(2**31) < values.min(initial=0) <= values.max(initial=0) < 2**31
    return values.astype(np.int32 if fits else np.int64)


@kernel
def _place(
    ends: NDArray[np.int64],
    multiplicity: NDArray[np.signedinteger[Any]],
    incidence: NDArray[np.signedinteger[Any]],
    states: NDArray[np.signedinteger[Any]],
    cursors: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Write cells where the cursor of their group is, and advance that."""
    cell = 0
    for group in range(ends.size):
        place = cursors[group]
        while cell < ends[group]:
            rows[place, 0], rows[place, 1] = multiplicity[cell], incidence[cell]
            rows[place, 2] = states[cell]
            place += 1
            cell += 1
        cursors[group] = place


@inlined
def _find(
    rows: NDArray[np.int64], index: NDArray[np.uint32], first: int, k: int, q: int
) -> np.uint64:
    """Return the place in the index of a cell, or else the free one that is due to it.

    A place of a row before `first` is free.
    """
    mask = np.uint64(index.size - 1)
    word = np.uint64(k) * _FACTOR + np.uint64(q) * _OTHER_FACTOR
    slot = ((word ^ (word >> _HALF)) * _FACTOR >> _HALF) & mask
    for _ in range(PROBE_LIMIT):
        cell = np.int64(index[slot]) - 1
        if cell < first or (rows[cell, 0] == k and rows[cell, 1] == q):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@kernel
def _add_up(rows: NDArray[np.int64], ends: NDArray[np.int64], index: NDArray[np.uint32]) -> int:
    """Put the cells where the first rows are, and their ends into `ends`; return how many."""
    cells = row = 0
    for group in range(ends.size):
        first = cells  # what the index holds of earlier groups is free: no need to clear it
        while row < ends[group]:
            k, q, states = rows[row, 0], rows[row, 1], rows[row, 2]
            slot = _find(rows, index, first, k, q)
            cell = np.int64(index[slot]) - 1
            if cell < first:
                rows[cells, 0], rows[cells, 1], rows[cells, 2] = k, q, states
                cells += 1
                index[slot] = cells
            else:
                rows[cell, 2] += states
            row += 1
        ends[group] = cells
    return cells
