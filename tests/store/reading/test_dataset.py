from __future__ import annotations

import sys

import numpy as np
import pytest
from helpers import draw_batch, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

import tsstore
from tsstore.errors import StoreError
from tsstore.store.reading import dataset as module


def columns_of(samples):
    labels = np.array([f"n{n % 3}" for n in range(samples)], object)
    return {"id": np.arange(samples), "label": labels, "step": np.arange(samples) % 2}


@settings(max_examples=10, deadline=None)
@given(
    positions=st.sampled_from([1, 4]),
    samples=st.lists(st.integers(1, 20), min_size=1, max_size=2),
    chunk=st.sampled_from([1, 50, 1 << 20]),
    varying=st.booleans(),
)
def test_layers_are_what_is_decoded(tmp_path_factory, positions, samples, chunk, varying):
    path = tmp_path_factory.mktemp("dataset") / "run"
    rng = np.random.default_rng(1)
    for count in samples:
        own = rng.integers(0, 5, count).tolist() if varying else positions
        batch = draw_batch(rng, count, positions={"conv_1": own}, columns=columns_of(count))
        write_run(path, [batch])
    store = tsstore.open(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", chunk)
        dataset = store.to_xarray()
    assert set(dataset.data_vars) >= {"conv_1", "fc.2"}
    for name, states in store.items():
        array, decoded = dataset[name], states.decode()
        assert array.chunks is not None
        assert array.dtype == bool
        if states.positions is None:
            assert array.dims == (f"{name}_row", f"{name}_neuron")
            assert dataset[f"{name}_rows"].values.tolist() == states.read_positions().tolist()
            assert np.array_equal(array, decoded)
        else:
            shape = (states.samples, *([states.positions] if states.positions > 1 else []))
            assert array.shape == (*shape, states.neurons)
            assert array.dims[0] == "sample"
            assert np.array_equal(np.asarray(array).reshape(decoded.shape), decoded)
            assert np.array_equal(array[1:3, ..., 2], np.asarray(array)[1:3, ..., 2])
    frame = store.samples_frame()
    assert dataset["id"].values.tolist() == frame["id"].tolist()
    assert dataset["label"].values.tolist() == frame["label"].tolist()
    assert dataset["step (recorded)"].values.tolist() == frame["step"].tolist()
    assert dataset["part"].values.tolist() == frame.index.get_level_values("part").tolist()
    assert dataset.attrs["run_id"] == store.run.run_id


def test_positions_have_the_axes_that_were_captured(tmp_path):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU())
    with torch.no_grad(), tsstore.capture(model, tmp_path / "run", layers=["ReLU"]):
        out = model(torch.randn(7, 1, 6, 5))
    array = tsstore.open(tmp_path / "run").to_xarray()["1"]
    assert array.dims == ("sample", "1_position_0", "1_position_1", "1_neuron")
    assert np.array_equal(array, (out > 0).movedim(1, -1).numpy())


def test_a_view_is_shown_as_it_is(tmp_path):
    batch = draw_batch(np.random.default_rng(1), 30, columns=columns_of(30))
    write_run(tmp_path / "run", [batch, batch])
    store = tsstore.open(tmp_path / "run")
    view = store.filter(label="n1").select("fc.2")
    dataset = view.to_xarray()
    assert set(dataset.data_vars) == {"fc.2"}
    assert np.array_equal(dataset["fc.2"], view["fc.2"].decode())
    assert set(dataset["label"].values) == {"n1"}
    by_label = store.to_xarray()["fc.2"].groupby("label").mean().sel(label="n1")
    assert np.allclose(
        by_label.mean("sample") if "sample" in by_label.dims else by_label,
        view["fc.2"].decode().mean(axis=0),
    )


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    batch = draw_batch(np.random.default_rng(1), 30)
    write_run(tmp_path / "run", [batch])
    chunk = next((tmp_path / "run").glob("*/layers/*/states/c/0/0"))
    dataset = tsstore.open(tmp_path / "run").to_xarray()
    chunk.write_bytes(b"x")
    with pytest.raises(tsstore.TsstoreError):
        dataset.compute()


def test_without_xarray_it_is_said_what_to_install(tmp_path, monkeypatch):
    write_run(tmp_path / "run", [draw_batch(np.random.default_rng(1), 30)])
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(StoreError, match=r"install tsstore\[xarray\]"):
        tsstore.open(tmp_path / "run").to_xarray()


@pytest.mark.parametrize("positions", [1, 4])
@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
def test_what_is_taken_of_samples_is_read(tmp_path, monkeypatch, positions, chunk):
    rng = np.random.default_rng(1)
    write_run(tmp_path / "run", [draw_batch(rng, 20, positions={"conv_1": positions})])
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    array = tsstore.open(tmp_path / "run").to_xarray()["conv_1"]
    whole = array.values
    for key in (3, -1, slice(None, None, 3), slice(4, 15, 7), slice(None, None, -2), [9, 2], []):
        assert np.array_equal(array[key].values, whole[key])
        assert np.array_equal(array[key, ..., 2].values, whole[key][..., 2])
