"""From the memory given to the sizes of blocks, partitions and tables: a pure function."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from tsstore.analysis.memory import format_memory
from tsstore.counting.aggregate import slot_bytes
from tsstore.counting.grouped import grouped_slot_bytes, least_slots
from tsstore.counting.probing import slots_for
from tsstore.errors import MemoryTooSmallError

MAX_BLOCK_ROWS = 1 << 20
MIN_BLOCK_ROWS = 1 << 12
MAX_PARTITION_BITS = 10
PARTITION_RECORDS = 1 << 18
"""Records of a partition whose table still fits the processor's cache well."""
MIN_TABLE_SLOTS = 1 << 12
GROWTH = 1.5
"""While a table doubles, the old one of half its size exists as well."""
TASK_BYTES = 6 << 10
"""What Dask keeps of a task, with the receipt or spectrum that it returned."""
GROUP_BYTES = 32
"""Of a group in a receipt."""
ORDER_BYTES = 16
"""Of a sample, while samples are put in order by group."""
INDEX_BYTES = 8
"""Of a sample that is left out."""
WAITING, WAITING_CELL_BYTES = 24, 12
"""How many partitions' changes wait to be added up, and what a change takes then."""
ROW_SECONDS = {False: 50e-9, True: 70e-9}
SLICE_SECONDS = {False: 3e-6, True: 25e-6}
"""Of records in memory, and in files. Slices are read in Python, one thread at a time."""
DECODING_SECONDS = 0.5e-9
"""Of a byte of a chunk."""
OVERHEAD_BYTES = 3 << 20
"""What a running task needs whatever its size: buffers of the decoder and of files, a chunk of
positions, a histogram, spectra that are merged."""


@dataclass(frozen=True)
class Work:
    """What there is to count in one layer.

    Attributes
    ----------
    name
        The layer's, for messages.
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
    parts
        Parts of the store: no block reads from two.
    groups
        Groups of samples that are told apart; 0: none.
    left_out
        Samples of the run that do not count.
    """

    name: str
    rows: int
    row_bytes: int
    words: int
    largest_sample: int = 1
    chunk_bytes: int = 2 << 20
    parts: int = 1
    groups: int = 0
    left_out: int = 0

    @property
    def record_bytes(self) -> int:
        """Bytes of a record: its key, multiplicity and incidence, and its group if it has one."""
        return 8 * self.words + 8 + (self.groups > 0)

    @property
    def least_slots(self) -> int:
        """Slots of the smallest tables worth a thought."""
        return max(MIN_TABLE_SLOTS, least_slots(self.groups))

    def cells(self, rows: int) -> int:
        """Return about how many entries all spectra without a group have that differ, at most.

        So many rows have at most ``(3 rows)**(2/3) / 2`` pairs of multiplicity and incidence; what
        was measured, of skewed states, is a fifth of it.
        """
        return int(self.groups * min(rows, rows ** (2 / 3) / 2))


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
        Rows that a block task reads at most.
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


def make_plan(work: Work, memory: int, threads: int, shared_memory: bool) -> Plan:
    """Choose how to count a layer within the memory given.

    Parameters
    ----------
    work
        What there is to count.
    memory
        Bytes that one process may add to its baseline.
    threads
        Tasks that one process can run at a time.
    shared_memory
        Whether all tasks run in one process of ours: records can stay in memory, and fewer threads
        can be used if memory is short. A cluster's worker uses all that it has.

    Returns
    -------
    Plan
        With ``projected_peak <= memory``.

    Raises
    ------
    MemoryTooSmallError
        If nothing fits; the message names the smallest memory with which something does.
    """
    plans = _fitting_plans(work, memory, threads, shared_memory)
    if not plans:
        smallest = _smallest_memory(work, memory, threads, shared_memory)
        raise MemoryTooSmallError(
            f"layer {work.name}: memory of {format_memory(memory)} is too small for the smallest "
            f"tasks; give at least memory='{smallest >> 10}KiB'"
        )
    return min(plans, key=lambda plan: estimated_seconds(work, plan))


