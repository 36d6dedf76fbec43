from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincinv

from tsstore.statistics.estimators import entropy
from tsstore.statistics.rates import rate_limits, upper_bound_from_rates


def limits(own, lengths, level=0.95):
    """Return the limits of neurons that are on in so many rows of each sample."""
    own, lengths = np.asarray(own).reshape(len(lengths), -1), np.asarray(lengths)
    return rate_limits(
        own.sum(axis=0),
        (own**2).sum(axis=0),
        (own * lengths[:, None]).sum(axis=0),
        (own > 0).sum(axis=0),
        (own == lengths[:, None]).sum(axis=0),
        samples=len(lengths),
        rows=int(lengths.sum()),
        squared_rows=int((lengths**2).sum()),
        level=level,
    )


def test_of_one_row_a_sample_they_are_those_of_clopper_and_pearson():
    own = np.zeros((200, 3), int)
    own[:30, 0] = own[:190, 1] = own[:, 2] = 1
    lower, upper = limits(own, np.ones(200, int))
    for neuron, right in enumerate([30, 190, 200]):
        expected = betaincinv(right, 201 - right, 0.025)
        # The variance of samples is by m − 1: 200 count for 199.
        assert lower[neuron] == pytest.approx(expected, abs=2e-3)
        if right < 200:
            expected = betaincinv(right + 1, 200 - right, 0.975)
            assert upper[neuron] == pytest.approx(expected, abs=2e-3)
    assert upper[2] == 1


def test_a_neuron_that_never_fired_in_ten_thousand_samples():
    lower, upper = limits(np.zeros((10_000, 1), int), np.full(10_000, 576))
    assert lower[0] == 0
    assert upper[0] == pytest.approx(1 - 0.025 ** (1 / 10_000)) == pytest.approx(3.7e-4, rel=0.01)


def test_one_firing_row_says_no_more_than_one_sample():
    own = np.zeros((100, 1), int)
    own[7] = 1
    lower, upper = limits(own, np.full(100, 576))
    assert lower[0] < 1 / 57_600
    assert upper[0] > 0.03, "the next sample may fire in all of its rows"


@pytest.mark.parametrize("kind", ["alike", "clustered", "ragged", "rare"])
def test_they_hold_the_rate_as_often_as_they_say(kind):
    rng = np.random.default_rng(17)
    held = 0
    for _ in range(400):
        samples = 300
        lengths = rng.integers(1, 100, samples) if kind == "ragged" else np.full(samples, 49)
        if kind == "alike":
            share, rate = np.full(samples, 0.3), 0.3
        elif kind == "rare":
            share, rate = 0.9 * (rng.random(samples) < 0.02), 0.018
        else:
            share, rate = rng.beta(0.5, 1.5, samples), 0.25
        lower, upper = limits(rng.binomial(lengths, share), lengths)
        held += bool(lower[0] <= rate <= upper[0])
    assert held / 400 > 0.93


def test_a_few_long_samples_count_as_few():
    rng = np.random.default_rng(17)
    held = 0
    for _ in range(400):
        lengths = np.where(rng.random(64) < 0.05, 100, 2)
        own = np.where(lengths == 100, rng.binomial(lengths, 0.5), 0)
        lower, upper = limits(own, lengths)
        held += bool(lower[0] <= 0.5 * 5 / 6.9 <= upper[0])
    # In 4 of 100 there is no long one.
    assert held / 400 > 0.93


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="level"):
        limits([[1]], [1], level=1.5)
    none = np.zeros(1, int)
    with pytest.raises(ValueError, match="needs rows"):
        rate_limits(none, none, none, none, none, samples=0, rows=0, squared_rows=0)


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
