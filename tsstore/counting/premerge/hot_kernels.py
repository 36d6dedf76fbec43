"""The loops of hot keys; what they are for is told where the keys are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from tsstore.counting.hashing import Place, Width, copy_key, is_same
from tsstore.numba_tools.decorators import inlined, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_ROW_AND_SAMPLE: Final = np.uint64((1 << 32) + 1)


class HotTable(NamedTuple):
    """Hot keys, a slot each.

    Attributes
    ----------
    shift
        Where in the hash the number of a slot begins.
    keys
        uint64 (slots, words).
    times
        uint64 (slots,): how often the sample at hand has each; 0 between samples.
    counts
        uint64 (slots, groups): samples, and in the lower half rows, of each so far.
    """

    shift: np.uint64
    keys: NDArray[np.uint64]
    times: NDArray[np.uint64]
    counts: NDArray[np.uint64]


@kernel
def elect(
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
def absorb_rows(
    keys: NDArray[np.uint64],
    group: NDArray[np.uint8] | None,
    hot: HotTable,
    cold: NDArray[np.uint64],
    cold_group: NDArray[np.uint8] | None,
    width: Width,
) -> Place:
    """Count hot rows, and write the others; return how many those are."""
    mask = np.uint64(hot.keys.shape[0] - 1)
    left = np.uint64(0)
    for row in range(np.uint64(keys.shape[0])):
        slot = (keys[row, 0] >> hot.shift) & mask
        is_hot = np.uint64(is_same(keys, row, hot.keys, slot, width))
        copy_key(keys, row, cold, left, width)
        if group is not None and cold_group is not None:
            hot.counts[slot, group[row]] += is_hot * _ROW_AND_SAMPLE
            cold_group[left] = group[row]
        else:
            hot.counts[slot, 0] += is_hot * _ROW_AND_SAMPLE
        left += _ONE - is_hot
    return np.int64(left)


@inlined
def absorb_sample(
    keys: NDArray[np.uint64],
    start: Place,
    stop: Place,
    own: Place,
    hot: HotTable,
    touched: NDArray[np.uint64],
    cold: NDArray[np.uint64],
    width: Width,
) -> tuple[Place, Place]:
    """Count the hot rows of a sample of group `own`, and write the others.

    Parameters
    ----------
    keys, start, stop
        uint64 (n, words), and where in it the sample's begin and end.
    own
        The sample's group.
    hot
        Hot keys and their counts.
    touched
        uint64: room for the slots that the sample has keys in, as many as it has rows.
    cold
        uint64 (rows, words): room for the keys that are not hot, from the first place on.
    width
        That of the keys.

    Returns
    -------
    How many keys are not hot, and the number of equal pairs of rows that are.
    """
    mask = np.uint64(hot.keys.shape[0] - 1)
    left = many = np.uint64(0)
    # Unsigned: whether rows count from an array's end need not be asked.
    for row in range(np.uint64(start), np.uint64(stop)):
        slot = (keys[row, 0] >> hot.shift) & mask
        is_hot = np.uint64(is_same(keys, row, hot.keys, slot, width))
        times = hot.times[slot]
        hot.times[slot] = times + is_hot
        touched[many] = slot
        many += is_hot & np.uint64(times == 0)
        copy_key(keys, row, cold, left, width)
        left += _ONE - is_hot
    pairs = count_touched(touched, np.int64(many), hot.times, hot.counts, own)
    return np.int64(left), pairs


@inlined
def count_touched(
    touched: NDArray[np.uint64],
    many: Place,
    times: NDArray[np.uint64],
    counts: NDArray[np.uint64],
    own: Place,
) -> Place:
    """Add what a sample of group `own` has to all counts; return its equal pairs of rows.

    Parameters
    ----------
    touched, many
        The slots that the sample has, and how many.
    times
        uint64 (slots,): how often it has each; 0 afterwards.
    counts
        uint64 (slots, groups): samples, and in the lower half rows.
    """
    pairs = np.int64(0)
    for place in range(many):
        slot = touched[place]
        found = times[slot]
        times[slot] = 0
        counts[slot, own] += found + (_ONE << _HALF)
        pairs += np.int64((found * (found - _ONE)) >> _ONE)
    return pairs


@kernel
def take_records(
    hot: HotTable,
    keys: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32],
    incidence: NDArray[np.uint32],
    group: NDArray[np.uint8] | None,
    width: Width,
) -> None:
    """Write a record for each key and group that has been counted, and forget that."""
    place = 0
    for slot in range(hot.counts.shape[0]):
        for own in range(hot.counts.shape[1]):
            found = hot.counts[slot, own]
            if found != 0:
                hot.counts[slot, own] = 0
                copy_key(hot.keys, slot, keys, place, width)
                multiplicity[place] = np.uint32(found)
                incidence[place] = np.uint32(found >> _HALF)
                if group is not None:
                    group[place] = own
                place += 1
