"""Columns of bits, counted in tiles, against NumPy on decoded states."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from counting_cases import run_as_plain_python
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import firing as module
from tsstore.counting.firing import add_firing, complements, count_firing, count_firing_by_group


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


def numbers(hashes: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(*hashes.tolist(), strict=True))


def check(counted, states: np.ndarray, positions: np.ndarray) -> None:
    samples = np.repeat(np.arange(len(positions)), positions)
    own = np.zeros((len(positions), states.shape[1]), np.int64)
    np.add.at(own, samples, states)
    own, lengths = own[positions > 0], positions[positions > 0]
    assert counted.samples == len(lengths)
    assert (counted.rows, counted.squared_rows) == (lengths.sum(), (lengths**2).sum())
    expected = own, own**2, own * lengths[:, None], own > 0, own == lengths[:, None]
    np.testing.assert_array_equal(counted.counts, [each.sum(axis=0) for each in expected])
    hashes = numbers(counted.hashes[:, :-1])
    columns = [column.tobytes() for column in states.T]
    for one, column in zip(hashes, columns, strict=True):
        same = [other == column for other in columns]
        assert [other == one for other in hashes] == same
    opposite = [column.tobytes() for column in ~states.T]
    for one, column in zip(numbers(complements(counted)), opposite, strict=True):
        assert [other == one for other in hashes] == [other == column for other in columns]


NEURONS = st.integers(1, 140) | st.sampled_from([1, 7, 8, 9, 63, 64, 65, 300])


lengths = st.one_of(
    st.lists(st.sampled_from([0, 1, 2, 5, 63, 64, 65, 130]), min_size=1, max_size=9),
    st.lists(st.integers(0, 8), min_size=1, max_size=60),
    st.tuples(st.integers(1, 12), st.integers(1, 140)).map(lambda pair: [pair[0]] * pair[1]),
).filter(any)


@settings(max_examples=60)
@given(st.integers(0, 2**32), NEURONS, lengths)
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


@pytest.mark.parametrize("lengths", [[1] * 70, [3, 64, 0, 66], [4] * 20, [3, 0, 8, 1] * 8])
def test_loops_do_the_same_as_plain_python(monkeypatch, lengths):
    positions = np.array(lengths)
    states = draw(5, 67, positions)
    compiled = count_firing(pack(states), positions, 67, [1])
    run_as_plain_python(monkeypatch, module)
    with np.errstate(over="ignore"):
        plain = count_firing(pack(states), positions, 67, [1])
    check(plain, states, positions)
    np.testing.assert_array_equal(plain.hashes, compiled.hashes)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 70), lengths, st.integers(1, 4))
def test_groups_are_counted_as_if_there_were_no_others(seed, neurons, lengths, groups):
    positions = np.array(lengths)
    states = draw(seed, neurons, positions)
    group = np.random.default_rng(seed).integers(-1, groups + 1, len(positions)).astype(np.int16)
    found = count_firing_by_group(
        pack(states), positions, neurons, [seed], group, range(-1, groups - 1)
    )
    assert len(found.totals) == groups
    for number in range(-1, groups - 1):
        counted = found.of(number + 1)
        of_group = np.repeat(group == number, positions)
        if of_group.any():
            check(counted, states[of_group], positions[group == number])
        else:
            assert counted.samples == counted.rows == 0
            assert not counted.counts.any()


def test_rows_that_do_not_begin_at_a_multiple_of_eight_bytes():
    states = draw(3, 64, np.array([100]))
    memory = np.empty(801, np.uint8)
    rows = memory[1:].reshape(100, 8)
    rows[:] = pack(states)
    check(count_firing(rows, np.array([100]), 64, [0]), states, np.array([100]))
