"""From the memory given to the sizes of pieces, blocks, partitions and tables: a pure function."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from tsstore.analysis.exchange import FRAME_BYTES
from tsstore.analysis.memory import format_memory
from tsstore.counting.aggregate import slot_bytes
from tsstore.counting.grouped import grouped_slot_bytes, least_slots
from tsstore.counting.hot import ROWS_OF_A_SLOT, hot_bytes
from tsstore.counting.merge import merge_bytes
from tsstore.counting.records import record_bytes
from tsstore.counting.shares import SHARE_RECORDS, share_table_bytes
from tsstore.errors import MemoryTooSmallError

MAX_PIECE_ROWS = 1 << 19
"""Twice as many where there are groups: hot keys by group gain more from larger pieces."""
MIN_PIECE_ROWS = 1 << 12
FAN_IN, GROUPED_FAN_IN = 16, 4
MAX_PARTITION_BITS = 16
"""More than 12 only where no partition could be gathered else: slices are short, and many."""
PARTITION_RECORDS = {False: 1 << 21, True: 1 << 24}
"""Records of a partition, in memory and in files: as many as there may be, if they fit. Slices of
files are the longer, the fewer partitions there are."""
PARALLEL_ROWS = 1 << 17
LEAST_PARTITIONS = 8
"""Of a layer that has more rows than these: enough to share out among threads."""
SPREAD = 1.15
"""How much larger than the mean a partition that is gathered may be."""
MIN_TABLE_SLOTS = 1 << 12
GROWTH = 1.5
"""While a table doubles, the old one of half its size exists as well."""
TASK_BYTES = 6 << 10
"""What Dask keeps of a task, with the receipt or spectrum that it returned."""
GROUP_BYTES = 32
"""Of a group in a receipt."""
POSITION_BYTES = 16
"""Of a sample: its rows, and those that are left."""
INDEX_BYTES = 8
"""Of a sample that is left out."""
WAITING_CELL_BYTES, FINISHED_CELL_BYTES = 14, 44
"""Of a change while it waits to be added up, and while all of them are sorted in the end."""
ROW_SECONDS = {False: 12e-9, True: 20e-9}
GROUPED_ROW_SECONDS = {False: 20e-9, True: 28e-9}
"""Of a row whose record stays in memory, and of one that goes through a file."""
SLICE_SECONDS = {False: 2e-6, True: 30e-6}
PIECE_SECONDS = 3e-4
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
    all_threads
        Tasks that all processes run at a time; as many blocks there should be, at least.
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
    all_threads: int = 1

    def records_bytes(self, rows: int) -> int:
        """Return the bytes of the records of so many rows, at most.

        Those of bare records: others stand for two rows or more, and have no more than as many; but
        for those of hot keys, one for each 16 rows at most, which are 8 bytes longer.
        """
        bare = record_bytes(self.words, True, self.groups > 0)
        return rows * bare + 8 * rows // ROWS_OF_A_SLOT

    @property
    def least_slots(self) -> int:
        """Slots of the smallest tables worth a thought."""
        return max(MIN_TABLE_SLOTS, least_slots(self.groups))

    def cells(self, rows: int) -> int:
        """Return about how many entries all spectra without a group have that differ, at most.

        So many rows have at most ``sqrt(2 rows)`` multiplicities. Of all skewed states that were
        measured, with samples of up to 4,000 rows, none had more than 2.4 times as many pairs of
        multiplicity and incidence.
        """
        return int(self.groups * min(rows, 2.5 * math.sqrt(2 * rows)))


@dataclass(frozen=True)
class Plan:
    """How one layer is counted.

    Attributes
    ----------
    memory
        Bytes that one process may add to its baseline.
    threads
        Tasks that one process runs at a time.
    piece_rows
        Rows that a block task turns into records at a time, at most.
    block_rows
        Rows of a block task, at most: a piece where records stay in memory, many where they go
        through files, so that slices are long.
    partition_bits
        The keys are counted in ``2 ** partition_bits`` partitions.
    gathered_bytes
        Bytes of a partition's records that may be gathered in memory; what is larger is counted
        slice by slice.
    share_records
        Records of a share of it, whose tables are to fit the processor's cache.
    maximum_slots
        Slots of such a partition's table; beyond it, the partition is counted in several passes.
    spill
        Whether records go through files instead of memory.
    scratch_bytes
        Most bytes of records there can be.
    slice_bytes
        Mean bytes of a slice: the records of one block and one partition, were none merged.
    blocks
        Number of blocks, about.
    tasks
        Number of tasks of the graph, about.
    rounds
        How often each record is written to files: once.
    projected_peak
        Most bytes that one process adds to its baseline.
    """

    memory: int
    threads: int
    piece_rows: int
    block_rows: int
    partition_bits: int
    gathered_bytes: int
    share_records: int
    maximum_slots: int
    spill: bool
    scratch_bytes: int
    slice_bytes: int
    blocks: int
    tasks: int
    projected_peak: int
    rounds: int = 1


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


def piece_bytes(work: Work, rows: int) -> int:
    """Return the most bytes that turning so many rows into records takes, without these.

    That is room for keys, for those that a sample has once and for half as many that it has more
    often; for rows by sample and the samples' groups. Where samples are left out, for the keys
    that stay, which of them do, and where they are.
    """
    key, group = 8 * work.words, int(work.groups > 0)
    chosen = key + 8 + 2 if work.left_out else 0
    counted = (key + 8 + group) // 2 + 1 if work.largest_sample > 1 else 2 * group
    room = key + chosen + key + group + counted
    tables = merge_bytes(work.words, work.largest_sample)
    tables += hot_bytes(work.words, work.groups, rows)
    return rows * (room + POSITION_BYTES + group) + tables


def block_task_bytes(work: Work, piece_rows: int, block_rows: int, spill: bool) -> int:
    """Return the most bytes that a block task takes, but for records that stay in memory."""
    held = work.records_bytes(block_rows) if spill else 0
    return OVERHEAD_BYTES + 2 * work.chunk_bytes + piece_bytes(work, piece_rows) + held


def partition_task_bytes(
    work: Work,
    piece_rows: int,
    gathered_bytes: int,
    share_records: int,
    maximum_slots: int,
    spill: bool,
) -> int:
    """Return the most bytes that a partition task takes.

    It gathers the records and puts them in order, or counts them slice by slice in one table. Its
    thread still has the room for keys and rows that block tasks have used; and what those freed of
    records is kept by the allocator, in gaps that frames fill but records in order do not.
    """
    buffers = piece_rows * 8 * work.words + work.chunk_bytes
    frames = 2 * FRAME_BYTES if spill else 0
    whole = max(
        share_table_bytes(work.words, work.groups, share_records), table_bytes(work, maximum_slots)
    )
    return OVERHEAD_BYTES + buffers + frames + gathered_bytes * (3 if spill else 1) + whole


def table_bytes(work: Work, slots: int) -> int:
    """Return the most bytes that the tables of a partition take."""
    if work.groups:
        return slots * grouped_slot_bytes(work.words)
    return int(GROWTH * slot_bytes(work.words) * slots)


def held_bytes(work: Work, block_rows: int, partition_bits: int, spill: bool) -> int:
    """Return the most bytes that are held all the while: tasks, receipts, records.

    Which samples are left out is held, too.
    """
    blocks = most_blocks(work, block_rows)
    held = _tasks(work, blocks, partition_bits) * (TASK_BYTES + GROUP_BYTES * work.groups)
    held += INDEX_BYTES * work.left_out
    if spill:
        return held
    return held + blocks * (16 << partition_bits) + work.records_bytes(work.rows)


def waiting_bytes(work: Work, partition_bits: int) -> int:
    """Return the most bytes of changes by group that wait to be merged.

    At each height of the tree all wait but one for their merge.
    """
    cells, partitions, others = 0, 1 << partition_bits, fan_in(work.groups) - 1
    while partitions > 1:
        cells += others * work.cells(work.rows // partitions)
        partitions = -(-partitions // (others + 1))
    return WAITING_CELL_BYTES * cells


def finished_bytes(work: Work) -> int:
    """Return the most bytes of changes by group while they are sorted in the end."""
    return OVERHEAD_BYTES + FINISHED_CELL_BYTES * work.cells(work.rows)


def fan_in(groups: int) -> int:
    """Return how many counts are merged at a time: few by group, as those that wait are large."""
    return GROUPED_FAN_IN if groups else FAN_IN


def most_blocks(work: Work, block_rows: int) -> int:
    """Return the most blocks: of whole samples, and whole chunks, they may be half empty."""
    return 2 * -(-work.rows // block_rows) + work.parts


def estimated_seconds(work: Work, plan: Plan) -> float:
    """Return about how long a plan takes: good enough to tell which of two is faster.

    More threads share the rows; but they mean smaller pieces and more slices where memory is
    short. Each block may decode a chunk that another one decodes too.
    """
    blocks = max(1, -(-work.rows // plan.block_rows))
    pieces = -(-work.rows // plan.piece_rows)
    seconds = GROUPED_ROW_SECONDS if work.groups else ROW_SECONDS
    shared = work.rows * seconds[plan.spill] + blocks * work.chunk_bytes * DECODING_SECONDS
    alone = (blocks << plan.partition_bits) * SLICE_SECONDS[plan.spill] + pieces * PIECE_SECONDS
    return shared / min(plan.threads, blocks) + alone


def _fitting_plans(work: Work, memory: int, threads: int, shared_memory: bool) -> list[Plan]:
    """Return all plans worth a thought that fit."""
    in_memory = [(threads, False)] if shared_memory else []
    fewest = 1 if shared_memory else threads
    ways = [*in_memory, *((fewer, True) for fewer in range(fewest, threads + 1))]
    plans = (
        _complete(work, memory, busy, piece_rows, spill)
        for piece_rows in _piece_sizes(work)
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


def _piece_sizes(work: Work) -> Iterator[int]:
    size = min(MAX_PIECE_ROWS << (work.groups > 0), max(work.rows, 1))
    while size > max(MIN_PIECE_ROWS, work.largest_sample):
        yield size
        size //= 2
    yield max(size, work.largest_sample)


def _complete(work: Work, memory: int, threads: int, piece_rows: int, spill: bool) -> Plan:
    """Choose blocks, partitions and tables that go with a size of pieces, and project the peak.

    Blocks are as long as there is room for, where slices are written to files, and partitions as
    few as can be gathered; a task may take what another kind of task takes anyway. How much room
    there is depends on the number of blocks: those of half the memory are the shortest.
    """
    block_rows = _block_rows(work, memory // threads // 2, threads, piece_rows, spill)
    share_records = min(SHARE_RECORDS, max(MIN_PIECE_ROWS, piece_rows // 8))
    slots = _most_slots(work, share_records)
    block_task = block_task_bytes(work, piece_rows, block_rows, spill)
    for bits in range(_fewest_bits(work, spill), MAX_PARTITION_BITS + 1):
        held = held_bytes(work, block_rows, bits, spill)
        gathered = int(SPREAD * work.records_bytes(work.rows >> bits)) + (1 << 16)
        partition = partition_task_bytes(work, piece_rows, gathered, share_records, slots, spill)
        later = max(waiting_bytes(work, bits) + threads * partition, finished_bytes(work))
        if held + max(threads * block_task, later) <= memory:
            break
    block_rows = _block_rows(work, (memory - held) // threads, threads, piece_rows, spill)
    held = held_bytes(work, block_rows, bits, spill)
    block_task = block_task_bytes(work, piece_rows, block_rows, spill)
    blocks = -(-work.rows // block_rows)
    return Plan(
        memory=memory,
        threads=threads,
        piece_rows=piece_rows,
        block_rows=block_rows,
        partition_bits=bits,
        gathered_bytes=gathered,
        share_records=share_records,
        maximum_slots=slots,
        spill=spill,
        scratch_bytes=work.records_bytes(work.rows),
        slice_bytes=work.records_bytes(work.rows) // (max(blocks, 1) << bits),
        blocks=blocks,
        tasks=_tasks(work, blocks, bits),
        projected_peak=held + max(threads * block_task, later),
    )


def _block_rows(work: Work, share: int, threads: int, piece_rows: int, spill: bool) -> int:
    """Return the rows of blocks that take a thread's share of the memory, at most."""
    if not spill:
        return piece_rows
    room = share - block_task_bytes(work, piece_rows, 0, spill)
    even = -(-work.rows // max(threads, work.all_threads))
    return max(piece_rows, min(even, room * 1000 // work.records_bytes(1000)))


def _tasks(work: Work, blocks: int, partition_bits: int) -> int:
    """Return the number of tasks: of blocks, of their index, of partitions, and those that merge.

    What blocks have counted within samples is merged with the partitions.
    """
    level = (1 << partition_bits) + 1
    tasks = blocks + 1 + level
    while level > 1:
        level = -(-level // fan_in(work.groups))
        tasks += level
    return tasks


def _fewest_bits(work: Work, spill: bool) -> int:
    """Return the bits that make as few partitions as are worth a thought."""
    partitions = -(-work.rows // PARTITION_RECORDS[spill])
    if work.rows > PARALLEL_ROWS:
        partitions = max(partitions, LEAST_PARTITIONS)
    return min((partitions - 1).bit_length(), MAX_PARTITION_BITS) if partitions else 0


def _most_slots(work: Work, share_records: int) -> int:
    """Return the slots of a table for what cannot be gathered: they take what a share's do."""
    slots = work.least_slots
    room = share_table_bytes(work.words, work.groups, share_records)
    while table_bytes(work, 2 * slots) <= room:
        slots *= 2
    return slots
