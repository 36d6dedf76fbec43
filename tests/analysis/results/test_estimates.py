from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sampling import Counted

from tsstore.analysis.results.estimates import (
    NAMES,
    LayerCounts,
    Rarefied,
    curve_sizes,
    entropy_by_rows,
    rarefied,
)
from tsstore.errors import AnalysisError
from tsstore.statistics.estimators import ESTIMATORS, chao_wang_jost, plug_in
from tsstore.statistics.rarefaction import Rarefaction, scatter_at
from tsstore.statistics.spectrum import Spectrum

SPECTRUM = Spectrum.from_arrays([1, 2, 9], [1, 2, 9], [3, 2, 1])
CONVOLUTION = Spectrum.from_arrays([10, 10, 40], [1, 2, 4], [2, 1, 1])


def test_the_names_are_those_of_the_statistics_and_two_more() -> None:
    assert list(NAMES) == ["sample-based", *ESTIMATORS, "unbiased"]
    assert NAMES[1] == "plug-in"


def test_estimates_are_those_of_the_statistics() -> None:
    assert entropy_by_rows(SPECTRUM, "chao-wang-jost", 1) == chao_wang_jost(SPECTRUM)
    assert entropy_by_rows(SPECTRUM, "plug-in", 0.5) == plug_in(SPECTRUM, 0.5)
    agreement = (9 * 8 + 2 * 2) / (16 * 15)
    assert entropy_by_rows(SPECTRUM, "unbiased", 2.0) == pytest.approx(-math.log2(agreement))


@pytest.mark.parametrize("name", ["best", "", 2, None])
def test_an_unknown_estimator_is_an_error_that_names_all(name: object) -> None:
    with pytest.raises(AnalysisError) as error:
        entropy_by_rows(SPECTRUM, name, 1)
    assert str(error.value) == (
        f"there is no estimator {name!r}; there are {', '.join(map(repr, NAMES))}"
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("plug-in", "unbiased")])
def test_most_estimators_are_of_shannon_s_entropy(name: str) -> None:
    with pytest.raises(AnalysisError, match=f"'{name}' is of order 1, .* alpha is 2; of other"):
        entropy_by_rows(SPECTRUM, name, 2)


@pytest.mark.parametrize("alpha", [0, 1, 1.5, 2.5, math.inf, math.nan])
def test_the_unbiased_estimator_is_of_whole_orders(alpha: float) -> None:
    with pytest.raises(AnalysisError, match=f"whole orders from 2 up, and alpha is {alpha};"):
        entropy_by_rows(SPECTRUM, "unbiased", alpha)


@pytest.mark.parametrize("alpha", [10, 17, 1e15])
def test_the_unbiased_estimator_needs_a_state_that_was_seen_as_often(alpha: float) -> None:
    assert entropy_by_rows(SPECTRUM, "unbiased", 9) > 0
    with pytest.raises(AnalysisError, match="take a smaller order, or more samples") as error:
        entropy_by_rows(SPECTRUM, "unbiased", alpha)
    assert f"no state has {alpha:g} rows" in str(error.value)


def fewer(
    spectrum: Spectrum, samples: int, sizes: list, changes: Any = None, level: float = 0.95
) -> list[Rarefied]:
    """Return what fewer samples of a layer would have shown."""
    counts = LayerCounts("a", 8, samples, spectrum, changes=changes)
    return rarefied(counts, sizes, level)


def test_one_sample_shows_its_own_states() -> None:
    one = fewer(CONVOLUTION, 4, [1])[0]
    assert one.distinct == pytest.approx((2 * 1 + 2 + 4) / 4)
    assert fewer(CONVOLUTION, 4, [3])[0].distinct == Rarefaction(CONVOLUTION, 4).richness(3)


def test_all_samples_show_what_was_counted() -> None:
    every = fewer(CONVOLUTION, 4, [4])[0]
    assert every.distinct == pytest.approx(4)
    shares = [1 / 8, 1 / 8, 2 / 8, 4 / 8]
    assert every.incidence_entropy == pytest.approx(-sum(p * math.log2(p) for p in shares))
    assert every.coverage == pytest.approx(1 - 2 / 8 * (1 - 2 / (3 * 2 + 2)))


def test_with_one_position_a_sample_it_is_the_plug_in() -> None:
    assert fewer(SPECTRUM, 16, [16])[0].incidence_entropy == pytest.approx(plug_in(SPECTRUM))
    means = [fewer(SPECTRUM, 16, [samples])[0].incidence_entropy for samples in (1, 4, 8, 16)]
    assert means == sorted(means)
    assert means[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("samples", [0, -1, 5, 1.5, math.nan, math.inf, None, "2"])
def test_there_are_no_more_samples_than_there_are(samples: object) -> None:
    message = f"{samples!r} samples were asked for, of 4; ask for a whole number from 1 to 4"
    with pytest.raises(AnalysisError, match=message):
        fewer(CONVOLUTION, 4, [samples])


@pytest.mark.parametrize("points", [1, 0, -3, 2.5, math.nan, None])
def test_a_curve_has_two_points_and_more(points: object) -> None:
    assert curve_sizes(1000, 4) == [1, 10, 100, 1000]
    assert curve_sizes(3, 30) == [1, 2, 3]
    with pytest.raises(AnalysisError, match="whole number of points, at least 2: found"):
        curve_sizes(1000, points)


def test_a_single_sample_tells_no_coverage() -> None:
    assert fewer(Spectrum.from_arrays([3], [1], [2]), 1, [1])[0].coverage is None


def test_intervals_are_those_of_the_scatter_by_groups() -> None:
    rows = np.random.default_rng(5).integers(0, 40, (320, 2))
    one = Counted.of(rows)
    found = fewer(one.spectrum, 320, [20, 320], one.changes)
    error = scatter_at(one.spectrum, 320, one.changes, [20])[0].distinct
    shown = found[0].distinct_interval
    assert shown.standard_error == pytest.approx(error, rel=1e-12)
    assert shown.upper - shown.estimate == pytest.approx(2.0395 * error, rel=1e-4)
    assert shown.estimate == found[0].distinct
    narrow = fewer(one.spectrum, 320, [20], one.changes, 0.5)[0].incidence_entropy_interval
    assert narrow.lower > found[0].incidence_entropy_interval.lower
    assert fewer(one.spectrum, 320, [20])[0].distinct_interval is None


@pytest.mark.parametrize("rows", [np.arange(64), np.zeros(64, np.int64), np.arange(4) % 2])
def test_there_are_no_intervals_where_nothing_scatters(rows: np.ndarray) -> None:
    one = Counted.of(rows[:, None])
    found = fewer(one.spectrum, len(rows), [2, len(rows)], one.changes)
    assert [one.distinct_interval for one in found] == [None, None]
    assert [one.incidence_entropy_interval for one in found] == [None, None]
