from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_cases import crafted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import WIDTHS, count, draw_layer, found, layer, numbered_rows, write_layers

from tsstore.analysis.execution import graph as pipeline
from tsstore.analysis.execution.block import LayerJob, count_blocks, read_samples
from tsstore.analysis.execution.exchange import DividedSlices, FiledSlices, HeldSlices
from tsstore.analysis.execution.graph import (
    Counts,
    build_graph,
    check_receipts,
    count_in_one_task,
    count_partition,
    finish_counts,
    gather,
    merge_all,
    merge_counts,
    merge_entries,
    total_pairs,
)
from tsstore.analysis.planning.cost import fan_in
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.random_groups import RandomGroups
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import restore_hashes
from tsstore.counting.premerge import direct_index as direct
from tsstore.counting.premerge.direct_index import DirectTable
from tsstore.counting.records import LATER, Buffers, Records, SampleKeys
from tsstore.errors import CountingError, DamageError
from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.spectrum import Spectrum
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.writing.batch import LayerBatch

pytestmark = pytest.mark.usefixtures("small_sizes")

ROWS = 600
PIECE_ROWS = 64


def plan_of(states: LayerStates, spill: bool = False, groups: int = 0, **changes: int) -> Plan:
    """Plan with all the memory there is, and blocks of a piece, or of some where they spill.

    Rows are divided into subpartitions at once, unless partitions are to be gathered.
    """
    plan = layer_plan(states, 1 << 30, LocalScheduler(2), groups)
    sizes = {"piece_rows": PIECE_ROWS, "block_rows": (3 if spill else 1) * PIECE_ROWS}
    if spill or "gathered_bytes" in changes:
        sizes["divided_bits"] = 0
    return replace(plan, spill=spill, **{**sizes, **changes})


def run(
    states: LayerStates,
    spill: bool = False,
    threads: int = 2,
    groups: RandomGroups | None = None,
    **changes: int,
) -> Counts:
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(states, spill, groups.count if groups else 0, **changes)
        scheme = KeyScheme.create(states.row_bytes, seed=1)
        graph, key = build_graph(LayerJob(states, scheme, plan, folder, Samples(groups=groups)))
        counts: Counts = LocalScheduler(threads).run(graph, key, threads, None)
    return finish_counts(counts, states, Samples(groups=groups))


def rows_of_keys(pieces: Iterable[Records]) -> Counter:
    """Rows of each key of a partition, but for the bit in whose place bare ones have a tag."""
    rows: Counter = Counter()
    for piece in pieces:
        keys = piece.keys.copy()
        keys[:, 0] &= ~LATER
        ones = [1] * len(piece)
        times = ones if piece.multiplicity is None else piece.multiplicity.tolist()
        for key, own in zip(map(tuple, keys.tolist()), times, strict=True):
            rows[key] += own
    return rows


def receipts_of(states: LayerStates, folder: str = "", **changes: int) -> tuple[Any, ...]:
    scheme = KeyScheme.create(states.row_bytes, seed=1)
    plan = plan_of(states, bool(folder), **changes)
    job = LayerJob(states, scheme, plan, folder)
    return plan, [count_blocks(job, [block]) for block in states.blocks(plan.block_rows)]


def check_groups(
    states: LayerStates, parts: list[LayerBatch], groups: RandomGroups, counts
) -> None:
    """Compare with counting the samples outside each group, and those inside, by sorting."""
    dealt = [
        groups.of_samples(part.directory, 0, len(layer_part.positions))
        for part, layer_part in zip(states.parts, parts, strict=True)
    ]
    changes = counts.changes
    assert changes.groups == groups.count
    for group in range(groups.count):
        without = [samples_of(part, own != group) for part, own in zip(parts, dealt, strict=True)]
        inside = [samples_of(part, own == group) for part, own in zip(parts, dealt, strict=True)]
        assert changes.without(counts.spectrum, group) == count(*without).spectrum
        expected = count(*inside)
        assert [int(number[group]) for number in changes.numbers] == [
            sum(len(part.positions) for part in inside),
            sum(len(part.rows) for part in inside),
            expected.equal_pairs_within_samples,
            expected.pairs_within_samples,
        ]


