from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import children
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from state_tables import WIDTHS, Found, expected, export_states, most_frequent, read, table
from synthetic import draw_layer, layer, numbered_rows, write_layers

from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.request import Request, choose
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.analysis.states import distinct as module
from tsstore.analysis.states.distinct import Piece, distinct_states, spare_bytes
from tsstore.counting.hashing import ALL_HASHES, HashRange
from tsstore.counting.tables.plain import Table
from tsstore.counting.warm_up import warm_up
from tsstore.errors import AnalysisError, CountingError, EmptyStoreError, MemoryTooSmallError
from tsstore.store.reading.layer import LayerStates

MIB = 1 << 20


def pieces_of(states: LayerStates, scratch: Path | None = None, **changes: Any) -> list[Piece]:
    """Count by a plan for all the memory there is, so that the changes alone decide."""
    plan = replace(layer_plan(states, 1 << 30, LocalScheduler(2), exact=True), **changes)
    folder = None if scratch is None else str(scratch)
    return list(distinct_states(states, plan, LocalScheduler(2), Request(scratch=folder)))


def found(pieces: Iterable[Piece]) -> Found:
    return table(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_states_are_those_of_sorting(tmp_path, width, spill):
    parts = [draw_layer(seed, 60, width, distinct=90) for seed in (1, 2, 3)]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    sizes = {"spill": spill, "piece_rows": 32, "block_rows": 64, "partition_bits": 2}
    sizes["divided_bits"] = 0 if spill else 3
    pieces = pieces_of(states, tmp_path, **sizes)
    assert found(pieces) == expected(*parts)
    for rows, multiplicity, incidence in pieces:
        assert rows.dtype == np.uint8
        assert rows.shape == (len(multiplicity), width)
        assert multiplicity.dtype == incidence.dtype == np.int64
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    width=st.sampled_from(WIDTHS),
    samples=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    distinct=st.integers(1, 300),
    largest=st.integers(1, 20),
    bits_of_partitions=st.integers(1, 5),
    divided_bits=st.integers(0, 5),
    gathered=st.sampled_from([0, 300, 1 << 20]),
    spill=st.booleans(),
)
def test_no_plan_changes_the_states(
    tmp_path_factory,
    width,
    samples,
    distinct,
    largest,
    bits_of_partitions,
    divided_bits,
    gathered,
    spill,
):
    parts = [
        draw_layer(seed, count, width, distinct, largest) for seed, count in enumerate(samples)
    ]
    parts.append(layer(np.zeros((1, width), np.uint8)))
    path = tmp_path_factory.mktemp("states") / "run"
    states = write_layers(path, *({"a": part} for part in parts))["a"]
    sizes = {"partition_bits": bits_of_partitions, "gathered_bytes": gathered}
    sizes["divided_bits"] = 0 if spill else divided_bits
    pieces = pieces_of(states, spill=spill, piece_rows=16, block_rows=50, **sizes)
    assert found(pieces) == expected(*parts)


@pytest.mark.parametrize("gathered", [0, 1 << 20])
@pytest.mark.parametrize("width", [3, 8, 16, 40])
def test_more_states_than_a_table_holds_are_counted_in_passes(
    tmp_path, monkeypatch, width, gathered
):
    passes = []

    class Watched(Table):
        def __init__(
            self, words: int, most: int, first: int, hashes: HashRange = ALL_HASHES
        ) -> None:
            passes.append(int(hashes.mask).bit_length())
            super().__init__(words, most, first, hashes)

    rows = layer(numbered_rows(np.arange(3_000) // 2, width), 3)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    monkeypatch.setattr("tsstore.counting.tables.aggregate.Table", Watched)
    pieces = pieces_of(
        states, gathered_bytes=gathered, maximum_slots=16, subpartition_records=1_000
    )
    assert found(pieces) == expected(rows)
    assert max(passes) > 1


def test_states_are_taken_out_of_a_table_a_bounded_number_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 24 * 64)
    rows = layer(numbered_rows(np.arange(3_000), 8))
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    pieces = pieces_of(states)
    assert found(pieces) == expected(rows)
    assert all(1 <= len(piece[0]) <= 64 for piece in pieces)


def test_rows_that_are_lost_are_noticed(tmp_path, monkeypatch):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 8)})["a"]
    monkeypatch.setattr(module.Index, "slices", lambda index, partition: iter(()))
    with pytest.raises(CountingError, match=f"add up to 0, but {states.rows} rows"):
        pieces_of(states)


def test_an_iterator_that_is_closed_leaves_no_scratch(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 8)})["a"]
    plan = replace(layer_plan(states, 1 << 30, LocalScheduler(2), exact=True), spill=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with closing(
        distinct_states(states, plan, LocalScheduler(2), Request(scratch=scratch))
    ) as pieces:
        next(pieces)
        assert len(list(scratch.iterdir())) == 1
    assert list(scratch.iterdir()) == []


def test_the_spare_memory_is_what_idle_threads_would_have(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 8)})["a"]
    plan = replace(
        layer_plan(states, 1 << 30, LocalScheduler(2)), memory=100 * MIB, projected_peak=99 * MIB
    )
    one, three = (spare_bytes(replace(plan, threads=threads)) for threads in (1, 3))
    assert one == 4 * MIB
    assert three == one + 2 * plan.gathered_bytes