def block_task_bytes(work: Work, block_rows: int) -> int:
    """Return the most bytes that a block task takes.

    It passes five stages. Choosing, where samples are left out: the rows and those of them that
    stay, likewise the numbers of rows by sample, and whether each row and sample stays. Keys: the
    rows, the rows as whole words unless they are such, keys. Merging samples: keys, records, the
    table of the largest sample. Merging the block: records before and after, a table of them all
    and the one of half its size that it replaces. Scattering: records before and after. All the
    while the numbers of rows by sample are there, and the samples' groups; while samples are
    merged, also their order by group.
    """
    key, positions = 8 * work.words, 8 + (work.groups > 0)
    order = ORDER_BYTES if work.groups else 0
    padded = 8 * -(-work.row_bytes // 8) if work.row_bytes % 8 else 0
    table = 8 * slots_for(work.largest_sample) if work.largest_sample > 1 else 0
    chosen = 2 * work.row_bytes + 2 * positions + 2 if work.left_out else 0
    stages = (
        block_rows * chosen,
        block_rows * (work.row_bytes + padded + key + positions),
        block_rows * (key + work.record_bytes + positions + order) + table,
        block_rows * (2 * work.record_bytes + positions) + 12 * slots_for(block_rows),
    )
    return OVERHEAD_BYTES + 2 * work.chunk_bytes + max(stages)


def partition_task_bytes(work: Work, block_rows: int, maximum_slots: int, spill: bool) -> int:
    """Return the most bytes that a partition task takes.

    Of slices that are read from files, one is counted while the next is read; at worst they hold
    all records of their blocks.
    """
    slices = 2 * block_rows * work.record_bytes if spill else 0
    return OVERHEAD_BYTES + slices + table_bytes(work, maximum_slots)


def table_bytes(work: Work, slots: int) -> int:
    """Return the most bytes that the tables of a partition take."""
    if work.groups:
        return slots * grouped_slot_bytes(work.words)
    return int(GROWTH * slot_bytes(work.words) * slots)


def held_bytes(work: Work, block_rows: int, partition_bits: int, spill: bool) -> int:
    """Return the most bytes that are held all the while: tasks, receipts, records.

    Which samples are left out is held, too. Blocks hold whole samples, and whole chunks where they
    can: they may be half empty. By group, some partitions' changes wait to be added up.
    """
    blocks = 2 * -(-work.rows // block_rows) + work.parts
    tasks = blocks + (1 << partition_bits) + (1 << partition_bits) // 8
    waiting = min(1 << partition_bits, WAITING) * work.cells(work.rows >> partition_bits)
    held = tasks * (TASK_BYTES + GROUP_BYTES * work.groups) + WAITING_CELL_BYTES * waiting
    held += INDEX_BYTES * work.left_out
    if spill:
        return held
    return held + blocks * (8 << partition_bits) + work.rows * work.record_bytes


def estimated_seconds(work: Work, plan: Plan) -> float:
    """Return about how long a plan takes: good enough to tell which of two is faster.

    More threads share the rows; but they mean smaller blocks and more slices where memory is
    short. Each block may decode a chunk that another one decodes too.
    """
    blocks = -(-work.rows // plan.block_rows)
    passes = max(1, _wanted_slots(work, plan.partition_bits) // plan.maximum_slots)
    shared = work.rows * ROW_SECONDS[plan.spill] + blocks * work.chunk_bytes * DECODING_SECONDS
    slices = (blocks << plan.partition_bits) * passes * SLICE_SECONDS[plan.spill]
    return shared / plan.threads + slices


def _fitting_plans(work: Work, memory: int, threads: int, shared_memory: bool) -> list[Plan]:
    """Return all plans worth a thought that fit."""
    in_memory = [(threads, False)] if shared_memory else []
    fewest = 1 if shared_memory else threads
    ways = [*in_memory, *((fewer, True) for fewer in range(fewest, threads + 1))]
    plans = (
        _complete(work, memory, busy, block_rows, spill)
        for block_rows in _block_sizes(work)
        for busy, spill in ways
    )
    return [plan for plan in plans if plan.projected_peak <= memory]


def _smallest_memory(work: Work, memory: int, threads: int, shared_memory: bool) -> int:
    """Return the smallest memory that fits, in bytes: whole KiB."""

    def fits(kib: int) -> bool:
        return bool(_fitting_plans(work, kib << 10, threads, shared_memory))

    enough = memory // 1024 + 1
    while not fits(enough):
        enough *= 2
    return bisect_left(range(enough), True, lo=memory // 1024, key=fits) << 10


def _block_sizes(work: Work) -> Iterator[int]:
    size = min(MAX_BLOCK_ROWS, max(work.rows, 1))
    while size > max(MIN_BLOCK_ROWS, work.largest_sample):
        yield size
        size //= 2
    yield max(size, work.largest_sample)


def _complete(work: Work, memory: int, threads: int, block_rows: int, spill: bool) -> Plan:
    """Choose partitions and tables that go with a size of blocks, and project the peak.

    As few partitions as there may be, so that slices are long, and as large a table as they need,
    if that fits; a table may take what a block task takes anyway.
    """
    block = block_task_bytes(work, block_rows)
    fewest = (-(-work.rows // PARTITION_RECORDS) - 1).bit_length()
    for bits in range(min(fewest, MAX_PARTITION_BITS), MAX_PARTITION_BITS + 1):
        held = held_bytes(work, block_rows, bits, spill)
        share = max(block, (memory - held) // threads)
        slots = _wanted_slots(work, bits)
        if partition_task_bytes(work, block_rows, slots, spill) <= share:
            break
    least = work.least_slots
    while slots > least and partition_task_bytes(work, block_rows, slots, spill) > share:
        slots = max(least, slots // 2)
    task = max(block, partition_task_bytes(work, block_rows, slots, spill))
    scratch = work.rows * work.record_bytes
    peak = held + threads * task
    return Plan(memory, threads, block_rows, bits, slots, spill, scratch, peak)


def _wanted_slots(work: Work, partition_bits: int) -> int:
    """Return slots of a table for all rows of a partition, were they distinct: 3 for each.

    It may be half full, and some partitions get more keys than others by chance. States and pairs
    by group are at most one and a half times as many: a state of many groups has two records.
    """
    records = work.rows >> partition_bits
    slots = max(work.least_slots, 1 << (3 * records).bit_length())
    return slots + slots // 2 if work.groups else slots
