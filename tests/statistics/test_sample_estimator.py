from __future__ import annotations

import math
import time

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import Counted, clumped_rows, independent_rows, shannon_entropy, uniform, zipf

from tsstore.statistics.estimators import chao_wang_jost, plug_in
from tsstore.statistics.sample_estimator import (
    Surprisals,
    chao_wang_jost_by_samples,
    entropy_of_sums,
    rare_spread,
    sample_sums,
)
from tsstore.statistics.spectrum import Spectrum, merge

MANY = 10**13


def reference(spectrum: Spectrum, samples: int, spread: float) -> float:
    """Evaluate the formula as it is written, in 50 digits and without a tail that is summed up."""
    with mpmath.workdps(50):
        n, m, total = mpmath.mpf(spectrum.rows), mpmath.mpf(samples), mpmath.mpf(0)
        entries = zip(spectrum.multiplicity, spectrum.incidence, spectrum.states, strict=True)
        for k, q, f in ((mpmath.mpf(int(x)) for x in entry) for entry in entries):
            total += f * k / n * (mpmath.psi(0, m) - mpmath.psi(0, q) - mpmath.log(k * m / (q * n)))
            if spread:
                x = q / mpmath.mpf(spread)
                total += f * k / n * (mpmath.psi(0, x + 1) - mpmath.log(x))
        q, f = spectrum.incidences()
        q1, q2 = (mpmath.mpf(int(f[q == j].sum())) for j in (1, 2))
        if q1 and (q2 or q1 > 1):
            a = 2 * q2 / ((m - 1) * q1 + 2 * q2) if q2 else 2 / ((m - 1) * (q1 - 1) + 2)
            series = mpmath.fsum((1 - a) ** r / r for r in range(1, samples))
            tail = (1 - a) ** (1 - m) * (-mpmath.log(a) - series)
            total += spectrum.rows_in_single_samples / n * tail
        return float(total / mpmath.log(2))


@pytest.mark.parametrize(
    "counts", [[5, 3, 2], [1] * 30, [2] + [1] * 40, [100, 3, 1, 1], [7], [40, 40], [9, 2, 2, 1]]
)
def test_with_one_position_a_sample_it_is_the_estimator_of_chao_wang_and_jost(
    counts: list[int],
) -> None:
    spectrum = Spectrum.from_counts(counts)
    estimate = chao_wang_jost_by_samples(spectrum, sum(counts))
    assert estimate == pytest.approx(chao_wang_jost(spectrum), rel=1e-12, abs=1e-15)
    assert chao_wang_jost_by_samples(spectrum, sum(counts), 0) == estimate


@pytest.mark.parametrize("samples", [20, 150])
@pytest.mark.parametrize("shares", [uniform(300), zipf(2_000)], ids=["uniform", "Zipf"])
def test_it_is_the_formula_of_its_derivation(shares, samples) -> None:
    counted = Counted.of(clumped_rows(np.random.default_rng(1), shares, samples, 16))
    for equal_pairs in (None, counted.equal_pairs):
        spread = rare_spread(counted.spectrum, equal_pairs)
        estimate = chao_wang_jost_by_samples(counted.spectrum, samples, equal_pairs)
        assert estimate == pytest.approx(reference(counted.spectrum, samples, spread), rel=1e-12)
    assert spread > 0.2


