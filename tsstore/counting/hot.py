"""Merging a block's hot keys: those so frequent that a small table absorbs them on the way.

Without it one state in many rows makes one partition as large as all the others together. The
table is a block's own, chosen from a sample of it: whatever order the rows of a run come in, it is
never stale. It is direct-mapped, a slot for each key and no search, so that the loop over all
rows has no branch that could be guessed wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from tsstore.compiling import kernel
from tsstore.counting.probing import Place, Width, copy_key, is_same, width_of
from tsstore.counting.records import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_ROWS: Final = 1 << 14
"""Half of them choose the hot keys, half say what share of the rows those are."""
SLOT_BITS: Final = 12
GROUPED_SLOT_BITS: Final = 11
"""Slots that count by group are fewer, so that the table stays in the processor's cache."""
PAYS_FROM: Final = 0.15
"""Share of hot rows from which on the table gains more than it takes."""

_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_ROW_AND_SAMPLE: Final = np.uint64((1 << 32) + 1)
_SHIFTS: Final = (np.uint64(8), np.uint64(28))


def merge_hot_rows(records: Records, groups: int = 1) -> list[Records]:
    """Merge the bare records of a block's most frequent keys, each of a sample of its own.

    Parameters
    ----------
    records
        Bare records.
    groups
        Number of groups that they tell apart; 1 for none.

    Returns
    -------
    The records as they are where merging does not pay, or there are too few to tell. Else those
    that are not hot, and a piece with one record for each hot key and group.
    """
    chosen = _choose(records.keys, groups)
    if chosen is None:
        return [records]
    hot, shift = chosen
    counts = np.zeros((len(hot), groups), np.uint64)
    cold = np.empty_like(records.keys)
    group = None if records.group is None else np.empty_like(records.group)
    left = _absorb_rows(
        records.keys, records.group, hot, shift, counts, cold, group, width_of(cold)
    )
    counts *= _ROW_AND_SAMPLE
    bare = Records(cold[:left], group=None if group is None else group[:left])
    return [bare, _records(hot, counts, records.group is not None)]


def merge_hot_samples(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8] | None,
    equal_pairs: NDArray[np.int64],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], list[Records]]:
    """Merge the rows of a block's most frequent keys, each counted once more for each sample.

    Parameters
    ----------
    keys
        uint64 (n, words): the keys of whole samples, sample after sample.
    positions
        int64 (samples,): the number of rows of each sample.
    group
        uint8 (samples,): the group of each sample, or None.
    equal_pairs
        int64 (groups,): the pairs of equal rows of one sample that are hot are added to it.

    Returns
    -------
    keys, positions
        Of the rows that are not hot, in their order. Those given where merging does not pay, or
        there are too few rows to tell.
    hot
        One piece, with one record for each hot key and group; or none.
    """
    chosen = _choose(keys, len(equal_pairs))
    if chosen is None:
        return keys, positions, []
    hot, shift = chosen
    counts = np.zeros((len(hot), len(equal_pairs)), np.uint64)
    seen = np.zeros(len(hot), np.uint64)
    cold, cold_positions = np.empty_like(keys), np.empty_like(positions)
    left = _absorb_samples(
        keys, positions, group, hot, shift, seen, counts, cold, cold_positions, equal_pairs,
        width_of(keys),
    )  # fmt: skip
    return cold[:left], cold_positions, [_records(hot, counts, group is not None)]


def hot_bytes(words: int, groups: int) -> int:
    """Bytes of a table of hot keys of so many words that tells so many groups apart, 0 for none."""
    return (16 * words + 8 + 8 * max(groups, 1)) << (GROUPED_SLOT_BITS if groups > 1 else SLOT_BITS)


