"""All that is counted of a run, against plain NumPy on its decoded states: demo and drawn runs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from counting_cases import number_keys
from helpers import draw_batch, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

import tsstore
from tsstore.demo import mnist
from tsstore.demo.run import LAYERS, capture_demo

IMAGES = 300


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Three layers, ten labels."""
    path = tmp_path_factory.mktemp("demo") / "demo.zarr"
    images, labels = mnist.test_images()
    capture_demo(path, images[:IMAGES], labels[:IMAGES])
    return tsstore.open(path)


class Decoded:
    """A layer's states as NumPy sees them, of some samples: each row, and its sample's number."""

    def __init__(self, states, chosen):
        of_row = np.repeat(np.arange(len(chosen)), states.read_positions())
        kept = chosen[of_row]
        self.on, self.sample = states.decode()[kept], of_row[kept]
        self.samples = len(np.unique(self.sample))
        words = np.zeros((len(self.on), 8 * -(-self.on.shape[1] // 64)), np.uint8)
        packed = np.packbits(self.on, axis=1)
        words[:, : packed.shape[1]] = packed
        self.state = number_keys(words.view(np.uint64))[1]
        self.distinct = self.on[np.unique(self.state, return_index=True)[1]]

    def spectrum(self):
        """Return how many states are in k rows of q samples, by (k, q)."""
        rows = np.bincount(self.state)
        cells = np.unique(self.sample * len(rows) + self.state)
        samples = np.bincount(cells % max(len(rows), 1))
        return Counter(zip(rows.tolist(), samples.tolist(), strict=True))


def check_analysis(analysis, decoded):
    for name, found in analysis.items():
        spectrum = found.spectrum
        columns = zip(spectrum.multiplicity.tolist(), spectrum.incidence.tolist(), strict=True)
        assert dict(zip(columns, spectrum.states.tolist(), strict=True)) == decoded[name].spectrum()
        shares = np.bincount(decoded[name].state) / len(decoded[name].on)
        plug_in = -float((shares * np.log2(shares)).sum())
        assert found.entropy("plug-in") == pytest.approx(plug_in, abs=1e-9)


def check_neurons(neurons, decoded):
    for name, found in neurons.items():
        on, sample = decoded[name].on, decoded[name].sample
        assert np.allclose(found.rate, on.mean(axis=0), rtol=1e-15)
        assert found.dead.tolist() == np.flatnonzero(~on.any(axis=0)).tolist()
        assert found.always_on.tolist() == np.flatnonzero(on.all(axis=0)).tolist()
        fired = np.zeros((sample.max(initial=-1) + 1, on.shape[1]), bool)
        np.logical_or.at(fired, sample, on)
        assert found.samples_fired.tolist() == fired.sum(axis=0).tolist()
        columns = {}
        for neuron, column in enumerate(on.T):
            if column.any() and not column.all():
                columns.setdefault(column.tobytes(), []).append(neuron)
        assert found.identical == [own for own in columns.values() if len(own) > 1]


def check_run(store, by, **options):
    """Check an analysis and neurons, of all samples and by group."""
    column = store.column(by)
    every = {"all": np.ones(len(column), bool)} | {value: column == value for value in set(column)}
    grouped = tsstore.analyze(store, by=by, **options)
    neurons = tsstore.neurons(store, by=by, **options)
    assert set(grouped.values) == set(every) - {"all"}
    for value, chosen in every.items():
        decoded = {name: Decoded(store[name], chosen) for name in store.layers}
        is_whole = value == "all"
        check_analysis(grouped.whole if is_whole else grouped.sel(**{by: value}), decoded)
        check_neurons(neurons.whole if is_whole else neurons.sel(**{by: value}), decoded)


def check_comparison(first, second, **options):
    """Check the novelty, and the bits that differ of samples with the same id."""
    found = tsstore.compare(first, second, efficiency=False, novelty=True, **options)
    for name, overlap in found.overlap.items():
        one, other = (
            Decoded(store[name], np.ones(store.samples, bool)) for store in (first, second)
        )
        known = {row.tobytes() for row in one.distinct}
        is_new = np.array([row.tobytes() not in known for row in other.distinct])
        assert overlap.distinct == (len(one.distinct), len(other.distinct))
        assert overlap.distinct_in_both == np.count_nonzero(~is_new)
        new_rows = is_new[other.state]
        assert overlap.new_rows == pytest.approx(new_rows.mean())
        assert overlap.new_samples == len(np.unique(other.sample[new_rows]))
        if np.count_nonzero(is_new) <= 200:
            new = other.distinct[is_new]
            nearest = [(row != one.distinct).sum(axis=1).min() for row in new]
            assert overlap.distances.tolist() == sorted(nearest)


def test_all_numbers_of_the_demo(demo):
    check_run(demo, "label")
    maps = tsstore.neurons(demo, maps=True, joint=True)
    for name in LAYERS:
        on = demo[name].decode()
        assert np.array_equal(maps[name].joint.values, on.T.astype(int) @ on.astype(int))
        by_position = on.reshape(IMAGES, -1, on.shape[1]).mean(axis=0)
        assert np.allclose(maps[name].map.values.reshape(by_position.shape), by_position)
    check_comparison(demo.filter(label=3), demo.filter(label=5))


@settings(max_examples=12)
@given(
    st.integers(0, 2**20),
    st.lists(st.integers(1, 140), min_size=3, max_size=3),
    st.lists(st.integers(0, 4), min_size=4, max_size=40),
)
def test_all_numbers_of_any_run(tmp_path_factory, seed, widths, positions):
    """Three layers, one of which has varying positions; states of few kinds come again."""
    rng, samples = np.random.default_rng(seed), len(positions)
    layers = dict(zip("abc", widths, strict=True))
    # Each label has rows.
    positions[:2] = [1, 2]
    columns = {"id": np.arange(samples), "label": np.arange(samples) % 2}
    shapes = {"a": positions, "b": 3}
    batch = draw_batch(rng, samples, neurons=layers, positions=shapes, columns=columns)
    for own in batch.layers.values():
        own.rows[:] = own.rows[rng.integers(0, max(len(own.rows) // 3, 1), len(own.rows))]
    path = tmp_path_factory.mktemp("any") / "run.zarr"
    write_run(path, [batch], neurons=layers)
    store, options = tsstore.open(path), {"scheduler": "synchronous", "memory": "256MiB"}
    check_run(store, "label", **options)
    check_comparison(store.filter(label=0), store.filter(label=1), **options)
