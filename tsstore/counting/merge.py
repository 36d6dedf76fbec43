"""Merging early: repeats within a sample always, equal keys of a whole block where it pays.

A table here holds numbers of records, in the order of first appearance; the keys themselves are
looked up among the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numba import njit

from tsstore.counting.probing import LONG_PROBE, PROBE_LIMIT, slots_for
from tsstore.counting.records import Records, concatenate
from tsstore.errors import CountingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE: Final = np.uint64(1)
_INITIAL_SLOTS: Final = 1024
_LARGEST_COUNT: Final = 2**32 - 1
_LARGEST_SAMPLE: Final = 2**31
_SAMPLE_RUNS: Final = 64
_PAYS_BELOW: Final = 0.8


def merge_samples(keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> tuple[Records, int]:
    """Turn the equal keys of each sample into one record of incidence 1.

    Parameters
    ----------
    keys
        uint64 (n, words), C-contiguous: the keys of whole samples, sample after sample.
    positions
        int64 (samples,): the number of rows of each sample, zero or more; their sum is n.

    Returns
    -------
    records
        One for each distinct key of each sample, in the order of first appearance.
    equal_pairs
        The number of pairs of rows of one sample that are equal: the sum of m (m - 1) / 2 over
        the multiplicities m.

    Raises
    ------
    ValueError
        If `positions` is negative somewhere, over 2**31 or does not add up to n.
    CountingError
        If keys meet in one place of a table as mixed keys do not.
    """
    largest = _check_positions(positions, len(keys))
    if largest <= 1:
        return Records.bare(keys), 0
    table = np.full(slots_for(largest), -1, np.int64)
    merged = np.empty_like(keys)
    multiplicity = np.empty(len(keys), np.uint32)
    records, equal_pairs = _merge_samples(keys, positions, table, merged, multiplicity)
    # Views: the memory behind them that was never written is never resident.
    incidence = np.ones(records, np.uint32)
    return Records(merged[:records], multiplicity[:records], incidence), int(equal_pairs)


def merge_records(records: Records) -> Records:
    """Turn records of equal keys into one that has the sums of their counts.

    The result is in the order of first appearance. A sum that does not fit into 32 bits is
    spread over several records.

    Raises
    ------
    CountingError
        If keys meet in one place of a table as mixed keys do not.
    """
    keys = np.empty_like(records.keys)
    multiplicity = np.empty_like(records.multiplicity)
    incidence = np.empty_like(records.incidence)
    merged = _merge_records(
        records.keys, records.multiplicity, records.incidence, keys, multiplicity, incidence
    )
    return Records(keys[:merged], multiplicity[:merged], incidence[:merged])


def merging_pays(records: Records, sample: int = 1 << 16) -> bool:
    """Tell from a sample whether :func:`merge_records` leaves less than 0.8 of the records.

    The sample is `sample` records in 64 evenly spaced runs; it holds fewer repeats than all
    records do, so that the answer errs towards not merging. Up to `sample` records: always True.
    """
    if len(records) <= sample:
        return True
    runs = min(_SAMPLE_RUNS, sample)
    length = sample // runs
    starts = np.linspace(0, len(records) - length, runs).astype(np.int64)
    sampled = concatenate([records[start : start + length] for start in starts])
    return len(merge_records(sampled)) < _PAYS_BELOW * len(sampled)


def _check_positions(positions: NDArray[np.int64], rows: int) -> int:
    """Return the largest number of positions."""
    smallest, largest = int(positions.min(initial=0)), int(positions.max(initial=0))
    if smallest < 0 or largest > _LARGEST_SAMPLE:
        raise ValueError(
            f"samples have {smallest} to {largest} positions; expected 0 to {_LARGEST_SAMPLE}"
        )
    if (total := int(positions.sum())) != rows:
        raise ValueError(f"positions add up to {total}; expected the number of keys, {rows}")
    return largest


@njit(nogil=True, cache=True)
def _find(
    table: NDArray[np.int64],
    mask: np.uint64,
    keys: NDArray[np.uint64],
    first: int,
    word: np.uint64,
    last_word: np.uint64,
) -> np.uint64:
    """Return the slot of a key's record, or else the free slot that is due to it.

    A slot with a record before `first` is free. Keys of one word have it as both words.
    """
    last = keys.shape[1] - 1
    slot = word & mask
    for _ in range(PROBE_LIMIT):
        record = table[slot]
        if record < first or (keys[record, 0] == word and keys[record, last] == last_word):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@njit(nogil=True, cache=True)
def _merge_samples(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    table: NDArray[np.int64],
    merged: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32],
) -> tuple[int, np.int64]:
    """Fill `merged` and `multiplicity`; return the numbers of records and of equal pairs."""
    last = keys.shape[1] - 1
    records = stop = 0
    equal_pairs = np.int64(0)
    for sample in range(positions.size):
        start, stop = stop, stop + positions[sample]
        first = records  # what the table holds of earlier samples is free: no need to clear it
        mask = _ONE  # of a small part of the table for a small sample, which stays in the cache
        while mask < 2 * positions[sample] - 1:
            mask = mask + mask + _ONE
        record = -1
        for row in range(start, stop):
            word, last_word = keys[row, 0], keys[row, last]
            # Neighbours are often equal: look at the record of the row before.
            if record < 0 or merged[record, 0] != word or merged[record, last] != last_word:
                slot = _find(table, mask, merged, first, word, last_word)
                record = table[slot]
                if record < first:
                    record = table[slot] = records
                    merged[record, 0], merged[record, last] = word, last_word
                    multiplicity[record] = 0
                    records += 1
            equal_pairs += np.int64(multiplicity[record])
            multiplicity[record] += np.uint32(1)
    return records, equal_pairs


@njit(nogil=True, cache=True)
def _index(keys: NDArray[np.uint64], records: int, slots: int) -> NDArray[np.int64]:
    """Return a table of so many slots that holds the first `records` keys."""
    last = keys.shape[1] - 1
    table = np.full(slots, -1, np.int64)
    for record in range(records):
        slot = _find(table, np.uint64(slots - 1), keys, 0, keys[record, 0], keys[record, last])
        table[slot] = record
    return table


@njit(nogil=True, cache=True)
def _merge_records(
    keys: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32],
    incidence: NDArray[np.uint32],
    merged: NDArray[np.uint64],
    merged_multiplicity: NDArray[np.uint32],
    merged_incidence: NDArray[np.uint32],
) -> int:
    """Fill the last three arrays; return the number of merged records."""
    last = keys.shape[1] - 1
    records = 0
    table = _index(merged, records, _INITIAL_SLOTS)
    for row in range(keys.shape[0]):
        word, last_word = keys[row, 0], keys[row, last]
        slot = _find(table, np.uint64(table.size - 1), merged, 0, word, last_word)
        record = table[slot]
        total = np.int64(multiplicity[row])
        if record >= 0:
            total += np.int64(merged_multiplicity[record])
        if record >= 0 and total <= _LARGEST_COUNT:
            merged_multiplicity[record] = total
            merged_incidence[record] += incidence[row]
            continue
        table[slot] = records
        merged[records, 0], merged[records, last] = word, last_word
        merged_multiplicity[records] = multiplicity[row]
        merged_incidence[records] = incidence[row]
        records += 1
        if 2 * records > table.size:
            table = _index(merged, records, 2 * table.size)
    return records
