"""What there is to count in a layer, and the memory that it takes: pure functions.

All of them are bounds, but for the number of changes by group, which no number of rows tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tsstore.counting.premerge.direct_index import MOST_ROW_BYTES, direct_bytes, states_of
from tsstore.counting.premerge.hot_keys import ROWS_OF_A_SLOT, hot_bytes
from tsstore.counting.records import bytes_of_group, record_bytes
from tsstore.counting.tables.aggregate import subpartition_table_bytes
from tsstore.counting.tables.grouped import count_codes, grouped_slot_bytes, least_slots
from tsstore.counting.tables.plain import slot_bytes

FAN_IN, GROUPED_FAN_IN = 16, 4
MERGE_SHARES = 8
FRAME_BYTES = 1 << 20
"""Of records that are written to a file, and read, at a time, about: a piece's of a partition may
be more."""
ENTRY_BYTES, HEADER_BYTES = 28, 20
"""Of a partition, and of a frame, in a file."""
PART_BYTES = 4 << 20
"""Of an object of scratch: a block writes as many as it needs, one after the other."""
ASKING_THREADS = 4
"""Of a task that counts records of objects: so many slices, and as many again, are asked for."""
HOT_PIECES = 8
"""Pieces of a block at whose end hot keys become records, at least."""
PLACES_OF_A_ROW = 4
"""In a table of all states, at most."""
MIN_TABLE_SLOTS = 1 << 12
GROWTH = 1.5
"""While a table doubles, the old one of half its size exists as well."""
TASK_BYTES = 6 << 10
"""What Dask keeps of a task, with the receipt or spectrum that it returned."""
GROUP_BYTES = 32
"""Of a group in a receipt."""
POSITION_BYTES = 24
"""Of a sample: its rows, those that are left, and where its keys end."""
INDEX_BYTES = 8
"""Of a sample that is left out."""
WAITING_ENTRY_BYTES, FINISHED_ENTRY_BYTES = 14, 44
"""Of a change while it waits to be added up, and while all of them are sorted in the end."""
START_UP_BYTES = 40 << 20
"""What the first analysis of a process loads, and keeps: Dask, loops that were compiled before, and
Numba's part that runs them; SciPy's graphs where clusters of samples are joined."""
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
    row_bytes, words
        Bytes of a row, words of a key.
    largest_sample
        Rows of the sample that has most.
    chunk_bytes
        Bytes of a decoded chunk of the store.
    parts
        Parts of the store: no block reads from two.
    groups, sets, left_out
        Groups of samples that are told apart, 0 for none; sets that are counted by themselves, each
        with these groups; samples of the run that do not count.
    all_threads
        Tasks that all processes run at a time; as many blocks there should be, at least.
    neurons
        Bits of a row that may be set; unless given, too many for a table of all states.
    object_scratch
        Whether what does not stay in memory goes through objects instead of files.
    holders
        Workers, each a process of its own, that hold records for each other; 0 for none.
    beside_bytes, result_bytes
        Most bytes that a block task takes for what else is made of its rows, and of a result of
        that; 0 for nothing.
    step_row_bytes
        Bytes of a row that is held until the same samples of another layer are read; 0 for nothing.
    companion
        What another layer, that is read in step, has to be counted; None without one.
    """

    name: str
    rows: int
    row_bytes: int
    words: int
    largest_sample: int = 1
    chunk_bytes: int = 2 << 20
    parts: int = 1
    groups: int = 0
    sets: int = 0
    left_out: int = 0
    all_threads: int = 1
    neurons: int = 8 * MOST_ROW_BYTES + 1
    object_scratch: bool = False
    holders: int = 0
    beside_bytes: int = 0
    result_bytes: int = 0
    step_row_bytes: int = 0
    companion: Work | None = None

    @property
    def is_asked_for(self) -> bool:
        """Whether what does not stay in memory is far away from whom it is for."""
        return self.object_scratch or self.holders > 0

    @property
    def codes(self) -> int:
        """Groups of all sets, and of none; 0 where nothing is told apart."""
        return count_codes(self.groups, self.sets)

    @property
    def counting(self) -> Work:
        """The same without what else is made of the rows."""
        return replace(self, beside_bytes=0, result_bytes=0, step_row_bytes=0, companion=None)

    @property
    def unnamed(self) -> Work:
        """The same of any layer."""
        companion = None if self.companion is None else self.companion.unnamed
        return replace(self, name="", companion=companion)

    @property
    def ways(self) -> list[Work]:
        """What may be done at once, the most first: in step, without another layer, by itself."""
        found = [self, replace(self, companion=None), self.counting]
        return list(dict.fromkeys(found))

    def records_bytes(self, rows: int) -> int:
        """Return the bytes of the records of so many rows, at most.

        Those of bare records: others stand for two rows or more, and have no more than as many; but
        for those of hot keys, one for each 16 rows at most, which are 8 bytes longer.
        """
        bare = record_bytes(self.words, True, bytes_of_group(self.codes))
        return rows * bare + 8 * rows // ROWS_OF_A_SLOT

    @property
    def least_slots(self) -> int:
        """Slots of the smallest tables worth a thought."""
        return max(MIN_TABLE_SLOTS, least_slots(self.codes))

    def entries(self, rows: int) -> int:
        """Return about how many entries all spectra without a group have that differ, at most.

        So many rows have at most ``sqrt(2 rows)`` multiplicities. Of all skewed states that were
        measured, with samples of up to 4,000 rows, none had more than 2.4 times as many pairs of
        multiplicity and incidence.
        """
        found = self.groups * min(rows, 2.5 * math.sqrt(2 * rows))
        if self.sets:
            own = rows / self.sets
            found += self.sets * (self.groups + 1) * min(own, 2.5 * math.sqrt(2 * own))
        return int(found)


