"""The table that counts any records: a slot for each distinct key, with both counts.

And with the last sample that has shown it, and how often: a row of that sample is equal to so many
others of it, and adds none to the incidence.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsstore.counting.hashing import (
    ALL_HASHES,
    LONG_PROBE,
    PROBE_LIMIT,
    HashRange,
    Place,
    Width,
    copy_key,
    rehash,
    width_for,
)
from tsstore.counting.records import LATER, TAG_SHIFT, Records
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

COUNTS: Final = 3
"""Words of a slot besides the key."""
SAMPLE_SHIFT: Final = np.uint64(31)
"""Where a sample's number begins in a word that tells how many rows it has in the lower bits."""

_SAMPLE_ROWS: Final = np.uint64((1 << 31) - 1)
_NONE: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_SMALLEST_TABLE: Final = 2


def slot_bytes(words: int) -> int:
    """Bytes of one slot of a table of keys of so many words: the key, two counts, and a sample.

    A table has 2 to 4 slots for each distinct key; while it doubles, the old one, of half the
    size, exists as well.
    """
    return 8 * words + 24


class Table:
    """A hash table of distinct keys with their total multiplicity and incidence.

    It grows with its distinct keys, from `first_slots` to `maximum_slots`, at least 2 (or the next
    power of two below), and is never more than half full. Of keys of so many words those are
    counted whose hashes are in a range.

    Attributes
    ----------
    distinct
        Number of distinct keys.
    equal_pairs
        Pairs of bare records of one sample that are equal.
    slots
        The table itself, uint64: a row is a key with a tag that is set, its multiplicity (0:
        empty), its incidence, and its last sample with the rows of that, in one place, so that a
        search meets one line of the processor's cache.
    """

    def __init__(
        self,
        words: int,
        maximum_slots: int,
        first_slots: int = 1024,
        hashes: HashRange = ALL_HASHES,
    ) -> None:
        slots = min(first_slots, maximum_slots)
        if slots < _SMALLEST_TABLE:
            raise ValueError(f"a table of {slots} slots; expected at least {_SMALLEST_TABLE}")
        self._words, self._width = words, width_for(words)
        self._maximum_slots = maximum_slots
        self._hashes = hashes
        self.distinct: Place = 0
        self.equal_pairs: Place = 0
        self._sample = np.uint64(0)
        self.slots: U64 = np.zeros((1 << (slots.bit_length() - 1), words + COUNTS), np.uint64)

    @property
    def nbytes(self) -> int:
        """Bytes of the table's slots."""
        return self.slots.nbytes

    def occupied(self, span: slice = slice(None)) -> tuple[U64, I64, I64]:
        """Return the keys (n, words) in some of the slots, their multiplicities and incidences.

        They are copies; those of all slots unless a span of these is given. In place of the first
        bit of each key is a tag: see :func:`tsstore.counting.partition.restore_hashes`.
        """
        words, slots = self._words, self.slots[span]
        found = slots[slots[:, words] != 0]
        counts = found[:, words : words + 2].astype(np.int64)
        return np.ascontiguousarray(found[:, :words]), counts[:, 0], counts[:, 1]

    @property
    def counts(self) -> tuple[I64, I64]:
        """Multiplicity (0: empty) and incidence of each slot, int64 (slots,): views."""
        counts = self.slots.view(np.int64)[:, self._words :]
        return counts[:, 0], counts[:, 1]

    def add(self, records: Records) -> bool:
        """Count those records that the table is for.

        Returns False if it would have to grow beyond its maximum: it has then counted some of the
        records and is of no further use.
        """
        columns = records.keys, records.multiplicity, records.incidence
        row: Place = 0
        pairs: Place
        while row < len(records):
            row, self.distinct, self._sample, pairs = absorb(
                self.slots, self.distinct, self._sample, *columns, row, self._hashes, self._width
            )
            self._sample = np.uint64(self._sample)
            self.equal_pairs += pairs
            if row < len(records) and not self._grow():
                return False
        return True

    @property
    def used(self) -> int:
        """Number of slots in use."""
        return int(self.distinct)

    def _grow(self) -> bool:
        if 2 * len(self.slots) > self._maximum_slots:
            return False
        larger = np.zeros((2 * len(self.slots), self.slots.shape[1]), np.uint64)
        rehash(self.slots, larger, self._words, np.uint64(0))
        self.slots = larger
        return True


@inlined
def _find(slots: U64, first: np.uint64, keys: U64, row: Place, width: Width) -> np.uint64:
    """Return the slot of a key of such a first word, or else the empty one that is due to it."""
    mask = np.uint64(slots.shape[0] - 1)
    slot: np.uint64 = first & mask
    for _ in range(PROBE_LIMIT):
        same = slots[slot, 0] == first
        for word in range(1, len(width)):
            same &= slots[slot, word] == keys[row, word]
        if same or slots[slot, len(width)] == 0:
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@inlined
def count_row(last: np.uint64, sample: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Count a row of a state of which `last` are the last sample, and in the lower bits its rows.

    Returns what that is then, by how much the incidence grows, and how many rows of the sample are
    equal to this one.
    """
    is_same = last >> SAMPLE_SHIFT == sample
    equal = last & _SAMPLE_ROWS if is_same else _NONE
    return (sample << SAMPLE_SHIFT) | (equal + _ONE), np.uint64(not is_same), equal


@kernel
def absorb(
    slots: U64,
    distinct: Place,
    sample: np.uint64,
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    row: Place,
    hashes: HashRange,
    width: Width,
) -> tuple[Place, Place, np.uint64, Place]:
    """Add records from `row` on, bare ones after those of so many samples.

    Returns the first that finds no room, the distinct keys, how many samples there are then, and
    how many pairs of bare records of one sample are equal.
    """
    words = len(width)
    room = slots.shape[0] // 2
    last, pairs = np.uint64(sample), np.uint64(0)
    # Unsigned: whether rows count from an array's end need not be asked.
    for record in range(np.uint64(row), np.uint64(keys.shape[0])):
        later = last
        if multiplicity is None:
            later = last + (keys[record, 0] >> TAG_SHIFT)
        if (keys[record, 0] >> hashes.shift) & hashes.mask == hashes.number:
            first = keys[record, 0] | LATER
            slot = _find(slots, first, keys, record, width)
            if slots[slot, words] == 0:
                if distinct == room:
                    return np.int64(record), distinct, last, np.int64(pairs)
                copy_key(keys, record, slots, slot, width)
                slots[slot, 0] = first
                distinct += 1
            if multiplicity is not None and incidence is not None:
                slots[slot, words] += np.uint64(multiplicity[record])
                slots[slot, words + 1] += np.uint64(incidence[record])
            else:
                slots[slot, words + 2], more, equal = count_row(slots[slot, words + 2], later)
                slots[slot, words] += _ONE
                slots[slot, words + 1] += more
                pairs += equal
        last = later
    return np.int64(keys.shape[0]), distinct, last, np.int64(pairs)
