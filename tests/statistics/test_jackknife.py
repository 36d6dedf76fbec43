from __future__ import annotations

import math
import time

import numpy as np
import pytest
from sampling import (
    Counted,
    clumped_rows,
    delta_of_counts,
    independent_rows,
    uniform,
    values_without_groups,
    zipf,
)

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.intervals import jackknifed_entropy
from tsstore.statistics.jackknife import (
    SpectrumDelta,
    check_changes,
    rows_in_single_clusters,
    standard_error,
    student_quantile,
)
from tsstore.statistics.sample_estimator import (
    SampleSums,
    Surprisals,
    entropy_of_sums,
    sample_sums,
    sums_without_groups,
)
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import SAMPLE_LIMITED, SATURATED, verdict

MANY = 10**13


def drawn(seed: int = 1, samples: int = 90, groups: int = 8) -> Counted:
    rng = np.random.default_rng(seed)
    rows = clumped_rows(rng, zipf(400), samples, 12)
    return Counted.of(rows, rng.integers(0, groups, samples), groups)


def test_the_standard_error_of_a_mean_is_the_usual_one() -> None:
    x = np.random.default_rng(0).normal(size=50)
    without = (x.sum() - x) / 49
    assert standard_error(without) == pytest.approx(x.std(ddof=1) / math.sqrt(50), rel=1e-12)
    assert standard_error([3.0, 3.0, 3.0]) == 0.0


@pytest.mark.parametrize("values", [[], [1.0]])
def test_a_standard_error_needs_two_groups(values: list[float]) -> None:
    with pytest.raises(ValueError, match=f"at least two groups: found {len(values)}"):
        standard_error(values)


def test_any_statistic_is_computed_without_each_group() -> None:
    rng = np.random.default_rng(4)
    rows = clumped_rows(rng, uniform(60), 40, 5)
    group = rng.integers(0, 6, 40)
    counted = Counted.of(rows, group, 6)
    values = values_without_groups(
        counted.spectrum, 40, counted.changes, lambda spectrum, samples: plug_in(spectrum) + samples
    )
    expected = [
        plug_in(Counted.of(rows[group != g]).spectrum) + (group != g).sum() for g in range(6)
    ]
    assert values.tolist() == pytest.approx(expected, rel=1e-13)


def bits(sums: list[SampleSums], surprisals: Surprisals, counted: Counted) -> np.ndarray:
    """Return the estimates from what they are made of, of all samples but those of each group."""
    left = (counted.samples - counted.changes.samples).tolist()
    return np.array([entropy_of_sums(s, surprisals, m) for s, m in zip(sums, left, strict=True)])


def test_groups_without_samples_have_no_value() -> None:
    rows = independent_rows(np.random.default_rng(4), uniform(10), 12)
    counted = Counted.of(rows, np.arange(12) % 3, groups=32)
    values = values_without_groups(
        counted.spectrum, 12, counted.changes, lambda spectrum, _: spectrum.rows
    )
    assert values.tolist() == [8, 8, 8]
    surprisals = Surprisals.of(counted.spectrum, 12)
    total = sample_sums(counted.spectrum, surprisals)
    without = sums_without_groups(total, counted.changes, surprisals)
    assert len(without) == 32
    assert without[3:] == [total] * 29
    assert [sums.rows for sums in without[:3]] == [8, 8, 8]


@pytest.mark.parametrize("spread", [0.0, 0.7])
@pytest.mark.parametrize("seed", [1, 2])
def test_sums_over_the_changes_are_the_estimates_without_each_group(seed, spread) -> None:
    counted = drawn(seed)
    surprisals = Surprisals(counted.spectrum.rows, counted.samples, spread)
    total = sample_sums(counted.spectrum, surprisals)
    fast = bits(sums_without_groups(total, counted.changes, surprisals), surprisals, counted)

    def estimate(spectrum: Spectrum, samples: int) -> float:
        own = Surprisals(spectrum.rows, samples, spread)
        return entropy_of_sums(sample_sums(spectrum, own), own, samples)

    slow = values_without_groups(counted.spectrum, counted.samples, counted.changes, estimate)
    assert fast.tolist() == pytest.approx(slow.tolist(), rel=1e-12)
    assert fast.std() > 0