def block_tasks_of(graph: dict[Any, Any]) -> list[tuple[Any, ...]]:
    tasks = [task for task in graph.values() if isinstance(task, tuple)]
    return [task for task in tasks if task[0] is count_blocks]


def samples_of(part: LayerBatch, kept: np.ndarray) -> LayerBatch:
    return layer(part.rows[np.repeat(kept, part.positions)], part.positions[kept])


@pytest.mark.parametrize(
    ("width", "positions", "spill"),
    [  # Each two of them meet, and all three when it may take longer.
        pytest.param(
            *(width, positions, spill),
            marks=[pytest.mark.slow] if (number + place + spill) % 2 else [],
        )
        for number, width in enumerate((1, 3, 8, 9, 17, 40))
        for place, positions in enumerate((1, 4, None))
        for spill in (False, True)
    ],
)
def test_spectra_without_a_group_are_those_of_sorting(tmp_path, width, spill, positions):
    groups = RandomGroups(7, seed=width)
    parts = [draw_layer(seed, 60, width, distinct=40) for seed in (1, 2, 3)]
    if positions:
        parts = [layer(part.rows[:96], positions) for part in parts]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    counts = run(states, spill, groups=groups)
    assert found(counts) == found(run(states, spill)) == count(*parts)
    assert plan_of(states, groups=7).partition_bits > 2
    check_groups(states, parts, groups, counts)
    again = run(states, spill, threads=1, groups=groups, gathered_bytes=0)
    assert (again.spectrum, again.changes) == (counts.spectrum, counts.changes)


of_each_way = st.one_of(
    st.fixed_dictionaries({"divided_bits": st.integers(1, 6)}),
    st.fixed_dictionaries(
        {"spill": st.booleans(), "gathered_bytes": st.sampled_from([0, 300, 1 << 16])}
    ),
)
"""Records are divided at once, or else a partition is gathered, or not, in memory or from files."""


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([1, 3, 8, 9, 17, 38]),
    st.lists(st.integers(0, 40), min_size=1, max_size=3),
    st.integers(1, 200),
    st.integers(0, 20),
    st.integers(1, 5),
    st.sampled_from([1, 2, 32, 255]),
    of_each_way,
)
def test_any_small_run_is_counted_exactly_by_group(
    width, samples, distinct, largest, bits, count_of_groups, way
):
    groups = RandomGroups(count_of_groups)
    parts = [draw_layer(seed, many, width, distinct, largest) for seed, many in enumerate(samples)]
    with tempfile.TemporaryDirectory() as folder:
        stored = write_layers(Path(folder) / "run", *({"a": part} for part in parts))
        if not stored.samples or not stored["a"].rows:
            return
        counts = run(stored["a"], groups=groups, partition_bits=bits, **way)
        assert found(counts) == count(*parts)
        check_groups(stored["a"], parts, groups, counts)


def test_passes_shares_and_pieces_change_nothing_by_group(tmp_path):
    groups = RandomGroups(5)
    rows = draw_layer(5, 90, 8, distinct=40)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    counts = run(states, groups=groups)
    check_groups(states, [rows], groups, counts)
    whole: dict[str, Any] = {"groups": groups, "partition_bits": 1}
    for changes in (
        {"maximum_slots": 40, "gathered_bytes": 0},
        {"subpartition_records": 4},
        {"subpartition_records": 4, "gathered_bytes": 1 << 20},
        {"subpartition_records": 1 << 14, "gathered_bytes": 1 << 20},
        {"divided_bits": 1},
        {"divided_bits": 6, "piece_rows": 200},
        {"piece_rows": 1, "block_rows": 1000},
        {"piece_rows": 9, "block_rows": 100, "spill": True},
    ):
        assert run(states, **whole, **changes).changes == counts.changes


