"""From the memory given to the sizes of pieces, blocks, partitions and tables: a pure function."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace

from tsstore.analysis.memory import too_small
from tsstore.analysis.planning.cost import (
    TASK_BYTES,
    Work,
    block_task_bytes,
    count_tasks,
    finished_bytes,
    has_direct_table,
    held_bytes,
    partition_task_bytes,
    room_bytes,
    table_bytes,
    waiting_bytes,
    waiting_results,
)
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.counting.partition import SUBPARTITION_RECORDS, subpartition_bits
from tsstore.counting.tables.aggregate import subpartition_table_bytes

MAX_PIECE_ROWS = 1 << 18
MAX_BLOCK_PIECES = 32
BLOCKS_OF_A_THREAD = 4
"""Where records stay in memory: pieces share hot keys, but threads shall end at the same time."""
MAX_BLOCK_ROWS = 1 << 31
"""Records count them in 32 bits."""
MIN_PIECE_ROWS = 1 << 12
MAX_PARTITION_BITS = 16
"""More than 12 only where no partition could be gathered else: slices are short, and many."""
PARTITION_RECORDS = {False: 1 << 21, True: 1 << 24}
"""Records of a partition, in memory and in files: as many as there may be, if they fit. Slices of
files are the longer, the fewer partitions there are."""
MOST_SCATTER_BITS = 10
"""By which rows are scattered at once: more places than the processor can keep at hand."""
PARALLEL_ROWS = 1 << 17
LEAST_PARTITIONS = 8
"""Of a layer that has more rows than these: enough to share out among threads."""
LEAST_SLICE_BYTES = 1 << 18
"""Of a slice in object storage, about, where memory allows: each takes a request or two."""
SPREAD = 1.15
"""How much larger than the mean a partition that is gathered may be."""
ROW_SECONDS = {False: 12e-9, True: 20e-9}
GROUPED_ROW_SECONDS = {False: 20e-9, True: 28e-9}
"""Of a row whose record stays in memory, and of one that goes through a file."""
SLICE_SECONDS = {False: 2e-6, True: 30e-6}
OBJECT_SLICE_SECONDS = 40e-3
"""Of a slice in object storage, which all threads share: two answers are waited for."""
HELD_SLICE_SECONDS = 2e-3
"""Of a slice that another worker holds."""
PIECE_SECONDS = 3e-4
DECODING_SECONDS = 0.5e-9
"""Of a byte of a chunk."""


def make_plan(work: Work, memory: int, threads: int, shared_memory: bool, held: int = 0) -> Plan:
    """Choose how to count a layer within so many bytes that one process may add to its baseline.

    With `shared_memory` all tasks run in one process of ours: records can stay in memory, and fewer
    threads can be used if memory is short. A cluster's worker uses all that it has; workers hold
    the records if they fit. If nothing fits, a MemoryTooSmallError names the smallest memory with
    which something does. Sets of samples are counted in as few passes as the memory allows, so many
    of them at a time. Another layer is read in step, and what else is made of the rows is made
    meanwhile, unless that were more than the memory holds, or more passes. Of the memory so many
    bytes are held all the while, which the plan leaves alone.
    """
    left, best = max(memory - held, 1), None
    for way in work.ways:
        of, companion = (left, threads, shared_memory), way.companion
        plan = find_plan(way, *of) if companion is None else _find_in_step(way, companion, *of)
        if plan is not None and (best is None or plan.passes < best.passes):
            best = replace(plan, beside=way != work.counting)
        if best is not None and best.passes == 1:
            return best
    if best is not None:
        return best
    alone = replace(work.counting, sets=min(work.sets, 1))
    smallest = held + _smallest_memory(alone, left, threads, shared_memory)
    raise too_small(f"layer {work.name}", memory, "for the smallest tasks", smallest)


def _find_in_step(
    work: Work, companion: Work, memory: int, threads: int, shared_memory: bool
) -> Plan | None:
    """Return a plan of two layers that are read in step, each of which has half of the memory."""
    alone = replace(work, companion=None, parts=work.parts + companion.parts)
    first, second = (
        find_plan(own, memory // 2, threads, shared_memory) for own in (alone, companion)
    )
    if first is None or second is None or bool(first.room_bytes) != bool(second.room_bytes):
        return None
    # Blocks end where either layer's would.
    blocks, bits = first.blocks + second.blocks, max(first.partition_bits, second.partition_bits)
    more = blocks * (TASK_BYTES + (16 << bits)) + waiting_results(blocks) * (
        work.result_bytes + companion.result_bytes
    )
    peak = first.projected_peak + second.projected_peak + more
    if peak > memory:
        return None
    return replace(
        first,
        memory=memory,
        threads=min(first.threads, second.threads),
        scratch_bytes=first.scratch_bytes + second.scratch_bytes,
        tasks=first.tasks + second.tasks + blocks,
        projected_peak=peak,
        gives_back=first.gives_back or second.gives_back or 2 * peak > memory,
        room_bytes=first.room_bytes + second.room_bytes,
        companion=second,
    )


def find_plan(work: Work, memory: int, threads: int, shared_memory: bool) -> Plan | None:
    """Return the plan of :func:`make_plan`, or None where nothing fits."""
    plan, passes = _fastest_plan(work, memory, threads, shared_memory), 1
    while plan is None and work.sets > 1:
        work, passes = replace(work, sets=-(-work.sets // 2)), 2 * passes
        plan = _fastest_plan(work, memory, threads, shared_memory)
    return None if plan is None else replace(plan, passes=passes)


def estimated_seconds(work: Work, plan: Plan) -> float:
    """Return about how long a plan takes: good enough to tell which of two is faster.

    More threads share the rows; but they mean smaller pieces and more slices where memory is
    short. Each block may decode a chunk that another one decodes too.
    """
    blocks = max(1, -(-work.rows // plan.block_rows))
    slices, are_held = blocks << plan.partition_bits, plan.room_bytes > 0
    return _seconds(work, plan.threads, plan.piece_rows, plan.spill, blocks, slices, are_held)


def _seconds(
    work: Work,
    threads: int,
    piece_rows: int,
    spill: bool,
    blocks: int,
    slices: int = 0,
    are_held: bool = False,
) -> float:
    seconds = GROUPED_ROW_SECONDS if work.groups else ROW_SECONDS
    shared = work.rows * seconds[spill] + blocks * work.chunk_bytes * DECODING_SECONDS
    if are_held:
        shared += slices * HELD_SLICE_SECONDS
        slices = 0
    elif spill and work.object_scratch:
        shared += slices * OBJECT_SLICE_SECONDS
        slices = 0
    alone = slices * SLICE_SECONDS[spill] + -(-work.rows // piece_rows) * PIECE_SECONDS
    return shared / min(threads, blocks) + alone


def _fastest_plan(work: Work, memory: int, threads: int, shared_memory: bool) -> Plan | None:
    """Return the fastest plan that fits; through scratch, if workers cannot hold the records."""
    plan = _fastest_within(work, memory, threads, shared_memory)
    if plan is None and work.holders:
        return _fastest_within(replace(work, holders=0), memory, threads, shared_memory)
    return plan


def _fastest_within(work: Work, memory: int, threads: int, shared_memory: bool) -> Plan | None:
    """Return the first of the fastest plans that fit, of all that are worth a thought."""
    in_memory = [(threads, False)] if shared_memory else []
    fewest = 1 if shared_memory else threads
    ways = [*in_memory, *((fewer, True) for fewer in range(fewest, threads + 1))]
    fastest, seconds = None, math.inf
    for piece_rows in _piece_sizes(work):
        for busy, spill in ways:
            # None is faster than one with a block for each thread, and no slices.
            if _seconds(work, busy, piece_rows, spill, blocks=busy) >= seconds:
                continue
            plan = _complete(work, memory, busy, piece_rows, spill)
            if plan.projected_peak <= memory and (own := estimated_seconds(work, plan)) < seconds:
                fastest, seconds = plan, own
    return fastest


def _smallest_memory(work: Work, memory: int, threads: int, shared_memory: bool) -> int:
    """Return the smallest memory that fits, in bytes: whole KiB."""

    def fits(kib: int) -> bool:
        return _fastest_plan(work, kib << 10, threads, shared_memory) is not None

    enough = memory // 1024 + 1
    while not fits(enough):
        enough *= 2
    return bisect_left(range(enough), True, lo=memory // 1024, key=fits) << 10


def _piece_sizes(work: Work) -> Iterator[int]:
    size = min(MAX_PIECE_ROWS, max(work.rows, 1))
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
    half = memory // threads // 2
    direct = has_direct_table(work, _block_rows(work, half, threads, piece_rows, spill), half)
    block_rows = _block_rows(work, half, threads, piece_rows, spill, direct)
    subpartition_records = min(SUBPARTITION_RECORDS, max(MIN_PIECE_ROWS, piece_rows // 4))
    slots = _most_slots(work, subpartition_records)
    block_task = block_task_bytes(work, piece_rows, block_rows, spill, direct)
    for bits in range(_fewest_bits(work, spill, block_rows), MAX_PARTITION_BITS + 1):
        divided = 0 if spill else _divided_bits(work, bits, subpartition_records)
        held = held_bytes(work, piece_rows, block_rows, bits, spill, divided)
        gathered = int(SPREAD * work.records_bytes(work.rows >> bits)) + (1 << 16)
        partition = partition_task_bytes(
            work, piece_rows, gathered, subpartition_records, slots, spill
        )
        waiting = waiting_bytes(work, bits, spill)
        later = max(waiting + threads * partition, finished_bytes(work))
        if held + max(threads * block_task, later) <= memory:
            break
    block_rows = _block_rows(work, (memory - held) // threads, threads, piece_rows, spill, direct)
    held = held_bytes(work, piece_rows, block_rows, bits, spill, divided)
    block_task = block_task_bytes(work, piece_rows, block_rows, spill, direct)
    blocks = -(-work.rows // block_rows)
    peak, kept = held + max(threads * block_task, later), finished_bytes(work)
    gives_back = spill or 2 * (peak + kept) > memory
    return Plan(
        memory=memory,
        threads=threads,
        piece_rows=piece_rows,
        block_rows=block_rows,
        largest_sample=work.largest_sample,
        direct=direct,
        partition_bits=bits,
        gathered_bytes=gathered,
        subpartition_records=subpartition_records,
        maximum_slots=slots,
        spill=spill,
        scratch_bytes=work.records_bytes(work.rows),
        slice_bytes=work.records_bytes(work.rows) // (max(blocks, 1) << bits),
        blocks=blocks,
        tasks=count_tasks(work, blocks, bits),
        projected_peak=peak if gives_back or not work.groups else peak + kept,
        gives_back=gives_back,
        room_bytes=room_bytes(work, block_rows, bits) if spill else 0,
        divided_bits=divided,
    )


def _divided_bits(work: Work, partition_bits: int, subpartition_records: int) -> int:
    """Return by how many bits rows are divided beyond those of partitions; 0 for too many."""
    bits = subpartition_bits(work.rows >> partition_bits, subpartition_records)
    bits = max(min(bits, MOST_SCATTER_BITS - partition_bits), 0)
    fits = 2 * (work.rows >> partition_bits + bits) <= 3 * subpartition_records
    return bits if fits else 0


def _block_rows(
    work: Work, share: int, threads: int, piece_rows: int, spill: bool, direct: bool = False
) -> int:
    """Return the rows of blocks that take a thread's share of the memory, at most."""
    all_threads = max(threads, work.all_threads)
    if not spill or work.holders:
        most, of_a_thread = MAX_BLOCK_PIECES * piece_rows, BLOCKS_OF_A_THREAD
    else:
        room = share - block_task_bytes(work, piece_rows, 0, spill, direct)
        if threads > 1:
            # What one thread frees of a block is not always where the next one can use it.
            room = room * 5 // 6
        most = max(piece_rows, min(MAX_BLOCK_ROWS, room * 1000 // work.records_bytes(1000)))
        of_a_thread = 1
    blocks = max(of_a_thread, -(-work.rows // (most * all_threads))) * all_threads
    return max(piece_rows, min(_in_chunks(work, -(-work.rows // blocks), all_threads), most))


def _in_chunks(work: Work, rows: int, threads: int) -> int:
    """Return about so many rows, in whole chunks: as so many threads end soonest."""
    chunk_rows = max(work.chunk_bytes // work.row_bytes, 1)
    fewer = rows // chunk_rows * chunk_rows

    def rows_of_a_thread(rows: int) -> int:
        return -(-work.rows // rows // threads) * rows

    return min(fewer or max(rows, 1), fewer + chunk_rows, key=rows_of_a_thread)


def _fewest_bits(work: Work, spill: bool, block_rows: int) -> int:
    """Return the bits that make as few partitions as are worth a thought.

    In object storage they are fewer where slices would be short, whatever a partition then has.
    """
    partitions = -(-work.rows // PARTITION_RECORDS[spill])
    if work.rows > PARALLEL_ROWS:
        partitions = max(partitions, LEAST_PARTITIONS)
    # One bit at least, in whose place records have a tag.
    bits = min(max((partitions - 1).bit_length(), 1), MAX_PARTITION_BITS)
    if spill and work.object_scratch:
        block_bytes = work.records_bytes(min(block_rows, work.rows))
        bits = min(bits, max(max(block_bytes // LEAST_SLICE_BYTES, 1).bit_length() - 1, 1))
    return bits


def _most_slots(work: Work, subpartition_records: int) -> int:
    """Return the slots of a table for what cannot be gathered: they take what a share's do."""
    slots = work.least_slots
    room = subpartition_table_bytes(work.words, work.groups, subpartition_records, work.sets)
    while table_bytes(work, 2 * slots) <= room:
        slots *= 2
    return slots
