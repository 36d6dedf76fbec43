"""Columns of bits by position, against NumPy on decoded states."""

from __future__ import annotations

import numpy as np
from counting_cases import run_as_plain_python
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import by_position, firing
from tsstore.counting.by_position import count_by_position


def draw(seed, samples, positions, neurons):
    rng = np.random.default_rng(seed)
    states = rng.random((samples, positions, neurons)) < rng.random((positions, neurons))
    rows = np.packbits(states.reshape(-1, neurons), axis=1, bitorder="little")
    return states, rows


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    samples=st.sampled_from([0, 1, 63, 64, 65, 150]),
    positions=st.integers(1, 9),
    neurons=st.integers(1, 140),
    data=st.data(),
)
def test_counts_are_sums_over_samples(seed, samples, positions, neurons, data):
    states, rows = draw(seed, samples, positions, neurons)
    first = data.draw(st.integers(0, positions - 1))
    stop = data.draw(st.integers(first + 1, positions))
    found = count_by_position(rows, positions, neurons, first, stop)
    np.testing.assert_array_equal(found, states.sum(axis=0)[first:stop])


def test_loops_do_the_same_as_plain_python(monkeypatch):
    states, rows = draw(3, 70, 3, 67)
    run_as_plain_python(monkeypatch, firing, by_position)
    with np.errstate(over="ignore"):
        found = count_by_position(rows, 3, 67, 0, 3)
    np.testing.assert_array_equal(found, states.sum(axis=0))