def test_files_and_tables_are_counted_by_workers_of_a_cluster(tmp_path, client):
    parts = [draw_layer(seed, 60, 40, distinct=90) for seed in (1, 2)]
    states = write_layers(tmp_path / "run", *({"a": part} for part in parts))["a"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = {"scheduler": client, "scratch": scratch}
    export_states(states, tmp_path / "out.parquet", **options)
    assert read(tmp_path / "out.parquet") == expected(*parts)
    pd.testing.assert_frame_equal(most_frequent(states, 5, **options), most_frequent(states, 5))
    assert list(scratch.iterdir()) == []


def test_scratch_of_no_known_kind_is_an_error_and_leaves_no_file(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 8)})["a"]
    for call in (export_states, most_frequent):
        given = (tmp_path / "out.parquet",) if call is export_states else ()
        with pytest.raises(AnalysisError, match="scratch is ftp://host/x; expected a folder"):
            call(states, *given, scratch="ftp://host/x")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_progress_counts_blocks_and_partitions(tmp_path, scheduler):
    rows = layer(numbered_rows(np.arange(200_000), 8))
    states = write_layers(tmp_path / "run", {"conv_1": rows}, chunk_bytes=1 << 16)["conv_1"]
    seen = []
    most_frequent(states, scheduler=scheduler, progress=lambda *task: seen.append(task))
    names, done, totals = zip(*seen, strict=True)
    assert set(names) == {"conv_1"}
    assert list(done) == list(range(1, len(seen) + 1))
    assert set(totals) == {len(seen)}
    plan = layer_plan(states, choose(scheduler).memory(None), choose(scheduler), exact=True)
    assert len(seen) > 1 << plan.partition_bits > 1


def test_what_makes_no_sense_is_refused_before_anything_is_read(tmp_path):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 50, 2)})["a"]
    with pytest.raises(AnalysisError, match="most is 0; expected"):
        most_frequent(states, 0)
    with pytest.raises(AnalysisError, match="memory is '5 parsecs'"):
        most_frequent(states, memory="5 parsecs")
    with pytest.raises(MemoryTooSmallError, match=r"layer a: .* give at least"):
        export_states(states, tmp_path / "out.zarr", memory=1)
    with pytest.raises(AnalysisError, match="scheduler is 'spark'"):
        export_states(states, tmp_path / "out.zarr", scheduler="spark")
    empty = write_layers(tmp_path / "empty", {"a": draw_layer(0, 2, 1, largest=0)})["a"]
    with pytest.raises(EmptyStoreError, match="no rows"):
        export_states(empty, tmp_path / "out.zarr")
    assert sorted(os.listdir(tmp_path)) == ["empty", "run"]


MEASURED = """
import os, sys
from pathlib import Path

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from peaks import peak_memory

import tsstore
from tsstore.analysis.schedulers import LocalScheduler


def count(run, memory):
    options = {"memory": memory, "scheduler": "threads", "scratch": folder}
    if what == "surprising":
        frame = tsstore.surprising(run, "a", 50, **options)
        return len(frame)
    if what == "most":
        return tsstore.states(run, "a", 50, **options).distinct
    decoded, sort = what.startswith("decoded"), what.startswith("sorted")
    return tsstore.export(run, "a", f"{run}-{what}", decoded=decoded, sort=sort, **options)


folder, memory, what = sys.argv[1:]
# Through files as the large one, so that the loops for these are there.
LocalScheduler.shared_memory = False
count(f"{folder}/tiny", "24MiB" if what.startswith("sorted") else "16MiB")
LocalScheduler.shared_memory = True
baseline = peak_memory()
print(count(f"{folder}/run", memory), peak_memory() - baseline)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Give a folder with a run of 40 MiB, and a tiny one; and how many states the first has."""
    folder = tmp_path_factory.mktemp("large")
    numbers = np.arange(5 << 20, dtype=np.uint64) // np.uint64(8)
    numbers[::2] = np.arange(1 << 40, (1 << 40) + (5 << 19))
    numbers *= np.uint64(0x9E3779B97F4A7C15)
    rows = layer(numbered_rows(numbers, 8), 16)
    write_layers(folder / "run", {"a": rows}, chunk_bytes=1 << 20)
    write_layers(folder / "tiny", {"a": draw_layer(1, 5_000, 8, 9_000)})
    return folder, (5 << 19) + (5 << 17)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peaks of memory are read from /proc"
)
@pytest.mark.parametrize(
    "what",
    [
        "most",
        "packed.parquet",
        "sorted.parquet",
        "surprising",
        pytest.param("packed.zarr", marks=pytest.mark.slow),
        pytest.param("decoded.zarr", marks=pytest.mark.slow),
        pytest.param("decoded.parquet", marks=pytest.mark.slow),
    ],
)
def test_states_of_a_run_larger_than_the_memory_keep_to_it(large, what):
    folder, distinct = large
    # The compiler's memory is not that of an export: the child finds all loops in the cache.
    warm_up(8, exact=True, groups=0, spill=True)
    memory = {"sorted.parquet": 40, "surprising": 48}.get(what, 28)
    done = children.run(MEASURED, folder, f"{memory}MiB", what)
    assert done.returncode == 0, done.stderr
    count, measured = map(int, done.stdout.split())
    assert count == (50 if what == "surprising" else distinct)
    assert measured <= memory * MIB
