"""Merging early: repeats within a sample always, equal keys of a whole block where it pays.

A table here holds numbers of records, in the order of first appearance; the keys themselves are
looked up among the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.compiling import compiled
from tsstore.counting.by_group import keys_in_order, numbers_by_group, samples_in_order
from tsstore.counting.kernels import kernel
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
    ends = np.array([len(positions)], np.int64)
    keys, multiplicity, _, equal_pairs = _merge_all(keys, positions, None, ends, largest)
    return Records(keys, multiplicity, np.ones(len(keys), np.uint32)), int(equal_pairs[0])


def merge_samples_by_group(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8],
    groups: int,
) -> tuple[Records, NDArray[np.int64]]:
    """Do as :func:`merge_samples`, and put the records of each group of samples together.

    Parameters
    ----------
    keys, positions
        As for :func:`merge_samples`.
    group
        uint8 (samples,): the group of each sample.
    groups
        Number of groups.

    Returns
    -------
    records
        Those of group 0, then of group 1, and so on; sample after sample in each.
    equal_pairs
        int64 (groups,): the number of pairs of rows of one sample that are equal.

    Raises
    ------
    ValueError, CountingError
        As :func:`merge_samples`; or if `group` has another length or a group beyond the last.
    """
    largest = _check_positions(positions, len(keys))
    samples, rows, _ = numbers_by_group(positions, group, groups)
    all_groups = np.arange(groups, dtype=np.uint8)
    if largest <= 1:
        keys = keys_in_order(keys, positions, group, np.cumsum(rows))
        return Records.bare(keys, np.repeat(all_groups, rows)), np.zeros(groups, np.int64)
    ends = np.cumsum(samples)
    starts, positions = samples_in_order(positions, group, ends)
    keys, multiplicity, record_ends, pairs = _merge_all(keys, positions, starts, ends, largest)
    record_group = _groups_of(all_groups, record_ends)
    return Records(keys, multiplicity, np.ones(len(keys), np.uint32), record_group), pairs


def merge_records(records: Records) -> Records:
    """Turn records of equal keys into one that has the sums of their counts.

    The result is in the order of first appearance. A sum that does not fit into 32 bits is
    spread over several records. Of records that tell groups apart, each run of one group is merged
    by itself: those of a group should follow each other.

    Raises
    ------
    CountingError
        If keys meet in one place of a table as mixed keys do not.
    """
    keys = np.empty_like(records.keys)
    multiplicity = np.empty_like(records.multiplicity)
    incidence = np.empty_like(records.incidence)
    ends = _run_ends(records)
    merged_ends = np.empty_like(ends)
    merged = _merge_records(
        records.keys,
        records.multiplicity,
        records.incidence,
        ends,
        keys,
        multiplicity,
        incidence,
        merged_ends,
    )
    group = None if records.group is None else _groups_of(records.group[ends - 1], merged_ends)
    return Records(keys[:merged], multiplicity[:merged], incidence[:merged], group)


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


def _merge_all(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    starts: NDArray[np.int64] | None,
    ends: NDArray[np.int64],
    largest: int,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Return keys and multiplicities of all records, where each group's end, and equal pairs."""
    table = np.full(slots_for(largest), -1, np.int64)
    merged = np.empty_like(keys)
    multiplicity = np.empty(len(keys), np.uint32)
    record_ends, pairs = np.empty_like(ends), np.empty_like(ends)
    records = _merge_samples(
        keys, positions, starts, ends, table, merged, multiplicity, record_ends, pairs
    )
    # Views: the memory behind them that was never written is never resident.
    return merged[:records], multiplicity[:records], record_ends, pairs


def _run_ends(records: Records) -> NDArray[np.int64]:
    """Return where each run of records of one group ends."""
    last = np.array([len(records)] if len(records) else [], np.int64)
    if records.group is None:
        return last
    return np.concatenate([np.flatnonzero(records.group[1:] != records.group[:-1]) + 1, last])


def _groups_of(group: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the group of each record: of runs of these groups, which end there."""
    return np.repeat(group, np.diff(ends, prepend=0))


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


@kernel
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


@kernel
def _merge_samples(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    starts: NDArray[np.int64] | None,
    ends: NDArray[np.int64],
    table: NDArray[np.int64],
    merged: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32],
    record_ends: NDArray[np.int64],
    equal_pairs: NDArray[np.int64],
) -> int:
    """Fill the last four arrays; return the number of records.

    Samples follow each other unless `starts` says where each begins. `ends` says where the samples
    of each group end.
    """
    last = keys.shape[1] - 1
    records = stop = sample = 0
    for group in range(ends.size):
        pairs = np.int64(0)
        while sample < ends[group]:
            start = stop if starts is None else starts[sample]
            stop = start + positions[sample]
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
                pairs += np.int64(multiplicity[record])
                multiplicity[record] += np.uint32(1)
            sample += 1
        record_ends[group], equal_pairs[group] = records, pairs
    return records


@compiled(nogil=True)
def _index(keys: NDArray[np.uint64], first: int, stop: int, slots: int) -> NDArray[np.int64]:
    """Return a table of so many slots that holds the keys from `first` to `stop`."""
    last = keys.shape[1] - 1
    table = np.full(slots, -1, np.int64)
    for record in range(first, stop):
        slot = _find(table, np.uint64(slots - 1), keys, 0, keys[record, 0], keys[record, last])
        table[slot] = record
    return table


@compiled(nogil=True)
def _merge_records(
    keys: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32],
    incidence: NDArray[np.uint32],
    ends: NDArray[np.int64],
    merged: NDArray[np.uint64],
    merged_multiplicity: NDArray[np.uint32],
    merged_incidence: NDArray[np.uint32],
    merged_ends: NDArray[np.int64],
) -> int:
    """Fill the last four arrays, run by run of records; return the number of merged records."""
    last = keys.shape[1] - 1
    records = row = 0
    table = _index(merged, 0, 0, _INITIAL_SLOTS)
    for run in range(ends.size):
        first = records  # what the table holds of earlier runs is free: no need to clear it
        while row < ends[run]:
            word, last_word = keys[row, 0], keys[row, last]
            slot = _find(table, np.uint64(table.size - 1), merged, first, word, last_word)
            record = table[slot]
            is_new = record < first
            total = np.int64(multiplicity[row])
            if not is_new:
                total += np.int64(merged_multiplicity[record])
            if is_new or total > _LARGEST_COUNT:
                table[slot] = record = records
                merged[record, 0], merged[record, last] = word, last_word
                merged_multiplicity[record] = multiplicity[row]
                merged_incidence[record] = incidence[row]
                records += 1
                if 2 * (records - first) > table.size:
                    table = _index(merged, first, records, 2 * table.size)
            else:
                merged_multiplicity[record] = total
                merged_incidence[record] += incidence[row]
            row += 1
        merged_ends[run] = records
    return records