def test_a_receipt_tells_numbers_of_its_block_by_group(tmp_path):
    rows = layer(numbered_rows(np.array([1, 1, 1, 2, 5, 5, 5]), 8), [4, 0, 3])
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    groups = RandomGroups(3)
    (block,) = states.blocks(100)
    plan = plan_of(states, groups=3, partition_bits=1)
    job = LayerJob(states, KeyScheme.create(8), plan, "", Samples(groups=groups))
    receipt = count_blocks(job, [block])
    dealt = groups.of_samples(states.parts[0].directory, 0, 3)
    expected = np.zeros((4, 3), np.int64)
    np.add.at(expected.T, dealt, np.array([[1, 4, 3, 6], [1, 0, 0, 0], [1, 3, 3, 3]]))
    assert receipt.pairs_within_samples == 9
    counts = run(states, groups=groups, partition_bits=1)
    assert np.array_equal(counts.changes.numbers, expected)
    # Pairs that are equal are known where their state is counted.
    expected[2] = 0
    assert np.array_equal(receipt.groups.numbers, expected)
    for partition in (0, 1):
        assert all(piece.group is not None for piece in receipt.slices.read(partition))
    assert count_blocks(replace(job, samples=Samples()), [block]).groups is None


@pytest.mark.parametrize("bits", [1, 3, 5])
def test_changes_of_any_number_of_partitions_are_merged(tmp_path, bits):
    rows = draw_layer(1, 200, 8, distinct=500)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    groups = RandomGroups(4)
    check_groups(states, [rows], groups, run(states, groups=groups, partition_bits=bits))


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_counts_are_those_of_sorting(tmp_path, width, spill):
    parts = [draw_layer(seed, 90, width, distinct=60) for seed in (1, 2)]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    assert found(run(states, spill)) == found(run(states, spill, threads=1)) == count(*parts)
    assert plan_of(states).partition_bits > 2
    assert len(list(states.blocks(plan_of(states).block_rows))) > 5


ADVERSARIES: dict[str, Callable[[], np.ndarray]] = {
    "one state": lambda: np.zeros(ROWS),
    "all distinct": lambda: np.arange(ROWS),
    "sorted": lambda: np.sort(np.arange(ROWS) % 60),
    "every state twice, far apart": lambda: np.arange(ROWS) % (ROWS // 2),
    "every state twice, side by side": lambda: np.arange(ROWS) // 2,
    "half of one state, the rest distinct": lambda: np.arange(ROWS) * (np.arange(ROWS) % 2),
    "powers of two": lambda: 2 ** (np.arange(ROWS) % 60),
}


@pytest.mark.parametrize(
    ("kind", "width", "positions"),
    [  # Each two of them meet.
        (kind, width, (1, 4)[(number + place) % 2])
        for number, kind in enumerate(ADVERSARIES)
        for place, width in enumerate((3, 8, 16, 17))
    ],
)
def test_adversarial_rows_are_counted_exactly(tmp_path, kind, width, positions):
    rows = layer(numbered_rows(ADVERSARIES[kind]().astype(np.int64), width), positions)
    states = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=500)["a"]
    assert found(run(states)) == found(run(states, spill=True)) == count(rows)


