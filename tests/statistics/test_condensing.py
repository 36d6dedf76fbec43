from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.statistics.condensing import KEPT_BELOW, NODES, Nodes, condense
from tsstore.statistics.rarefaction import entropy_at, mean_surprisals, richness_at, share_seen
from tsstore.statistics.spectrum import Spectrum

DRAWS = 2_000_000


def many_counts(seed: int, largest: int = 1_000_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = np.exp(rng.uniform(0, np.log(largest), 20_000)).astype(np.int64)
    return np.unique(counts, return_counts=True)


@pytest.mark.parametrize("draws", [3, 1_000, 250_000, 1_999_990])
def test_condensed_sums_are_those_of_all_counts(draws: int) -> None:
    counts, states = many_counts(1)
    nodes, amounts = condense(counts, states)
    assert len(nodes) < 400 < 5_000 < len(counts)
    for function in (
        lambda j: share_seen(j, draws, DRAWS),
        lambda j: mean_surprisals(j, draws, DRAWS, float(draws)),
    ):
        # Of the many counts some are enough to compare with.
        exact = states[::50] @ function(counts[::50])
        few, weights = condense(counts[::50], states[::50])
        assert weights @ function(few) == pytest.approx(exact, rel=1e-12)
    assert amounts @ nodes**2.0 == pytest.approx(float(states @ counts**2.0), rel=1e-12)
    assert amounts.sum() == pytest.approx(states.sum(), rel=1e-12)


def test_a_condensed_spectrum_is_rarefied_as_all_of_it() -> None:
    counts, states = many_counts(2, 3_000)
    spectrum = Spectrum.from_arrays(counts, counts, states)
    n = spectrum.rows
    for draws in (2, 1_000, n // 3, n - 1):
        seen = states @ share_seen(counts, draws, n)
        bits = states @ mean_surprisals(counts, draws, n, float(draws)) / draws / np.log(2)
        assert richness_at(spectrum, draws) == pytest.approx(seen, rel=1e-12)
        assert entropy_at(spectrum, draws) == pytest.approx(bits, rel=1e-12, abs=1e-12)


def test_small_counts_and_few_ones_stay_as_they_are() -> None:
    counts = np.array([1, 5, 127, 128, 255, 10**12])
    nodes, amounts = condense(counts, np.arange(6))
    assert nodes.tolist() == counts.tolist()
    assert amounts.tolist() == [0, 1, 2, 3, 4, 5]
    few = np.arange(KEPT_BELOW, KEPT_BELOW + NODES)
    assert condense(few, few)[0].tolist() == few.tolist()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(-3, 9)), max_size=60))
def test_nodes_take_counts_in_any_order(entries: list[tuple[int, int]]) -> None:
    counts = np.array([count for count, _ in entries], np.int64)
    amounts = np.array([amount for _, amount in entries], np.int64)
    nodes = Nodes.up_to(10**7)
    found = nodes.amounts(counts, amounts)
    size = np.abs(amounts).sum()
    assert found.sum() == pytest.approx(amounts.sum(), abs=1e-10 * size + 1e-12)
    logs = amounts @ np.log(counts)
    assert found @ np.log(nodes.counts) == pytest.approx(logs, abs=1e-9 * size + 1e-12)
