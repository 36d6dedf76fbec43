"""Merging hot keys: those so frequent that a small table absorbs them on the way.

Without it one state in many rows makes one partition as large as all the others together. A thread
chooses them from a sample of what it reads, and again when they no longer serve: whatever order
the rows of a run come in, the table is not stale for long. It is direct-mapped, a slot for each
key and no search, so that the loop over all rows has no branch that could be guessed wrong. What it
has counted becomes records at the end of a block.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tsstore.counting.arena import Empty
from tsstore.counting.hashing import Place, Width, copy_key, is_same, width_of
from tsstore.counting.records import Groups, Records, bytes_of_group, counted_columns
from tsstore.numba_tools.arrays import I32, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

LEAST_ROWS: Final = 1 << 14
"""From fewer rows no hot keys are chosen."""
TRIED_ROWS: Final = 1 << 13
"""Of a sample that says whether it pays to choose hot keys: half of them choose, half tell."""
SAMPLE_ROWS: Final = 1 << 17
"""Of the sample, at most, that chooses them."""
MOST_SLOTS: Final = 1 << 13
LEAST_SLOTS: Final = 1 << 6
ROWS_OF_A_SLOT: Final = 16
"""There is a slot, for each group, for so many rows of a block or more: records that stand for one
row each would be longer than those rows."""
PAYS_FROM: Final = 0.15
"""Share of hot rows from which on the table gains more than it takes."""
MOST_WAITING: Final = 4
"""Pieces after which it is tried again, at most, where choosing hot keys did not pay."""
SERVES_FROM: Final = 0.8
"""Of the share of hot rows that there was at first: with less, others are chosen."""

_SHIFTS: Final = (np.uint64(8), np.uint64(28))
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_LOWER: Final = np.uint64((1 << 32) - 1)
_FACTOR: Final = np.uint64(1_664_525)
_STEP: Final = np.uint64(1_013_904_223)
_ROW_AND_SAMPLE: Final = np.uint64((1 << 32) + 1)


class HotTable(NamedTuple):
    """Hot keys, a slot each.

    Attributes
    ----------
    shift
        Where in the hash the number of a slot begins.
    slots
        uint64 (slots, words + 1): a key, and how often the sample at hand has it, 0 between
        samples: a look-up meets one line of the processor's cache.
    counts
        uint64 (slots, groups): samples, and in the lower half rows, of each so far.
    """

    shift: np.uint64
    slots: U64
    counts: U64


class HotKeys:
    """The hot keys that a thread has chosen, and what it has counted of them in a block.

    They have so many words, and are counted for so many groups, 0 for none, in blocks of so many
    rows, about. What is large and needed for a while is made by `empty`.

    Attributes
    ----------
    share
        Of the last piece's rows, how many were hot; 0 where looking for them does not pay.
    pays
        True: others are chosen where these no longer do.
    """

    pays = True

    def __init__(self, words: int, groups: int, rows: int, empty: Empty = np.empty) -> None:
        slots = slots_of(groups, rows)
        counts = np.zeros((slots, max(groups, 1)), np.uint64)
        self.table = HotTable(_SHIFTS[0], np.zeros((slots, words + 1), np.uint64), counts)
        # Used again whenever keys are chosen: what is new each time takes longer than choosing.
        self._candidates, self._votes = np.empty_like(self.table.slots), np.empty(slots, np.int32)
        self.share = self._share_at_first = 0.0
        self._empty = empty
        self._group_bytes = bytes_of_group(groups)
        self._block_rows, self._counted_rows = rows, 0
        self._failures = self._waiting = 0
        self._taken: list[Records] = []

    @property
    def groups(self) -> int:
        """Groups that are told apart, or 1."""
        return int(self.table.counts.shape[1])

    def begin(self) -> None:
        """Begin a block: forget what an error may have left."""
        self.table.counts[:], self.table.slots[:, -1] = 0, 0
        self._counted_rows, self._taken = 0, []

    def serve(self, keys: U64) -> bool:
        """Begin a piece, and say whether looking for hot keys pays.

        They are chosen if there are none, or if they were few of the last piece's rows; but not
        before those of a block have been counted, unless nothing has, as each time leaves records.
        Where that did not pay it is tried again after a piece, then after two, and so on up to
        every fourth: it takes time, and most layers stay as they are.
        """
        is_stale = self.share == 0 or self.share < SERVES_FROM * self._share_at_first
        self._waiting = max(self._waiting - 1, 0)
        if is_stale and not self._waiting and not 0 < self._counted_rows < self._block_rows:
            self._taken = self.take()
            sizes = (TRIED_ROWS, min(SAMPLE_ROWS, len(keys) // 2))
            pays = len(keys) >= LEAST_ROWS and all(self._choose(keys, size) for size in sizes)
            self.share, self._share_at_first = self.share if pays else 0.0, 0.0
            self._failures = 0 if pays else self._failures + 1
            self._waiting = min(self._failures, MOST_WAITING)
        if self.share > 0 or self._counted_rows:
            self._counted_rows += len(keys)
        return self.share > 0

    def learn(self, hot_rows: int, rows: int) -> None:
        """Remember how many rows of a piece were hot."""
        self.share = hot_rows / max(rows, 1)
        self._share_at_first = self._share_at_first or self.share

    def take(self) -> list[Records]:
        """Return one record for each hot key that was met, and each group, and begin again."""
        taken, self._taken, self._counted_rows = self._taken, [], 0
        _, slots, counts = self.table
        records = take_counted(slots, counts, slots.shape[1] - 1, self._group_bytes)
        return [*taken, records] if len(records) else taken

    def _choose(self, keys: U64, size: int) -> bool:
        """Choose from a sample of so many rows; return whether that pays."""
        sample = self._empty((size, keys.shape[1]), np.uint64)
        draw(keys, sample, width_of(keys))
        best: Place = 0
        # Two frequent keys may want one slot: another part of the hash tells them apart.
        for shift in _SHIFTS:
            chosen = self._candidates
            chosen[:], self._votes[:] = 0, 0
            hits: Place = elect(sample, shift, chosen, self._votes, width_of(keys))
            if hits > best:
                best, self._candidates = hits, self.table.slots
                self.table = self.table._replace(shift=shift, slots=chosen)
        self.share = float(best / (len(sample) // 2))
        return self.share > PAYS_FROM


def take_counted(keys: U64, counts: U64, words: int, group_bytes: int) -> Records:
    """Return one record for each key and group that has been counted; the counts are 0 then.

    Keys are the first so many words of rows.
    """
    count = int(np.count_nonzero(counts))
    records = Records.empty(words, bare=False, group_bytes=group_bytes, count=count)
    take_records(keys, counts, *counted_columns(records), width_of(records.keys))
    return records


def slots_of(groups: int, rows: int) -> int:
    """Return how many hot keys, a power of two, there are for blocks of so many rows."""
    wanted = rows // (ROWS_OF_A_SLOT * max(groups, 1))
    return min(max(1 << max(wanted.bit_length() - 1, 0), LEAST_SLOTS), MOST_SLOTS)


def hot_bytes(words: int, groups: int, rows: int) -> int:
    """Bytes of what goes with hot keys of so many words, groups (0 for none) and rows of a block.

    While keys are chosen, there are others, their votes, and the sample.
    """
    slots, key = slots_of(groups, rows), 8 * words
    records = slots * max(groups, 1) * (8 + key + 8 + bytes_of_group(groups))
    return slots * (2 * (key + 8) + 4) + records + min(SAMPLE_ROWS, rows) * key


@kernel
def draw(keys: U64, sample: U64, width: Width) -> None:
    """Write a sample of keys: from each of equal spans two by chance.

    The positions of a layer follow each other in every sample: rows at a fixed distance might all
    be of one position.
    """
    span, chance = np.uint64(2 * (keys.shape[0] // sample.shape[0])), np.uint64(0)
    for place in range(np.uint64(sample.shape[0] // 2)):
        chance = next_chance(chance)
        first = chance * span >> _HALF
        chance = next_chance(chance)
        second = (first + _ONE + (chance * (span - _ONE) >> _HALF)) % span
        copy_key(keys, place * span + first, sample, np.uint64(2) * place, width)
        copy_key(keys, place * span + second, sample, np.uint64(2) * place + _ONE, width)


@inlined
def next_chance(chance: np.uint64) -> np.uint64:
    """Return the next of 2**32 numbers, by Lehmer's linear congruences: their upper bits vary."""
    return (chance * _FACTOR + _STEP) & _LOWER


