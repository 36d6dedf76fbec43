"""States, the samples behind them and the surprising ones: the demo's, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from state_tables import export_states

import tsstore
from tsstore.demo import mnist
from tsstore.demo.run import LAYERS, capture_demo
from tsstore.store.reading.layer import LayerStates

IMAGES = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.zarr"
    images, labels = mnist.test_images()
    capture_demo(path, images[:IMAGES], labels[:IMAGES])
    return tsstore.open(path)


def counted(states: LayerStates):
    """Return distinct rows, how often each is, and which of them each row is."""
    rows = states[:]
    items = rows.view(f"V{rows.shape[1]}").reshape(-1)
    distinct, of_row, times = np.unique(items, return_inverse=True, return_counts=True)
    return distinct.view(np.uint8).reshape(-1, rows.shape[1]), times, of_row


@pytest.mark.parametrize("name", LAYERS)
def test_the_most_frequent_states_are_numpys(store, name):
    distinct, times, _ = counted(store[name])
    found = tsstore.states(store, name, 5)
    assert found.distinct == len(distinct)
    assert found.multiplicity.tolist() == np.sort(times)[::-1][: len(found)].tolist()
    assert len(found) or times.max() == 1
    for row, multiplicity in zip(found.state, found.multiplicity, strict=True):
        assert times[(distinct == row).all(axis=1)] == [multiplicity]


@pytest.mark.parametrize("name", LAYERS)
def test_samples_and_positions_of_a_state_are_numpys(store, name):
    states, frame = store[name], store.samples_frame()
    distinct, times, of_row = counted(states)
    for state in np.argsort(times)[[0, len(times) // 2, -1]]:
        behind = states.samples_of(distinct[state])
        sample, position = np.divmod(np.flatnonzero(of_row == state), states.positions)
        assert behind["position"].tolist() == position.tolist()
        assert behind[["id", "label", "prediction"]].equals(frame.iloc[sample])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore::tsstore.errors.TsstoreWarning")
def test_bits_of_all_samples_are_numpys(store, name):
    states = store[name]
    _, all_rows, of_row = counted(states)
    n, r, m = states.rows, states.positions, states.samples
    cell, here = np.unique(of_row * m + np.arange(n) // r, return_counts=True)
    state, sample = np.divmod(cell, m)
    q = np.bincount(state)
    once, twice = (q == 1).sum(), (q == 2).sum()
    unseen = (m - 1) / m * (once**2 / (2 * twice) if twice else once * (once - 1) / 2)
    unseen = max(1, min(unseen, 2.0**states.neurons - len(q)))
    mass = all_rows[q == 1].sum() / n
    elsewhere = all_rows[state] - here
    with np.errstate(divide="ignore"):
        seen = -np.log2((1 - mass) * elsewhere / (n - r))
    bits = np.where(elsewhere > 0, seen, -np.log2(mass / unseen))
    wanted = np.bincount(sample, here * bits, m) / r
    frame = tsstore.surprising(store, name, m)
    assert len(frame) == m
    assert frame["bits"].to_numpy() == pytest.approx(wanted[frame["id"].to_numpy()], abs=1e-8)
    assert frame["bits"].is_monotonic_decreasing


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # Of dask, by pandas that is newer.
def test_dask_reads_the_distinct_states(store, tmp_path):
    frames = pytest.importorskip("dask.dataframe")
    out = tmp_path / "states.parquet"
    distinct = export_states(store["conv_1"], out, sort=True)
    frame = frames.read_parquet(out)
    assert len(frame) == distinct
    assert int(frame["multiplicity"].sum().compute()) == store["conv_1"].rows


def test_rates_by_label_follow_from_the_dataset(store):
    dataset = store.to_xarray()
    rates = dataset["conv_3"].groupby("label").mean("sample").compute()
    states, label = store["conv_3"].decode(), store.column("label")
    for own in np.unique(label):
        assert rates.sel(label=own).values == pytest.approx(states[label == own].mean(axis=0))
