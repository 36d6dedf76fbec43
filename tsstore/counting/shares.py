"""Dividing a partition into shares whose tables fit the processor's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tsstore.counting.partition import scatter
from tsstore.counting.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tsstore.counting.buffers import Buffers

SHARE_RECORDS: Final = 1 << 16
"""Records of a share whose tables fit the processor's cache well."""
LEAST_PREFIX_BITS: Final = 6
"""Bits of the hash that all keys of a share have in common, at least: a count takes their place."""

_MOST_SHARE_BITS: Final = 12


def is_large(records: int, share_records: int) -> bool:
    """Whether a share is far larger than others: its states were crafted to be, or are few."""
    return records > 2 * share_records


def share_bits(records: int, partition_bits: int, share_records: int = SHARE_RECORDS) -> int:
    """Return by how many bits a partition of so many records is divided into shares."""
    wanted = ((max(records, 1) - 1) // share_records).bit_length()
    return max(min(wanted, _MOST_SHARE_BITS), LEAST_PREFIX_BITS - partition_bits)


def shares(
    pieces: Sequence[Records],
    words: int,
    partition_bits: int,
    bits: int,
    grouped: bool = False,
    buffers: Buffers | None = None,
) -> Iterator[tuple[Records, Records]]:
    """Yield the records of a partition share by share: bare ones, and others.

    Parameters
    ----------
    pieces
        The partition's records, all of them in memory.
    words
        uint64 words of a key.
    partition_bits
        How many top bits of the hash all keys of the partition have in common.
    bits
        By how many further bits it is divided; see :func:`share_bits`.
    grouped
        Whether the records tell groups apart.
    buffers
        Where the records lie until the next partition; None takes new ones.
    """
    kinds = []
    for bare in (True, False):
        own = [piece for piece in pieces if piece.is_bare == bare]
        own = own or [Records.empty(words, bare, grouped)]
        kinds.append(scatter(own, bits, partition_bits, buffers))
    for share in range(1 << bits):
        bare_ones, others = (records[ends[share] : ends[share + 1]] for records, ends in kinds)
        yield bare_ones, others


def share_table_bytes(words: int, groups: int, share_records: int) -> int:
    """Bytes of all tables of a share that is not large, at most: of so many words and groups.

    By group, of each record a state, two pairs, a place of either in an index, two of them while
    that doubles, and two changes; and what is added up at once. Else four slots of a packed table,
    one and a half of it while it doubles. In both, marks, and the records that are not alone.
    """
    left = 8 + 2 * (8 * words + 1)
    if groups:
        return 2 * share_records * (left + 8 * words + 16 + 48 + 24 + 48) + groups * (1 << 15)
    return 2 * share_records * (left + 48 * words)
