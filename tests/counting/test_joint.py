"""Pairs of columns of bits, counted in tiles, against a product of matrices."""

from __future__ import annotations

import numpy as np
import pytest
from counting_cases import run_as_plain_python
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import firing, joint
from tsstore.counting.joint import count_joint, transposed


def draw(seed, rows, neurons):
    rng = np.random.default_rng(seed)
    states = rng.random((rows, neurons)) < rng.random(neurons)
    return states, np.packbits(states, axis=1, bitorder="little")


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 140), st.data())
def test_counts_are_a_product_of_matrices(seed, rows, neurons, data):
    states, packed = draw(seed, rows, neurons)
    first = data.draw(st.integers(0, neurons - 1))
    stop = data.draw(st.integers(first + 1, neurons))
    expected = np.triu(states.T.astype(np.int64) @ states)[first:stop]
    np.testing.assert_array_equal(count_joint(packed, neurons, first, stop), expected)


def test_more_rows_than_a_tile_of_words():
    states, packed = draw(1, 64 * 64 + 65, 9)
    expected = np.triu(states.T.astype(np.int64) @ states)
    np.testing.assert_array_equal(count_joint(packed, 9, 0, 9), expected)


def test_columns_are_bits_of_words():
    states, packed = draw(2, 130, 11)
    columns = transposed(packed)
    assert columns.shape == (64, 3)
    bits = np.unpackbits(columns.view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits[:11, :130].T, states)
    assert not bits[11:].any()
    assert not bits[:, 130:].any()


@pytest.mark.parametrize(("rows", "neurons"), [(70, 67), (1, 1), (64, 8)])
def test_loops_do_the_same_as_plain_python(monkeypatch, rows, neurons):
    _, packed = draw(3, rows, neurons)
    compiled = count_joint(packed, neurons, 0, neurons)
    run_as_plain_python(monkeypatch, firing, joint)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(count_joint(packed, neurons, 0, neurons), compiled)