def test_tiny_entropies_keep_their_scatter() -> None:
    per_group = np.full((1, 32), MANY // 32)
    rare = np.zeros((1, 32), np.int64)
    rare[0, 5] = 1
    counts = np.concatenate([per_group, rare])
    spectrum = Spectrum.from_counts(counts.sum(axis=1))
    changes = delta_of_counts(counts, counts, counts.sum(axis=0))
    samples = int(counts.sum())
    surprisals = Surprisals.of(spectrum, samples)
    total = sample_sums(spectrum, surprisals)
    counted = Counted(spectrum, samples, 0, changes)
    without = bits(sums_without_groups(total, changes, surprisals), surprisals, counted)
    assert without[5] == pytest.approx(0, abs=1e-16)
    others = np.delete(without, 5)
    assert others == pytest.approx(np.full(31, 4.6e-12), rel=0.05)


def test_a_million_changes_take_less_than_a_second() -> None:
    rng = np.random.default_rng(3)
    entries = 1_000_000
    k = rng.integers(1, 10**6, entries)
    q = np.minimum(k, rng.integers(1, 10**5, entries))
    spectrum = Spectrum.from_counts(k, q)
    group = np.sort(rng.integers(0, 32, entries))
    states = rng.choice([-1, 1], entries)
    numbers = np.full(32, 10), np.full(32, 10), np.zeros(32, int), np.zeros(32, int)
    changes = SpectrumDelta(*map(np.array, numbers), group, k, q, states)
    surprisals = Surprisals(spectrum.rows, 10**5, 0.5)
    total = sample_sums(spectrum, surprisals)
    start = time.thread_time()
    sums_without_groups(total, changes, surprisals)
    assert time.thread_time() - start < 1


def test_changes_of_other_samples_are_refused() -> None:
    counted, other = drawn(1), drawn(2, samples=91)
    check_changes(counted.spectrum, counted.samples, counted.changes)
    with pytest.raises(ValueError, match="91 samples and 1092 rows, but 90 samples and 1080 rows"):
        check_changes(counted.spectrum, counted.samples, other.changes)
    with pytest.raises(ValueError, match="pass the changes that were counted with them"):
        check_changes(counted.spectrum, 89, counted.changes)


def test_student_s_quantiles_are_those_of_the_tables() -> None:
    assert student_quantile(0.95, 31) == pytest.approx(2.0395, abs=1e-4)
    assert student_quantile(0.99, 1) == pytest.approx(63.657, abs=1e-3)
    for level in (0, 1, math.nan, 95):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            student_quantile(level, 5)


GROUPS = 32


def counted(multiplicity, incidence=None) -> tuple[Spectrum, SpectrumDelta]:
    """Count states from their rows, and samples, in each group: (states, groups)."""
    k = np.asarray(multiplicity)
    q = k if incidence is None else np.asarray(incidence)
    changes = delta_of_counts(k, q, samples=q.sum(axis=0))
    return Spectrum.from_counts(k.sum(axis=1), q.sum(axis=1)), changes


def in_groups(*groups: int) -> np.ndarray:
    """Return a state of one row in each of these groups."""
    return np.bincount(groups, minlength=GROUPS)


def test_states_of_one_sample_count_as_they_are():
    everywhere = np.ones((1, GROUPS), dtype=np.int64)
    single = np.array([in_groups(group) for group in (0, 3, 3)])
    spectrum, changes = counted(np.concatenate([everywhere, single]))
    assert rows_in_single_clusters(spectrum, changes) == spectrum.rows_in_single_samples == 3


def test_states_of_one_group_count_beyond_what_chance_does():
    everywhere = np.ones((5, GROUPS), dtype=np.int64)
    own = np.array([4 * in_groups(group) for group in range(10)])
    spectrum, changes = counted(np.concatenate([everywhere, own]))
    assert spectrum.rows_in_single_samples == 0
    assert rows_in_single_clusters(spectrum, changes) == 40


def test_the_states_of_the_fewest_samples_are_taken():
    both = np.array([in_groups(0, 1), *[3 * in_groups(2)] * 2])
    everywhere = np.ones((1, GROUPS), dtype=np.int64)
    spectrum, changes = counted(np.concatenate([everywhere, both]))
    assert rows_in_single_clusters(spectrum, changes) == 2 + 3


def test_independent_samples_show_hardly_more_than_their_own():
    rng = np.random.default_rng(5)
    states, groups = rng.integers(0, 3_000, 6_000), rng.integers(0, GROUPS, 6_000)
    table = np.zeros((3_000, GROUPS), dtype=np.int64)
    np.add.at(table, (states, groups), 1)
    spectrum, changes = counted(table[table.any(axis=1)])
    single = spectrum.rows_in_single_samples
    assert rows_in_single_clusters(spectrum, changes) == pytest.approx(single, rel=0.1)


def test_rows_and_samples_of_a_state_are_told_apart():
    everywhere = np.ones((1, GROUPS), dtype=np.int64)
    rows = np.concatenate([7 * everywhere, [6 * in_groups(4)]])
    samples = np.concatenate([everywhere, [2 * in_groups(4)]])
    spectrum, changes = counted(rows, samples)
    assert rows_in_single_clusters(spectrum, changes) == 6


def test_a_layer_whose_clusters_have_states_of_their_own_is_limited():
    own = np.array([30 * in_groups(cluster % GROUPS) for cluster in range(200)])
    spectrum, changes = counted(own)
    samples = spectrum.rows
    alone, told = (
        jackknifed_entropy(spectrum, samples, changes, neurons=8, clusters=clusters)
        for clusters in (None, 200)
    )
    assert verdict(spectrum, samples, alone, 8).name == SATURATED
    clustered = verdict(spectrum, samples, told, 8, clusters=200)
    assert clustered.name == SAMPLE_LIMITED
    assert "100.0 % of the rows are in states seen in one sample or cluster" in clustered.reason
    assert clustered.samples_needed is None
    assert clustered.needs == "more than the 200 clusters there are"