def test_it_keeps_its_digits_where_the_entropy_is_tiny() -> None:
    nearly_constant = Spectrum.from_counts([MANY - 1, 1])
    estimate = chao_wang_jost_by_samples(nearly_constant, MANY, 0)
    assert estimate == pytest.approx(chao_wang_jost(nearly_constant), rel=1e-12)
    assert 4e-12 < estimate < 5e-12
    constant = Spectrum.from_counts([MANY], [MANY // 100])
    assert chao_wang_jost_by_samples(constant, MANY // 100, MANY * 99 // 2) == 0.0
    two = Spectrum.from_counts([MANY // 2, MANY // 2], [MANY // 100, MANY // 100])
    assert chao_wang_jost_by_samples(two, MANY // 100) == pytest.approx(1, rel=1e-15)


def test_rows_in_states_of_single_samples_make_it_larger_than_the_plug_in() -> None:
    spectrum = Spectrum.from_counts([64] * 40, [1] * 40)
    assert plug_in(spectrum) == pytest.approx(math.log2(40))
    assert chao_wang_jost_by_samples(spectrum, 40) > math.log2(40) + 3


@given(st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=3, max_size=12))
@settings(deadline=None, max_examples=60)
def test_it_is_never_below_the_plug_in(rows: list[list[int]]) -> None:
    counted = Counted.of(np.array(rows))
    plain = chao_wang_jost_by_samples(counted.spectrum, counted.samples)
    corrected = chao_wang_jost_by_samples(counted.spectrum, counted.samples, counted.equal_pairs)
    assert corrected >= plain * (1 - 1e-12)
    assert plain >= plug_in(counted.spectrum) * (1 - 1e-12)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(2, 30))
@settings(deadline=None, max_examples=40)
def test_copies_of_every_row_within_its_sample_change_nothing(counts, copies) -> None:
    once = Spectrum.from_counts(counts)
    often = Spectrum.from_counts(np.array(counts) * copies, counts)
    pairs = sum(counts) * copies * (copies - 1) // 2
    expected = chao_wang_jost_by_samples(once, sum(counts), 0)
    estimate = chao_wang_jost_by_samples(often, sum(counts), pairs)
    assert estimate == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_sums_of_parts_add_up_to_the_whole() -> None:
    parts = [Spectrum.from_counts([6, 3, 1], [4, 1, 1]), Spectrum.from_counts([2, 8], [2, 5])]
    surprisals = Surprisals.of(merge(parts), 10, 8)
    whole = sample_sums(merge(parts), surprisals)
    added = [
        sum(numbers) for numbers in zip(*(sample_sums(p, surprisals) for p in parts), strict=True)
    ]
    assert added == pytest.approx(list(whole), rel=1e-14)
    estimate = chao_wang_jost_by_samples(merge(parts), 10, 8)
    assert entropy_of_sums(whole, surprisals, 10) == pytest.approx(estimate, rel=1e-14)


def test_sums_may_be_made_with_the_surprisals_of_more_samples() -> None:
    part = Spectrum.from_counts([6, 3, 1], [4, 1, 1])
    larger = Surprisals(rows=1_000, samples=77, spread=0.4)
    own = Surprisals(rows=10, samples=6, spread=0.4)
    mended = entropy_of_sums(sample_sums(part, larger), larger, 6)
    assert mended == pytest.approx(entropy_of_sums(sample_sums(part, own), own, 6), rel=1e-13)


def test_the_spread_is_that_of_rows_which_repeat_by_chance() -> None:
    rng = np.random.default_rng(2)
    counted = Counted.of(clumped_rows(rng, uniform(3_000), 150))
    # Runs that end with chance 0.2 have the relative variance 0.8, less where the sample ends.
    assert rare_spread(counted.spectrum, counted.equal_pairs) == pytest.approx(0.75, abs=0.12)
    apart = Counted.of(independent_rows(rng, uniform(3_000), 150, 64))
    assert rare_spread(apart.spectrum, apart.equal_pairs) < 0.05


def test_a_background_state_does_not_make_rare_rows_look_unequal() -> None:
    rng = np.random.default_rng(3)
    rows = independent_rows(rng, uniform(5_000), 200, 64) + 1
    rows[rng.random((200, 64)) < rng.beta(0.3, 0.3, 200)[:, None]] = 0
    counted = Counted.of(rows)
    assert rare_spread(counted.spectrum, counted.equal_pairs) < 0.02


def test_unequal_states_do_not_make_rows_look_unequal() -> None:
    always_ten = np.repeat(np.arange(40).reshape(20, 2), 10, axis=1)
    always_one = 100 + np.arange(20 * 5).reshape(20, 5)
    once = Counted.of(np.concatenate([always_ten, always_one], axis=1))
    twice = Counted.of(np.tile(np.concatenate([always_ten, always_one], axis=1), (2, 1)))
    assert rare_spread(once.spectrum, once.equal_pairs) == 0.0
    assert rare_spread(twice.spectrum, twice.equal_pairs) == 0.0
    assert rare_spread(twice.spectrum, None) == 0.0


@pytest.mark.parametrize(
    ("shares", "samples", "at_most"),
    [(uniform(2_000), 120, 0.06), (uniform(2_000), 400, 0.02), (zipf(500), 200, 0.05)],
    ids=["uniform, few", "uniform, plenty", "Zipf"],
)
def test_rows_that_repeat_each_other_leave_little_bias(shares, samples, at_most) -> None:
    rng = np.random.default_rng(5)
    truth = shannon_entropy(shares)
    drawn = [Counted.of(clumped_rows(rng, shares, samples)) for _ in range(12)]
    estimates = [chao_wang_jost_by_samples(c.spectrum, samples, c.equal_pairs) for c in drawn]
    without_spread = [chao_wang_jost_by_samples(c.spectrum, samples) for c in drawn]
    by_rows = [chao_wang_jost(c.spectrum) for c in drawn]
    assert abs(np.mean(estimates) - truth) < at_most
    assert np.mean(without_spread) < np.mean(estimates) - at_most / 2
    assert np.mean(by_rows) < np.mean(without_spread)


def test_a_million_entries_take_less_than_a_second() -> None:
    rng = np.random.default_rng(7)
    k = rng.integers(1, 10**6, 1_000_000)
    spectrum = Spectrum.from_counts(k, np.minimum(k, rng.integers(1, 10**5, k.size)))
    pairs = int((k * (k - 1) // 2).sum() // 10**4)
    start = time.thread_time()
    estimate = chao_wang_jost_by_samples(spectrum, 10**5, pairs)
    assert time.thread_time() - start < 1
    assert estimate >= plug_in(spectrum)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no rows"):
        chao_wang_jost_by_samples(Spectrum.empty(), 3)
    with pytest.raises(ValueError, match="seen in 5 samples, but there are 4"):
        chao_wang_jost_by_samples(Spectrum.from_counts([5, 1]), 4)