def piece_bytes(work: Work, rows: int, hot_rows: int) -> int:
    """Return the most bytes that turning so many rows into records takes, without these.

    That is room for keys, and for those that are not hot; for rows by sample and the samples'
    groups. Where samples are left out, for the keys that stay, which of them do, and where they
    are. Hot keys are chosen for blocks of `hot_rows`.
    """
    key, group = 8 * work.words, bytes_of_group(work.codes)
    chosen = key + 8 + 2 if work.left_out else 0
    room = key + chosen + key + group
    tables = 8 * work.largest_sample + hot_bytes(work.words, work.codes, hot_rows)
    return rows * (room + POSITION_BYTES + group) + tables


def block_task_bytes(
    work: Work, piece_rows: int, block_rows: int, spill: bool, direct: bool = False
) -> int:
    """Return the most bytes that a block task takes, but for records that stay in memory.

    There are an encoded chunk, a decoded one that was wanted in part, and rows, about a chunk. An
    object is put together while the last one may still be there, and so is a file that another
    worker will hold.
    """
    held = work.records_bytes(block_rows) if spill else 0
    held *= 2 if spill and work.holders else 1
    held += 2 * PART_BYTES if spill and work.object_scratch else 0
    held += FRAME_BYTES if spill else 0
    pieces = piece_bytes(work, piece_rows, HOT_PIECES * piece_rows)
    pieces += piece_rows * work.step_row_bytes
    table = direct_table_bytes(work) if direct else 0
    return OVERHEAD_BYTES + 3 * work.chunk_bytes + pieces + held + table + work.beside_bytes


def has_direct_table(work: Work, block_rows: int, memory: int) -> bool:
    """Whether a block's rows may be counted in a table of all states, for one thread.

    It pays where rows are many for each of its places. What it takes is projected for all states
    there can be, so that it must be a small part of the memory.
    """
    return (
        work.neurons <= 8 * MOST_ROW_BYTES
        and 1 << work.neurons <= PLACES_OF_A_ROW * block_rows
        and work.largest_sample <= states_of(work.codes)
        and direct_table_bytes(work) <= memory // 8
    )


def direct_table_bytes(work: Work) -> int:
    """Return the most bytes of a thread's table of all states."""
    return direct_bytes(work.neurons, work.codes, work.largest_sample)


