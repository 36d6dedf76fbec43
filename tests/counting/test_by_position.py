"""Columns of bits by position, against NumPy on decoded states, and counts of whole samples."""

from __future__ import annotations

import numpy as np
from counting_cases import run_as_plain_python
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import by_position, firing
from tsstore.counting.by_position import count_by_position
from tsstore.counting.firing import complements, count_firing


def draw(seed, samples, positions, neurons):
    rng = np.random.default_rng(seed)
    states = rng.random((samples, positions, neurons)) < rng.random((positions, neurons))
    # Of all neurons some are dead or always on, some the same and some the opposite of others.
    states[..., ::5], states[..., 1::5] = False, True
    states[..., 3::5] = states[..., 2::5][..., : states[..., 3::5].shape[2]]
    states[..., 7::10] = ~states[..., 2::10][..., : states[..., 7::10].shape[2]]
    rows = np.packbits(states.reshape(-1, neurons), axis=1, bitorder="little")
    return states, rows


def check(states, found, first, stop):
    """Compare with sums, with what is counted of the samples, and with which columns are equal."""
    firing, at_positions = found
    np.testing.assert_array_equal(at_positions, states.sum(axis=0)[first:stop])
    samples, positions, neurons = states.shape
    rows = np.packbits(states.reshape(-1, neurons), axis=1, bitorder="little")
    other = count_firing(rows, np.full(samples, positions), neurons, [1])
    np.testing.assert_array_equal(firing.totals, other.totals)
    np.testing.assert_array_equal(firing.counts, other.counts)
    columns = np.hstack([states.reshape(-1, neurons), np.ones((samples * positions, 1), bool)])
    equal = (columns[:, None] == columns[..., None]).all(axis=0)
    hashes = firing.hashes
    np.testing.assert_array_equal((hashes[:, None] == hashes[..., None]).all(axis=0), equal)
    opposite = (columns[:, None, :-1] != columns[..., None]).all(axis=0)
    same = (complements(firing)[:, None] == hashes[..., None]).all(axis=0)
    np.testing.assert_array_equal(same, opposite)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    samples=st.sampled_from([0, 1, 63, 64, 65, 150]),
    positions=st.one_of(st.integers(1, 9), st.sampled_from([16, 31])),
    neurons=st.one_of(st.integers(1, 140), st.just(520)),
    data=st.data(),
)
def test_counts_are_sums_over_samples_and_of_samples(seed, samples, positions, neurons, data):
    # Whether columns are equal is asked of each two neurons, here by comparing all of their bits.
    positions = min(positions, 5 if neurons > 140 else 31)
    states, rows = draw(seed, samples, positions, neurons)
    first = data.draw(st.integers(0, positions - 1))
    stop = data.draw(st.integers(first + 1, positions))
    found = count_by_position(rows, positions, neurons, [0], first, stop)
    check(states, found, first, stop)


def test_loops_do_the_same_as_plain_python(monkeypatch):
    states, rows = draw(3, 70, 3, 67)
    run_as_plain_python(monkeypatch, firing, by_position)
    with np.errstate(over="ignore"):
        check(states, count_by_position(rows, 3, 67, [0], 0, 3), 0, 3)
