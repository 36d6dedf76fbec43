from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from tsstore.statistics.accuracy import Answers, accuracy_limits
from tsstore.statistics.efficiency import aIQ
from tsstore.statistics.intervals import Jackknifed
from tsstore.statistics.network_intervals import aiq_interval

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
    assert binom.pmf(np.flatnonzero(held), samples, share).sum() >= 0.95
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
