"""Counting a partition in passes: as many as it takes for the tables to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from tsstore.errors import CountingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tsstore.counting.records import Records

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
