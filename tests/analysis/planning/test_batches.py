from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tsstore.analysis.planning.cost import (
    TASK_BYTES,
    Work,
    block_task_bytes,
    finished_bytes,
    held_bytes,
    partition_task_bytes,
)
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.planning.layers import LEFT_SHARES, SHARE_ROWS, plan_batches, share_out
from tsstore.errors import MemoryTooSmallError

MIB = 1 << 20
GIB = 1 << 30
SMALL = make_plan(Work("small", 1 << 16, 8, 1, holders=2), GIB, 1, False).whole
LARGE = make_plan(Work("large", 1 << 22, 8, 1, holders=2), GIB, 1, False).whole
FILED = make_plan(Work("filed", 1 << 22, 8, 1), GIB, 1, False).whole


def small(peak: int, memory: int = 100, rows: int = 1 << 16) -> Plan:
    return replace(SMALL, projected_peak=peak * MIB, memory=memory * MIB, block_rows=rows)


def large(peak: int, memory: int = 100) -> Plan:
    return replace(LARGE, projected_peak=peak * MIB, memory=memory * MIB)


def test_one_task_counts_what_has_one_block_and_one_partition():
    assert (SMALL.in_one_task, LARGE.in_one_task) == (True, False)
    assert LARGE.whole is LARGE
    assert (LARGE.spill, LARGE.room_bytes > 0) == (True, True)
    assert (SMALL.spill, SMALL.room_bytes, SMALL.tasks) == (False, 0, 1)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        Work,
        name=st.just("conv_1"),
        rows=st.integers(1, 1 << 17),
        row_bytes=st.integers(1, 600),
        words=st.integers(1, 70),
        largest_sample=st.integers(1, 1 << 12),
        parts=st.integers(1, 50),
        groups=st.sampled_from([0, 1, 32]),
        left_out=st.sampled_from([0, 1000]),
        object_scratch=st.booleans(),
        holders=st.sampled_from([0, 2, 40]),
    ),
    st.integers(20 * MIB, GIB),
    st.integers(1, 8),
    st.booleans(),
)
def test_a_task_that_counts_a_layer_keeps_to_what_was_projected(layer, memory, threads, shared):
    try:
        plan = make_plan(layer, memory, threads, shared)
    except MemoryTooSmallError:
        assume(False)
    assume(plan.in_one_task)
    block = block_task_bytes(layer, plan.piece_rows, plan.block_rows, False, plan.direct)
    sizes = plan.gathered_bytes, plan.subpartition_records, plan.maximum_slots
    partition = partition_task_bytes(layer, plan.piece_rows, *sizes, False)
    held = held_bytes(layer, plan.piece_rows, plan.block_rows, 0, False)
    # Where slices of pieces begin is held as well: next to nothing, of what a task may have anyway.
    slices = 16 * 100
    assert held + max(block, partition, finished_bytes(layer)) <= plan.projected_peak + slices


def test_of_small_layers_a_process_takes_no_more_at_a_time_than_it_has_threads():
    plans = [small(30), *(small(20) for _ in range(50))]
    for threads in (1, 2, 3):
        alike = [replace(plan, threads=threads) for plan in plans]
        (batch,) = plan_batches(alike, threads)
        assert batch.layers == tuple(range(51))
        others = (51 - threads) * TASK_BYTES
        assert batch.projected_peak == (30 + 20 * (threads - 1)) * MIB + others
    several = plan_batches([replace(plan, threads=5) for plan in plans], 5)
    assert [len(batch.layers) for batch in several] == [4, *[5] * 9, 2]
    assert all(batch.projected_peak <= 100 * MIB for batch in several)


def test_they_are_counted_beside_large_ones_that_take_all_they_need():
    plans = [small(10), large(60), small(8), large(50), small(9)]
    first, second = plan_batches(plans, 1)
    assert (first.layers, second.layers) == ((1, 0, 4, 2), (3,))
    assert first.projected_peak == 70 * MIB + 2 * TASK_BYTES
    assert (first.room_bytes, second.room_bytes) == (LARGE.room_bytes,) * 2


def test_their_records_go_neither_way():
    plans = {"small": SMALL, "large": LARGE, "filed": FILED}
    together = [
        names
        for names in combinations(plans, 2)
        if len(plan_batches([plans[name] for name in names], 1)) == 1
    ]
    assert together == [("small", "large"), ("small", "filed")]
    (batch,) = plan_batches([SMALL] * 3, 1)
    assert (batch.room_bytes, batch.scratch_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("layers", "rows", "threads"),
    [(53, 1 << 16, 2), (53, 1 << 16, 4), (3, 1 << 16, 2), (1000, 1 << 17, 2), (0, 1, 2)],
)
def test_small_layers_are_shared_out_among_processes_the_fewer_the_later(layers, rows, threads):
    plans = [LARGE, *(small(1, rows=rows) for _ in range(layers)), LARGE]
    found = share_out(plans, threads, False)
    assert [place for share in found for place in share] == list(range(1, layers + 1))
    sizes, left = [len(share) for share in found], layers
    assert sizes == sorted(sizes, reverse=True)
    for size in sizes:
        assert size == 1 or size * rows <= SHARE_ROWS
        # Others have as much to do at least while a share is counted.
        assert size == 1 or LEFT_SHARES * threads * size <= left
        left -= size
    assert len(sizes) < layers or layers <= 3
    assert share_out(plans, threads, True) == [[place] for place in range(1, layers + 1)]
