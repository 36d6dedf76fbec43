"""From the memory given to the sizes of blocks, partitions and tables: a pure function."""

from __future__ import annotations

from dataclasses import dataclass

from tsstore.analysis.memory import format_memory
from tsstore.counting.aggregate import slot_bytes
from tsstore.errors import MemoryTooSmallError

MAX_BLOCK_ROWS = 1 << 20
MIN_BLOCK_ROWS = 1 << 12
MAX_PARTITION_BITS = 10
PARTITION_RECORDS = 1 << 18
"""Records of a partition whose table still fits the processor's cache well."""
MIN_TABLE_SLOTS = 1 << 12
GROWTH = 1.5
"""While a table doubles, the old one of half its size exists as well."""


@dataclass(frozen=True)
class Plan:
    """How one layer is counted.

    Attributes
    ----------
    memory
        Bytes that one process may add to its baseline.
    threads
        Tasks that one process runs at a time.
    block_rows
        Rows that a block task reads, unless one sample has more.
    partition_bits
        The keys are counted in ``2 ** partition_bits`` partitions.
    maximum_slots
        Slots of a partition's table; beyond it, the partition is counted in several passes.
    spill
        Whether records go through files instead of memory.
    scratch_bytes
        Most bytes of records there can be.
    projected_peak
        Most bytes that one process adds to its baseline.
    """

    memory: int
    threads: int
    block_rows: int
    partition_bits: int
    maximum_slots: int
    spill: bool
    scratch_bytes: int
    projected_peak: int


def record_bytes(words: int) -> int:
    """Return bytes of a record with a key of so many words."""
    return 8 * words + 8


def block_row_bytes(row_bytes: int, words: int) -> int:
    """Return the most bytes that a block task holds for each of its rows.

    The row, the row as whole words, its key, its sample's number of rows; records as merged by
    sample, by block, and as scattered; and the table by which the block is merged.
    """
    whole_words = 8 * -(-row_bytes // 8)
    return row_bytes + whole_words + 8 * words + 8 + 3 * record_bytes(words) + 32


def make_plan(
    *,
    rows: int,
    row_bytes: int,
    words: int,
    largest_sample: int,
    chunk_bytes: int,
    memory: int,
    threads: int,
    shared_memory: bool,
) -> Plan:
    """Choose how to count a layer within the memory given.

    Parameters
    ----------
    rows
        Rows of the layer.
    row_bytes
        Bytes of a row.
    words
        Words of a key.
    largest_sample
        Rows of the sample that has most.
    chunk_bytes
        Bytes of a decoded chunk of the store.
    memory
        Bytes that one process may add to its baseline.
    threads
        Tasks that one process can run at a time; fewer are used if memory is short.
    shared_memory
        Whether all tasks run in one process, so that records can stay in memory.

    Returns
    -------
    Plan
        With ``projected_peak <= memory``.

    Raises
    ------
    MemoryTooSmallError
        If not even one task at a time fits; the message names the smallest memory that does.
    """
    record_total = rows * record_bytes(words)
    spill = not (shared_memory and 2 * record_total <= memory)
    held = 0 if spill else record_total
    per_row = block_row_bytes(row_bytes, words)
    smallest_block = max(largest_sample, min(rows, MIN_BLOCK_ROWS))
    fixed = 2 * chunk_bytes
    table = GROWTH * slot_bytes(words) * MIN_TABLE_SLOTS
    smallest = int(fixed + max(smallest_block * per_row, table))
    if smallest > memory - held:
        raise MemoryTooSmallError(
            f"memory of {format_memory(memory)} is too small: the smallest task takes "
            f"{format_memory(smallest)}; give at least memory={smallest}"
        )
    threads = max(min(threads, int((memory - held) // smallest)), 1)
    share = (memory - held) // threads
    block_rows = min(max((share - fixed) // per_row, smallest_block), MAX_BLOCK_ROWS, max(rows, 1))
    block_rows = max(block_rows, largest_sample)
    maximum_slots = _power_of_two_below(int((share - fixed) / (GROWTH * slot_bytes(words))))
    maximum_slots = min(maximum_slots, _power_of_two_above(4 * rows + 4))
    bits = _partition_bits(rows, maximum_slots)
    task = fixed + max(block_rows * per_row, int(GROWTH * slot_bytes(words) * maximum_slots))
    return Plan(
        memory, threads, block_rows, bits, maximum_slots, spill, record_total, held + threads * task
    )


def _partition_bits(rows: int, maximum_slots: int) -> int:
    """Return enough bits that a partition's keys, were all distinct, fit its table."""
    records = min(PARTITION_RECORDS, maximum_slots // 4)
    return min(max(_power_of_two_above(rows // records).bit_length() - 1, 0), MAX_PARTITION_BITS)


def _power_of_two_below(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)


def _power_of_two_above(number: int) -> int:
    return 1 << (max(number, 1) - 1).bit_length()
