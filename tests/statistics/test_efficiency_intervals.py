from __future__ import annotations

import math

import numpy as np
import pytest
from sampling import Counted, clumped_rows, independent_rows, shannon_entropy, zipf

from tsstore.statistics.efficiency import aIQ, aiq_interval, network_interval
from tsstore.statistics.intervals import Jackknifed, jackknifed_entropy
from tsstore.statistics.rates import Answers

FIRST = Jackknifed(4.0, 3.5, 5.0, np.array([3.9, 4.1, 4.0]), np.array([10, 12, 9]))
SECOND = Jackknifed(1.0, 1.0, 1.2, np.array([1.1, 0.9, 1.0]), np.array([10, 12, 9]))
ANSWERS = Answers(np.array([8, 9, 9]), np.array([10, 12, 9]))


def test_of_a_single_layer_it_is_that_of_its_entropy_by_the_neurons() -> None:
    network, entropy = network_interval([FIRST], [8]), FIRST.interval()
    assert network.estimate == pytest.approx(0.5)
    assert network.lower == pytest.approx(entropy.lower / 8, rel=1e-12)
    assert network.upper == pytest.approx(entropy.upper / 8, rel=1e-12)
    assert network.standard_error == pytest.approx(entropy.standard_error / 8, rel=1e-12)


def test_the_whole_mean_is_computed_without_each_group() -> None:
    found = network_interval([FIRST, SECOND], [8, 2])
    without = np.sqrt(FIRST.without / 8 * SECOND.without / 2)
    error = math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert found.estimate == pytest.approx(math.sqrt(4 / 8 * 1 / 2))
    assert found.standard_error == pytest.approx(error, rel=1e-12)
    margin = 4.302653 * error
    assert found.lower == pytest.approx(math.sqrt(3.5 / 8 * 1 / 2) - margin, rel=1e-5)
    assert found.upper == pytest.approx(math.sqrt(5 / 8 * 1.2 / 2) + margin, rel=1e-5)
    # What one layer gains without a group, the other loses: together they hardly scatter.
    assert found.standard_error < network_interval([SECOND], [2]).standard_error / 2


def test_what_samples_missed_is_missing_from_all_layers() -> None:
    rng, samples = np.random.default_rng(3), 300
    group = rng.integers(0, 32, samples)
    counted = [Counted.of(independent_rows(rng, zipf(9), samples), group) for _ in range(2)]
    entropies = [jackknifed_entropy(c.spectrum, samples, c.changes, neurons=20) for c in counted]
    network = network_interval(entropies, [20, 20])
    reaches = [entropy.reach() for entropy in entropies]
    highest, most = (
        math.sqrt(math.prod(getattr(reach, name) / 20 for reach in reaches))
        for name in ("highest", "most")
    )
    margin = 2.039513 * network.standard_error
    expected = highest + math.hypot(margin, most - highest)
    assert network.upper == pytest.approx(expected, rel=1e-5)
    if_rare = network_interval(entropies, [20, 20], unseen_like_rare=True)
    assert network.lower < if_rare.lower < if_rare.upper < network.upper
    quotient = aiq_interval(entropies, [20, 20], 0.9)
    assert quotient.upper > aiq_interval(entropies, [20, 20], 0.9, unseen_like_rare=True).upper


def test_accuracy_loses_the_same_groups() -> None:
    found = aiq_interval([FIRST], [8], ANSWERS, weight=1)
    accuracy = [18 / 21, 17 / 19, 17 / 22]
    without = np.sqrt(np.array(accuracy) * FIRST.without / 8)
    error = math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert found.estimate == pytest.approx(aIQ(0.5, 26 / 31, 1), rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-12)


def test_an_accuracy_known_from_elsewhere_is_exact() -> None:
    found = aiq_interval([FIRST], [8], 0.81, weight=2)
    without = np.cbrt(0.81**2 * FIRST.without / 8)
    error = math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert found.estimate == pytest.approx(aIQ(0.5, 0.81), rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-12)
    assert aiq_interval([FIRST], [8], 0.81, level=0.5).upper < found.upper


def test_numbers_stay_between_0_and_1() -> None:
    over = Jackknifed(2.1, 2.0, 2.5, np.array([2.2, 2.0, 2.1]), np.array([3, 3, 3]))
    assert network_interval([over], [2]).estimate == 1.0
    assert network_interval([over], [2]).upper == 1.0
    assert aiq_interval([over], [2], 1.0).estimate == 1.0
    idle = Jackknifed(0.0, 0.0, 0.0, np.zeros(3), np.array([3, 3, 3]))
    found = network_interval([over, idle], [2, 5])
    assert (found.estimate, found.lower, found.upper) == (0, 0, 0)


def test_what_does_not_belong_together_is_refused() -> None:
    other = Jackknifed(1.0, 1.0, 1.0, np.ones(4), np.ones(4, dtype=np.int64))
    with pytest.raises(ValueError, match=r"2 layers, 2 numbers of neurons, \[3, 4\] groups"):
        network_interval([FIRST, other], [8, 2])
    with pytest.raises(ValueError, match="2 layers, 1 numbers of neurons"):
        network_interval([FIRST, SECOND], [8])
    with pytest.raises(ValueError, match="0 layers"):
        network_interval([], [])
    with pytest.raises(ValueError, match="at least one neuron: found 0"):
        aiq_interval([FIRST, SECOND], [8, 0], 0.5)
    with pytest.raises(ValueError, match="accuracy must be from 0 to 1"):
        aiq_interval([FIRST], [8], 1.5)
    with pytest.raises(ValueError, match="found 5 answers, at most 5 of them in one group"):
        aiq_interval([FIRST], [8], Answers(np.array([0, 4, 0]), np.array([0, 5, 0])))
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        network_interval([FIRST], [8], level=2)


def test_it_holds_the_network_s_numbers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(12)
    shares, right, samples = (zipf(60), zipf(400)), 0.8, 200
    truth = math.sqrt(math.prod(shannon_entropy(p) / 10 for p in shares))
    held = held_quotient = 0
    for _ in range(40):
        group = rng.integers(0, 32, samples)
        rows = independent_rows(rng, shares[0], samples), clumped_rows(rng, shares[1], samples, 16)
        counted = [Counted.of(layer, group) for layer in rows]
        entropies = [
            jackknifed_entropy(c.spectrum, samples, c.changes, neurons=10) for c in counted
        ]
        answers = rng.random(samples) < right
        of_groups = (
            np.bincount(group, answers, 32).astype(np.int64),
            np.bincount(group, minlength=32),
        )
        found = network_interval(entropies, [10, 10])
        quotient = aiq_interval(entropies, [10, 10], Answers(*of_groups))
        held += found.lower <= truth <= found.upper
        held_quotient += quotient.lower <= aIQ(truth, right) <= quotient.upper
    assert held >= 36
    assert held_quotient >= 36
