"""How often neurons fire at each position, against NumPy on decoded states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, layer, write_layers

import tsstore
from tsstore.analysis.execution import reduction
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.neurons import matrix
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import AnalysisError, MemoryTooSmallError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter


def draw(seed, samples, row_bytes, positions):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (samples, positions, row_bytes), np.uint8)
    rows &= rng.integers(0, 256, (positions, row_bytes), np.uint8)
    return layer(rows.reshape(-1, row_bytes), positions)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("maps") / "run"
    for seed, samples in enumerate((70, 1, 90)):
        layers = {"conv": draw(seed, samples, 3, 6), "fc": draw(seed, samples, 11, 1)}
        store = write_layers(path, layers, columns={"label": np.arange(samples) % 3})
    return store


def by_position(states):
    """Return the rates, (positions, neurons)."""
    return states.decode().reshape(states.samples, -1, states.neurons).mean(axis=0)


@pytest.fixture(params=["threads", "through files", "cluster"])
def scheduler(request, monkeypatch):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    monkeypatch.setattr(LocalScheduler, "shared_memory", request.param == "threads")
    return "threads"


def test_maps_are_means_over_samples(run, scheduler):
    for name, own in tsstore.neurons(run, maps=True, scheduler=scheduler).items():
        assert own.map.dims == ("position", "neuron")
        assert own.map.attrs == {"layer": name, "samples": 161}
        np.testing.assert_allclose(own.map.values, by_position(run[name]), rtol=1e-15)
        np.testing.assert_array_equal(own.by_position.sum(axis=0), own.counted.counts[0])


@settings(max_examples=8)
@given(
    st.integers(0, 2**20),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=3, max_size=3),
)
def test_maps_of_any_run(tmp_path_factory, seed, shapes):
    layers = {f"l{n}": draw(seed + n, 67, *shape) for n, shape in enumerate(shapes)}
    store = write_layers(tmp_path_factory.mktemp("any"), layers)
    for name, own in tsstore.neurons(store, maps=True).items():
        np.testing.assert_allclose(own.map.values, by_position(store[name]), rtol=1e-15)


def test_of_a_view_the_samples_that_it_shows_count(run):
    view = run.filter(label=2).select("conv")
    own = tsstore.neurons(view, maps=True)["conv"]
    np.testing.assert_allclose(own.map.values, by_position(view["conv"]), rtol=1e-15)


def test_with_little_memory_some_positions_are_counted_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(reduction, "TASK_BYTES", 0)
    monkeypatch.setattr(reduction, "PIECE_BYTES", 100)
    monkeypatch.setattr(matrix, "LEAST_BLOCK_ROWS", 1500)
    store = write_layers(tmp_path, {"a": draw(0, 20, 2, 300)})
    options = {"scheduler": "synchronous", "maps": True}
    with pytest.raises(MemoryTooSmallError, match="count neurons by position of layer a") as error:
        tsstore.neurons(store, memory="120KiB", **options)
    least = parse_memory(str(error.value).rpartition("memory='")[2].rstrip("'"))
    passes = []
    run_pass = reduction.Reduction.run
    monkeypatch.setattr(
        reduction.Reduction, "run", lambda *given: passes.append(given) or run_pass(*given)
    )
    own = tsstore.neurons(store, memory=2 * least, **options)["a"]
    assert len(passes) > 2
    np.testing.assert_allclose(own.map.values, by_position(store["a"]), rtol=1e-15)


def write(path, positions, **attributes):
    """Write a part of a layer of 8 neurons, with what it says of its positions."""
    is_new, files = not path.exists(), LocalFiles(path, durable=False)
    if is_new:
        create_run(files)
    writer = PartWriter(files, PartAttributes())
    writer.define({"a": LayerAttributes("a", 8, **attributes)}, {"a": positions}, {})
    rows = np.random.default_rng(0).integers(0, 256, (5 * positions, 1), np.uint8)
    writer.append(Batch(5, {"a": LayerBatch(rows, np.full(5, positions))}, {}))
    writer.commit()
    writer.seal()
    return tsstore.open(path)


def test_of_an_image_maps_have_its_axes(tmp_path):
    store = write(tmp_path / "run", 6, position_shape=(2, 3))
    found = tsstore.neurons(store, maps=True)["a"].map
    assert found.dims == ("position_0", "position_1", "neuron")
    assert found.shape == (2, 3, 8)
    np.testing.assert_allclose(found.values.reshape(6, 8), by_position(store["a"]), rtol=1e-15)


def test_where_rows_are_of_other_positions_there_is_no_map(tmp_path, run):
    varying = write_layers(tmp_path / "varying", {"a": draw_layer(0, 20, 1)})
    drawn = write(tmp_path / "drawn", 4, position_shape=(2, 3), sampling={"positions": 4})
    masked = write(tmp_path / "masked", 4, position_shape=(6,))
    write(tmp_path / "turned", 6, position_shape=(2, 3))
    turned = write(tmp_path / "turned", 6, position_shape=(3, 2))
    reasons = {
        "samples have other numbers of positions": varying,
        "some positions of each sample were recorded, drawn at random": drawn,
        "4 of 6 positions of each sample were kept": masked,
        r"positions have the shapes \(2, 3\) and \(3, 2\)": turned,
    }
    for reason, store in reasons.items():
        with pytest.raises(AnalysisError, match=f"layer a has no rates by position: {reason}"):
            tsstore.neurons(store, maps=True)
    with pytest.raises(AnalysisError, match=r"layer conv: positions were not counted; .*maps=True"):
        _ = tsstore.neurons(run, "conv")["conv"].map
    with pytest.raises(AnalysisError, match="count all samples together"):
        tsstore.neurons(run, window=5, maps=True)
