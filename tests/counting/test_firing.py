"""Columns of bits, counted in tiles, against NumPy on decoded states."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from counting_cases import run_as_plain_python
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import firing as module
from tsstore.counting.firing import add_firing, complements, count_firing

WORD = 2**64


def draw(seed: int, neurons: int, positions: np.ndarray) -> np.ndarray:
    """Draw states (rows, neurons): some neurons are constant, equal, or opposite to the first."""
    rng = np.random.default_rng(seed)
    states = rng.random((positions.sum(), neurons)) < rng.random(neurons)
    kinds = [states[:, 0], ~states[:, 0], np.zeros(len(states), bool), np.ones(len(states), bool)]
    for neuron, kind in zip(range(1, neurons), kinds, strict=False):
        states[:, neuron] = kind
    return states


def pack(states: np.ndarray) -> np.ndarray:
    return np.packbits(states, axis=1, bitorder="little")


def numbers(hashes: np.ndarray) -> list[int]:
    return [int(high) * WORD + int(low) for high, low in hashes]


def check(counted, states: np.ndarray, positions: np.ndarray) -> None:
    samples = np.repeat(np.arange(len(positions)), positions)
    own = np.zeros((len(positions), states.shape[1]), np.int64)
    np.add.at(own, samples, states)
    own, lengths = own[positions > 0], positions[positions > 0]
    assert counted.samples == len(lengths)
    assert (counted.rows, counted.squared_rows) == (lengths.sum(), (lengths**2).sum())
    expected = own, own**2, own * lengths[:, None], own > 0, own == lengths[:, None]
    np.testing.assert_array_equal(counted.counts, [each.sum(axis=0) for each in expected])
    hashes = numbers(counted.hashes[:-1])
    columns = [column.tobytes() for column in states.T]
    for one, column in zip(hashes, columns, strict=True):
        same = [other == column for other in columns]
        assert [other == one for other in hashes] == same
    opposite = [column.tobytes() for column in ~states.T]
    for one, column in zip(numbers(complements(counted)), opposite, strict=True):
        assert [other == one for other in hashes] == [other == column for other in columns]


lengths = st.one_of(
    st.lists(st.sampled_from([0, 1, 2, 5, 63, 64, 65, 130]), min_size=1, max_size=9),
    st.integers(1, 140).map(lambda samples: [1] * samples),
).filter(any)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 140), lengths)
def test_counts_are_those_of_decoded_states(seed, neurons, lengths):
    positions = np.array(lengths)
    states = draw(seed, neurons, positions)
    check(count_firing(pack(states), positions, neurons, [seed]), states, positions)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 70), lengths, st.integers(1, 8))
def test_what_is_counted_in_pieces_adds_up(seed, neurons, lengths, pieces):
    positions = np.array(lengths)
    states = draw(seed, neurons, positions)
    ends = np.concatenate([[0], positions.cumsum()])
    edges = np.linspace(0, len(positions), pieces + 1).astype(int)
    counted = add_firing(
        count_firing(
            pack(states[ends[first] : ends[last]]), positions[first:last], neurons, [seed, first]
        )
        for first, last in pairwise(edges)
        if ends[first] < ends[last]
    )
    check(counted, states, positions)


@pytest.mark.parametrize("lengths", [[1] * 70, [3, 64, 0, 66]])
def test_loops_do_the_same_as_plain_python(monkeypatch, lengths):
    positions = np.array(lengths)
    states = draw(5, 67, positions)
    compiled = count_firing(pack(states), positions, 67, [1])

    def multiply_add(high, low, key_high, key_low, word):
        total = int(high) * WORD + int(low) + (int(key_high) * WORD + int(key_low)) * int(word)
        return np.uint64(total % WORD**2 // WORD), np.uint64(total % WORD)

    run_as_plain_python(monkeypatch, module)
    monkeypatch.setattr(module, "multiply_add", multiply_add)
    with np.errstate(over="ignore"):
        plain = count_firing(pack(states), positions, 67, [1])
    check(plain, states, positions)
    np.testing.assert_array_equal(plain.hashes, compiled.hashes)


def test_rows_that_do_not_begin_at_a_multiple_of_eight_bytes():
    states = draw(3, 64, np.array([100]))
    memory = np.empty(801, np.uint8)
    rows = memory[1:].reshape(100, 8)
    rows[:] = pack(states)
    check(count_firing(rows, np.array([100]), 64, [0]), states, np.array([100]))
