from __future__ import annotations

import numpy as np
import pytest

from tsstore.statistics.clusters import rows_in_single_clusters
from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.intervals import jackknifed_entropy
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import SAMPLE_LIMITED, SATURATED, verdict

GROUPS = 32


def counted(multiplicity, incidence=None) -> tuple[Spectrum, GroupChanges]:
    """Count states from their rows, and samples, in each group: (states, groups)."""
    k = np.asarray(multiplicity)
    q = k if incidence is None else np.asarray(incidence)
    changes = GroupChanges.from_counts(k, q, samples=q.sum(axis=0))
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