def test_every_state_twice_is_one_entry_of_the_spectrum(tmp_path):
    rows = layer(numbered_rows(np.arange(ROWS) // 2, 8))
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    assert run(states).spectrum == Spectrum.from_arrays([2], [2], [ROWS // 2])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(WIDTHS),
    st.lists(st.integers(0, 40), min_size=1, max_size=3),
    st.integers(1, 200),
    st.integers(1, 20),
    st.integers(1, 5),
    st.sampled_from([1, 8, 64]),
    of_each_way,
)
def test_any_small_run_is_counted_exactly(width, samples, distinct, largest, bits, piece_rows, way):
    parts = [draw_layer(seed, many, width, distinct, largest) for seed, many in enumerate(samples)]
    with tempfile.TemporaryDirectory() as folder:
        stored = write_layers(Path(folder) / "run", *({"a": part} for part in parts))
        if not stored.samples or not stored["a"].rows:
            return
        counts = run(stored["a"], piece_rows=piece_rows, partition_bits=bits, **way)
    assert found(counts) == count(*parts)


@pytest.mark.parametrize("spill", [False, True])
def test_passes_change_nothing(tmp_path, spill):
    rows = layer(numbered_rows(np.arange(ROWS), 8), 3)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    few = run(states, spill, partition_bits=1, maximum_slots=16, gathered_bytes=0)
    assert found(few) == found(run(states, partition_bits=5)) == count(rows)


def test_a_partition_is_gathered_if_it_has_no_more_bytes_than_the_plan_says(tmp_path, monkeypatch):
    rows = layer(numbered_rows(np.arange(ROWS), 8))
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    _, receipts = receipts_of(states, partition_bits=1, divided_bits=0)
    index = check_receipts(receipts, ROWS)
    sizes = [sum(piece.nbytes for piece in index.slices(partition)) for partition in (0, 1)]
    ways = []
    for name in ("aggregate", "aggregate_gathered", "aggregate_parts"):
        original = getattr(pipeline, name)
        monkeypatch.setattr(
            pipeline, name, lambda *given, way=original: (ways.append(way.__name__), way(*given))[1]
        )
    for most, way in ((max(sizes), "aggregate_gathered"), (min(sizes) - 1, "aggregate")):
        assert found(run(states, partition_bits=1, gathered_bytes=most)) == count(rows)
        assert ways == [way] * 2
        ways.clear()
    assert found(run(states, partition_bits=1, divided_bits=3)) == count(rows)
    assert ways == ["aggregate_parts"] * 2


def test_slices_that_are_too_many_are_left_where_they_are():
    pieces = [Records(np.zeros((10, 1), np.uint64))] * 4
    slices = iter(pieces)
    assert gather(slices, 200) is None
    assert list(slices) == pieces[3:]
    assert gather(iter(pieces), 320) == pieces
    assert gather(iter([]), 0) == []


def test_keys_whose_hashes_begin_alike_are_counted_exactly(tmp_path):
    keys = np.arange(ROWS, dtype=np.uint64)[:, None] % 250 << np.uint64(12)
    scheme = KeyScheme.create(8, seed=5)
    rows = layer(scheme.rows(keys), 2)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    with tempfile.TemporaryDirectory() as folder:
        ways = [
            plan_of(states, spill, gathered_bytes=gathered_bytes)
            for spill, gathered_bytes in itertools.product((False, True), (0, 1 << 16))
        ]
        for plan in (*ways, plan_of(states, divided_bits=2)):
            graph, key = build_graph(LayerJob(states, scheme, plan, folder))
            assert found(LocalScheduler(2).run(graph, key, 2, None)) == count(rows)
    assert plan.partition_bits > 2


@pytest.mark.parametrize("divided_bits", [0, 2])
def test_a_block_is_read_in_pieces_of_whole_samples(tmp_path, divided_bits):
    rows = draw_layer(5, 90, 8, distinct=1000)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    sizes = {"block_rows": 1000, "partition_bits": 1, "divided_bits": divided_bits}
    _, (whole,) = receipts_of(states, piece_rows=1000, **sizes)
    _, (divided,) = receipts_of(states, piece_rows=40, **sizes)
    for partition in (0, 1):
        own, others = (each.slices.read(partition) for each in (whole, divided))
        assert rows_of_keys(own) == rows_of_keys(others)
    assert len(divided.slices.pieces) > len(rows.rows) // 40 > len(whole.slices.pieces)
    assert replace(whole, slices=divided.slices) == divided
    assert max(len(records) for records, *_ in divided.slices.pieces) <= 40


@pytest.mark.parametrize(("divided_bits", "kind"), [(0, HeldSlices), (2, DividedSlices)])
def test_blocks_use_one_buffer_and_their_records_stay_what_they_were(tmp_path, divided_bits, kind):
    rows = layer(numbered_rows(np.arange(ROWS), 8))
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    plan = plan_of(states, partition_bits=1, divided_bits=divided_bits)
    scheme, buffers = KeyScheme.create(8), Buffers()
    job = LayerJob(states, scheme, plan, "")
    receipts = [count_blocks(job, [block], buffers) for block in states.blocks(plan.block_rows)]
    assert all(isinstance(receipt.slices, kind) for receipt in receipts)
    read = [
        restore_hashes(piece.keys, partition, 1)
        for partition in (0, 1)
        for receipt in receipts
        for piece in receipt.slices.read(partition)
    ]
    keys = scheme.keys(rows.rows)
    assert np.array_equal(np.sort(np.concatenate(read), axis=0), np.sort(keys, axis=0))
    room = buffers.array("keys", (PIECE_ROWS, 1), np.uint64)
    pieces = [piece for receipt in receipts for piece in receipt.slices.pieces]
    assert not any(np.shares_memory(records.keys, room) for records, *_ in pieces)


@pytest.mark.parametrize("groups", [None, RandomGroups(3)])
@pytest.mark.parametrize(
    ("divided_bits", "name"), [(0, "aggregate_gathered"), (2, "aggregate_parts")]
)
def test_partitions_that_share_buffers_are_counted_as_others_are(
    tmp_path, groups, divided_bits, name, monkeypatch
):
    scheme, buffers = KeyScheme.create(8, seed=1), Buffers()
    used = []
    way = getattr(pipeline, name)
    monkeypatch.setattr(pipeline, name, lambda *given: (used.append(given[-3]), way(*given))[1])

    def index_of(rows: LayerBatch) -> tuple[Any, ...]:
        states = write_layers(tmp_path / f"run of {len(rows.rows)}", {"a": rows})["a"]
        count_of_groups = groups.count if groups else 0
        plan = plan_of(states, groups=count_of_groups, partition_bits=2, gathered_bytes=1 << 20)
        plan = replace(plan, subpartition_records=1 << 14, divided_bits=divided_bits)
        job = LayerJob(states, scheme, plan, "", Samples(groups=groups))
        blocks = [count_blocks(job, [block], buffers) for block in states.blocks(1000)]
        return check_receipts(blocks, states.rows), plan

    def check(index: Any, plan: Plan) -> None:
        for partition in (0, 3, 1, 2):
            own = count_partition(index, plan, 1, partition, buffers)
            new = count_partition(index, plan, 1, partition)
            assert used[-2] is buffers
            assert used[-1] is None
            assert found(own) == found(new)
            assert own.spectrum.rows > 0
            assert len(own.entries) == len(new.entries) == (groups is not None)
            for one, other in zip(own.entries, new.entries, strict=True):
                assert all(map(np.array_equal, one.columns, other.columns))

    good = index_of(draw_layer(1, 300, 8, distinct=400))
    worse = index_of(layer(scheme.rows(np.repeat(crafted(5000, 1), 2, axis=0))))
    check(*good)
    with pytest.raises(CountingError, match="another seed"):
        count_partition(*worse, 1, 0, buffers)
    check(*good)


def is_maker(task: Any) -> bool:
    return isinstance(task, tuple) and task[0] is Buffers


@pytest.mark.parametrize("groups", [None, RandomGroups(3)])
def test_buffers_are_made_by_tasks_so_that_graphs_and_results_hold_none(tmp_path, groups):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 8)})["a"]
    graph, _ = build_graph(
        LayerJob(states, KeyScheme.create(8), plan_of(states), "", Samples(groups=groups))
    )
    tasks = [task for task in graph.values() if isinstance(task, tuple)]
    makers = [key for key, task in graph.items() if is_maker(task)]
    users = {
        way: {task[-1] for task in tasks if task[0] is way}
        for way in (count_blocks, count_partition)
    }
    assert len(makers) == 2
    assert sorted(map(str, makers)) == sorted(str(key) for (key,) in users.values())
    assert not any(isinstance(each, Buffers) for task in tasks for each in task)
    assert not any(isinstance(value, Buffers) for value in graph.values())


