from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from state_tables import WIDTHS, Found, expected, table
from synthetic import draw_layer, layer, numbered_rows, write_layers

from tsstore.analysis.planning.layer_plan import layer_plan
from tsstore.analysis.request import Request
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.analysis.states import distinct as module
from tsstore.analysis.states.distinct import Piece, distinct_states, spare_bytes
from tsstore.counting.tables.plain import Table
from tsstore.errors import CountingError
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
    bits_of_partitions=st.integers(0, 5),
    gathered=st.sampled_from([0, 300, 1 << 20]),
    spill=st.booleans(),
)
def test_no_plan_changes_the_states(
    tmp_path_factory, width, samples, distinct, largest, bits_of_partitions, gathered, spill
):
    parts = [
        draw_layer(seed, count, width, distinct, largest) for seed, count in enumerate(samples)
    ]
    parts.append(layer(np.zeros((1, width), np.uint8)))
    path = tmp_path_factory.mktemp("states") / "run"
    states = write_layers(path, *({"a": part} for part in parts))["a"]
    sizes = {"partition_bits": bits_of_partitions, "gathered_bytes": gathered}
    pieces = pieces_of(states, spill=spill, piece_rows=16, block_rows=50, **sizes)
    assert found(pieces) == expected(*parts)


@pytest.mark.parametrize("gathered", [0, 1 << 20])
@pytest.mark.parametrize("width", [3, 8, 16, 40])
def test_more_states_than_a_table_holds_are_counted_in_passes(
    tmp_path, monkeypatch, width, gathered
):
    passes = []

    class Watched(Table):
        def __init__(self, *sizes: int, **share: int) -> None:
            passes.append(share["pass_bits"])
            super().__init__(*sizes, **share)

    rows = layer(numbered_rows(np.arange(3_000) // 2, width), 3)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    monkeypatch.setattr("tsstore.counting.tables.plain.Table", Watched)
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
