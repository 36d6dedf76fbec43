from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.analysis.memory import parse_memory
from tsstore.analysis.planning.cost import (
    HOT_PIECES,
    MIN_TABLE_SLOTS,
    Work,
    block_task_bytes,
    file_bytes,
    finished_bytes,
    held_bytes,
    partition_task_bytes,
    table_bytes,
    waiting_bytes,
)
from tsstore.analysis.planning.fitting import (
    BLOCKS_OF_A_THREAD,
    LEAST_PARTITIONS,
    LEAST_SLICE_BYTES,
    MAX_BLOCK_PIECES,
    MAX_BLOCK_ROWS,
    MAX_PARTITION_BITS,
    MAX_PIECE_ROWS,
    MIN_PIECE_ROWS,
    MOST_SCATTER_BITS,
    PARTITION_RECORDS,
    SPREAD,
    _complete,
    _piece_sizes,
    estimated_seconds,
    find_plan,
    make_plan,
)
from tsstore.counting.partition import SUBPARTITION_RECORDS
from tsstore.counting.tables.aggregate import subpartition_table_bytes
from tsstore.errors import AnalysisError, MemoryTooSmallError

MIB = 1 << 20
GIB = 1 << 30

works = st.builds(
    Work,
    name=st.just("conv_1"),
    rows=st.integers(0, 10**12),
    row_bytes=st.integers(1, 600),
    words=st.integers(1, 70),
    largest_sample=st.integers(1, 10**6),
    chunk_bytes=st.integers(1, 8 * MIB),
    parts=st.integers(1, 50),
    groups=st.sampled_from([0, 1, 32, 255]),
    left_out=st.sampled_from([0, 1, 10**6]),
    neurons=st.integers(1, 40),
    object_scratch=st.booleans(),
)
ways = st.tuples(st.integers(1, 12), st.booleans())


def smallest_named(error: pytest.ExceptionInfo[MemoryTooSmallError]) -> str:
    return re.search(r"give at least memory='(\d+KiB)'", str(error.value))[1]


def work(rows: int = 10**7, row_bytes: int = 8, words: int = 1, **others: int) -> Work:
    return Work("conv_1", rows, row_bytes, words, **others)


@settings(max_examples=60, deadline=None)
@given(works, st.integers(1, 8 * GIB), ways)
def test_no_plan_takes_more_than_it_was_given(layer, memory, way):
    try:
        plan = make_plan(layer, memory, *way)
    except MemoryTooSmallError:
        return
    assert plan.projected_peak <= memory == plan.memory
    assert 1 <= plan.threads <= way[0]
    assert plan.block_rows >= plan.piece_rows >= layer.largest_sample
    assert plan.maximum_slots >= MIN_TABLE_SLOTS
    assert 1 <= plan.partition_bits <= MAX_PARTITION_BITS
    assert not (plan.spill and plan.divided_bits)
    assert plan.divided_bits == 0 or plan.partition_bits + plan.divided_bits <= MOST_SCATTER_BITS
    assert plan.spill or plan.block_rows <= MAX_BLOCK_PIECES * plan.piece_rows
    assert plan.spill or way[1]
    assert plan == make_plan(layer, memory, *way)


@settings(max_examples=60, deadline=None)
@given(works, st.integers(22, 40), ways)
def test_a_plan_is_the_fastest_of_all_that_fit(layer, log_memory, way):
    threads, shared_memory = way
    used = [(threads, False)] * shared_memory
    used += [(fewer, True) for fewer in range(1 if shared_memory else threads, threads + 1)]
    every = [
        _complete(layer, 1 << log_memory, busy, piece_rows, spill)
        for piece_rows in _piece_sizes(layer)
        for busy, spill in used
    ]
    fitting = [plan for plan in every if plan.projected_peak <= 1 << log_memory]
    fastest = min(fitting, key=lambda plan: estimated_seconds(layer, plan), default=None)
    assert find_plan(layer, 1 << log_memory, *way) == fastest


