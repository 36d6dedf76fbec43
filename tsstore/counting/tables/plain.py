"""Records to spectra: the whole count of one partition, in a table of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import numpy as np

from tsstore.counting.hashing import (
    LONG_PROBE,
    PROBE_LIMIT,
    Place,
    Width,
    copy_key,
    is_same,
    width_for,
)
from tsstore.counting.tables.tally import Tally
from tsstore.errors import CountingError
from tsstore.numba_tools.decorators import inlined, kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from tsstore.counting.records import Records
    from tsstore.counting.tables.tally import Spectrum

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

    It grows with its distinct keys and is never more than half full. A table may count a share of
    a partition alone: the keys whose `pass_bits` bits of the hash after the first
    `partition_bits` are `pass_index`.

    Parameters
    ----------
    words
        uint64 words of a key, at least 1.
    maximum_slots
        What it may grow to, at least 2; a power of two, or else the next below counts.
    partition_bits, pass_bits, pass_index
        The share to count; 0 pass bits: everything.
    initial_slots
        What it begins with, if `maximum_slots` is not less.

    Raises
    ------
    ValueError
        If `maximum_slots` or `initial_slots` is less than 2.
    """

    def __init__(
        self,
        words: int,
        maximum_slots: int,
        *,
        partition_bits: int = 0,
        pass_bits: int = 0,
        pass_index: int = 0,
        initial_slots: int = 1024,
    ) -> None:
        slots = min(initial_slots, maximum_slots)
        if slots < _SMALLEST_TABLE:
            raise ValueError(f"a table of {slots} slots; expected at least {_SMALLEST_TABLE}")
        self._words, self._width = words, width_for(words)
        self._maximum_slots = maximum_slots
        self._distinct = 0
        # Without pass bits the mask is 0: any shift will do, but one by 64 bits is not defined.
        self._shift = np.uint64((64 - partition_bits - pass_bits) % 64)
        self._mask = np.uint64((1 << pass_bits) - 1)
        self._index = np.uint64(pass_index)
        self._slots = self._new_slots(1 << (slots.bit_length() - 1))

    def add(self, records: Records) -> bool:
        """Count those records that belong to the table's share.

        Returns
        -------
        False if the table would have to grow beyond its maximum. It has then counted some of the
        records and is of no further use.

        Raises
        ------
        CountingError
            If keys meet in one place of the table as mixed keys do not.
        """
        row: Place = 0
        while True:
            row, self._distinct = _absorb(
                self._slots,
                self._distinct,
                records.keys,
                records.multiplicity,
                records.incidence,
                row,
                self._shift,
                self._mask,
                self._index,
                self._width,
            )
            if row == len(records):
                return True
            if 2 * len(self._slots) > self._maximum_slots:
                return False
            self._grow()

    @property
    def distinct(self) -> int:
        """Number of distinct keys."""
        return self._distinct

    @property
    def entries(self) -> int:
        """Number of slots in use: one for each distinct key."""
        return self._distinct

    @property
    def nbytes(self) -> int:
        """Bytes of the table's slots."""
        return self._slots.nbytes

    @property
    def slots(self) -> NDArray[np.uint64]:
        """The table itself: a row is a key, its multiplicity (0: empty) and its incidence."""
        return self._slots

    def occupied(
        self, span: slice = slice(None)
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the keys (n, words) in some of the slots, their multiplicities and incidences.

        They are copies; those of all slots unless a span of these is given.
        """
        words, slots = self._words, self._slots[span]
        found = slots[slots[:, words] != 0]
        counts = found[:, words:].astype(np.int64)
        return np.ascontiguousarray(found[:, :words]), counts[:, 0], counts[:, 1]

    @property
    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Multiplicity (0: empty) and incidence of each slot, int64 (slots,): views."""
        counts = self._slots.view(np.int64)[:, self._words :]
        return counts[:, 0], counts[:, 1]

    def _new_slots(self, slots: int) -> NDArray[np.uint64]:
        """Empty slots. A row is a key, its multiplicity (0: empty) and incidence, in one place.

        So a search meets one line of the processor's cache, rather than one for each of three.
        """
        return np.zeros((slots, slot_bytes(self._words) // 8), np.uint64)

    def _grow(self) -> None:
        larger = self._new_slots(2 * len(self._slots))
        _rehash(self._slots, larger)
        self._slots = larger


def aggregate(
    slices: Callable[[], Iterable[Records]], words: int, partition_bits: int, maximum_slots: int
) -> Spectrum:
    """Count the distinct states of one partition.

    If they outgrow the table, several passes over the same slices count one range of hashes each,
    half as wide as the one that was too much.

    Parameters
    ----------
    slices
        Gives the partition's records, piece by piece; called once for each pass.
    words
        uint64 words of a key, at least 1.
    partition_bits
        How many top bits of the hash all keys of the partition share.
    maximum_slots
        Slots of the largest table allowed, at least 2; see :func:`slot_bytes`.

    Returns
    -------
    k, q, states
        int64 (pairs,), sorted by k, then by q: `states` distinct states occur in k rows and
        q samples.

    Raises
    ------
    ValueError
        If `maximum_slots` is less than 2.
    CountingError
        If keys meet in one place of the table as mixed keys do not, or if more of them than fit
        into the table share their first 48 bits.
    """
    tally = Tally()
    for table in count_tables(slices, words, partition_bits, maximum_slots):
        tally.add(*table.counts)
    return tally.spectrum()


def count_tables(
    slices: Callable[[], Iterable[Records]], words: int, partition_bits: int, maximum_slots: int
) -> Iterator[Table]:
    """Yield tables that hold the counts of one partition between them, for each pass one.

    Parameters and errors are those of :func:`aggregate`.
    """

    def new_table(bits: int, index: int) -> Table:
        return Table(
            words, maximum_slots, partition_bits=partition_bits, pass_bits=bits, pass_index=index
        )

    return count_in_passes(new_table, slices, partition_bits, maximum_slots)


@inlined
def _find(
    slots: NDArray[np.uint64],
    mask: np.uint64,
    keys: NDArray[np.uint64],
    row: int,
    width: Width,
) -> np.uint64:
    """Return the slot of a key, or else the empty one that is due to it."""
    slot: np.uint64 = keys[row, 0] & mask
    for _ in range(PROBE_LIMIT):
        if slots[slot, len(width)] == 0 or is_same(keys, row, slots, slot, width):
            return slot
        slot = (slot + _ONE) & mask
    raise CountingError(LONG_PROBE)


@kernel
def _absorb(
    slots: NDArray[np.uint64],
    distinct: int,
    keys: NDArray[np.uint64],
    multiplicity: NDArray[np.uint32] | None,
    incidence: NDArray[np.uint32] | None,
    row: Place,
    pass_shift: np.uint64,
    pass_mask: np.uint64,
    pass_index: np.uint64,
    width: Width,
) -> tuple[Place, int]:
    """Add records from `row` on; return the first that finds no room, and the distinct keys."""
    words = len(width)
    mask = np.uint64(slots.shape[0] - 1)
    room = slots.shape[0] // 2
    # Unsigned: whether rows count from an array's end need not be asked.
    for record in range(np.uint64(row), np.uint64(keys.shape[0])):
        if (keys[record, 0] >> pass_shift) & pass_mask != pass_index:
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


@kernel
def _rehash(slots: NDArray[np.uint64], larger: NDArray[np.uint64]) -> None:
    """Move all keys and counts into a larger table, which is empty."""
    words = slots.shape[1] - 2
    mask = np.uint64(larger.shape[0] - 1)
    for old in range(slots.shape[0]):
        if slots[old, words] != 0:
            slot = slots[old, 0] & mask
            while larger[slot, words] != 0:
                slot = (slot + _ONE) & mask
            for column in range(slots.shape[1]):
                larger[slot, column] = slots[old, column]


_LARGEST_PREFIX_BITS: Final = 48


class CountingTable(Protocol):
    """What counts a share of a partition, until it is full."""

    def add(self, records: Records) -> bool:
        """Count records; return False if they do not fit."""

    @property
    def entries(self) -> int:
        """Number of slots in use."""


_Table = TypeVar("_Table", bound=CountingTable)


def count_in_passes(
    new_table: Callable[[int, int], _Table],
    slices: Callable[[], Iterable[Records]],
    partition_bits: int,
    maximum_slots: int,
) -> Iterator[_Table]:
    """Yield tables that hold the counts of a partition between them.

    If its keys outgrow a table, several passes over the same slices count one range of hashes
    each, half as wide as the one that was too much.

    Parameters
    ----------
    new_table
        Makes an empty table for a share, from the number of its pass bits and its pass index.
    slices
        Gives the partition's records, piece by piece; called once for each pass.
    partition_bits
        How many top bits of the hash all keys of the partition share.
    maximum_slots
        Slots of the largest table allowed.

    Raises
    ------
    CountingError
        If more keys than fit into a table share their first 48 bits.
    """
    bits = index = 0  # what is counted: the hashes below index / 2**bits of their range
    while index < 1 << bits:
        table = new_table(bits, index)
        if all(table.add(piece) for piece in slices()):
            yield table
            index += 1
            # Larger steps again after a dense spot: the next pass may take twice as much.
            if index % 2 == 0 and table.entries <= maximum_slots // 8:
                bits, index = bits - 1, index // 2
        else:
            bits, index = bits + 1, 2 * index
            _check_prefix(partition_bits + bits, table)


def _check_prefix(bits: int, table: CountingTable) -> None:
    if bits > _LARGEST_PREFIX_BITS:
        raise CountingError(
            f"more than {table.entries} distinct keys, all that fit into the table, share the "
            f"first {_LARGEST_PREFIX_BITS} bits of their hash: it was attacked by crafted states "
            "or the key scheme is broken; analyse again with another seed"
        )