def test_blocks_depend_on_one_value_and_on_buffers_alone(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 8)})["a"]
    plan = plan_of(states, groups=3)
    graph, _ = build_graph(
        LayerJob(states, KeyScheme.create(8), plan, "", Samples(groups=RandomGroups(3)))
    )
    blocks = [
        task for task in graph.values() if isinstance(task, tuple) and task[0] is count_blocks
    ]
    needed = {item for task in blocks for item in task if isinstance(item, tuple)}
    assert len(blocks) == len(list(states.blocks(plan.block_rows))) > 1
    assert [type(graph[key]) for key in sorted(needed)] == [tuple, LayerJob]
    assert [graph[key] for key in needed if is_maker(graph[key])]


@pytest.mark.parametrize("positions", [None, 1])
@pytest.mark.parametrize("width", [1, 8, 40])
def test_small_parts_are_counted_together(tmp_path, width, positions, monkeypatch):
    parts = [draw_layer(seed, 9 + seed, width, distinct=12) for seed in range(6)]
    if positions:
        parts = [layer(part.rows[:5], positions) for part in parts]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    plan, groups = plan_of(states, groups=5, piece_rows=4096, block_rows=4096), RandomGroups(5)
    names = [part.directory for part in states.parts]
    some = SampleFilter({names[1]: np.array([0, 1]), names[4]: np.array([2])})
    for sample_filter in (SampleFilter(), some):
        samples = Samples(sample_filter, groups)
        shown = [
            samples_of(
                part, ~np.isin(np.arange(len(part.positions)), sample_filter.left_out.get(name, []))
            )
            for part, name in zip(parts, names, strict=True)
        ]
        counted = []
        for task_rows, tasks in ((1 << 16, 1), (1, len(parts))):
            monkeypatch.setattr(pipeline, "TASK_ROWS", task_rows)
            job = LayerJob(states, KeyScheme.create(width), plan, "", samples)
            graph, key = build_graph(job)
            assert len(block_tasks_of(graph)) == tasks
            counts = LocalScheduler(2).run(graph, key, 2, None)
            counted.append(finish_counts(counts, states, samples))
            assert found(counted[-1]) == count(*shown)
        together, apart = counted
        assert (together.spectrum, together.changes) == (apart.spectrum, apart.changes)


