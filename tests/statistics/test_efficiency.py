from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import binom

from tsstore.statistics.efficiency import aIQ, aiq_interval, efficiency, network_efficiency
from tsstore.statistics.intervals import Jackknifed
from tsstore.statistics.rates import Answers, accuracy_limits

shares = st.floats(0, 1)


def test_efficiency_is_bits_a_neuron() -> None:
    assert efficiency(13.287712, 100) == pytest.approx(0.13287712)
    assert efficiency(0.0, 6) == 0.0
    assert efficiency(6, 6) == 1.0
    assert type(efficiency(np.float64(3), np.int64(6))) is float


@pytest.mark.parametrize("bits", [-0.1, math.nan, math.inf])
def test_entropy_must_be_finite_and_not_negative(bits: float) -> None:
    with pytest.raises(ValueError, match=f"finite and not negative: found {bits} bits"):
        efficiency(bits, 6)


def test_a_layer_without_neurons_has_no_efficiency() -> None:
    with pytest.raises(ValueError, match="at least one neuron: found 0"):
        efficiency(1.0, 0)


def test_network_efficiency_is_the_geometric_mean() -> None:
    assert network_efficiency([0.25, 1.0]) == 0.5
    assert network_efficiency((0.3,)) == pytest.approx(0.3)
    assert network_efficiency(np.array([0.1, 0.2, 0.4])) == pytest.approx(0.2)
    assert network_efficiency([1e-300] * 9) == pytest.approx(1e-300)


def test_network_efficiency_of_an_idle_layer_is_zero_and_of_no_layers_none() -> None:
    assert network_efficiency([0.5, 0.0, 0.9]) == 0.0
    assert network_efficiency([]) is None
    assert network_efficiency(np.array([])) is None


@pytest.mark.parametrize("value", [-0.2, math.nan, math.inf])
def test_network_efficiency_refuses_what_is_no_efficiency(value: float) -> None:
    with pytest.raises(ValueError, match=f"found {value}"):
        network_efficiency([0.0, value])


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20))
def test_network_efficiency_lies_between_the_layers(values: list[float]) -> None:
    mean = network_efficiency(values)
    assert mean is not None
    assert min(values) * (1 - 1e-12) <= mean <= max(values) * (1 + 1e-12)
    assert mean <= 1


def test_aiq_known_values() -> None:
    assert aIQ(0.2, 0.9, 2) == pytest.approx(0.5451361778, abs=5e-11)
    assert aIQ(0.2, 0.9) == aIQ(0.2, 0.9, 2)
    assert aIQ(0.25, 1.0, 1) == pytest.approx(0.5)
    assert aIQ(0.0, 0.9) == aIQ(0.9, 0.0) == 0.0
    assert aIQ(0.2, 0.9, weight=0.5) == pytest.approx((0.9**0.5 * 0.2) ** (1 / 1.5))


def test_aiq_with_a_huge_weight_is_the_accuracy() -> None:
    assert aIQ(0.2, 0.5, 1e9) == pytest.approx(0.5)


@given(shares, shares, st.floats(0.01, 100))
def test_aiq_lies_between_efficiency_and_accuracy(used: float, right: float, weight: float) -> None:
    value = aIQ(used, right, weight)
    assert min(used, right) * (1 - 1e-9) <= value <= max(used, right) * (1 + 1e-9)
    assert 0 <= value <= 1


@pytest.mark.parametrize("value", [-0.1, 1.1, 97.7, math.nan])
def test_aiq_names_what_is_out_of_range(value: float) -> None:
    with pytest.raises(ValueError, match=f"accuracy must be from 0 to 1: found {value}"):
        aIQ(0.2, value)
    with pytest.raises(ValueError, match=f"network efficiency must be from 0 to 1: found {value}"):
        aIQ(value, 0.9)


def test_aiq_takes_arrays_and_tensors_and_broadcasts() -> None:
    accuracies = [0.5, 0.75, 1.0]
    expected = [aIQ(0.2, accuracy) for accuracy in accuracies]
    tensor = torch.tensor(accuracies, dtype=torch.float64, requires_grad=True)
    for one in (accuracies, np.array(accuracies), tensor, tensor.to(torch.float32)):
        values = aIQ(0.2, one)
        assert isinstance(values, np.ndarray)
        np.testing.assert_allclose(values, expected)
    table = aIQ(np.array([[0.1], [0.2]]), tensor, np.array([1, 2, 3]))
    assert table.shape == (2, 3)
    assert table[1, 1] == aIQ(0.2, 0.75, 2)
    for one in (np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).bfloat16()):
        assert type(aIQ(one, one, one)) is float
        assert aIQ(one, one) == pytest.approx(0.5)


