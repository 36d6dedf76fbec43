"""Counting rows of few bits in a table that the row itself is an index of: no hash, no search.

A row of three bytes or fewer names a place in an index, and that the number of a state: its counts
lie beside those of the others in the order of first appearance. So the states that there are share
the processor's cache, however far apart they are as numbers, and nothing is left to scatter but one
record for each state and group of a block.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import Place, Width, width_for
from tsstore.counting.keys import KeyScheme
from tsstore.counting.premerge.hot_keys import count_touched, take_counted
from tsstore.counting.premerge.samples import check_groups, check_positions
from tsstore.counting.records import Groups, Records, bytes_of_group, record_bytes
from tsstore.numba_tools.arrays import I64, U8, U32, U64
from tsstore.numba_tools.decorators import kernel

MOST_ROW_BYTES: Final = 3
"""Of a row: there is a place in the index for each of 2**24 states at most."""
MOST_STATES: Final = 1 << 16
"""That are counted before they become records, but for those of one more sample."""
MOST_COUNTS: Final = 1 << 20
"""Of all those states and groups."""
PAYS_FROM: Final = 4
"""Rows for each record, from which on the table gains more than it takes."""

_BYTE_BITS: Final = np.uint64(8)


class DirectTable:
    """Counts of a block's rows, of one thread, for so many groups, 0 for none.

    The largest sample has no more rows than :func:`states_of` the groups.

    Attributes
    ----------
    pays
        Whether the rows have been many for each record, so far.
    """

    def __init__(self, scheme: KeyScheme, groups: int, largest_sample: int) -> None:
        self.pays = True
        self._scheme, self._group_bytes = scheme, bytes_of_group(groups)
        self._width = width_for(scheme.row_bytes)
        states = states_of(groups) + largest_sample
        # What no row names is never written to, and so it is never resident.
        self._index = np.zeros(1 << (8 * scheme.row_bytes), np.uint32)
        # State 0 is none: no place in the index is its.
        self._states = np.zeros(states + 1, np.uint32)
        self._times = np.zeros(states + 1, np.uint64)
        self._counts = np.zeros((states + 1, max(groups, 1)), np.uint64)
        self._touched = np.empty(largest_sample, np.uint64)
        self._used: Place = 0
        self._taken: list[Records] = []

    def begin(self) -> None:
        """Begin a block: forget what an error may have left."""
        self._times[:] = 0
        self._forget()
        self._taken = []

    def count(self, rows: U8, positions: I64, group: Groups | None = None) -> I64:
        """Count the rows of whole samples, uint8 (n, row_bytes), sample after sample.

        Each has so many `positions`, int64 (samples,), and a `group`, uint8 or uint16 (samples,),
        if groups are told apart. Returns how many pairs of rows of one sample are equal, int64
        (groups or 1,).
        """
        check_positions(positions, len(rows))
        if (most := int(positions.max(initial=0))) > len(self._touched):
            raise ValueError(
                f"a sample has {most} rows; expected no more than {len(self._touched)}"
            )
        if group is not None:
            check_groups(group, len(positions), self._counts.shape[1])
        equal_pairs = np.zeros(self._counts.shape[1], np.int64)
        sample: Place = 0
        row: Place = 0
        while True:
            sample, row, self._used = _count(
                rows, positions, group, sample, row, self._index, self._states, self._used,
                self._times, self._counts, self._touched, equal_pairs, self._width,
            )  # fmt: skip
            if sample == len(positions):
                return equal_pairs
            self._empty()

    def take(self) -> list[Records]:
        """Return one record for each state and group that was met, and begin again."""
        self._empty()
        taken, self._taken = self._taken, []
        return taken

    def _empty(self) -> None:
        """Make records of all states, and learn whether that paid."""
        if not self._used:
            return
        used = slice(1, self._used + 1)
        rows = self._states[used].astype("<u4").view(np.uint8).reshape(-1, 4)
        keys = self._scheme.keys(np.ascontiguousarray(rows[:, : len(self._width)]))
        records = take_counted(keys, self._counts[used], keys.shape[1], self._group_bytes)
        self.pays = records.rows >= PAYS_FROM * len(records)
        self._taken.append(records)
        self._forget()

    def _forget(self) -> None:
        """Forget all states and counts."""
        used = slice(1, self._used + 1)
        self._index[self._states[used]] = 0
        self._counts[used] = 0
        self._used = 0


def states_of(groups: int) -> int:
    """Return how many states are counted before they become records, without the last sample's."""
    return min(MOST_STATES, MOST_COUNTS // max(groups, 1))


def direct_bytes(neurons: int, groups: int, largest_sample: int) -> int:
    """Bytes of a table for so many neurons and groups (0 for none), and of its records, at most."""
    states = min(states_of(groups) + largest_sample, 1 << neurons)
    record = record_bytes(1, bare=False, group_bytes=bytes_of_group(groups))
    counts = states * max(groups, 1) * (8 + record)
    return (4 << neurons) + 8 * largest_sample + states * (4 + 8 + 4 + 8) + counts


@kernel
def _count(
    rows: U8,
    positions: I64,
    group: Groups | None,
    first_sample: Place,
    first_row: Place,
    index: U32,
    states: U32,
    used: Place,
    times: U64,
    counts: U64,
    touched: U64,
    equal_pairs: I64,
    width: Width,
) -> tuple[Place, Place, Place]:
    """Count samples from one on; return the first for which there may be no room, and its row.

    And how many states there are.
    """
    start = np.int64(first_row)
    own = np.int64(0)
    for sample in range(first_sample, positions.size):
        stop = start + positions[sample]
        if used + positions[sample] >= times.size:
            return sample, start, used
        if group is not None:
            own = np.int64(group[sample])
        many = np.int64(0)
        for row in range(start, stop):
            word = np.uint64(0)
            for byte in range(len(width)):
                word |= np.uint64(rows[row, byte]) << (_BYTE_BITS * np.uint64(byte))
            state = np.uint64(index[word])
            if state == 0:
                used += 1
                state = np.uint64(used)
                index[word], states[used] = used, word
            touched[many] = state
            many += np.int64(times[state] == 0)
            times[state] += np.uint64(1)
        equal_pairs[own] += count_touched(touched, many, times, counts, own)
        start = stop
    return np.int64(positions.size), start, used
