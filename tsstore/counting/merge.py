"""Merging early: the equal rows of each sample become one record, which counts one sample.

Hot keys are absorbed first. Of the other rows, most of a late layer occur once in their sample; a
table of marks settles those without a branch, and only what may be a repeat is searched for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.compiling import inlined, kernel
from tsstore.counting.by_group import check_groups
from tsstore.counting.hot import merge_hot_rows, merge_hot_samples
from tsstore.counting.probing import (
    LONG_PROBE,
    PROBE_LIMIT,
    Place,
    Width,
    copy_key,
    is_same,
    slots_for,
    width_of,
)
from tsstore.counting.records import Records
from tsstore.errors import CountingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE: Final = np.uint64(1)
_LARGEST_BLOCK: Final = 2**31 - 1
_MARKS_OF_A_ROW: Final = 32
_LEAST_MARKS, _MOST_MARKS = 1 << 12, 1 << 16
_MARK_SHIFT: Final = np.uint64(20)


def merge_samples(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8] | None = None,
    groups: int = 1,
) -> tuple[list[Records], NDArray[np.int64]]:
    """Turn the equal keys of each sample into one record, and those of hot keys into one of all.

    Parameters
    ----------
    keys
        uint64 (n, words), C-contiguous: the keys of whole samples, sample after sample.
    positions
        int64 (samples,): the number of rows of each sample, zero or more; their sum is n.
    group
        uint8 (samples,): the group of each sample, if groups are told apart.
    groups
        Number of groups; 1 if they are not told apart.

    Returns
    -------
    records
        Bare ones of keys that a sample has once, then pieces of others, as many as there are.
    equal_pairs
        int64 (groups,): the number of pairs of rows of one sample that are equal, by group: the
        sum of m (m - 1) / 2 over the multiplicities m of the keys of each sample.

    Raises
    ------
    ValueError
        If a number of positions is negative, or they add up to something else than n, or to more
        than 2**31 - 1; if `group` has another length, or a group beyond the last.
    CountingError
        If keys meet in one place of a table as mixed keys do not.
    """
    _check_positions(positions, len(keys))
    if group is not None:
        check_groups(group, len(positions), groups)
    equal_pairs = np.zeros(groups, np.int64)
    if positions.max(initial=0) <= 1:
        bare = Records(keys, group=None if group is None else group[positions > 0])
        return merge_hot_rows(bare, groups), equal_pairs
    keys, positions, hot = merge_hot_samples(keys, positions, group, equal_pairs)
    return [*_merge_cold(keys, positions, group, equal_pairs), *hot], equal_pairs


def merge_bytes(words: int, positions: int) -> int:
    """Bytes of the tables for samples of so many rows at most of keys of so many words."""
    return 4 * _marks_for(positions) + 4 * slots_for(positions) + positions * (8 * words + 8)


def _merge_cold(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8] | None,
    equal_pairs: NDArray[np.int64],
) -> list[Records]:
    """Return bare and other records of keys that are not hot; add their equal pairs."""
    width, once = width_of(keys), np.empty_like(keys)
    once_group = None if group is None else np.empty(len(once), np.uint8)
    suspects, suspect_positions = np.empty_like(keys), np.empty_like(positions)
    marks = np.zeros(_marks_for(int(positions.max())), np.uint32)
    settled, left = _settle(
        keys, positions, group, marks, once, once_group, suspects, suspect_positions, width
    )
    repeated = np.empty((left // 2 + 1, keys.shape[1]), np.uint64)
    multiplicity = np.empty(len(repeated), np.uint32)
    repeated_group = None if group is None else np.empty(len(repeated), np.uint8)
    largest = int(suspect_positions.max())
    table = np.full(slots_for(largest), -1, np.int32)
    own, times = np.empty((largest, keys.shape[1]), np.uint64), np.empty(largest, np.int64)
    singles, others = _merge_suspects(
        suspects, suspect_positions, group, table, own, times, settled,
        once, once_group, repeated, repeated_group, multiplicity, equal_pairs, width,
    )  # fmt: skip
    # Views: the memory behind them that was never written is never resident.
    bare = Records(once[:singles], group=None if once_group is None else once_group[:singles])
    group_of_repeated = None if repeated_group is None else repeated_group[:others]
    incidence = np.ones(others, np.uint32)
    return [bare, Records(repeated[:others], multiplicity[:others], incidence, group_of_repeated)]


def _marks_for(positions: int) -> int:
    """Return how many marks tell most rows of a sample that occur once."""
    wanted = 1 << (_MARKS_OF_A_ROW * positions - 1).bit_length()
    return min(max(wanted, _LEAST_MARKS), _MOST_MARKS)


def _check_positions(positions: NDArray[np.int64], rows: int) -> None:
    smallest, largest = int(positions.min(initial=0)), int(positions.max(initial=0))
    if smallest < 0 or largest > _LARGEST_BLOCK:
        raise ValueError(
            f"samples have {smallest} to {largest} positions; expected 0 to {_LARGEST_BLOCK}"
        )
    if (total := int(positions.sum())) != rows or rows > _LARGEST_BLOCK:
        raise ValueError(
            f"positions add up to {total}; expected the number of keys, {rows}, and no more than "
            f"{_LARGEST_BLOCK}"
        )


@kernel
def _settle(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8] | None,
    marks: NDArray[np.uint32],
    once: NDArray[np.uint64],
    once_group: NDArray[np.uint8] | None,
    suspects: NDArray[np.uint64],
    suspect_positions: NDArray[np.int64],
    width: Width,
) -> tuple[Place, Place]:
    """Part rows that are alone in their mark from others; return how many there are of each.

    A mark is twice the number of the sample that set it last, and odd if it set it again.
    """
    mask = np.uint64(marks.size - 1)
    settled = left = start = np.int64(0)
    for sample in range(positions.size):
        stop = start + positions[sample]
        alone = np.uint32(2 * sample + 2)
        for row in range(start, stop):
            slot = (keys[row, 0] >> _MARK_SHIFT) & mask
            again = marks[slot] >= alone
            marks[slot] = alone + np.uint32(again)
        first = left
        for row in range(start, stop):
            if marks[(keys[row, 0] >> _MARK_SHIFT) & mask] == alone:
                copy_key(keys, row, once, settled, width)
                if group is not None and once_group is not None:
                    once_group[settled] = group[sample]
                settled += 1
            else:
                copy_key(keys, row, suspects, left, width)
                left += 1
        suspect_positions[sample] = left - first
        start = stop
    return settled, left


@inlined
def _find(
    table: NDArray[np.int32],
    mask: np.uint64,
    own: NDArray[np.uint64],
    first: Place,
    keys: NDArray[np.uint64],
    row: Place,
    width: Width,
) -> np.uint64:
    """Return the slot of a row's record, or else the free slot that is due to it.

    A slot with a record before `first`, the sample's first one, is free.
    """
    slot: np.uint64 = keys[row, 0] & mask
    for _ in range(PROBE_LIMIT):
        record = table[slot] - first
        if record < 0 or is_same(keys, row, own, record, width):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@kernel
def _merge_suspects(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8] | None,
    table: NDArray[np.int32],
    own: NDArray[np.uint64],
    times: NDArray[np.int64],
    singles: Place,
    once: NDArray[np.uint64],
    once_group: NDArray[np.uint8] | None,
    repeated: NDArray[np.uint64],
    repeated_group: NDArray[np.uint8] | None,
    multiplicity: NDArray[np.uint32],
    equal_pairs: NDArray[np.int64],
    width: Width,
) -> tuple[Place, Place]:
    """Fill the last six arrays, the first two from `singles` on; return how far they are filled.

    `table`, `own` and `times` are room for one sample: its records, their keys, and how often.
    """
    record: Place
    others = first = start = np.int64(0)
    for sample in range(positions.size):
        stop = start + positions[sample]
        records = record = np.int64(0)
        mask = _ONE  # of a small part of the table for a small sample, which stays in the cache
        while mask < 2 * positions[sample] - 1:
            mask = mask + mask + _ONE
        for row in range(start, stop):
            # Neighbours are often equal.
            if row == start or not is_same(keys, row, own, record, width):
                slot = _find(table, mask, own, first, keys, row, width)
                record = np.int64(table[slot]) - first
                if record < 0:
                    record = records
                    table[slot] = first + record
                    copy_key(keys, row, own, record, width)
                    times[record] = 0
                    records += 1
            times[record] += 1
        # What the table holds of this sample is free for the next one: no need to clear it.
        first += records
        start = stop
        pairs = np.int64(0)
        for record in range(records):
            if times[record] == 1:
                copy_key(own, record, once, singles, width)
                if group is not None and once_group is not None:
                    once_group[singles] = group[sample]
                singles += 1
            else:
                copy_key(own, record, repeated, others, width)
                if group is not None and repeated_group is not None:
                    repeated_group[others] = group[sample]
                multiplicity[others] = times[record]
                others += 1
                pairs += (times[record] * (times[record] - 1)) >> 1
        equal_pairs[0 if group is None else group[sample]] += pairs
    return singles, others
