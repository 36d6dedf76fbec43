from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.statistics.entropy import entropy
from tsstore.statistics.upper_bound import upper_bound_from_rates


def test_independent_neurons_have_the_sum_of_their_entropies():
    assert upper_bound_from_rates([0.5]) == pytest.approx(1, rel=1e-15)
    assert upper_bound_from_rates([0.5] * 100) == pytest.approx(100, rel=1e-15)
    assert upper_bound_from_rates([0.25, 0.5]) == pytest.approx(2 - 0.75 * math.log2(3) + 1)


def test_neurons_that_never_or_always_fire_add_nothing():
    assert upper_bound_from_rates([0, 1, 0, 1]) == 0
    assert upper_bound_from_rates([0, 0.5, 1]) == pytest.approx(1)


def test_tiny_rates_keep_their_digits():
    rate = 1e-18
    expected = rate * (math.log2(1 / rate) + 1 / math.log(2))
    assert upper_bound_from_rates([rate]) == pytest.approx(expected, rel=1e-14)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60))
def test_no_states_have_more(states):
    neurons = (np.array(states)[:, None] >> np.arange(4)) & 1
    bound = upper_bound_from_rates(neurons.mean(axis=0))
    assert entropy(np.bincount(states)) <= bound + 1e-12
    assert 0 <= bound <= 4 + 1e-12


@pytest.mark.parametrize("rates", [[], [[0.5]], 0.5])
def test_rates_are_one_a_neuron(rates):
    with pytest.raises(ValueError, match="one a neuron: found shape"):
        upper_bound_from_rates(rates)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_is_a_share(rate):
    with pytest.raises(ValueError, match=f"from 0 to 1: found {rate}"):
        upper_bound_from_rates([0.5, rate])
