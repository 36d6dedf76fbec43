from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import states_spec
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.reading.store import open_store
from tsstore.store.writing.layers import LayerWriter, chunk_rows

NEURONS = {"a": 3}


@given(
    row_bytes=st.integers(1, 300),
    positions=st.integers(0, 300),
    chunk_bytes=st.integers(1, 1 << 40),
)
def test_a_chunk_holds_whole_samples_where_one_fits(row_bytes, positions, chunk_bytes):
    rows = chunk_rows(row_bytes, positions, chunk_bytes)
    size = min(chunk_bytes, 256 << 20)
    assert rows == 1 or 0 < rows * row_bytes <= size
    if 0 < positions * row_bytes <= size:
        assert rows % positions == 0
        assert (rows + positions) * row_bytes > size


def test_sizes_of_chunks():
    assert chunk_rows(row_bytes=2, positions=7, chunk_bytes=100) == 49
    assert chunk_rows(row_bytes=2, positions=60, chunk_bytes=100) == 50
    assert chunk_rows(row_bytes=2, positions=0, chunk_bytes=100) == 50
    assert chunk_rows(row_bytes=200, positions=3, chunk_bytes=100) == 1
    assert chunk_rows(row_bytes=1, positions=1, chunk_bytes=1 << 40) == 256 << 20


@settings(deadline=None, max_examples=50)
@given(batches=st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=5))
def test_positions_come_back_and_are_stored_where_they_vary_only(tmp_path_factory, batches):
    files = LocalFiles(tmp_path_factory.mktemp("store"), durable=False)
    spec = states_spec(1, 8, "lz4", 5)
    layer = LayerWriter(files, "part", "0000-a", LayerAttributes("a", 3), spec)
    samples = 0
    for positions in batches:
        batch = draw_batch(
            np.random.default_rng(0), len(positions), neurons=NEURONS, positions={"a": positions}
        )
        layer.append(batch.layers["a"], samples)
        samples += len(positions)
    every = [count for positions in batches for count in positions]
    commit = layer.flush()
    assert commit.states.rows == sum(every)
    assert (commit.positions is not None) == (len(set(every)) > 1)
    assert files.exists("part/layers/0000-a/positions") == (len(set(every)) > 1)
    if commit.positions is not None:
        assert commit.positions.rows == samples


@pytest.mark.parametrize("early", [0, 1, 8, 41])
def test_positions_that_begin_late_reach_back_over_all_samples(tmp_path, monkeypatch, early):
    monkeypatch.setattr("tsstore.store.format.arrays.COLUMN_CHUNK_ROWS", 8)
    rng = np.random.default_rng(0)
    batches = [
        draw_batch(rng, early, neurons=NEURONS, positions={"a": 2}),
        draw_batch(rng, 3, neurons=NEURONS, positions={"a": [2, 0, 5]}),
    ]
    write_run(tmp_path, batches, neurons=NEURONS)
    assert open_store(tmp_path)["a"].read_positions().tolist() == [2] * early + [2, 0, 5]