def test_exact_keys_count_the_same(tmp_path):
    rows = draw_layer(2, 120, 38, distinct=90)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    scheme = KeyScheme.create(38, exact=True)
    plan = replace(plan_of(states, spill=True), partition_bits=3)
    assert scheme.words == 1 + 5
    for gathered_bytes in (0, 1 << 20):
        own = replace(plan, gathered_bytes=gathered_bytes)
        with tempfile.TemporaryDirectory() as folder:
            graph, key = build_graph(LayerJob(states, scheme, own, folder))
            assert found(LocalScheduler(2).run(graph, key, 2, None)) == count(rows)


def test_a_block_without_records_needs_no_file(tmp_path):
    rows = layer(np.zeros((20, 8), np.uint8))
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    sample_filter = SampleFilter({states.parts[0].directory: np.arange(20)})
    (block,) = states.blocks(100)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    plan = plan_of(states, spill=True)
    job = LayerJob(states, KeyScheme.create(8), plan, str(scratch), Samples(sample_filter))
    receipt = count_blocks(job, [block])
    assert (receipt.rows, receipt.slices) == (0, HeldSlices([]))
    assert list(scratch.iterdir()) == []


def test_a_receipt_tells_rows_and_pairs_of_its_block(tmp_path):
    rows = layer(numbered_rows(np.array([1, 1, 1, 2, 5, 5, 5]), 8), [4, 0, 3])
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    plan, (receipt,) = receipts_of(states, block_rows=100, partition_bits=1, divided_bits=0)
    assert receipt.rows == 7
    assert receipt.pairs_within_samples == 6 + 3
    assert isinstance(receipt.slices, HeldSlices)
    kept = [rows_of_keys(receipt.slices.read(partition)) for partition in (0, 1)]
    assert sorted(times for own in kept for times in own.values()) == [1, 3, 3]
    # Pairs that are equal are known where their state is counted.
    assert receipt.equal_pairs_within_samples == 0
    shares = [count_partition(check_receipts([receipt], 7), plan, 1, own) for own in (0, 1)]
    assert sum(share.equal_pairs_within_samples for share in shares) == 3 + 3