def test_aiq_takes_an_average_that_was_rounded_up_for_one() -> None:
    assert aIQ(0.25, 1 + 1e-6, 1) == aIQ(0.25, np.float32(1) + np.finfo(np.float32).eps, 1) == 0.5
    assert aIQ(1 + 1e-6, torch.tensor(1.0000012)) == 1.0
    with pytest.raises(ValueError, match=r"accuracy must be from 0 to 1: found 1\.001"):
        aIQ(0.25, 1.001)


@pytest.mark.parametrize("value", [None, "high", [[0.1], [0.1, 0.2]], [0.5, -0.5], [0.2, math.nan]])
def test_aiq_refuses_what_are_no_shares(value: object) -> None:
    with pytest.raises(ValueError, match="accuracy must be"):
        aIQ(0.2, value)


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_aiq_needs_a_positive_finite_weight(weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight must be positive and finite: found {weight}"):
        aIQ(0.2, 0.9, weight)


EVENLY = np.array([2] * 32)
KNOWN = Jackknifed(2.0, 2.0, 2.0, np.full(32, 2.0), EVENLY)
"""An entropy that does not scatter."""


def answers(right: int, samples: int) -> Answers:
    """Return answers of 32 groups, the first ones right."""
    is_right = np.arange(samples) < right
    group = np.arange(samples) % 32
    return Answers(
        np.bincount(group, is_right, 32).astype(np.int64), np.bincount(group, minlength=32)
    )


@pytest.mark.parametrize("samples", [64, 100, 200])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.98, 0.99, 0.999])
def test_independent_answers_have_exact_limits(samples: int, share: float) -> None:
    limits = [accuracy_limits(answers(right, samples)) for right in range(samples + 1)]
    held = [lower <= share <= upper for lower, upper in limits]
    right = np.flatnonzero(held)
    chances = binom(samples, right) * share**right * (1 - share) ** (samples - right)
    assert chances.sum() >= 0.95
    # The quotient's interval holds where the accuracy's does, if nothing else scatters.
    for right in (round(share * samples), samples):
        found = aiq_interval([KNOWN], [4], answers(right, samples))
        lower, upper = limits[right]
        assert found.lower == pytest.approx(aIQ(0.5, lower), rel=1e-12)
        assert found.upper == pytest.approx(aIQ(0.5, upper), rel=1e-12)


def test_where_all_answers_are_right_some_may_be_wrong() -> None:
    lower, upper = accuracy_limits(answers(64, 64))
    assert lower == pytest.approx(0.025 ** (1 / 64), rel=1e-12)
    assert upper == 1
    assert accuracy_limits(answers(0, 64)) == pytest.approx((0, 1 - lower), rel=1e-12)
    found = aiq_interval([KNOWN], [4], answers(64, 64))
    assert found.lower == pytest.approx(aIQ(0.5, lower), rel=1e-12)
    assert found.standard_error == 0
    # Of eight clusters there are eight answers.
    assert accuracy_limits(answers(64, 64), clusters=8)[0] == pytest.approx(0.025 ** (1 / 8))


@pytest.mark.parametrize("alike", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("share", [0.7, 0.95, 0.99])
def test_answers_of_clusters_count_for_as_many_as_scatter_like_them(
    alike: float, share: float
) -> None:
    rng, held, widths = np.random.default_rng([8, round(100 * share), round(10 * alike)]), 0, []
    for _ in range(100):
        common, own = rng.random(100) < share, rng.random((100, 10)) < share
        right = np.where(rng.random((100, 10)) < alike, common[:, None], own).sum(axis=1)
        group = rng.integers(0, 32, 100)
        found = Answers(
            np.bincount(group, right, 32).astype(np.int64),
            10 * np.bincount(group, minlength=32).astype(np.int64),
        )
        lower, upper = accuracy_limits(found, clusters=100)
        held += lower <= share <= upper
        widths.append(upper - lower)
    assert held >= 90
    if share == 0.7:
        independent = accuracy_limits(answers(700, 1000))
        ratio = np.median(widths) / (independent[1] - independent[0])
        assert ratio == pytest.approx(np.sqrt(1 + 9 * alike**2), rel=0.25)


def test_no_answers_and_wrong_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="an accuracy needs answers"):
        accuracy_limits(answers(0, 0))
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        accuracy_limits(answers(5, 64), 95)
