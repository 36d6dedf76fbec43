"""The table that counts any records: a slot for each distinct key, with both counts."""

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
    is_same,
    rehash,
    width_for,
)
from tsstore.counting.records import Records
from tsstore.errors import CountingError
from tsstore.numba_tools.arrays import I64, U32, U64
from tsstore.numba_tools.decorators import inlined, kernel

_ONE: Final = np.uint64(1)
_SMALLEST_TABLE: Final = 2


def slot_bytes(words: int) -> int:
    """Bytes of one slot of a table of keys of so many words: the key and two counts.

    A table has 2 to 4 slots for each distinct key; while it doubles, the old one, of half the
    size, exists as well.
    """
    return 8 * words + 16


class Table:
    """A hash table of distinct keys with their total multiplicity and incidence.

    It grows with its distinct keys, from `first_slots` to `maximum_slots`, at least 2 (or the next
    power of two below), and is never more than half full. Of keys of so many words those are
    counted whose hashes are in a range.

    Attributes
    ----------
    distinct
        Number of distinct keys.
    slots
        The table itself, uint64: a row is a key, its multiplicity (0: empty) and its incidence, in
        one place, so that a search meets one line of the processor's cache.
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
        self.slots: U64 = np.zeros((1 << (slots.bit_length() - 1), words + 2), np.uint64)

    @property
    def nbytes(self) -> int:
        """Bytes of the table's slots."""
        return self.slots.nbytes

    def occupied(self, span: slice = slice(None)) -> tuple[U64, I64, I64]:
        """Return the keys (n, words) in some of the slots, their multiplicities and incidences.

        They are copies; those of all slots unless a span of these is given.
        """
        words, slots = self._words, self.slots[span]
        found = slots[slots[:, words] != 0]
        counts = found[:, words:].astype(np.int64)
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
        while row < len(records):
            row, self.distinct = absorb(
                self.slots, self.distinct, *columns, row, self._hashes, self._width
            )
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
def _find(slots: U64, mask: np.uint64, keys: U64, row: int, width: Width) -> np.uint64:
    """Return the slot of a key, or else the empty one that is due to it."""
    slot: np.uint64 = keys[row, 0] & mask
    for _ in range(PROBE_LIMIT):
        if slots[slot, len(width)] == 0 or is_same(keys, row, slots, slot, width):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@kernel
def absorb(
    slots: U64,
    distinct: Place,
    keys: U64,
    multiplicity: U32 | None,
    incidence: U32 | None,
    row: Place,
    hashes: HashRange,
    width: Width,
) -> tuple[Place, Place]:
    """Add records from `row` on; return the first that finds no room, and the distinct keys."""
    words = len(width)
    mask = np.uint64(slots.shape[0] - 1)
    room = slots.shape[0] // 2
    # Unsigned: whether rows count from an array's end need not be asked.
    for record in range(np.uint64(row), np.uint64(keys.shape[0])):
        if (keys[record, 0] >> hashes.shift) & hashes.mask != hashes.number:
            continue
        slot = _find(slots, mask, keys, record, width)
        if slots[slot, words] == 0:
            if distinct == room:
                return np.int64(record), distinct
            copy_key(keys, record, slots, slot, width)
            distinct += 1
        if multiplicity is not None and incidence is not None:
            slots[slot, words] += np.uint64(multiplicity[record])
            slots[slot, words + 1] += np.uint64(incidence[record])
        else:
            slots[slot, words] += _ONE
            slots[slot, words + 1] += _ONE
    return np.int64(keys.shape[0]), distinct
