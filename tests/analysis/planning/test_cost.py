from __future__ import annotations

import pytest

from tsstore.analysis.planning.cost import (
    FRAME_BYTES,
    HOT_PIECES,
    MIN_TABLE_SLOTS,
    Work,
    block_task_bytes,
    direct_table_bytes,
    fan_in,
    finished_bytes,
    has_direct_table,
    held_bytes,
    last_fan_in,
    most_blocks,
    partition_task_bytes,
    piece_bytes,
    table_bytes,
    waiting_bytes,
)
from tsstore.analysis.planning.fitting import make_plan
from tsstore.counting.partition import SUBPARTITION_RECORDS
from tsstore.counting.tables.grouped import grouped_slot_bytes, least_slots
from tsstore.counting.tables.plain import slot_bytes

MIB = 1 << 20
GIB = 1 << 30


def work(rows: int = 10**7, row_bytes: int = 8, words: int = 1, **others: int) -> Work:
    return Work("conv_1", rows, row_bytes, words, **others)


def block_bytes(layer: Work, rows: int) -> int:
    return block_task_bytes(layer, rows, rows, False)


def test_a_block_task_holds_chunks_a_piece_and_the_records_of_a_block():
    fixed = block_bytes(work(chunk_bytes=MIB), 0)
    assert block_bytes(work(chunk_bytes=2 * MIB), 0) == fixed + 3 * MIB
    rows = 1 << 20
    piece = piece_bytes(work(), rows, HOT_PIECES * rows) - piece_bytes(work(), 0, 0)
    assert block_bytes(work(), rows) - block_bytes(work(), 0) == piece
    held = block_task_bytes(work(), rows, 5 * rows, True)
    in_file = held - block_bytes(work(), rows) - FRAME_BYTES
    assert in_file == work().records_bytes(5 * rows) == 5 * rows * 8.5
    assert block_task_bytes(work(), rows, 5 * rows, False) == block_bytes(work(), rows)


def bytes_of_a_row(layer: Work) -> float:
    """Without tables, which do not grow beyond so many rows."""
    rows = 1 << 24
    return (piece_bytes(layer, 2 * rows, rows) - piece_bytes(layer, rows, rows)) / rows


def test_a_piece_is_projected_with_keys_and_room_for_those_that_are_not_hot():
    keys, not_hot, of_sample = 16, 16, 24
    assert bytes_of_a_row(work(words=2)) == keys + not_hot + of_sample
    several = work(words=2, largest_sample=4)
    assert bytes_of_a_row(several) == keys + not_hot + of_sample
    grouped = work(words=2, groups=32)
    assert bytes_of_a_row(grouped) == keys + not_hot + 1 + of_sample + 1
    assert piece_bytes(work(largest_sample=10**7), 0, 0) > 10**7 * 8
    assert bytes_of_a_row(work(row_bytes=300)) == bytes_of_a_row(work())


def test_samples_that_are_left_out_take_memory_while_rows_are_chosen_and_all_the_while():
    all_count, some_do_not = (work(row_bytes=304, words=2, left_out=n) for n in (0, 1000))
    assert bytes_of_a_row(some_do_not) - bytes_of_a_row(all_count) == 2 * 8 + 8 + 2
    held = [held_bytes(one, 1 << 16, 1 << 16, 8, True) for one in (all_count, some_do_not)]
    assert held[1] - held[0] == 8 * 1000


def test_a_table_of_all_states_is_for_few_neurons_many_rows_and_much_memory():
    few = work(row_bytes=3, neurons=20, largest_sample=576)
    assert has_direct_table(few, 1 << 18, GIB)
    assert not has_direct_table(few, (1 << 18) - 1, GIB)
    assert has_direct_table(few, 1 << 18, 8 * direct_table_bytes(few))
    assert not has_direct_table(few, 1 << 18, 8 * direct_table_bytes(few) - 1)
    most = work(row_bytes=3, neurons=24, largest_sample=1 << 16)
    assert has_direct_table(most, 1 << 22, GIB)
    assert not has_direct_table(work(row_bytes=4, neurons=25), 1 << 40, 1 << 50)
    assert not has_direct_table(work(row_bytes=3), 1 << 40, 1 << 50)
    larger = work(row_bytes=3, neurons=20, largest_sample=(1 << 16) + 1)
    assert not has_direct_table(larger, 1 << 22, GIB)
    with_it, without = (
        block_task_bytes(few, 1, 1, False, is_direct) for is_direct in (True, False)
    )
    assert with_it - without == direct_table_bytes(few)


