"""Spectra that no independent samples give, and those that they do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import Counted, clumped_rows, independent_rows, uniform, zipf
from scipy.special import binom

from tsstore.analysis.results.layer import LayerResult
from tsstore.statistics.independence import convexity, dependent_draws
from tsstore.statistics.spectrum import Spectrum


def whole_documents(rng, samples):
    """Documents by a power law, all states of which come together."""
    return rng.choice(300, samples, p=zipf(300))[:, None] * 100 + np.arange(20)


def empty_documents(rng, samples):
    """One sample in twenty is the same one."""
    rows = rng.integers(0, 1 << 30, (samples, 3))
    rows[rng.random(samples) < 0.05] = np.arange(3)
    return rows


FAMILIES = {
    "uniform": lambda rng, samples: independent_rows(rng, uniform(300), samples),
    "Zipf": lambda rng, samples: independent_rows(rng, zipf(400, 1.2), samples),
    "two states": lambda rng, samples: independent_rows(rng, uniform(2), samples, 30),
    "thirty states": lambda rng, samples: independent_rows(rng, zipf(30), samples, 30),
    "clumped": lambda rng, samples: clumped_rows(rng, uniform(300), samples, 16),
    "all differ": lambda rng, samples: rng.integers(0, 1 << 60, (samples, 1)),
    "whole documents": whole_documents,
    "empty documents": empty_documents,
}


def found(rows: np.ndarray, seed: int = 0, by_group: bool = True) -> str | None:
    group = np.random.default_rng(seed).integers(0, 32, len(rows))
    counted = Counted.of(rows, group)
    pairs = len(rows) * rows.shape[1] * (rows.shape[1] - 1) // 2
    changes = counted.changes if by_group else None
    return dependent_draws(counted.spectrum, len(rows), changes, pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_independent_samples_are_left_alone(family):
    for seed in range(15):
        rng = np.random.default_rng(seed)
        for samples in (64, 200):
            assert found(FAMILIES[family](rng, samples), seed) is None


@pytest.mark.parametrize("copies", [2, 3, 4, 12])
@pytest.mark.parametrize("family", ["uniform", "Zipf", "clumped", "all differ", "empty documents"])
def test_samples_that_are_all_copied_are_noticed(family, copies):
    for seed in range(5):
        rows = FAMILIES[family](np.random.default_rng(seed), 120)
        assert found(np.tile(rows, (copies, 1)), seed) is not None


def test_it_says_what_it_has_seen():
    rows = np.tile(np.arange(60)[:, None], (4, 1))
    assert found(rows) == "60 states were seen in 4 samples each, but 0 in 3 and 0 in 5"


def test_copies_of_few_states_are_seen_by_multiples_or_not_at_all():
    rng = np.random.default_rng(0)
    rows = np.tile(independent_rows(rng, zipf(60, 0.5), 3_000), (5, 1))
    spectrum = Counted.of(rows).spectrum
    reason = dependent_draws(spectrum, 15_000)
    assert reason == (
        "of the 38 different numbers of samples that show a state, 38 are multiples of 5"
    )
    assert found(np.tile(independent_rows(rng, uniform(3), 600), (5, 1))) is None


def test_a_part_that_is_copied_is_seen_where_states_are_rare_and_may_be_missed_elsewhere():
    rng = np.random.default_rng(0)
    rare = FAMILIES["all differ"](rng, 500)
    assert found(np.concatenate([rare, rare[:150]])) is not None
    common = FAMILIES["Zipf"](rng, 500)
    assert found(np.concatenate([common, common[:150]])) is None


def test_states_in_every_sample_say_nothing():
    for states, samples in ((1, 100), (50, 64), (500, 1_000)):
        spectrum = Spectrum.from_arrays([samples], [samples], [states])
        assert dependent_draws(spectrum, samples, None, samples * (states - 1)) is None


def test_without_groups_neighbours_are_compared_only_where_samples_have_one_row():
    rng = np.random.default_rng(0)
    one = np.tile(FAMILIES["all differ"](rng, 200), (3, 1))
    assert found(one, by_group=False) is not None
    several = np.tile(rng.integers(0, 1 << 60, (200, 3)), (3, 1))
    assert found(several) is not None
    assert found(several, by_group=False) is None


@given(
    st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20),
    st.integers(3, 60),
)
def test_what_is_expected_of_independent_samples_is_convex(shares, samples):
    number, p = np.arange(samples + 1)[:, None], np.array(shares)
    expected = (binom(samples, number) * p**number * (1 - p) ** (samples - number)).sum(axis=1)
    middle = number[1:-1, 0]
    most = convexity(middle, samples) * expected[:-2] * expected[2:]
    assert (expected[1:-1] ** 2 <= most * (1 + 1e-9)).all()
    if len(set(shares)) == 1:
        np.testing.assert_allclose(expected[1:-1] ** 2, most, rtol=1e-9)


def copied_layer(clusters: int | None = None) -> LayerResult:
    rng = np.random.default_rng(0)
    rows = np.tile(independent_rows(rng, zipf(400), 500), (4, 1))
    counted = Counted.of(rows, rng.integers(0, 32, len(rows)))
    return LayerResult(
        "fc", 20, 2_000, counted.spectrum, changes=counted.changes, clusters=clusters
    )


def test_copies_are_the_reason_of_the_verdict():
    layer = copied_layer()
    assert layer.sample_limited
    assert layer.reason.startswith("The samples are no independent draws: ")
    assert layer.samples_needed is None


def test_samples_that_are_known_to_depend_on_each_other_are_not_accused_of_it():
    assert "independent" not in copied_layer(clusters=500).reason
    assert "independent" in copied_layer(clusters=1_990).reason
