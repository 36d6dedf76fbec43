from __future__ import annotations

import numpy as np
import pytest
from sampling import Counted, clumped_rows, independent_rows, zipf

from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.jackknife import group_values, standard_error
from tsstore.statistics.rarefaction import entropy_at, richness_at
from tsstore.statistics.rarefaction_bands import scatter_at
from tsstore.statistics.spectrum import Spectrum


def blank_and_clumped(samples: int) -> np.ndarray:
    """One state in every sample, one in nearly every, and many others."""
    rows = clumped_rows(np.random.default_rng(3), zipf(3_000), samples, 16) + 2
    rows[:, 0] = 0
    rows[: samples - 3, 1] = 1
    return rows


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("size", [1, 40, 350, 600])
def test_they_are_those_of_the_spectra_without_each_group(size: int, uneven: bool) -> None:
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(32, 2.0 if uneven else 1e4))
    counted = Counted.of(blank_and_clumped(700), rng.choice(32, 700, p=shares))
    found = scatter_at(counted.spectrum, 700, counted.changes, [size, 700])[0]
    for number, function in ((found.distinct, richness_at), (found.incidence_entropy, entropy_at)):
        values = group_values(
            counted.spectrum,
            700,
            counted.changes,
            lambda spectrum, samples, at=function: at(spectrum, size, samples),
        )
        assert number == pytest.approx(standard_error(values), rel=1e-4, abs=1e-9)


def test_beyond_what_is_left_it_is_that_of_what_is_left() -> None:
    counted = Counted.of(independent_rows(np.random.default_rng(5), zipf(50), 320))
    assert counted.changes.samples.tolist() == [10] * 32
    found = scatter_at(counted.spectrum, 320, counted.changes, [310, 315, 320])
    assert found[0] == found[1] == found[2]
    assert 0 < found[0].incidence_entropy < 0.2


def test_bands_hold_what_so_many_samples_show_on_average() -> None:
    rng, shares, size, held = np.random.default_rng(6), zipf(300), 50, 0
    # What 50 rows show on average, by the definition.
    expected = float((1 - (1 - shares) ** size).sum())
    for _ in range(60):
        counted = Counted.of(independent_rows(rng, shares, 200), rng.integers(0, 32, 200))
        error = scatter_at(counted.spectrum, 200, counted.changes, [size])[0].distinct
        held += abs(richness_at(counted.spectrum, size, 200) - expected) <= 2.04 * error
    assert held >= 54


def test_other_samples_are_refused() -> None:
    counted = Counted.of(independent_rows(np.random.default_rng(7), zipf(50), 64))
    with pytest.raises(ValueError, match="the groups hold 64 samples"):
        scatter_at(counted.spectrum, 63, counted.changes, [3])
    one = GroupChanges.from_counts([[2]], [[2]], [2])
    with pytest.raises(ValueError, match="at least two groups"):
        scatter_at(Spectrum.from_counts([2]), 2, one, [1])
