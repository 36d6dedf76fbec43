from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.analysis.memory import parse_memory
from tsstore.analysis.plan import (
    MAX_BLOCK_ROWS,
    MAX_PARTITION_BITS,
    MIN_TABLE_SLOTS,
    PARTITION_RECORDS,
    Work,
    block_task_bytes,
    estimated_seconds,
    held_bytes,
    make_plan,
    partition_task_bytes,
    table_bytes,
)
from tsstore.counting.aggregate import slot_bytes
from tsstore.counting.grouped import grouped_slot_bytes, least_slots
from tsstore.counting.probing import slots_for
from tsstore.errors import AnalysisError, MemoryTooSmallError

MIB = 1 << 20
GIB = 1 << 30

works = st.builds(
    Work,
    name=st.just("conv_1"),
    rows=st.integers(1, 10**10),
    row_bytes=st.integers(1, 600),
    words=st.integers(1, 2),
    largest_sample=st.integers(1, 10**6),
    chunk_bytes=st.integers(1, 8 * MIB),
    parts=st.integers(1, 50),
    groups=st.sampled_from([0, 1, 32, 255]),
    left_out=st.sampled_from([0, 1, 10**6]),
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
    assert plan.block_rows >= layer.largest_sample
    assert plan.maximum_slots >= MIN_TABLE_SLOTS
    assert 0 <= plan.partition_bits <= MAX_PARTITION_BITS


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
    tasks = (
        block_task_bytes(layer, plan.block_rows),
        partition_task_bytes(layer, plan.block_rows, plan.maximum_slots, plan.spill),
    )
    held = held_bytes(layer, plan.block_rows, plan.partition_bits, plan.spill)
    assert plan.projected_peak == held + plan.threads * max(tasks)


def test_records_stay_in_memory_while_they_fit():
    in_memory = make_plan(work(), 4 * GIB, 2, True)
    in_files = make_plan(work(), 100 * MIB, 2, True)
    assert not in_memory.spill
    assert in_files.spill
    assert in_memory.scratch_bytes == in_files.scratch_bytes == 16 * 10**7
    assert in_memory.projected_peak > in_memory.scratch_bytes


def test_records_of_a_cluster_go_through_files_and_every_worker_thread_counts():
    plan = make_plan(work(), 4 * GIB, 5, False)
    assert plan.spill
    assert plan.threads == 5
    with pytest.raises(MemoryTooSmallError):
        make_plan(work(), 40 * MIB, 8, False)
    assert make_plan(work(), 40 * MIB, 8, True).threads < 8


def test_threads_are_fewer_before_blocks_are_tiny():
    plan = make_plan(work(), 40 * MIB, 16, True)
    assert 1 <= plan.threads < 16
    assert plan.block_rows >= 1 << 15


def test_more_threads_smaller_blocks_and_more_passes_are_weighed_against_each_other():
    plan = make_plan(work(), 128 * MIB, 4, True)
    seconds = estimated_seconds(work(), plan)
    assert 0.01 < seconds < 10
    assert estimated_seconds(work(), replace(plan, threads=8)) < seconds
    for worse in (
        {"threads": 1},
        {"block_rows": plan.block_rows // 8},
        {"partition_bits": plan.partition_bits + 3},
        {"maximum_slots": plan.maximum_slots // 8},
    ):
        assert estimated_seconds(work(), replace(plan, **worse)) > seconds
    assert estimated_seconds(work(), replace(plan, spill=False)) < seconds


def test_one_large_sample_decides_the_block():
    plan = make_plan(work(largest_sample=3 * MAX_BLOCK_ROWS), 4 * GIB, 2, True)
    assert plan.block_rows == 3 * MAX_BLOCK_ROWS
    with pytest.raises(MemoryTooSmallError, match="layer conv_1"):
        make_plan(work(largest_sample=3 * MAX_BLOCK_ROWS), 128 * MIB, 2, True)


def test_a_small_layer_is_one_block_and_one_partition():
    plan = make_plan(work(rows=1000), GIB, 2, True)
    assert plan.block_rows == 1000
    assert plan.partition_bits == 0
    assert plan.maximum_slots == MIN_TABLE_SLOTS
    assert plan.projected_peak < 20 * MIB


def test_partitions_are_as_few_as_tables_allow():
    rich = make_plan(work(rows=10**9), 64 * GIB, 2, True)
    poor = make_plan(work(rows=10**9), 256 * MIB, 2, True)
    assert rich.partition_bits == MAX_PARTITION_BITS == poor.partition_bits
    assert 10**9 >> rich.partition_bits > PARTITION_RECORDS
    assert rich.maximum_slots > 2 * (10**9 >> rich.partition_bits)
    assert rich.maximum_slots > poor.maximum_slots


def test_a_table_holds_the_partition_even_if_all_its_rows_are_distinct():
    plan = make_plan(work(rows=3 * 10**7), GIB, 2, True)
    assert plan.maximum_slots >= 2 * (3 * 10**7 >> plan.partition_bits)


def test_wider_rows_and_keys_mean_smaller_blocks():
    memory = 128 * MIB
    sizes = [
        make_plan(work(rows=10**8, row_bytes=width, words=words), memory, 1, True).block_rows
        for width, words in ((8, 1), (38, 2), (300, 2))
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_a_block_task_is_projected_by_its_largest_stage():
    fixed = block_task_bytes(work(chunk_bytes=MIB), 0)
    assert block_task_bytes(work(chunk_bytes=2 * MIB), 0) == fixed + 2 * MIB
    rows = 1 << 20
    merging = rows * (2 * 16 + 8) + 12 * slots_for(rows)
    assert block_task_bytes(work(chunk_bytes=MIB), rows) - fixed == pytest.approx(merging, abs=99)
    keys = rows * (301 + 304 + 16 + 8)
    wide = work(row_bytes=301, words=2, chunk_bytes=MIB)
    assert block_task_bytes(wide, rows) - fixed == pytest.approx(keys, abs=99)
    sample = 8 * slots_for(10**7) + rows * (8 + 16 + 8)
    large = work(largest_sample=10**7, chunk_bytes=MIB)
    assert block_task_bytes(large, rows) - fixed == pytest.approx(sample, abs=99)


def test_samples_that_are_left_out_take_memory_while_rows_are_chosen_and_all_the_while():
    rows = 1 << 20
    all_count, some_do_not = (work(row_bytes=304, words=2, left_out=n) for n in (0, 1000))
    fixed = block_task_bytes(some_do_not, 0)
    chosen = rows * (2 * 304 + 2 * 8 + 2)
    assert block_task_bytes(some_do_not, rows) - fixed == pytest.approx(chosen, abs=99)
    assert block_task_bytes(all_count, rows) - fixed < chosen
    held = [held_bytes(one, 1 << 16, 8, True) for one in (all_count, some_do_not)]
    assert held[1] - held[0] == 8 * 1000


def test_a_partition_task_holds_its_table_and_two_slices_from_files():
    in_memory = partition_task_bytes(work(), 1000, 1 << 20, False)
    in_files = partition_task_bytes(work(), 1000, 1 << 20, True)
    assert in_files - in_memory == 2 * 1000 * work().record_bytes
    larger = partition_task_bytes(work(), 1000, 1 << 21, False)
    assert larger - in_memory == 1.5 * slot_bytes(1) * (1 << 20)
    assert slot_bytes(2) > slot_bytes(1)


def test_tables_by_group_hold_states_and_pairs_and_what_they_change():
    plain, grouped = work(), work(groups=32)
    assert grouped.record_bytes == plain.record_bytes + 1
    assert table_bytes(grouped, 1 << 20) == grouped_slot_bytes(1) << 20
    assert table_bytes(plain, 1 << 20) == 1.5 * slot_bytes(1) * (1 << 20)
    assert MIN_TABLE_SLOTS == plain.least_slots == work(groups=255).least_slots > least_slots(255)
    rich = make_plan(work(groups=32), 4 * GIB, 2, True)
    assert rich.maximum_slots == 1.5 * make_plan(work(), 4 * GIB, 2, True).maximum_slots


def test_groups_take_more_memory_in_every_part_of_the_projection():
    plain, grouped = work(), work(groups=32)
    assert block_task_bytes(grouped, 1 << 20) > block_task_bytes(plain, 1 << 20)
    assert held_bytes(grouped, 1 << 16, 8, True) > held_bytes(plain, 1 << 16, 8, True)
    tasks = [partition_task_bytes(one, 1000, 1 << 20, True) for one in (plain, grouped)]
    assert tasks[0] < tasks[1]
    memory = smallest_memory(plain), smallest_memory(grouped)
    assert memory[0] < memory[1] < 2 * memory[0]


def test_cells_are_few_for_few_rows_and_grow_more_slowly_than_rows():
    assert work().cells(10**6) == 0
    assert work(groups=32).cells(1) == 16
    many, more = (work(groups=32).cells(rows) for rows in (10**6, 8 * 10**6))
    assert more == pytest.approx(4 * many, rel=0.001)


def smallest_memory(layer: Work) -> int:
    with pytest.raises(MemoryTooSmallError) as error:
        make_plan(layer, 1, 2, True)
    return parse_memory(smallest_named(error))


def test_records_and_tasks_are_held_all_the_while():
    in_files = held_bytes(work(), 1 << 16, 8, True)
    in_memory = held_bytes(work(), 1 << 16, 8, False)
    assert in_memory - in_files >= 10**7 * work().record_bytes
    assert held_bytes(work(), 1 << 12, 8, True) > in_files
    assert held_bytes(work(parts=10**4), 1 << 16, 8, True) > in_files


def test_the_error_says_what_was_given_and_is_an_analysis_error():
    with pytest.raises(AnalysisError, match="layer conv_1: memory of 1 MiB is too small"):
        make_plan(work(), MIB, 2, True)