def partition_task_bytes(
    work: Work,
    piece_rows: int,
    gathered_bytes: int,
    subpartition_records: int,
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
    frames += 2 * (ASKING_THREADS + 1) * FRAME_BYTES if spill and work.is_asked_for else 0
    whole = max(
        subpartition_table_bytes(work.words, work.groups, subpartition_records, work.sets),
        table_bytes(work, maximum_slots),
    )
    return OVERHEAD_BYTES + buffers + frames + gathered_bytes * (3 if spill else 1) + whole


def table_bytes(work: Work, slots: int) -> int:
    """Return the most bytes that the tables of a partition take."""
    if work.groups:
        return slots * grouped_slot_bytes(work.words, work.sets)
    return int(GROWTH * slot_bytes(work.words) * slots)


def held_bytes(
    work: Work,
    piece_rows: int,
    block_rows: int,
    partition_bits: int,
    spill: bool,
    divided_bits: int = 0,
) -> int:
    """Return the most bytes that are held all the while: tasks, receipts, records by piece.

    Which samples are left out is held, too, and so are results of what else is made of rows, and
    what a worker holds of records.
    """
    blocks = most_blocks(work.rows, work.parts, block_rows)
    # Where workers hold records, receipts are kept: lost ones are told from others.
    held = (blocks if work.holders else waiting_results(blocks)) * work.result_bytes
    held += count_tasks(work, blocks, partition_bits) * (TASK_BYTES + GROUP_BYTES * work.codes)
    held += INDEX_BYTES * work.left_out
    if spill:
        return held + room_bytes(work, block_rows, partition_bits)
    pieces = blocks + most_blocks(work.rows, work.parts, piece_rows)
    ends = pieces * (16 << partition_bits + divided_bits)
    return held + ends + work.records_bytes(work.rows)


def room_bytes(work: Work, block_rows: int, partition_bits: int) -> int:
    """Return the bytes of files that each worker must be ready to hold; 0 where none does.

    One file more than its share: with so much of each, some worker has room for every file.
    """
    if not work.holders:
        return 0
    blocks, partitions = most_blocks(work.rows, work.parts, block_rows), 1 << partition_bits
    most = min(block_rows, work.rows)
    longer = 0
    if work.neurons <= 8 * MOST_ROW_BYTES:
        # A table of all states that does not pay leaves longer records of one row, once a thread.
        longer = 8 * min(most, max(work.codes, 1) << work.neurons)
    files = work.records_bytes(work.rows) + longer * work.all_threads
    files = file_bytes(files, blocks * partitions)
    own = file_bytes(work.records_bytes(most) + longer, partitions)
    return -(-files // work.holders) + own


def file_bytes(records_bytes: int, partitions: int) -> int:
    """Return the most bytes of a file of records that have so many; of files, of all of theirs."""
    frames = 2 * partitions + records_bytes // FRAME_BYTES
    return records_bytes + frames * HEADER_BYTES + partitions * ENTRY_BYTES


def waiting_bytes(work: Work, partition_bits: int, spill: bool) -> int:
    """Return the most bytes of changes by group that wait to be merged.

    At each height of the tree all wait but one for their merge, and so do those left in the end.
    """
    if not (work.groups or work.sets):
        return 0
    entries, partitions, many = 0, 1 << partition_bits, fan_in(work.groups)
    while partitions > last_fan_in(work.groups, spill):
        entries += (many - 1) * work.entries(work.rows // partitions)
        partitions = -(-partitions // many)
    entries += (partitions - 1) * work.entries(work.rows // partitions)
    return WAITING_ENTRY_BYTES * entries


def finished_bytes(work: Work) -> int:
    """Return the most bytes of changes by group while they are sorted in the end."""
    return OVERHEAD_BYTES + FINISHED_ENTRY_BYTES * work.entries(work.rows)


def fan_in(groups: int) -> int:
    """Return how many counts are merged at a time: few by group, as those that wait are large."""
    return GROUPED_FAN_IN if groups else FAN_IN


def last_fan_in(groups: int, spill: bool) -> int:
    """Return how many counts are merged in the end: more where memory is not short."""
    return fan_in(groups) if spill else FAN_IN


def merge_shares(groups: int, partition_bits: int, spill: bool) -> int:
    """Return by how many tasks changes by group are added up in the end: each those of some.

    Where records go through files memory is short, or results would be sent to several workers.
    """
    if spill:
        return min(groups, 1)
    return min(groups, max((1 << partition_bits) // 2, 1), MERGE_SHARES)


def waiting_results(results: int) -> int:
    """Return how many of so many results wait at most until they are added up, some at a time."""
    left, levels = results, 1
    while left > FAN_IN:
        left, levels = -(-left // FAN_IN), levels + 1
    return min(FAN_IN * levels, results)


def most_blocks(rows: int, parts: int, block_rows: int) -> int:
    """Return the most blocks: of whole samples, and whole chunks, they may be half empty."""
    return 2 * -(-rows // block_rows) + parts


def count_tasks(work: Work, blocks: int, partition_bits: int) -> int:
    """Return the number of tasks: of blocks, of their index, of partitions, and those that merge.

    What blocks have counted within samples is merged with the partitions.
    """
    level, many = 1 << partition_bits, fan_in(work.groups)
    tasks = blocks + 1 + level + 1 + _merges(level, many, FAN_IN)
    tasks += merge_shares(work.groups, partition_bits, spill=False) + 1
    # Receipts are merged as well where something is made of rows besides records.
    return tasks + (_merges(blocks, FAN_IN) if work.result_bytes else 0)


def _merges(level: int, many: int, left: int = 1) -> int:
    """Return how many tasks merge so many results, so many at a time, until so many are left."""
    tasks = 0
    while level > left:
        level = -(-level // many)
        tasks += level
    return tasks
