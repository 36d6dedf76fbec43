from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers import draw_batch, rows_of, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.errors import ColumnsError, StoreError
from tsstore.store.chunked.writer import Compression
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import states_spec
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.reading.store import open_store
from tsstore.store.writing.batch import (
    BUFFER_BYTES,
    CHUNK_BYTES,
    MIN_CHUNK_BYTES,
    LayerBatch,
    LayerWriter,
    PartArrays,
    chunk_rows,
)

LAYERS = {"conv_1": LayerAttributes("conv_1", 6), "fc.2": LayerAttributes("fc.2", 13)}


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def arrays(tmp_path):
    arrays = PartArrays(LocalFiles(tmp_path), "part", Compression(), 64)
    assert not arrays
    assert not arrays.defined
    arrays.define(LAYERS, dict.fromkeys(LAYERS, 1), {"label": "int64"})
    return arrays


def test_all_layers_and_columns_grow_together(arrays, rng):
    assert arrays
    assert arrays.defined
    for _ in range(3):
        arrays.append(draw_batch(rng, 5, columns={"label": np.arange(5)}))
    assert (arrays.batches, arrays.samples) == (3, 15)
    assert [commit.states.rows for commit in arrays.flush_layers().values()] == [15, 15]
    assert list(arrays.flush_layers()) == ["0000-conv_1", "0001-fc.2"]
    assert arrays.flush_columns()["label"].rows == 15


def test_columns_are_those_of_the_first_definition(arrays, rng):
    arrays.append(draw_batch(rng, 2, columns={"label": np.arange(2)}))
    arrays.define({"late": LayerAttributes("late", 3)}, {"late": 1}, {"more": "int64"})
    widths = {"conv_1": 6, "fc.2": 13, "late": 3}
    arrays.append(draw_batch(rng, 4, neurons=widths, columns={"label": np.arange(4)}))
    assert arrays.flush_layers()["0002-late"].positions.rows == 6
    assert list(arrays.flush_columns()) == ["label"]


@pytest.mark.parametrize(("neurons", "columns", "error"), [
    ({"conv_1": 6}, {"label": [1, 2]}, StoreError),
    ({"conv_1": 6, "fc.2": 13, "more": 1}, {"label": [1, 2]}, StoreError),
    ({"conv_1": 6, "fc.2": 17}, {"label": [1, 2]}, StoreError),
    ({"conv_1": 6, "fc.2": 13}, {}, ColumnsError),
    ({"conv_1": 6, "fc.2": 13}, {"label": [1, 2, 3]}, ColumnsError),
])  # fmt: skip
def test_a_batch_that_does_not_fit_is_refused_before_any_layer_takes_it(
    arrays, rng, neurons, columns, error
):
    with pytest.raises(error, match="expected"):
        arrays.append(draw_batch(rng, 2, neurons=neurons, columns=columns))
    assert arrays.check_whole() is None
    assert {commit.states.rows for commit in arrays.flush_layers().values()} == {0}


def test_after_a_batch_that_was_taken_by_half_none_is_taken(arrays, rng, monkeypatch):
    batch = draw_batch(rng, 2, columns={"label": np.arange(2)})
    append = LayerWriter.append

    def fail_later(layer, *arguments):
        if layer.directory == "0001-fc.2":
            raise TypeError
        append(layer, *arguments)

    monkeypatch.setattr(LayerWriter, "append", fail_later)
    with pytest.raises(TypeError):
        arrays.append(batch)
    monkeypatch.undo()
    for action in (arrays.check_whole, lambda: arrays.append(batch)):
        with pytest.raises(StoreError, match="part: a batch could not be written whole"):
            action()
    assert (arrays.batches, arrays.samples) == (0, 0)


def test_what_is_released_holds_no_chunks(tmp_path, rng):
    arrays = PartArrays(LocalFiles(tmp_path), "part", Compression())
    tracemalloc.start()
    try:
        arrays.define(LAYERS, dict.fromkeys(LAYERS, 1), {"label": "int64", "name": "string"})
        arrays.append(draw_batch(rng, 2, columns={"label": [1, 2], "name": ["a", "b"]}))
        assert tracemalloc.get_traced_memory()[0] > 2 * CHUNK_BYTES
        arrays.release()
        assert tracemalloc.get_traced_memory()[0] < 1 << 18
    finally:
        tracemalloc.stop()
    assert (arrays.batches, arrays.samples) == (1, 2)


def test_many_layers_have_smaller_chunks(tmp_path, rng):
    many = {f"layer.{index}": 8 for index in range(300)}
    for name, neurons in (("few", {"a": 8}), ("many", many)):
        batch = draw_batch(rng, 1, neurons=neurons)
        write_run(tmp_path / name, [batch], neurons=neurons, chunk_bytes=None)
        first = next(iter(neurons))
        np.testing.assert_array_equal(
            open_store(tmp_path / name)[first][:], rows_of([batch], first)
        )
    sizes = [
        next(iter(open_store(tmp_path / name).parts[0].layers.values())).states.spec.chunk_bytes
        for name in ("few", "many")
    ]
    assert sizes[0] == CHUNK_BYTES
    assert MIN_CHUNK_BYTES <= sizes[1] == BUFFER_BYTES // 300


# One layer.

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
        counted = batch.layers["a"]
        same = len(set(positions)) == 1
        given = LayerBatch(counted.rows, positions[0]) if same else counted
        layer.append(given, len(positions), samples)
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
