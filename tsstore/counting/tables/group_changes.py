"""What leaving a group out changes in spectra, added up while it is counted.

A *cell* is an entry of the spectrum without a group: the group, a multiplicity and an incidence.
Thousands of states share few cells, so that they are added up at once, and only the cells go on.
It is done group by group, because the cells of one group stay in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tsstore.counting.hashing import LONG_PROBE, PROBE_LIMIT, slots_for
from tsstore.errors import CountingError
from tsstore.numba_tools.decorators import inlined, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Bytes of a cell while it is added up, or of what one state or pair adds to it.
CELL_BYTES: Final = 24

#: Cells that are added up at once: of more, group after group, so that there is no second copy of
#: all of them.
AT_ONCE: Final = 1 << 17

_CELL_COLUMNS: Final = 3
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_OTHER_FACTOR: Final = np.uint64(0xC2B2AE3D27D4EB4F)


@dataclass(frozen=True, eq=False)
class Changes:
    """Cells, group after group, each once if they have been added up.

    Signed integers are no wider than they need be.

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

    def of(self, first: int, stop: int) -> Changes:
        """Return those of the groups from the first on, as if there were no others; views."""
        before = self.ends[first - 1] if first else 0
        ends = self.ends[first:stop] - before
        cells = slice(before, before + ends[-1])
        return Changes(ends, *(column[cells] for column in self.entries))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.ends.nbytes + sum(column.nbytes for column in self.entries)


def narrow_rows(rows: NDArray[np.int64], ends: NDArray[np.int64]) -> Changes:
    """Return what single states change, as it is: a cell may come several times.

    Parameters
    ----------
    rows
        int64 (n, 3), group after group: multiplicity, incidence, and what is added to the
        distinct states there.
    ends
        int64 (groups,): where the rows of each group end.
    """
    return Changes(ends, *(_narrow(column) for column in rows.T))


def add_up_changes(parts: Sequence[Changes]) -> Changes:
    """Add up the changes, at least one, of disjoint sets of states and the same groups.

    Those of one part alone are returned as they are.

    Raises
    ------
    CountingError
        If cells meet in one place of a table as mixed ones do not.
    """
    if len(parts) == 1:
        return parts[0]
    return _join([_add_up_together(own) for own in _by_groups(parts)])


def _by_groups(parts: Sequence[Changes]) -> Iterator[list[Changes]]:
    """Yield the parts' changes of some groups after those of others: no more than are small."""
    ends = np.sum([part.ends for part in parts], axis=0)
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        stop = max(int(np.searchsorted(ends, before + AT_ONCE, side="right")), first + 1)
        yield [part.of(first, stop) for part in parts]
        first = stop


def _add_up_together(parts: Sequence[Changes]) -> Changes:
    """Add up the changes of the same groups."""
    joined = [
        np.concatenate(columns) for columns in zip(*(part.entries for part in parts), strict=True)
    ]
    # Of one width, so that the loop is compiled for two kinds of integers, not for eight.
    k, q, states = (column.astype(np.result_type(*joined), copy=False) for column in joined)
    firsts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    part_ends = np.stack([part.ends for part in parts])
    ends = part_ends.sum(axis=0)
    rows = np.empty((int(np.diff(ends, prepend=0).max()), _CELL_COLUMNS), np.int64)
    added_up = np.empty_like(k), np.empty_like(q), np.empty(len(states), np.int64)
    where = firsts, part_ends, rows, _index_for(ends)
    cells = _add_up_parts(k, q, states, *where, *added_up, ends)
    return Changes(ends, *(_narrow(column[:cells]) for column in added_up))


def _join(some: Sequence[Changes]) -> Changes:
    """Return the changes of some groups after those of others as one."""
    if len(some) == 1:
        return some[0]
    before = np.cumsum([0, *(len(own) for own in some[:-1])])
    ends = np.concatenate([own.ends + start for own, start in zip(some, before, strict=True)])
    entries = zip(*(own.entries for own in some), strict=True)
    return Changes(ends, *map(np.concatenate, entries))


def _index_for(ends: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return an empty index for the rows of the group that has most."""
    return np.zeros(slots_for(int(np.diff(ends, prepend=0).max(initial=1))), np.uint32)


def once_by_group(states: NDArray[np.int64]) -> Changes:
    """Return what leaving each group out changes of so many states by group that occur once.

    Parameters
    ----------
    states
        int64 (groups,).
    """
    ones = np.ones(len(states), np.int64)
    return Changes(np.arange(1, len(states) + 1), ones, ones, -states)


def _narrow(values: NDArray[np.signedinteger[Any]]) -> NDArray[np.signedinteger[Any]]:
    """Return a copy of the values, of half the width where that is enough."""
    fits = -(2**31) < values.min(initial=0) <= values.max(initial=0) < 2**31
    return values.astype(np.int32 if fits else np.int64)


@inlined
def _find(
    rows: NDArray[np.int64], index: NDArray[np.uint32], before: int, k: np.int64, q: np.int64
) -> np.uint64:
    """Return the place in the index of a cell, or else the free one that is due to it.

    A place of one of the first `before` numbers is free.
    """
    mask = np.uint64(index.size - 1)
    word = np.uint64(k) * _FACTOR + np.uint64(q) * _OTHER_FACTOR
    slot = ((word ^ (word >> _HALF)) * _FACTOR >> _HALF) & mask
    for _ in range(PROBE_LIMIT):
        cell = np.int64(index[slot]) - 1 - before
        if cell < 0 or (rows[cell, 0] == k and rows[cell, 1] == q):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def _add(
    rows: NDArray[np.int64],
    index: NDArray[np.uint32],
    before: int,
    cells: int,
    k: np.int64,
    q: np.int64,
    states: np.int64,
) -> int:
    """Add to a cell, which may be new; return how many of the group's there are.

    `before` numbers have been given to cells of earlier groups, whose places are free.
    """
    slot = _find(rows, index, before, k, q)
    cell = np.int64(index[slot]) - 1 - before
    if cell < 0:
        rows[cells, 0], rows[cells, 1], rows[cells, 2] = k, q, states
        cells += 1
        index[slot] = before + cells
    else:
        rows[cell, 2] += states
    return cells


@kernel
def _add_up_parts(
    multiplicity: NDArray[np.signedinteger[Any]],
    incidence: NDArray[np.signedinteger[Any]],
    states: NDArray[np.signedinteger[Any]],
    firsts: NDArray[np.int64],
    part_ends: NDArray[np.int64],
    rows: NDArray[np.int64],
    index: NDArray[np.uint32],
    added_multiplicity: NDArray[np.signedinteger[Any]],
    added_incidence: NDArray[np.signedinteger[Any]],
    added_states: NDArray[np.signedinteger[Any]],
    ends: NDArray[np.int64],
) -> int:
    """Write the cells of all parts, group after group, and their ends; return how many.

    The parts' cells begin at `firsts`, and end for each part and group at `part_ends` after that.
    """
    total = 0
    for group in range(ends.size):
        cells = 0
        for part in range(firsts.size):
            start = part_ends[part, group - 1] if group > 0 else 0
            for cell in range(firsts[part] + start, firsts[part] + part_ends[part, group]):
                k, q = np.int64(multiplicity[cell]), np.int64(incidence[cell])
                cells = _add(rows, index, total, cells, k, q, np.int64(states[cell]))
        for cell in range(cells):
            added_multiplicity[total], added_incidence[total] = rows[cell, 0], rows[cell, 1]
            added_states[total] = rows[cell, 2]
            total += 1
        ends[group] = total
    return total