@settings(max_examples=60, deadline=None)
@given(works, st.integers(20, 40), st.integers(1, 12), st.integers(1, 50))
def test_workers_hold_all_files_wherever_they_come_to_lie(layer, log_memory, threads, holders):
    layer = replace(layer, holders=holders, object_scratch=False)
    try:
        plan = make_plan(layer, 1 << log_memory, threads, False)
    except MemoryTooSmallError:
        return
    assert plan.spill
    assert plan.in_scratch == (plan.room_bytes == 0)
    if plan.in_scratch:
        assert plan == make_plan(replace(layer, holders=0), 1 << log_memory, threads, False)
        return
    assert plan.room_bytes < plan.projected_peak <= plan.memory
    partitions = 1 << plan.partition_bits
    one = file_bytes(layer.records_bytes(min(plan.block_rows, layer.rows)), partitions)
    every = file_bytes(layer.records_bytes(layer.rows), plan.blocks * partitions)
    # Where the last file finds no room, less than a file is free in each.
    assert holders * (plan.room_bytes - one) >= every


def test_workers_hold_what_fits_and_scratch_takes_the_rest():
    layer = work(10**7, holders=4, all_threads=4)
    assert make_plan(layer, GIB, 1, False).room_bytes > layer.records_bytes(layer.rows) // 4
    assert make_plan(layer, 32 * MIB, 1, False).in_scratch