def test_records_of_a_block_are_in_a_file_where_the_plan_says_so(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 9)})["a"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    _, receipts = receipts_of(states, str(scratch))
    assert all(isinstance(receipt.slices, FiledSlices) for receipt in receipts)
    assert {Path(r.slices.file) for r in receipts} == set(scratch.iterdir())


def test_a_block_that_runs_twice_counts_once(tmp_path):
    rows = draw_layer(3, 60, 8)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    plan, receipts = receipts_of(states, str(tmp_path))
    _, again = receipts_of(states, str(tmp_path))
    mixed = [receipts[0], *again[1:]]
    assert len(list(tmp_path.glob("*.records"))) == 2 * len(receipts)
    for chosen in (receipts, again, mixed):
        index = check_receipts(chosen, states.rows)
        shares = [count_partition(index, plan, 1, p) for p in range(1 << plan.partition_bits)]
        assert found(merge_counts([total_pairs(index), *shares])) == count(rows)


def test_a_receipt_too_few_or_too_many_is_an_error(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(3, 60, 8)})["a"]
    _, receipts = receipts_of(states)
    assert len(check_receipts(receipts, states.rows).receipts) == len(receipts) > 2
    for wrong in (receipts[1:], [*receipts, receipts[0]], []):
        with pytest.raises(CountingError, match=f"expected {states.rows}"):
            check_receipts(wrong, states.rows)


def test_a_block_whose_records_lost_a_row_is_an_error(tmp_path, monkeypatch):
    states = write_layers(tmp_path / "run", {"a": draw_layer(3, 60, 8)})["a"]

    def lose_a_row(*given: Any) -> Any:
        left, numbers = read_samples(*given)
        assert left is not None
        assert left.ends is not None
        fewer = len(left) - 1
        return SampleKeys(left.keys[:fewer], np.minimum(left.ends, fewer), left.group), numbers

    monkeypatch.setattr("tsstore.analysis.execution.block.read_samples", lose_a_row)
    with pytest.raises(CountingError, match=r"\d+ rows of a gave other records"):
        receipts_of(states)


def test_damage_is_an_error_of_the_block(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(3, 60, 8)})["a"]
    chunk = sorted((tmp_path / "run").rglob("states/c/*/0"))[2]
    data = bytearray(chunk.read_bytes())
    data[-5] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(DamageError, match=str(chunk.relative_to(tmp_path))):
        run(states)


def test_a_file_whose_own_checksum_alone_is_damaged_is_counted_and_found_by_verify(tmp_path):
    rows = draw_layer(3, 60, 8)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    chunk = sorted((tmp_path / "run").rglob("states/c/*/0"))[2]
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)
    assert found(run(states)) == count(rows)
    assert not verify(tmp_path / "run").ok


def test_a_scratch_file_that_changes_in_between_is_an_error(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(3, 60, 8)})["a"]
    plan, receipts = receipts_of(states, str(tmp_path))
    index = check_receipts(receipts, states.rows)
    for path in tmp_path.glob("*.records"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    last = (1 << plan.partition_bits) - 1
    with pytest.raises(CountingError, match="has changed"):
        count_partition(index, plan, 1, last)


def test_graphs_are_plain_dictionaries_with_keys_of_their_own(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 8)})["a"]
    plan, scheme = plan_of(states), KeyScheme.create(8)
    (first, key), (second, _) = (build_graph(LayerJob(states, scheme, plan, "")) for _ in range(2))
    assert type(first) is dict
    assert key in first
    assert not first.keys() & second.keys()


@pytest.mark.parametrize("bits", [1, 4, 5])
def test_counts_are_merged_in_a_tree(tmp_path, bits):
    rows = draw_layer(1, 200, 8, distinct=500)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    plan = plan_of(states, partition_bits=bits)
    graph, _ = build_graph(LayerJob(states, KeyScheme.create(8), plan, ""))
    tasks = [task for task in graph.values() if isinstance(task, tuple)]
    merges = [task[1] for task in tasks if task[0] is merge_counts]
    (last,) = [task[1] for task in tasks if task[0] is merge_all]
    assert max(map(len, merges), default=0) <= fan_in(0) >= len(last) - 1
    assert sum(map(len, [*merges, last])) == (1 << bits) + 1 + len(merges)
    assert found(run(states, partition_bits=bits)) == count(rows)