@kernel
def elect(keys: U64, shift: np.uint64, hot: U64, votes: I32, width: Width) -> Place:
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
    keys: U64,
    group: Groups | None,
    hot: HotTable,
    cold: U64,
    cold_group: Groups | None,
    width: Width,
) -> Place:
    """Count hot rows, and write the others; return how many those are."""
    mask = np.uint64(hot.slots.shape[0] - 1)
    left = np.uint64(0)
    for row in range(np.uint64(keys.shape[0])):
        slot = (keys[row, 0] >> hot.shift) & mask
        is_hot = np.uint64(is_same(keys, row, hot.slots, slot, width))
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
    keys: U64,
    start: Place,
    stop: Place,
    own: Place,
    hot: HotTable,
    touched: U64,
    cold: U64,
    first: Place,
    width: Width,
) -> tuple[Place, Place]:
    """Count the hot rows of a sample of group `own`, and write the others from `first` on.

    `touched` takes the slots that the sample has keys in. Returns where the other keys end, and the
    number of equal pairs of rows that are hot.
    """
    mask = np.uint64(hot.slots.shape[0] - 1)
    left, many, words = np.uint64(first), np.uint64(0), len(width)
    # Unsigned: whether rows count from an array's end need not be asked.
    for row in range(np.uint64(start), np.uint64(stop)):
        slot = (keys[row, 0] >> hot.shift) & mask
        is_hot = np.uint64(is_same(keys, row, hot.slots, slot, width))
        times = hot.slots[slot, words]
        hot.slots[slot, words] = times + is_hot
        touched[many] = slot
        many += is_hot & np.uint64(times == 0)
        copy_key(keys, row, cold, left, width)
        left += _ONE - is_hot
    pairs = count_touched(touched, np.int64(many), hot.slots[:, words], hot.counts, own)
    return np.int64(left), pairs


@inlined
def count_touched(touched: U64, many: Place, times: U64, counts: U64, own: Place) -> Place:
    """Add what a sample of group `own` has to all counts; return its equal pairs of rows.

    It has as `many` slots as were touched, each so many `times`, which are 0 afterwards.
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
    hot: U64,
    counts: U64,
    keys: U64,
    multiplicity: U32,
    incidence: U32,
    group: Groups | None,
    width: Width,
) -> None:
    """Write a record for each key and group that has been counted, and forget that."""
    place = 0
    for slot in range(counts.shape[0]):
        for own in range(counts.shape[1]):
            found = counts[slot, own]
            if found != 0:
                counts[slot, own] = 0
                copy_key(hot, slot, keys, place, width)
                multiplicity[place] = np.uint32(found)
                incidence[place] = np.uint32(found >> _HALF)
                if group is not None:
                    group[place] = own
                place += 1