@settings(max_examples=200)
@given(works, st.integers(0, 1 << 45), st.integers(1, 64), st.integers(1, 1 << 30), st.booleans())
def test_no_size_is_too_odd_for_a_plan_to_be_completed(layer, memory, threads, piece_rows, spill):
    plan = _complete(layer, memory, threads, piece_rows, spill)
    assert plan.projected_peak > 0
    assert plan.blocks == -(-layer.rows // plan.block_rows)
    assert plan.gathered_bytes > 0
    assert MIN_PIECE_ROWS <= plan.subpartition_records <= SUBPARTITION_RECORDS
    assert plan.scratch_bytes == layer.records_bytes(layer.rows)
    assert plan.slice_bytes * max(plan.blocks, 1) << plan.partition_bits <= plan.scratch_bytes
    assert plan.tasks >= plan.blocks + 2**plan.partition_bits


@settings(max_examples=60)
@given(works, st.integers(20, 36), ways)
def test_no_memory_that_is_more_makes_a_plan_that_seems_slower(layer, log_memory, way):
    try:
        plan = make_plan(layer, 1 << log_memory, *way)
    except MemoryTooSmallError:
        return
    if not plan.spill and plan.partition_bits == 1:
        richer = make_plan(layer, 2 << log_memory, *way)
        assert estimated_seconds(layer, richer) <= estimated_seconds(layer, plan)


@pytest.mark.parametrize("groups", [0, 32])
@pytest.mark.parametrize(("row_bytes", "words"), [(3, 1), (8, 1), (16, 2), (32, 2), (32, 5)])
def test_a_million_million_rows_can_be_counted_within_8_gib(row_bytes, words, groups):
    layer = work(10**12, row_bytes, words, groups=groups)
    plan = make_plan(layer, 8 * GIB, 2, True)
    assert plan.projected_peak <= 8 * GIB
    assert plan.spill
    assert 10 <= plan.partition_bits <= MAX_PARTITION_BITS
    assert plan.slice_bytes > 1 << 12
    assert plan.tasks < 10**6


@settings(max_examples=40, deadline=None)
@given(works, ways)
def test_the_smallest_memory_that_is_named_works_and_a_kib_less_does_not(layer, way):
    with pytest.raises(MemoryTooSmallError) as error:
        make_plan(layer, 1, *way)
    smallest = parse_memory(smallest_named(error))
    assert make_plan(layer, smallest, *way).projected_peak <= smallest
    with pytest.raises(MemoryTooSmallError) as again:
        make_plan(layer, smallest - 1024, *way)
    assert smallest_named(again) == smallest_named(error)


@settings(max_examples=30, deadline=None)
@given(works, ways, st.integers(20, 33), st.integers(1, 6))
def test_what_fits_fits_into_more_as_well(layer, way, log_memory, more):
    try:
        make_plan(layer, 1 << log_memory, *way)
    except MemoryTooSmallError:
        return
    assert make_plan(layer, 1 << (log_memory + more), *way)


@settings(max_examples=60, deadline=None)
@given(works, st.integers(20, 33), ways)
def test_the_projection_is_that_of_its_named_parts(layer, log_memory, way):
    try:
        plan = make_plan(layer, 1 << log_memory, *way)
    except MemoryTooSmallError:
        return
    block = block_task_bytes(layer, plan.piece_rows, plan.block_rows, plan.spill, plan.direct)
    partition = partition_task_bytes(
        layer,
        plan.piece_rows,
        plan.gathered_bytes,
        plan.subpartition_records,
        plan.maximum_slots,
        plan.spill,
    )
    sizes = plan.piece_rows, plan.block_rows, plan.partition_bits, plan.spill, plan.divided_bits
    held = held_bytes(layer, *sizes)
    waiting = waiting_bytes(layer, plan.partition_bits, plan.spill)
    tasks = held + max(plan.threads * block, waiting + plan.threads * partition)
    finished = finished_bytes(layer)
    if plan.gives_back or not layer.groups:
        assert plan.projected_peak == max(tasks, held + finished)
    else:
        # What tasks have freed stays with the process, beside what is sorted in the end.
        assert plan.projected_peak == max(tasks, held + finished) + finished
    assert plan.gives_back or 2 * plan.projected_peak <= plan.memory


@pytest.mark.parametrize("groups", [0, 32])
def test_memory_is_given_back_where_it_is_short_alone(groups):
    layer = replace(work(), groups=groups)
    roomy = make_plan(layer, 4 * GIB, 2, True)
    assert not roomy.gives_back
    assert 2 * roomy.projected_peak < roomy.memory
    tight = make_plan(layer, 5 * roomy.projected_peak // 4, 2, True)
    assert tight.gives_back
    assert not tight.spill
    assert make_plan(layer, 64 * MIB, 2, True).gives_back


def test_records_stay_in_memory_while_they_fit():
    in_memory = make_plan(work(), 4 * GIB, 2, True)
    in_files = make_plan(work(), 64 * MIB, 2, True)
    assert not in_memory.spill
    assert in_files.spill
    assert in_memory.scratch_bytes == in_files.scratch_bytes == 85 * 10**6
    assert in_memory.projected_peak > in_memory.scratch_bytes


def test_records_of_a_cluster_go_through_files_and_every_worker_thread_counts():
    plan = make_plan(work(), 4 * GIB, 5, False)
    assert plan.spill
    assert plan.threads == 5
    with pytest.raises(MemoryTooSmallError):
        make_plan(work(), 40 * MIB, 8, False)
    assert make_plan(work(), 40 * MIB, 8, True).threads < 8


def test_threads_are_fewer_before_pieces_are_tiny():
    plan = make_plan(work(), 40 * MIB, 16, True)
    assert 1 <= plan.threads < 16
    assert plan.piece_rows >= 1 << 14


def test_more_threads_smaller_blocks_and_more_partitions_are_weighed_against_each_other():
    plan = make_plan(work(10**8), 512 * MIB, 4, True)
    layer, seconds = work(10**8), estimated_seconds(work(10**8), plan)
    assert 0.1 < seconds < 10
    assert estimated_seconds(layer, replace(plan, threads=8)) <= seconds
    for worse in (
        {"threads": 1},
        {"block_rows": plan.block_rows // 64},
        {"piece_rows": plan.piece_rows // 8},
        {"partition_bits": plan.partition_bits + 3},
    ):
        assert estimated_seconds(layer, replace(plan, **worse)) > seconds
    assert estimated_seconds(layer, replace(plan, spill=False)) < seconds


def test_one_large_sample_decides_the_piece():
    plan = make_plan(work(largest_sample=3 * MAX_PIECE_ROWS), 4 * GIB, 2, True)
    assert plan.piece_rows == 3 * MAX_PIECE_ROWS
    with pytest.raises(MemoryTooSmallError, match="layer conv_1"):
        make_plan(work(largest_sample=3 * MAX_PIECE_ROWS), 40 * MIB, 2, True)


def test_a_small_layer_is_one_block_and_as_few_partitions_as_there_may_be():
    plan = make_plan(work(rows=1000), GIB, 2, True)
    assert (plan.block_rows, plan.piece_rows, plan.blocks) == (1000, 1000, 1)
    assert (plan.partition_bits, plan.divided_bits) == (1, 0)
    assert 2 * plan.slice_bytes == plan.scratch_bytes == 8500
    assert plan.tasks == 1 + 1 + 4
    assert plan.in_one_task
    assert plan.projected_peak < 20 * MIB


def test_a_layer_without_rows_has_a_plan():
    plan = make_plan(work(rows=0), GIB, 2, True)
    assert (plan.blocks, plan.partition_bits, plan.slice_bytes) == (0, 1, 0)


def test_a_layer_of_some_size_is_shared_out_among_threads():
    plan = make_plan(work(rows=200_000), GIB, 2, True)
    assert 1 << plan.partition_bits == LEAST_PARTITIONS
    assert make_plan(work(rows=100_000), GIB, 2, True).partition_bits == 1


def test_partitions_are_as_few_as_can_be_gathered():
    rich = make_plan(work(rows=10**9), 4 * GIB, 2, True)
    poor = make_plan(work(rows=10**9), 256 * MIB, 2, True)
    assert rich.spill
    assert poor.spill
    assert rich.partition_bits < poor.partition_bits
    assert rich.gathered_bytes > poor.gathered_bytes
    assert 10**9 >> rich.partition_bits <= PARTITION_RECORDS[True]
    held = make_plan(work(rows=10**9), 64 * GIB, 2, True)
    assert not held.spill
    assert 10**9 >> held.partition_bits <= PARTITION_RECORDS[False]


def test_a_partition_of_somewhat_more_records_than_the_mean_is_gathered():
    plan = make_plan(work(rows=3 * 10**7), GIB, 2, True)
    mean = 3 * 10**7 * 8 >> plan.partition_bits
    assert plan.gathered_bytes > SPREAD * mean > 1.1 * mean


def test_tables_for_what_cannot_be_gathered_take_what_those_of_a_share_do():
    for layer in (work(), work(words=2, row_bytes=16), work(groups=32), work(groups=255)):
        plan = make_plan(layer, GIB, 2, True)
        room = subpartition_table_bytes(layer.words, layer.groups, plan.subpartition_records)
        assert (
            table_bytes(layer, plan.maximum_slots)
            <= room
            < table_bytes(layer, 2 * plan.maximum_slots)
        )


def test_slices_are_long_where_they_go_through_files():
    plan = make_plan(work(rows=10**9), GIB, 2, True)
    assert plan.block_rows > 4 * plan.piece_rows
    assert plan.slice_bytes == plan.scratch_bytes // (plan.blocks << plan.partition_bits) > 1 << 16


@pytest.mark.parametrize("rows", [10**5, 10**6, 10**7, 10**8, 10**9])
def test_slices_in_object_storage_are_long_where_there_is_memory(rows):
    plan = make_plan(work(rows, all_threads=20, object_scratch=True), 8 * GIB, 2, False)
    assert plan.slice_bytes >= LEAST_SLICE_BYTES or plan.partition_bits == 1
    poor = make_plan(work(rows, all_threads=20, object_scratch=True), 128 * MIB, 2, False)
    assert poor.projected_peak <= 128 * MIB


def test_few_rows_have_fewer_partitions_in_object_storage_than_in_files():
    bits = [
        make_plan(work(200_000, object_scratch=far), GIB, 2, False).partition_bits
        for far in (False, True)
    ]
    assert 1 << bits[0] == LEAST_PARTITIONS
    assert 200_000 * 8 >> bits[1] >= LEAST_SLICE_BYTES > 200_000 * 8 >> bits[0]


def test_blocks_in_memory_are_some_pieces_and_some_for_each_thread():
    long = work(rows=2 * 10**7)
    plan = make_plan(long, 4 * GIB, 2, True)
    assert -(-long.rows // plan.block_rows) == 2 * BLOCKS_OF_A_THREAD
    assert plan.block_rows % (long.chunk_bytes // long.row_bytes) == 0
    assert plan.hot_rows == HOT_PIECES * plan.piece_rows < plan.block_rows
    small = make_plan(work(rows=10**6), 4 * GIB, 2, True)
    assert small.block_rows == small.piece_rows == small.hot_rows
    large = make_plan(work(rows=10**9), 64 * GIB, 2, True)
    assert large.block_rows == MAX_BLOCK_PIECES * large.piece_rows


@given(st.integers(10**6, 10**8), st.sampled_from([1 << 16, 1 << 18, 1 << 20]), st.integers(1, 8))
def test_no_thread_takes_more_than_its_share_of_blocks_and_some_chunks(rows, chunk_rows, threads):
    own = work(rows=rows, chunk_bytes=8 * chunk_rows, all_threads=threads)
    plan = make_plan(own, 64 * GIB, threads, True)
    blocks = -(-rows // plan.block_rows)
    rounds = -(-blocks // threads)
    assert rounds * rows / blocks <= rows / threads + rounds * max(chunk_rows, plan.piece_rows)


def test_no_block_has_more_rows_than_a_record_can_count():
    huge = make_plan(work(rows=10**12), 1 << 40, 2, False)
    assert MAX_BLOCK_ROWS // 2 < huge.block_rows <= MAX_BLOCK_ROWS < 2**32


def test_rows_of_few_bits_are_counted_in_a_table_of_all_states_where_there_is_room():
    few = work(rows=10**7, row_bytes=3, neurons=20, largest_sample=576)
    assert make_plan(few, 4 * GIB, 2, True).direct
    assert make_plan(few, 4 * GIB, 2, False).direct
    assert not make_plan(few, 64 * MIB, 2, True).direct
    assert not make_plan(work(rows=10**7, row_bytes=3, neurons=24), 4 * GIB, 2, True).direct
    assert make_plan(work(rows=10**8, row_bytes=3, neurons=24), 4 * GIB, 2, True).direct
    assert not make_plan(work(), 4 * GIB, 2, True).direct


def test_wider_keys_mean_smaller_pieces():
    memory = 160 * MIB
    sizes = [
        make_plan(work(rows=10**8, row_bytes=width, words=words), memory, 1, True).piece_rows
        for width, words in ((8, 1), (38, 2), (300, 39))
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def smallest_memory(layer: Work) -> int:
    with pytest.raises(MemoryTooSmallError) as error:
        make_plan(layer, 1, 2, True)
    return parse_memory(smallest_named(error))


def test_groups_take_more_memory_in_every_part_of_the_projection():
    plain, grouped = work(), work(groups=32)
    assert block_task_bytes(grouped, 1 << 20, 1 << 20, False) > block_task_bytes(
        plain, 1 << 20, 1 << 20, False
    )
    assert held_bytes(grouped, 1, 1 << 16, 8, True) > held_bytes(plain, 1, 1 << 16, 8, True)
    tasks = [
        partition_task_bytes(one, 0, 1000, SUBPARTITION_RECORDS, 1 << 12, True)
        for one in (plain, grouped)
    ]
    assert tasks[0] < tasks[1]
    memory = smallest_memory(plain), smallest_memory(grouped)
    assert memory[0] < memory[1] < 2 * memory[0]


def test_the_error_says_what_was_given_and_is_an_analysis_error():
    with pytest.raises(AnalysisError, match="layer conv_1: memory of 1 MiB is too small"):
        make_plan(work(), MIB, 2, True)


@pytest.mark.parametrize("all_threads", [1, 16, 100])
def test_there_are_blocks_for_all_workers_of_a_cluster(all_threads):
    layer = replace(work(10**8), all_threads=all_threads)
    plan = make_plan(layer, 4 * GIB, 1, False)
    assert plan.spill
    chunk_rows = layer.chunk_bytes // layer.row_bytes
    rows_of_a_worker = -(-plan.blocks // all_threads) * plan.block_rows
    assert rows_of_a_worker <= 10**8 // all_threads + chunk_rows


def test_rows_that_stay_in_memory_are_divided_at_once_into_what_fits_the_cache():
    plan = make_plan(work(), 4 * GIB, 2, True)
    assert plan.divided_bits > 0
    own = 10**7 >> plan.partition_bits + plan.divided_bits
    assert own <= 1.5 * plan.subpartition_records
    assert make_plan(work(), 64 * MIB, 2, True).divided_bits == 0
    # More places than the processor keeps at hand are left to a second round.
    many = make_plan(work(rows=10**9), 64 * GIB, 2, True)
    assert (many.spill, many.divided_bits) == (False, 0)
    small = make_plan(work(rows=1000), GIB, 2, True)
    assert (small.partition_bits, small.divided_bits) == (1, 0)