def test_a_partition_task_holds_what_it_gathers_and_the_larger_of_two_tables():
    share, slots = SUBPARTITION_RECORDS, 1 << 12
    in_memory = partition_task_bytes(work(), 0, 1000, share, slots, False)
    in_files = partition_task_bytes(work(), 0, 1000, share, slots, True)
    assert in_files - in_memory == 2 * 1000 + 2 * FRAME_BYTES
    assert partition_task_bytes(work(), 0, 3000, share, slots, True) - in_files == 3 * 2000
    large, larger = (partition_task_bytes(work(), 0, 1000, 0, n, False) for n in (1 << 20, 1 << 21))
    assert larger - large == 1.5 * slot_bytes(1) * (1 << 20)
    buffered = partition_task_bytes(work(words=2), 10**6, 1000, 0, 1 << 20, False)
    assert buffered - partition_task_bytes(work(words=2), 0, 1000, 0, 1 << 20, False) == 16 * 10**6
    assert large > in_memory > partition_task_bytes(work(), 0, 1000, share // 2, slots, False)


def test_tables_by_group_hold_states_and_pairs_and_what_they_change():
    plain, grouped = work(), work(groups=32)
    assert grouped.records_bytes(16) == plain.records_bytes(16) + 16 == 16 * 9 + 8
    assert table_bytes(grouped, 1 << 20) == grouped_slot_bytes(1) << 20
    assert table_bytes(plain, 1 << 20) == 1.5 * slot_bytes(1) * (1 << 20)
    assert MIN_TABLE_SLOTS == plain.least_slots == work(groups=255).least_slots > least_slots(255)


def test_entries_are_few_for_few_rows_and_grow_more_slowly_than_rows():
    assert work().entries(10**6) == 0
    assert work(groups=32).entries(1) == 32
    many, more = (work(groups=32).entries(rows) for rows in (10**6, 4 * 10**6))
    assert more == pytest.approx(2 * many, rel=0.001)


def test_changes_wait_at_each_height_of_the_tree_and_are_sorted_in_the_end():
    one = work(groups=32)
    assert waiting_bytes(one, 0, True) == waiting_bytes(work(), 4, True) == 0
    by_level = [one.entries(10**7 // partitions) for partitions in (64, 16, 4)]
    assert waiting_bytes(one, 6, True) == 14 * 3 * sum(by_level)
    assert waiting_bytes(one, 6, False) == 14 * (3 * by_level[0] + 15 * by_level[1])
    assert [last_fan_in(32, spill) for spill in (True, False)] == [4, 16]
    assert finished_bytes(one) > 44 * one.entries(10**7)
    many = work(groups=32, rows=10**9)
    plan = make_plan(many, 4 * GIB, 2, True)
    held = held_bytes(many, plan.piece_rows, plan.block_rows, plan.partition_bits, plan.spill)
    assert plan.projected_peak >= held + finished_bytes(many)
    assert plan.projected_peak >= held + waiting_bytes(many, plan.partition_bits, plan.spill)
    assert [fan_in(groups) for groups in (0, 1, 32)] == [16, 4, 4]


def test_records_and_tasks_are_held_all_the_while():
    in_files = held_bytes(work(), 1 << 16, 1 << 16, 8, True)
    in_memory = held_bytes(work(), 1 << 16, 1 << 16, 8, False)
    assert in_memory - in_files >= work().records_bytes(10**7)
    assert held_bytes(work(), 1 << 12, 1 << 12, 8, True) > in_files
    assert held_bytes(work(parts=10**4), 1 << 16, 1 << 16, 8, True) > in_files
    assert most_blocks(10**7, 7, 10**6) == 2 * 10 + 7