@pytest.mark.parametrize("groups", [1, 3, 20])
@pytest.mark.parametrize("bits", [1, 4, 5])
def test_changes_are_added_up_by_tasks_that_share_the_groups(tmp_path, groups, bits):
    rows = draw_layer(1, 200, 8, distinct=50)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    samples = Samples(groups=RandomGroups(groups))
    shares = set()
    for spill in (False, True):
        plan = plan_of(states, spill, groups, partition_bits=bits)
        graph, _ = build_graph(LayerJob(states, KeyScheme.create(8), plan, "", samples))
        shares.add(sum(type(one) is tuple and one[0] is merge_entries for one in graph.values()))
        counts = run(states, spill, groups=samples.groups, partition_bits=bits)
        check_groups(states, [rows], samples.groups, counts)
    assert shares == {1, min(groups, 1 << bits >> 1, 8)}


def test_counts_add_up():
    parts = [Counts(Spectrum.from_arrays([2], [1], [n]), n, 2 * n) for n in (1, 2)]
    assert merge_counts(parts) == Counts(Spectrum.from_arrays([2], [1], [3]), 3, 6)
    assert merge_counts([]) == Counts(Spectrum.empty())


def test_numbers_of_groups_add_up_where_there_are_any():
    numbers = SpectrumDelta.from_arrays([[1, 2]] * 4)
    counts = Counts(Spectrum.empty(), changes=numbers)
    merged = merge_counts([counts, Counts(Spectrum.empty()), counts])
    assert merged.changes == SpectrumDelta.from_arrays([[2, 4]] * 4)
    assert merged.entries == ()
    assert check_receipts([], 0).told == (0, 0)


def test_samples_of_parts_without_rows_are_counted_all_the_same(tmp_path):
    parts = [layer(np.zeros((0, 2), np.uint8), [0] * 9), draw_layer(1, 30, 2)]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    groups = RandomGroups(3)
    counts = run(states, groups=groups)
    assert counts.changes.samples.sum() == 39
    check_groups(states, parts, groups, counts)
    empty = write_layers(tmp_path / "empty", {"a": parts[0]})["a"]
    nothing = finish_counts(Counts(Spectrum.empty()), empty, Samples(groups=groups))
    assert nothing.changes.samples.sum() == 9


def test_a_table_of_all_states_is_left_within_a_block_when_it_does_not_pay(tmp_path, monkeypatch):
    rows = layer(numbered_rows(np.arange(600) // np.repeat([6, 1], 300), 3), 10)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    numbers = []

    def spy(table: DirectTable, rows: np.ndarray, *others: Any) -> Any:
        numbers.append(len(rows))
        return count_rows(table, rows, *others)

    count_rows = DirectTable.count
    monkeypatch.setattr(DirectTable, "count", spy)
    monkeypatch.setattr(direct, "MOST_STATES", 40)
    whole = {"direct": True, "largest_sample": 10, "piece_rows": 100, "block_rows": 600}
    assert found(run(states, threads=1, **whole)) == count(rows)
    assert numbers == [100, 100, 100, 100]
    numbers.clear()
    counts = run(states, threads=1, groups=RandomGroups(3), **whole)
    check_groups(states, [rows], RandomGroups(3), counts)
    assert 1 <= len(numbers) < 6


def test_one_task_counts_what_the_graph_counts(tmp_path, small_sizes):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 90, 9)})["a"]
    for groups, spill in ((None, False), (RandomGroups(3), True)):
        plan = replace(
            layer_plan(states, 64 << 20, LocalScheduler(2), 3 if groups else 0), spill=spill
        )
        samples = Samples(groups=groups)
        job = LayerJob(states, KeyScheme.create(9), plan, str(tmp_path), samples)
        graph, key = build_graph(job)
        expected = finish_counts(LocalScheduler(1).run(graph, key, 1, None), states, samples)
        counts = finish_counts(count_in_one_task(job), states, samples)
        assert found(counts) == found(expected)
        if groups is not None:
            for name in ("group", "multiplicity", "incidence", "states", "samples", "rows"):
                own, other = (getattr(one.changes, name) for one in (counts, expected))
                np.testing.assert_array_equal(own, other)