def _choose(keys: NDArray[np.uint64], groups: int) -> tuple[NDArray[np.uint64], np.uint64] | None:
    """Return the hot keys by slot, and where in the hash the slot's number is; None for none."""
    if len(keys) < 2 * SAMPLE_ROWS:
        return None
    slots = 1 << (GROUPED_SLOT_BITS if groups > 1 else SLOT_BITS)
    sample = keys[_drawn_rows(len(keys))]
    best, choice = PAYS_FROM, None
    # Two frequent keys may want one slot: another part of the hash tells them apart.
    for shift in _SHIFTS:
        hot = np.zeros((slots, sample.shape[1]), np.uint64)
        hits = _elect(sample, shift, hot, np.zeros(slots, np.int32), width_of(keys))
        share = hits / (len(sample) // 2)
        if share > best:
            best, choice = share, (hot, shift)
    return choice


def _drawn_rows(count: int) -> NDArray[np.int64]:
    """Return the rows of a sample of so many: from each of equal spans two by chance.

    The positions of a layer follow each other in every sample: rows at a fixed distance might all
    be of one position.
    """
    span = 2 * (count // SAMPLE_ROWS)
    starts = span * np.arange(SAMPLE_ROWS // 2)
    generator = np.random.Generator(np.random.PCG64(0))
    first = generator.integers(0, span, len(starts))
    second = (first + generator.integers(1, span, len(starts))) % span
    return np.stack([starts + first, starts + second], axis=1).ravel()


def _records(hot: NDArray[np.uint64], counts: NDArray[np.uint64], grouped: bool) -> Records:
    """Return what was counted as records."""
    slots, group = np.nonzero(counts)
    found = counts[slots, group]
    multiplicity, incidence = found.astype(np.uint32), (found >> _HALF).astype(np.uint32)
    return Records(hot[slots], multiplicity, incidence, group.astype(np.uint8) if grouped else None)


@kernel
def _elect(
    keys: NDArray[np.uint64],
    shift: np.uint64,
    hot: NDArray[np.uint64],
    votes: NDArray[np.int32],
    width: Width,
) -> Place:
    """Let every other key vote for the one of its slot; return how many of the rest are hot.

    References
    ----------
    R. Boyer and J. S. Moore, "MJRTY: a fast majority vote algorithm", Automated Reasoning, 1991.
    """
    mask = np.uint64(hot.shape[0] - 1)
    for row in range(0, keys.shape[0], 2):
        slot = (keys[row, 0] >> shift) & mask
        if is_same(keys, row, hot, slot, width):
            votes[slot] += 1
        elif votes[slot] > 0:
            votes[slot] -= 1
        else:
            votes[slot] = 1
            copy_key(keys, row, hot, slot, width)
    hits = np.int64(0)
    for row in range(1, keys.shape[0], 2):
        hits += np.int64(is_same(keys, row, hot, (keys[row, 0] >> shift) & mask, width))
    return hits


@kernel
def _absorb_rows(
    keys: NDArray[np.uint64],
    group: NDArray[np.uint8] | None,
    hot: NDArray[np.uint64],
    shift: np.uint64,
    counts: NDArray[np.uint64],
    cold: NDArray[np.uint64],
    cold_group: NDArray[np.uint8] | None,
    width: Width,
) -> Place:
    """Count hot rows, and write the others; return how many those are."""
    mask = np.uint64(hot.shape[0] - 1)
    left = np.int64(0)
    for row in range(keys.shape[0]):
        slot = (keys[row, 0] >> shift) & mask
        is_hot = np.int64(is_same(keys, row, hot, slot, width))
        copy_key(keys, row, cold, left, width)
        if group is not None and cold_group is not None:
            counts[slot, group[row]] += np.uint64(is_hot)
            cold_group[left] = group[row]
        else:
            counts[slot, 0] += np.uint64(is_hot)
        left += 1 - is_hot
    return left


@kernel
def _absorb_samples(
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    group: NDArray[np.uint8] | None,
    hot: NDArray[np.uint64],
    shift: np.uint64,
    seen: NDArray[np.uint64],
    counts: NDArray[np.uint64],
    cold: NDArray[np.uint64],
    cold_positions: NDArray[np.int64],
    equal_pairs: NDArray[np.int64],
    width: Width,
) -> Place:
    """Do the same for samples of any number of rows, and count their equal pairs.

    `seen` holds the last sample that had each hot key, counted from 1, above how often it had it;
    `counts` samples above rows.
    """
    mask = np.uint64(hot.shape[0] - 1)
    left = start = own = np.int64(0)
    for sample in range(positions.size):
        stop = start + positions[sample]
        first, pairs = left, np.uint64(0)
        this = np.uint64(sample + 1) << _HALF
        if group is not None:
            own = np.int64(group[sample])
        for row in range(start, stop):
            slot = (keys[row, 0] >> shift) & mask
            is_hot = np.uint64(is_same(keys, row, hot, slot, width))
            before = max(seen[slot], this)
            pairs += is_hot * (before - this)
            counts[slot, own] += is_hot * (_ONE + (np.uint64(before == this) << _HALF))
            seen[slot] = before + is_hot
            copy_key(keys, row, cold, left, width)
            left += np.int64(_ONE - is_hot)
        cold_positions[sample] = left - first
        equal_pairs[own] += np.int64(pairs)
        start = stop
    return left
